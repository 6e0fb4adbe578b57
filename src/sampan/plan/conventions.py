"""What families of frameworks keep in memory for a weight, as a table; sampan.plan.memory counts what follows from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a family of frameworks keeps for a value, in bytes, and what it takes beside.

    Args:
        weight: Of a trained weight as it lies on the chip; ZeRO 3 divides it.
        compute: Of what products read. Where it differs from `weight`, a pass makes a copy of what it works on.
        frozen: Of a weight that is not trained.
        gradient: Of a gradient that stays from pass to pass.
        reduced: Of a gradient while it waits to be divided over chips, under ZeRO 2 and 3.
        master: Of the optimizer's own copy of a trained weight; 0 is none.
        moments: Of the optimizer's moments together: a value of MOMENTS.
        activation: Of a kept activation.
        selective_products: Share of the products' results that selective recomputation keeps, beside attention's; None
            drops the insides of attention only.
        sequence_parallel: Whether tensor parallelism also divides what no product makes.
        prefetch: Blocks whose weights ZeRO 3 gathers ahead.
        bucket_bytes: Buffers of collectives, whatever the model, where there is more than one chip.
        context_bytes: Taken before the first array: the driver's context, kernels' code, the libraries' workspace.
        slack: What the allocator holds beyond what is asked for, as a share of what comes and goes within a step.
    """

    name: str
    weight: float = 2.0
    compute: float = 2.0
    frozen: float = 2.0
    gradient: float = 4.0
    reduced: float = 4.0
    master: float = 4.0
    moments: float = 8.0
    activation: float = 2.0
    selective_products: float | None = None
    sequence_parallel: bool = True
    prefetch: int = 1
    bucket_bytes: float = 0.0
    context_bytes: float = 1.0e9
    slack: float = 0.06


MOMENTS = {"adamw": 8.0, "adamw-8bit": 2.0 + 8 / 256, "adamw-bf16": 4.0, "sgd": 4.0, "none": 0.0}
"""Bytes that an optimizer keeps for a trained value; moments in 8 bits share an fp32 scale between 256 values."""

CONVENTIONS = {
    convention.name: convention
    for convention in (
        # 2 + 4 + 4 + 8 = 18 bytes; with the distributed optimizer 6 + 12 / dp (Megatron-LM, its page on dist_optimizer)
        Convention(name="megatron"),
        # 2 + 2 + 4 + 8 = 16 bytes (Rajbhandari et al. 2020); two buckets of 5e8 values in bf16, its defaults
        Convention(name="deepspeed", gradient=2, reduced=2, sequence_parallel=False, bucket_bytes=2.0e9),
        # shards in fp32 are gathered in bf16; a gradient is bf16 and its fp32 copy while it is reduced
        Convention(name="fsdp", weight=4, reduced=6, master=0, selective_products=0.5),
        # automatic mixed precision: fp32 weights, and copies in bf16 as long as a pass lives
        Convention(name="autocast", weight=4, master=0, sequence_parallel=False),
        Convention(name="bf16", gradient=2, reduced=2, master=0, moments=4, sequence_parallel=False),
        Convention(name="mindspore", weight=4, master=0),
    )
}
