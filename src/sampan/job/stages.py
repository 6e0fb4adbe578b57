"""How each stage of a job trains: one frozen dataclass a stage, with the help text and the range of every setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sampan.job.setting import say


@dataclass(frozen=True, kw_only=True)
class StageSection:
    """What every stage has. One update sees micro_batch_size times grad_accum_steps pictures."""

    num_steps: int = say("Updates of the weights.", at_least=1)
    micro_batch_size: int = say("Pictures in one pass through the model.", at_least=1)
    grad_accum_steps: int = say("Passes whose gradients are averaged before an update.", 1, at_least=1)
    lr: float = say("Highest learning rate: reached after the warm-up, then lowered along a half cosine.", above=0)
    min_lr_ratio: float = say("Learning rate at the end, as a share of `lr`.", 0.1, at_least=0, at_most=1)
    warmup_steps: int = say(
        "Updates over which the learning rate rises to `lr`; a stage of fewer updates rises to its end.", 20, at_least=0
    )
    weight_decay: float = say("AdamW's decay of matrices.", 0.01, at_least=0)
    beta1: float = say("AdamW's memory of the gradient.", 0.9, at_least=0, below=1)
    beta2: float = say("AdamW's memory of the squared gradient.", 0.99, at_least=0, below=1)
    clip_norm: float = say("A longer gradient is shortened to this length.", 1.0, above=0)
    ema_decay: float = say(
        "Memory of the weights' moving average, which the finished model has; 0 keeps none and saves its memory.",
        0.999,
        at_least=0,
        below=1,
    )


@dataclass(frozen=True, kw_only=True)
class VAEStage(StageSection):
    """The autoencoder between pixels and latents."""

    num_steps: int = 1000
    micro_batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.0
    crop_px: int | None = say(
        "Train on square crops of this side; without it, on whole pictures.", None, example=64, at_least=8
    )
    kl_weight: float = say("Weight of the pull of latents towards a unit Gaussian.", 1e-6, at_least=0)
    perceptual_weight: float = say("Weight of the error of edges, beside that of pixels.", 0.5, at_least=0)


@dataclass(frozen=True, kw_only=True)
class TokenizerStage(StageSection):
    """The vision encoder and its codebook, which turn a picture into prior tokens."""

    num_steps: int = 1000
    micro_batch_size: int = 16
    lr: float = 1e-3
    commitment_weight: float = say("Weight of the pull of features towards their code.", 1.0, at_least=0)
    codebook_weight: float = say("Weight of the pull of codes towards the features that chose them.", 0.25, at_least=0)
    contrast_weight: float = say("Weight of telling pictures apart by their captions.", 0.1, at_least=0)
    continuous_steps: int = say(
        "First updates, in which features are not quantised; then the codes are spread over what was seen.",
        0,
        at_least=0,
    )
    revive_every: int = say(
        "Steps between two looks for codes that nothing chose since; they are moved onto features of the moment.",
        20,
        at_least=1,
    )


@dataclass(frozen=True, kw_only=True)
class GlyphStage(StageSection):
    """The encoder of text that is to be drawn."""

    num_steps: int = 1200
    micro_batch_size: int = 64
    lr: float = 3e-3
    temperature: float = say("Sharpness of the contrast between words; smaller is sharper.", 0.07, above=0)
    place_weight: float = say(
        "Weight of each byte's embedding telling where it stands and which letter it is, so that a decoder learns to spell.",
        1.0,
        at_least=0,
    )


@dataclass(frozen=True, kw_only=True)
class ARStage(StageSection):
    """The autoregressive generator, which writes prior tokens."""

    num_steps: int = 2000
    micro_batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.1
    beta2: float = 0.95
    preview_weight: float | Literal["auto"] = say(
        "Weight of a preview token beside a target token; `auto` is target tokens over preview tokens, within 1 and 4.",
        "auto",
        at_least=0,
    )
    drop_prompt: float = say("Share of the rows that are trained without their prompt.", 0.0, at_least=0, at_most=1)
    freeze_text: bool | None = say(
        "Leave the text rows of the token table as they are; without it, they are left when training starts from a folder.",
        None,
        example=True,
    )
    head_steps: int = say(
        "First updates, in which only the visual rows of the token table and the visual head are trained.",
        0,
        at_least=0,
    )
    recompute: bool = say("Compute layers a second time in the backward pass instead of keeping their insides.", False)


@dataclass(frozen=True, kw_only=True)
class DecoderStage(StageSection):
    """The diffusion decoder, which turns prior tokens into latents. Flow times are logit-normal."""

    num_steps: int = 2000
    micro_batch_size: int = 16
    lr: float = 1e-3
    drop_condition: float = say("Share of the rows without any conditioning.", 0.1, at_least=0, at_most=1)
    drop_glyph: float = say("Share of the rows without text to be drawn.", 0.05, at_least=0, at_most=1)
    drop_references: float = say("Share of the rows without their references.", 0.05, at_least=0, at_most=1)
    drop_prior: float = say(
        "Share of the rows without prior tokens, which have only the words to tell where letters stand; it is how a decoder "
        "learns to listen to them.",
        0.0,
        at_least=0,
        at_most=1,
    )
    other_words: float = say(
        "Share of the rows with quoted text whose prior tokens are those of another picture that differs in the quoted "
        "letters alone, so that the decoder forgives a generator that misspells.",
        0.0,
        at_least=0,
        at_most=1,
    )
    prior_noise: float = say(
        "Share of the prior tokens that are replaced at random, so that the decoder forgives the generator's errors.",
        0.05,
        at_least=0,
        at_most=1,
    )
    time_mean: float = say("Mean of the logit of the flow time; greater is noisier.", 0.0)
    time_std: float = say("Standard deviation of the logit of the flow time.", 1.0, above=0)
    recompute: bool = say("Compute layers a second time in the backward pass instead of keeping their insides.", False)


@dataclass(frozen=True, kw_only=True)
class StagesSection:
    """How each stage trains; the field names are the names of the stages."""

    vae: VAEStage = field(default_factory=VAEStage)
    tokenizer: TokenizerStage = field(default_factory=TokenizerStage)
    glyph: GlyphStage = field(default_factory=GlyphStage)
    ar: ARStage = field(default_factory=ARStage)
    decoder: DecoderStage = field(default_factory=DecoderStage)
