"""What is asked of a framework beside its cases: names, dtypes, seeds, greedy tokens, steps of the optimizer, files.

Each question returns what JSON can hold; arrays go into the worker's own archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contract import files, refusals, sizes, subset
from contract.case import Case, normal
from contract.catalogue import CASES
from sampan import frameworks
from sampan.frameworks import device as dev
from sampan.frameworks import io, nn, ops
from sampan.models import positions
from sampan.models.init import initial_weights
from sampan.samplers import noise

Arrays = dict[str, Any]

LOW = {"torch": "bf16", "mindspore": "fp16"}  # what each computes in below fp32 on a CPU
NUM_STEPS, NUM_MIXED_STEPS, NUM_OVERFLOW_STEPS = 4, 12, 3
_GENERATOR = "AR generator/causal"


def questions(framework: str, folder: Path, arrays: Arrays) -> dict[str, Callable[[], Any]]:
    """Return the questions by name; `arrays` takes what is not for JSON."""
    asked: dict[str, Callable[[], Any]] = {"greedy tokens": tokens}
    if framework == "reference":
        return asked
    asked |= {
        "names": lambda: names(framework),
        "shapes": shapes,
        "initial weights": initial,
        "fresh parameters": lambda: [_plain(nn.ones_param(2, 3)), _plain(nn.zeros_param(4))],
        "seed": seeded,
        "refusals": lambda: refused(framework, folder),
        "steps": lambda: steps(arrays),
    }
    if "linear_layers" not in subset.left_out(framework):
        asked["linear layers"] = linear_layers
    if framework in LOW:
        asked |= {
            "dtypes": lambda: dtypes(LOW[framework]),
            "statistics in fp32": lambda: statistics(LOW[framework], arrays),
            "mixed precision": lambda: mixed(LOW[framework]),
            "files": lambda: copies(framework, folder),
        }
    return asked


def names(framework: str) -> list[str]:
    """Return the names of the framework interface that the framework lacks, and should have."""
    left_out = subset.left_out(framework)
    lacking = [name for name in frameworks.NN_NAMES if name not in left_out and not hasattr(nn, name)]
    lacking += [name for name in frameworks.OPS_NAMES if name not in left_out and not hasattr(ops, name)]
    # what is said to be left out is not there, or the record of it is out of date
    there = [n for n in left_out if hasattr(nn, n) or hasattr(ops, n)]
    return lacking + [f"{name} is there" for name in sorted(there)]


def shapes() -> dict[str, dict[str, list[int]]]:
    """Return names and shapes of the weights of every part that can be built."""
    left_out = subset.left_out(frameworks.chosen())
    built = {}
    for case in CASES.values():
        if case.build is not None and case.is_offered(left_out):
            built[case.row] = {name: list(shape) for name, shape in sorted(io.shapes(case.build()).items())}
    return built


def initial() -> dict[str, str]:
    """Return a hash of every weight of a fresh generator and decoder, as they are after loading."""
    found = {}
    for name in (_GENERATOR, "DiT/plain"):
        build = CASES[name].build
        assert build is not None, "both have a module"
        with dev.on_meta():
            module = build()
        io.load_weights(module, {}, device="cpu", arrays=initial_weights(io.shapes(module), seed=5))
        for weight, value in _weights(module).items():
            found[f"{name}:{weight}"] = hashlib.sha256(dev.to_numpy(value).tobytes()).hexdigest()
    return found


def linear_layers() -> list[list[Any]]:
    """Return the linear layers of a layer with low-rank additions: those of the additions are not among them."""
    build = CASES["Linear with LoRA"].build
    assert build is not None, "it has a module"
    return sorted([name, *widths] for name, widths in nn.linear_layers(build()).items())


def seeded() -> bool:
    """Say whether a module is the same when the framework's generator had the same seed."""
    found = []
    for _ in range(2):
        dev.seed(11)
        found.append(b"".join(dev.to_numpy(value).tobytes() for value in _weights(nn.Linear(8, 8)).values()))
    return found[0] == found[1]


