"""The autoregressive generator as sampan.models.ar computes it, for training, reading a prompt and writing a token."""

from __future__ import annotations

from sampan.models.config import TextConfig
from sampan.plan.records import WorkloadBlock
from sampan.plan.workloads.own.tape import Additions, Tape, grouped

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj")
_LAYER = "model.language_model.layers"


def generator_blocks(
    config: TextConfig, tokens: float, *, num_logits: float, keys: float | None = None,
    added: Additions | None = None, is_forward: bool = False,
) -> list[WorkloadBlock]:  # fmt: skip
    """Return the generator over one sequence.

    Args:
        tokens: Of the sequence, or those that are read at once.
        num_logits: Of how many of them the head is asked.
        keys: That each sees, where they come from a cache; None is the tokens themselves, causally.
        added: What is trained, where that is not everything.
        is_forward: Nothing is trained.
    """
    h = config.hidden_size
    first = Tape(added, is_forward=is_forward)
    first.weigh(config.vocab_size * h)
    first.moves("lookup", 2 * tokens * h)
    live = first.is_full
    layers = []
    for number in range(config.num_hidden_layers):
        block, live = _layer(config, number, tokens, keys, added, is_forward, live)
        layers.append(block)
    last = Tape(added, is_forward=is_forward)
    last.weigh(h)
    last.moves("norm", 4 * num_logits * h)
    last.keep(num_logits * h, whole=True)
    if last.is_full:
        last.keep(num_logits * h, whole=True)
    last.linear("lm_head", num_logits, h, config.vision_vocab_size, live=live, bias=False, split="columns")
    if last.reads("lm_head"):
        last.keep(num_logits * h, whole=True)
    if not is_forward:
        last.moves("loss", 5 * num_logits * config.vision_vocab_size, split="columns")
        last.keep(num_logits * config.vision_vocab_size)
    return [
        first.block("table of tokens", tokens=tokens, width=h),
        *grouped(layers),
        last.block("head", tokens=num_logits, width=h),
    ]


def _layer(
    config: TextConfig, number: int, tokens: float, keys: float | None, added: Additions | None, is_forward: bool,
    live: bool,
) -> tuple[WorkloadBlock, bool]:  # fmt: skip
    """Return a layer, and whether what it writes needs a gradient."""
    n, h, f, d = tokens, config.hidden_size, config.intermediate_size, config.head_dim
    kv_width = config.num_key_value_heads * d
    name, tape = f"{_LAYER}.{number}", Tape(added, is_forward=is_forward)

    def norm(is_live: bool) -> None:
        tape.weigh(h)
        tape.moves("norm", 4 * n * h)  # the norm, then its weight
        if is_live:
            tape.keep(n * h, whole=True)
        if tape.is_full:
            tape.keep(n * h, whole=True)

    norm(live)
    attn = f"{name}.self_attn"
    if tape.reads(*(f"{attn}.{one}" for one in ("q_proj", "k_proj", "v_proj"))):
        tape.keep(n * h, whole=True)
    q = tape.linear(f"{attn}.q_proj", n, h, h, live=live, bias=config.attention_bias, split="columns")
    k = tape.linear(f"{attn}.k_proj", n, h, kv_width, live=live, bias=config.attention_bias, split="columns")
    v = tape.linear(f"{attn}.v_proj", n, h, kv_width, live=live, bias=config.attention_bias, split="columns")
    tape.moves("rotation", 4 * n * (h + kv_width), split="heads")
    attended = tape.attend(
        n, n if keys is None else keys, config.num_attention_heads, d, kv_heads=config.num_key_value_heads,
        causal=keys is None, live=(q, k, v),
    )  # fmt: skip
    if attended:
        tape.keep(n * (2 * h + 2 * kv_width))
    out = tape.linear(f"{attn}.o_proj", n, h, h, live=attended, bias=False, split="rows")
    norm(out)
    tape.moves("residual", 3 * n * h)
    live = live or out
    norm(live)
    mlp = f"{name}.mlp"
    if tape.reads(f"{mlp}.gate_up_proj"):
        tape.keep(n * h, whole=True)
    inner = tape.linear(f"{mlp}.gate_up_proj", n, h, 2 * f, live=live, bias=False, split="columns")
    tape.moves("gate", 6 * n * f, split="columns")
    if inner:
        tape.keep(3 * n * f)
    if tape.reads(f"{mlp}.down_proj"):
        tape.keep(n * f)
    out = tape.linear(f"{mlp}.down_proj", n, f, h, live=inner, bias=False, split="rows")
    norm(out)
    tape.moves("residual", 3 * n * h)
    return tape.block("layers", tokens=n, width=h, sums=2, is_trunk=True), live or out
