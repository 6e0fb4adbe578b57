"""All cases of the contract, by name. Importing it fixes the framework of the process."""

from __future__ import annotations

from contract.block_cases import DECODER, FROZEN, GENERATOR, LORA
from contract.loss_cases import LOSSES
from contract.op_cases import LAYERS, OPS

CASES = {case.name: case for case in (*OPS, *LAYERS, *GENERATOR, LORA, *DECODER, *FROZEN, *LOSSES)}
assert len(CASES) == sum(map(len, (OPS, LAYERS, GENERATOR, (LORA,), DECODER, FROZEN, LOSSES))), "names are unique"