def tokens() -> list[list[int]]:
    """Return what the generator writes greedily, for two pictures and after a reference."""
    from sampan.models.config import SamplingConfig
    from sampan.pipeline.tokens import BatchedDecoder, TokenSequence, generate_tokens

    case = CASES[_GENERATOR]
    prompt = np.array([25, 31, 2, 7, 11, 4, 38, 20])
    model = _built(case)
    sequences = [
        TokenSequence(
            prompt, ((2, (2, 2)),), ((2, 2), (3, 4)),
            num_codes=18, sampling=SamplingConfig(temperature=0.0), seed=3, picture=picture, config=model.config,
        )
        for picture in (0, 1)
    ]  # fmt: skip
    generate_tokens(BatchedDecoder(model, "cpu", "fp32"), sequences)
    return [sequence.written for sequence in sequences]


def dtypes(low: str) -> dict[str, list[str]]:
    """Return, by operation, the dtypes of its answers for arrays of a lower dtype (weights in it too)."""
    wanted = dev.dtype(low)

    def name(found: Any) -> str:
        return "fp32" if found.dtype == ops.float32 else low if found.dtype == wanted else str(found.dtype)

    def of(*shape: int) -> Any:
        return dev.array(normal(noise.generator(0, "contract/dtypes", *shape), *shape), "cpu", low)

    x, weight, logits = of(2, 3, 8), of(8), of(5, 7)
    q, kv = of(1, 2, 3, 4), of(1, 1, 3, 4)
    labels = dev.array(np.arange(5), "cpu")
    fp32 = dev.array(np.ones(5, np.float32), "cpu")
    found = {
        "cast down": ops.cast(dev.array(np.ones(3, np.float32), "cpu"), wanted),
        "cast up": ops.cast(x, ops.float32),
        "softmax": ops.softmax(x, -1),
        "rms_norm": ops.rms_norm(x, weight, 1e-5),
        "layer_norm": ops.layer_norm(x, 1e-5),
        "layer_norm, affine": ops.layer_norm(x, 1e-5, weight, weight),
        "linear": ops.linear(x, of(4, 8)),
        "silu": ops.silu(x),
        "gelu": ops.gelu(x, tanh=True),
        "take": ops.take(of(6, 4), labels),
        "attention": ops.attention(q, kv, kv),
        "cross_entropy": ops.cross_entropy(logits, labels, fp32),
    }
    return {operation: [name(answer)] for operation, answer in found.items()}


def statistics(low: str, arrays: Arrays) -> bool:
    """Put away what norms, softmax and loss are of arrays whose squares or sums a lower dtype could not hold."""
    random = noise.generator(0, "contract/statistics")
    x = 3000 * normal(random, 4, 256)  # squares of it are beyond fp16
    flat = 0.01 * normal(random, 2, 8192)  # each probability is 1/8192, and only their sum is 1
    given = {name: dev.array(value, "cpu", low) for name, value in {"x": x, "flat": flat}.items()}
    ones = dev.array(np.ones(256, np.float32), "cpu", low)
    labels, weights = dev.array(np.array([3, 8000]), "cpu"), dev.array(np.ones(2, np.float32), "cpu")
    found = {
        "rms_norm": ops.rms_norm(given["x"], ones, 1e-5),
        "layer_norm": ops.layer_norm(given["x"], 1e-5),
        "softmax": ops.softmax(given["flat"], -1),
        "cross_entropy": ops.cross_entropy(given["flat"], labels, weights),
    }
    arrays |= {f"statistics|state|{name}": dev.to_numpy(answer) for name, answer in found.items()}
    arrays |= {f"statistics|state|given {name}": dev.to_numpy(value) for name, value in given.items()}
    return True


def steps(arrays: Arrays) -> dict[str, list[float]]:
    """Take a few steps of AdamW over two micro-batches each, of which the second has more arrays, as one with references has;
    put the weights away, and the average where there is one."""
    from sampan.frameworks import train_step

    module = _built(CASES[_GENERATOR])
    updater = train_step.TrainStep(module, **refusals.SETTINGS)
    reports = [updater.step(_loss, [_batch(step, micro, 1 + micro) for micro in range(2)]) for step in range(NUM_STEPS)]
    for name, value in _weights(module).items():
        arrays[f"steps|state|weights:{name}"] = dev.to_numpy(value)
    if hasattr(updater, "state"):
        for name, value in updater.state()["ema"].items():
            arrays[f"steps|state|ema:{name}"] = dev.to_numpy(value)
    return {"loss": [r.loss for r in reports], "grad_norm": [r.grad_norm for r in reports]}


