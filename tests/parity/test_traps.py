"""The mistakes a re-implementation makes, one test each: the right code agrees with the oracle, the wrong is caught.

Every test steps into its trap on purpose, with our own code changed for a moment, and asserts that a comparison of
parity.compare notices by ten times its tolerance. So the comparisons are known to bite. Here are the schedule, the
generator and the tokenizer; test_traps_decoder.py and test_traps_painting.py have the rest, test_bf16.py what shows in
bf16 only.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parity.compare import FP32_TOLERANCE, Bites, draw, relative_error
from parity.ours import Ours
from parity.theirs import Theirs
from sampan.errors import CheckpointError
from sampan.frameworks import ops
from sampan.losses.tokens import token_loss
from sampan.models import ar, pixels, positions, vision
from sampan.models.config import DiTConfig, TextConfig
from sampan.models.text import PromptTokenizer, train_tokenizer
from sampan.samplers import euler

Patch = pytest.MonkeyPatch


# --- the way from noise to picture -----------------------------------------------------------------------------------


def _schedule(told: Callable[..., Any], moved: Callable[..., Any], truncate: bool = True) -> Callable[..., Any]:
    """Return a schedule in the place of euler.schedule: functions of the raw times and of μ."""

    def schedule(num_steps: int, num_tokens: int, config: Any) -> tuple[np.ndarray, np.ndarray]:
        raw = np.linspace(1000, 1, num_steps + 1)[:-1]
        raw = (np.trunc(raw) if truncate else raw).astype(np.float32)
        mu = euler.shift(num_tokens, config)
        return told(raw, mu).astype(np.float32), np.append(moved(raw, mu), 0).astype(np.float32)

    return schedule


def _moved(raw: np.ndarray, mu: float) -> np.ndarray:
    return mu / (mu + 1000 / raw - 1)


def test_trap_01_the_network_is_told_the_unshifted_truncated_time_less_one(bites: Bites):
    wrong = {
        "shifted level as time": _schedule(lambda raw, mu: 1000 * _moved(raw, mu), _moved),
        "not less one": _schedule(lambda raw, mu: raw, _moved),
        "latent moves unshifted": _schedule(lambda raw, mu: raw - 1, lambda raw, mu: raw / 1000),
        "not truncated": _schedule(lambda raw, mu: raw - 1, _moved, truncate=False),
        "levels of the time less one": _schedule(lambda raw, mu: raw - 1, lambda raw, mu: _moved(raw - 1, mu)),
    }
    for schedule in wrong.values():
        bites("Scheduler: 30 steps, 4096 tokens", lambda patch, s=schedule: patch.setattr(euler, "schedule", s))
        bites("Scheduler: a walk of 20 steps", lambda patch, s=schedule: patch.setattr(euler, "schedule", s))


def test_trap_02_mu_is_used_as_it_is_grows_with_the_side_and_has_no_cap(bites: Bites):
    shift = euler.shift
    wrong: dict[str, Callable[..., float]] = {
        "exponential shift": lambda n, c: math.exp(shift(n, c)),
        "linear in the tokens": lambda n, c: c.base_shift + (c.max_shift - c.base_shift) * (n - 256) / (4096 - 256),
        "capped at max_image_seq_len": lambda n, c: shift(min(n, c.max_image_seq_len), c),
    }
    for mu in wrong.values():
        bites("Scheduler: 50 steps, 16384 tokens", lambda patch, mu=mu: patch.setattr(euler, "shift", mu))


def test_trap_03_decoder_sizes_are_read_and_never_assumed():
    from diffusers import GlmImageTransformer2DModel

    defaults = {k: p.default for k, p in inspect.signature(GlmImageTransformer2DModel.__init__).parameters.items()}
    assert (defaults["num_attention_heads"], defaults["attention_head_dim"]) == (64, 40)
    assert (DiTConfig().num_attention_heads, DiTConfig().attention_head_dim) == (32, 128)
    stated = DiTConfig().to_json()
    assert DiTConfig.from_json(stated) == DiTConfig()
    for field in dataclasses.fields(DiTConfig):
        with pytest.raises(CheckpointError) as caught:
            DiTConfig.from_json({k: v for k, v in stated.items() if k != field.name})
        assert str(caught.value) == (
            "error: the transformer of this checkpoint cannot be built\n"
            f"  because its config.json has no `{field.name}`\n\n"
            "hint: write the folder again with the tool that made it, or add the keys by hand"
        )


# --- the generator ---------------------------------------------------------------------------------------------------

FORCED, DECODER = "AR, teacher-forced: text to image", "DiT: one picture"


def _interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    n = cos.shape[-1]
    even, odd = x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]
    rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    return torch.cat((rotated.to(x.dtype), x[..., 2 * n :]), -1)


def _alternating_sections(ids: np.ndarray, config: TextConfig) -> tuple[np.ndarray, np.ndarray]:
    angles = ids.astype(np.float32)[..., None] * positions.inverse_frequencies(config.rotary_dim)
    axis = np.arange(angles.shape[-1]) % 3
    picked = np.take_along_axis(angles, axis[None, None, None], axis=0)[0]
    return np.cos(picked)[:, None], np.sin(picked)[:, None]


def _whole_head(ids: np.ndarray, config: TextConfig) -> tuple[np.ndarray, np.ndarray]:
    sections = tuple(2 * n for n in config.mrope_section)
    return _rope_text(ids, dataclasses.replace(config, partial_rotary_factor=1.0, mrope_section=sections))


_rope_text = positions.rope_text


def test_trap_04_rotation_is_half_split_partial_and_sectioned(bites: Bites):
    bites(FORCED, lambda patch: patch.setattr(ar, "rotate_half_split", _interleaved))
    bites(FORCED, lambda patch: patch.setattr(positions, "rope_text", _alternating_sections))
    bites(FORCED, lambda patch: patch.setattr(positions, "rope_text", _whole_head))
    bites(DECODER, lambda patch: patch.setattr("sampan.models.dit.rotate_half_split", _interleaved))


def test_trap_05_the_norm_before_the_mlp_is_named_after_attention(bites: Bites, ours: Ours):
    def swapped(patch: Patch) -> None:
        for layer in ours.ar.model.language_model.layers:
            first, second = layer.post_self_attn_layernorm, layer.post_attention_layernorm
            patch.setitem(layer._modules, "post_self_attn_layernorm", second)
            patch.setitem(layer._modules, "post_attention_layernorm", first)

    def only_before(patch: Patch) -> None:
        for layer in ours.ar.model.language_model.layers:
            patch.setitem(layer._modules, "post_self_attn_layernorm", nn.Identity())
            patch.setitem(layer._modules, "post_mlp_layernorm", nn.Identity())

    bites(FORCED, swapped)
    bites(FORCED, only_before)


def test_trap_06_the_first_half_is_the_gate(bites: Bites):
    def second_half(self: Any, x: Tensor) -> Tensor:
        up, gate = ops.chunk(self.gate_up_proj(x), 2, -1)
        return self.down_proj(up * ops.silu(gate))

    bites(FORCED, lambda patch: patch.setattr(ar.MLP, "forward", second_half))


def test_trap_07_the_head_is_visual_only_and_the_library_cannot_take_labels(ours: Ours, theirs: Theirs):
    text = ours.config.ar.text
    assert tuple(ours.ar.lm_head.weight.shape) == (text.vision_vocab_size, text.hidden_size)
    assert ours.ar.lm_head.weight.data_ptr() != ours.ar.model.language_model.embed_tokens.weight.data_ptr()
    ids = np.arange(6)[None]
    logits, labels = ours.logits(ids, np.tile(np.arange(6), (3, 1, 1))), torch.arange(6)[None]
    # as the library does it: by the size of the text vocabulary
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        logits.reshape(-1, text.vocab_size)
    with pytest.raises((RuntimeError, ValueError)):
        theirs.ar(input_ids=torch.from_numpy(ids), labels=labels)
    wanted = torch.nn.functional.cross_entropy(logits[0], labels[0])
    assert relative_error(token_loss(logits, labels, torch.ones(1, 6)), wanted) <= FP32_TOLERANCE


def test_trap_08_text_ids_come_after_the_visual_ones(bites: Bites, ours: Ours):
    encode = PromptTokenizer.encode

    def unshifted(self: PromptTokenizer, *arguments: Any) -> Any:
        prompt = encode(self, *arguments)
        visual = ours.config.ar.text.vision_vocab_size
        return dataclasses.replace(prompt, ids=np.where(prompt.ids >= visual, prompt.ids - visual, prompt.ids))

    bites(
        "Prompt ids: 'a red apple on a table' at (96, 160), 0 references",
        lambda p: p.setattr(PromptTokenizer, "encode", unshifted),
    )
    # the released arithmetic: GLM-4's ids plus the 16,512 rows of the visual head
    released = TextConfig()
    glm4 = {"<|endoftext|>": 151329, "<sop>": 151333, "<eop>": 151334, "<|image|>": 151343}
    assert {k: v + released.vision_vocab_size for k, v in glm4.items()} == {
        "<|endoftext|>": released.pad_token_id, "<sop>": 167845, "<eop>": 167846, "<|image|>": 167855
    }  # fmt: skip
    # and ours keeps the visual ids first and the special tokens in the same order
    files = train_tokenizer(["abc"], num_visual=80, num_codes=64, num_pieces=300)
    import json

    vocab = {t["content"]: t["id"] for t in json.loads(files["tokenizer.json"])["added_tokens"]}
    assert [vocab[f"<|dit_token_{i}|>"] for i in range(80)] == list(range(80))
    assert {k: vocab[k] - vocab["<|endoftext|>"] for k in glm4} == {k: v - 151329 for k, v in glm4.items()}


def test_trap_09_rows_come_first_the_target_is_declared_first_and_the_preview_written_first(bites: Bites):
    encode, generated = PromptTokenizer.encode, positions.generated_positions

    def turned(self: Any, prompt: str, target: Any, preview: Any, references: Any = ()) -> Any:
        return encode(self, prompt, target[::-1], preview and preview[::-1], references)

    def preview_first(self: Any, prompt: str, target: Any, preview: Any, references: Any = ()) -> Any:
        return encode(self, prompt, preview, target, references)

    def advancing(jump: Callable[[Any], int]) -> Callable[..., np.ndarray]:
        def written(start: int, grids: Any) -> np.ndarray:
            pieces = []
            for grid in grids:
                pieces.append(positions.grid_positions(start, grid))
                start += jump(grid)
            return np.concatenate([*pieces, positions.text_positions(start, 1)], axis=1)

        return written

    def running_time(start: int, grid: Any) -> np.ndarray:
        flat = np.arange(grid[0] * grid[1])
        return np.stack([start + flat, start + flat // grid[1], start + flat % grid[1]])

    ids = "Prompt ids: 'a red apple on a table' at (96, 160), 0 references"
    at = "Position ids: (96, 160), 0 references"
    bites(ids, lambda patch: patch.setattr(PromptTokenizer, "encode", turned))
    bites(ids, lambda patch: patch.setattr(PromptTokenizer, "encode", preview_first))
    bites(at, lambda patch: patch.setattr(positions, "generated_positions", lambda s, g: generated(s, g[::-1])))
    bites(at, lambda patch: patch.setattr(positions, "generated_positions", advancing(math.prod)))
    bites(at, lambda patch: patch.setattr(positions, "generated_positions", advancing(min)))
    bites(at, lambda patch: patch.setattr(positions, "grid_positions", running_time))
    bites(FORCED, lambda patch: patch.setattr(positions, "grid_positions", running_time))


def test_trap_10_with_references_there_is_no_preview_and_one_declaration(bites: Bites, ours: Ours):
    encode = PromptTokenizer.encode

    def with_preview(self: Any, prompt: str, target: Any, preview: Any, references: Any = ()) -> Any:
        return encode(self, prompt, target, (16, 16), references)

    label = "Prompt ids: 'a red apple on a table' at (96, 160), 1 references"
    bites(label, lambda patch: patch.setattr(PromptTokenizer, "encode", with_preview))
    bites(
        "Position ids: (96, 160), 1 references",
        lambda p: p.setattr(Ours, "grids", lambda self, size, images=(): ((3, 5), (12, 20))),
    )


@pytest.mark.parametrize("label", [FORCED, "AR, teacher-forced: one reference", "AR, cached: two references"])
def test_trap_11_positions_of_grids_must_be_given(bites: Bites, label: str):
    def counted(ids: np.ndarray, config: TextConfig) -> tuple[np.ndarray, np.ndarray]:
        return _rope_text(np.broadcast_to(np.arange(ids.shape[-1]), ids.shape), config)

    bites(label, lambda patch: patch.setattr(positions, "rope_text", counted))


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def test_trap_12_vision_has_exact_gelu_no_last_norm_bilinear_positions_and_one_picture_at_a_time(bites: Bites):
    gelu, forward, attend = ops.gelu, vision.VisionEncoder.forward, vision.VisionAttention.forward

    def normed(self: Any, *arguments: Any) -> Tensor:
        return ops.layer_norm(forward(self, *arguments), 1e-6)

    def bicubic(grid: tuple[int, int], side: int) -> tuple[np.ndarray, np.ndarray]:
        table = torch.eye(side * side).reshape(1, side * side, side, side)
        rows, columns = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in grid)
        points = torch.stack((columns.repeat(grid[0]), rows.repeat_interleave(grid[1])), -1)[None, None]
        weights = torch.nn.functional.grid_sample(table, points, "bicubic", "border", align_corners=False)[0, :, 0]
        return np.tile(np.arange(side * side)[:, None], (1, weights.shape[1])), weights.numpy()

    def together(self: Any, x: Tensor) -> Tensor:
        return attend(self, x.reshape(1, -1, x.shape[-1])).reshape(x.shape)

    label = "Vision features: grids ((9, 11),)"
    bites(label, lambda patch: patch.setattr(ops, "gelu", lambda x, tanh: gelu(x, not tanh)))
    bites(label, lambda patch: patch.setattr(vision.VisionEncoder, "forward", normed))
    bites(label, lambda patch: patch.setattr(positions, "bilinear_gather", bicubic))
    bites("Vision features: grids ((5, 3), (5, 3))", lambda p: p.setattr(vision.VisionAttention, "forward", together))


def test_trap_13_codes_are_compared_by_direction_in_fp32_and_the_lowest_of_equals_wins(
    bites: Bites, ours: Ours, theirs: Theirs, ours_bf16: Ours, theirs_bf16: Theirs
):
    for label in ("VQ ids: grids ((9, 11),)", "VQ ids: grids ((6, 6),)"):
        bites(label, lambda patch: patch.setattr(ops, "normalize", lambda x: x))
        bites(
            label,
            lambda patch: patch.setattr(
                vision.VectorQuantizer, "codebook", lambda self: self.quantize.embedding.weight
            ),
        )
    # the same features: our ids do not move when the weights are kept in bf16, the library's own do
    features = draw(61, 4000, ours.config.ar.vision.hidden_size).bfloat16()
    with torch.no_grad():
        rounded = Ours.quantize(ours_bf16, features)
    weights = {k: v.float() for k, v in ours_bf16.vision.model.vqmodel.state_dict().items()}
    quantizer = vision.VectorQuantizer(ours.config.ar.vq)
    quantizer.load_state_dict(weights)
    with torch.no_grad():
        exact = quantizer(features.float()).numpy()
        library = theirs_bf16.quantize(features)
    assert np.array_equal(rounded, exact)
    assert (library != exact).mean() > 0.005
    # ties
    with torch.no_grad():
        quantizer.quantize.embedding.weight[40] = 4 * quantizer.quantize.embedding.weight[7]
        tied = quantizer(features.float()).numpy()
    assert 7 in tied
    assert 40 not in tied


def test_trap_14_references_are_halved_and_halves_are_rounded_to_even(bites: Bites):
    resize = pixels.smart_resize

    def whole(height: int, width: int, config: Any, token_scale: int) -> tuple[int, int]:
        return resize(height, width, config, 1)

    bites("Patches: 96x128 RGB", lambda patch: patch.setattr(pixels, "smart_resize", whole))
    bites(
        "Patches: 208x144 RGB",
        lambda patch: patch.setattr(pixels, "round", lambda x: math.floor(x + 0.5), raising=False),
    )


def test_every_trap_has_a_test():
    numbered = re.compile(r"^def test_trap_(\d\d)_", re.MULTILINE)
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert {int(number) for number in numbered.findall(tests)} == set(range(1, 29))