def mixed(low: str) -> dict[str, Any]:
    """Train the same generator in fp32 and in mixed precision, and in fp16 from a loss scale that overflows."""
    from sampan.frameworks import train_step

    def curve(autocast: str, num: int, first_scale: float | None = None) -> tuple[Any, list[float], list[bool]]:
        updater = train_step.TrainStep(_built(CASES[_GENERATOR]), **{**refusals.SETTINGS, "autocast": autocast})
        if first_scale is not None:
            updater.loss_scale = first_scale
        reports = [updater.step(_loss, [_batch(step % 3, 0)]) for step in range(num)]
        return updater, [r.loss for r in reports], [r.skipped for r in reports]

    _, full, _ = curve("fp32", NUM_MIXED_STEPS)
    updater, lower, skipped = curve(low, NUM_MIXED_STEPS)
    found: dict[str, Any] = {"fp32": full, "low": lower, "skipped": any(skipped)}
    if hasattr(updater, "loss_scale"):
        updater, losses, skipped = curve(low, NUM_OVERFLOW_STEPS, 2.0**24)
        state = updater.state()
        found["overflow"] = {
            "losses": losses,
            "skipped": any(skipped),
            "loss_scale": updater.loss_scale,
            "saved loss_scale": float(dev.to_numpy(state["optimizer"]["loss_scale"])),
            "saved dtypes": sorted({io.dtype_name(value) for value in state["weights"].values()}),
            "working dtypes": sorted({io.dtype_name(value) for value in _weights(updater.module).values()}),
        }
    return found


def copies(framework: str, folder: Path) -> list[str]:
    """Read the host's file and those of frameworks that were here before, and write what was read."""
    done = []
    others = [path for path in sorted(folder.glob("by-*.safetensors")) if "-from-" not in path.name]
    for path in (folder / f"{files.HOST}.safetensors", *others):
        name = "" if path.stem == files.HOST else f"-from-{path.stem.removeprefix('by-')}"
        written = folder / f"by-{framework}{name}.safetensors"
        io.save_tensors(written, io.read_tensors(path, "cpu"), files.METADATA)
        done.append(written.name)
    tensors = io.read_tensors(folder / f"{files.HOST}.safetensors", "cpu", ("fp32", "int64"))
    io.save_tensors(folder / f"bf16-{framework}.safetensors", tensors, {}, dtype="bf16")
    return done


def refused(framework: str, folder: Path) -> dict[str, list[str]]:
    """Return, by what is wrong, the error that is due, the one that came, and its words."""
    found = {}
    for what, (due, attempt) in refusals.refusals(framework, folder).items():
        try:
            attempt()
        except Exception as error:  # noqa: BLE001  # which one it is, the test judges
            found[what] = [due, type(error).__name__, str(error)]
        else:
            found[what] = [due, "", "nothing was refused"]
    return found


def _built(case: Case) -> Any:
    assert case.build is not None, "the case has a module"
    module = case.build()
    io.put_weights(module, case.weights(io.shapes(module)))
    return module


def _plain(parameter: Any) -> Any:
    return dev.to_numpy(parameter).tolist()


def _weights(module: Any) -> dict[str, Any]:
    return dict((module.parameters_and_names if hasattr(module, "parameters_and_names") else module.named_parameters)())


def _batch(step: int, micro: int, num_groups: int = 1) -> tuple[Any, ...]:
    """Return arrays of one or more samples, one group of five after another: batches may differ in how many they have."""
    arrays: list[Any] = []
    for group in range(num_groups):
        random = noise.generator(0, "contract/steps", step, micro, group)
        ids, labels = random.integers(0, sizes.TEXT.vocab_size, (2, 7)), random.integers(0, 22, (2, 7))
        tables = positions.rope_text(np.tile(np.arange(7), (3, 1, 1)), sizes.TEXT)
        arrays += [ids, *tables, labels, np.ones((2, 7), np.float32)]
    return tuple(dev.array(values, "cpu") for values in arrays)


def _loss(module: Any, *arrays: Any) -> Any:
    from sampan.losses.tokens import token_loss

    whole = 0.0
    for first in range(0, len(arrays), 5):
        ids, cos, sin, labels, weights = arrays[first : first + 5]
        whole = whole + token_loss(module(ids, cos, sin)[0], labels, weights)
    return whole, {}
