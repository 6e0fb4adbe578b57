"""One contract for all frameworks: every operation, layer, block and loss against the NumPy reference and against PyTorch.

All tests of the quick part stand in this file, so that it runs in one process of pytest and each framework answers once.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import sampan.losses
import sampan.models
from contract import files, sizes, subset
from contract.case import DIFFERENCE_TOLERANCE, FORWARD_TOLERANCE, GRADIENT_TOLERANCE, Case, error
from contract.catalogue import CASES
from contract.compare import Answers, forward_errors, gradient_errors
from contract.questions import LOW
from contract.workers import FRAMEWORKS, Workers, is_installed
from sampan import frameworks
from sampan.errors import DeviceError
from sampan.frameworks import NN_NAMES, OPS_NAMES

pytestmark = pytest.mark.timeout(900)  # the first test that asks a framework waits for its process

STEPS_TOLERANCE = 2e-4  # 1.25e-4 was seen of MindSpore on a processor with AVX-512 bf16
"""Of weights after four steps: AdamW divides by the root of a squared gradient, so that gradients near 0 weigh as much as
great ones, with all of their rounding."""

MIXED_TOLERANCE = {"bf16": 0.1, "fp16": 0.05}
"""Of losses of mixed precision beside fp32, over a dozen steps: bf16 has three digits and fp16 four at best, and what
they round away is multiplied along the way. A step that is not scaled back, or a wrong sign, leaves them at once."""

HALF_TOLERANCE = {"bf16": 2**-8, "fp16": 2**-11}
"""One rounding to the dtype, and no more: what was computed in it would be off by many times that."""


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def answers(framework: str, workers: Workers) -> Answers:
    return workers.of(framework)


@pytest.fixture
def torch_answers(workers: Workers) -> Answers:
    if not is_installed("torch"):
        pytest.skip("torch, which is compared with, is not installed")
    return workers.of("torch")


def offered(case: Case, answers: Answers) -> None:
    """Skip what a framework does not offer; fail where it failed."""
    left_out = subset.left_out(answers.framework)
    if not case.is_offered(left_out):
        needed = ", ".join(sorted({*case.needs, case.row} & left_out))
        pytest.skip(f"{answers.framework} is there for the comparison and leaves out {needed} (decision record 0003)")
    if case.name in answers.failed:
        pytest.fail(f"{case.name} failed on {answers.framework}:\n{answers.failed[case.name]}", pytrace=False)


def fact(answers: Answers, question: str) -> object:
    """Return an answer; fail with the error where there was one, skip where the framework was not asked."""
    if question in answers.failed:
        pytest.fail(f"{question} failed on {answers.framework}:\n{answers.failed[question]}", pytrace=False)
    if question not in answers.facts:
        pytest.skip(f"{answers.framework} is there for the comparison and has no {question} (decision record 0003)")
    return answers.facts[question]


# --- every case --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_forward(case: Case, answers: Answers, workers: Workers, torch_answers: Answers):
    offered(case, answers)
    for found in answers.outputs[case.name]:
        assert case.is_exact or found.dtype == np.float32
        assert not case.is_exact or found.dtype.kind == "i"
    for wanted in (workers.of("reference"), torch_answers):
        worst = max(forward_errors(case, answers, wanted))
        assert worst <= FORWARD_TOLERANCE, f"{worst:.1e} from {wanted.framework}"


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.has_gradient], ids=lambda case: case.name)
def test_gradients(case: Case, answers: Answers, workers: Workers, torch_answers: Answers):
    offered(case, answers)
    for wanted in (workers.of("reference"), torch_answers):
        for leaf, found in gradient_errors(case, answers, wanted).items():
            assert found <= GRADIENT_TOLERANCE, f"{leaf}: {found:.1e} from {wanted.framework}"


# --- nothing is forgotten, and a mistake would show --------------------------------------------------------------------


def test_every_name_of_the_framework_interface_has_a_case():
    rows = {case.row for case in CASES.values()}
    elsewhere = {
        "Module",
        "ones_param",
        "zeros_param",
        "linear_layers",
        "add_low_rank",
    }  # the base, and asked about below
    assert set(OPS_NAMES) <= rows
    assert set(NN_NAMES) - elsewhere <= rows


# a whole stage: its losses are pinned to each other on both frameworks that train, in tests/golden
WHOLE_STAGES = ("sampan.models.heads", "sampan.losses.stages")


def test_every_layer_of_every_model_is_in_some_case():
    seen = set()
    for case in CASES.values():
        if case.build is not None:
            seen |= {type(module) for module in case.build().modules()}
    for found in pkgutil.iter_modules(sampan.models.__path__, "sampan.models."):
        if found.name in WHOLE_STAGES:
            continue
        module = importlib.import_module(found.name)
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, frameworks.nn.Module) and kind.__module__ == found.name:
                assert kind in seen, f"{found.name}.{name} is in no case"


def test_every_loss_over_arrays_is_in_some_case():
    text = Path(__file__).with_name("loss_cases.py").read_text(encoding="utf-8")
    on_the_host = {"preview_weight", "token_weights", "flow_times"}  # NumPy, the same on every framework
    for found in pkgutil.iter_modules(sampan.losses.__path__, "sampan.losses."):
        if found.name in WHOLE_STAGES:
            continue
        module = importlib.import_module(found.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == found.name and not name.startswith("_") and name not in on_the_host:
                assert f"import {name}\n" in text, f"{found.name}.{name} is in no case"


def test_errors_are_relative_to_the_greatest_and_see_what_is_not_a_number():
    wanted = np.array([0.0, 2.0, -4.0])
    assert error(wanted + 0.4, wanted) == pytest.approx(0.1)
    assert error(np.array([np.nan, 2, -4]), wanted) == error(np.zeros(2), wanted) == np.inf
    assert error(np.full(3, 0.25), np.zeros(3)) == 0.25


@pytest.mark.parametrize("leaf", ["x", "weight:self_attn.k_proj.weight", "weight:mlp.down_proj.weight"])
def test_a_wrong_gradient_of_a_block_shows_in_its_slope(leaf: str, workers: Workers, torch_answers: Answers):
    case, reference = CASES["AR layer"], workers.of("reference")
    right = torch_answers.gradients[case.name]
    for wrong in (-right[leaf], right[leaf] * 1.001, np.where(right[leaf] > 0, right[leaf], 0)):
        spoilt = Answers("torch", {}, {case.name: {**right, leaf: wrong}}, {}, {}, {}, {})
        errors = gradient_errors(case, spoilt, reference)
        assert errors.pop(leaf) > GRADIENT_TOLERANCE >= max(errors.values())


def test_differences_of_the_reference_are_finer_than_the_tolerance(workers: Workers):
    # e to the power of x, whose gradient is known: what the step of the differences costs
    reference, case = workers.of("reference"), CASES["exp"]
    (found,) = reference.outputs["exp"]
    wanted = found * case.probe(0, found.shape) / found.size
    assert error(reference.gradients["exp"]["x"], wanted) < DIFFERENCE_TOLERANCE


# --- what the pieces promise together ----------------------------------------------------------------------------------


def test_what_is_offered_is_what_the_framework_interface_says(answers: Answers):
    assert fact(answers, "names") == []


def test_greedy_tokens_are_identical(answers: Answers, workers: Workers):
    assert fact(answers, "greedy tokens") == workers.of("reference").facts["greedy tokens"]


@pytest.mark.parametrize("who", ["reference", *FRAMEWORKS])
def test_a_cache_changes_nothing(who: str, workers: Workers):
    if who != "reference" and not is_installed(who):
        pytest.skip(f"{who} is not installed")
    outputs = workers.of(who).outputs
    cached, whole = outputs["AR generator/KV cache"][0], outputs["AR generator/causal"][0]
    assert error(cached, whole) <= (1e-13 if who == "reference" else FORWARD_TOLERANCE)


@pytest.mark.parametrize("part", ["AR generator/{}", "DiT/{}"])
def test_computing_again_changes_nothing(part: str, answers: Answers):
    plain, again = part.format("causal" if part[0] == "A" else "plain"), part.format("recompute")
    for one, other in zip(answers.outputs[plain], answers.outputs[again], strict=True):
        assert np.array_equal(one, other)
    probes = CASES[plain].probe(0, (1,)) != CASES[again].probe(0, (1,))
    assert probes.all()  # so that gradients of the two are not of one number; each is compared with the reference


def test_names_and_shapes_of_weights_are_the_same(answers: Answers, torch_answers: Answers):
    found, wanted = fact(answers, "shapes"), fact(torch_answers, "shapes")
    assert isinstance(found, dict) and isinstance(wanted, dict) and len(found) > 5
    assert found == {row: wanted[row] for row in found}


def test_initial_weights_are_bit_equal(answers: Answers, torch_answers: Answers):
    assert fact(answers, "initial weights") == fact(torch_answers, "initial weights")


def test_the_same_seed_makes_the_same_module(answers: Answers):
    assert fact(answers, "seed") is True


def test_fresh_parameters_are_ones_and_zeros(answers: Answers):
    assert fact(answers, "fresh parameters") == [[[1.0] * 3] * 2, [0.0] * 4]


def test_linear_layers_are_found_and_additions_are_not_among_them(answers: Answers):
    assert fact(answers, "linear layers") == [
        ["mlp.down_proj", 64, 56],
        ["mlp.gate_up_proj", 112, 64],
        ["self_attn.k_proj", 32, 64],
        ["self_attn.o_proj", 64, 64],
        ["self_attn.q_proj", 64, 64],
        ["self_attn.v_proj", 32, 64],
    ]


def test_bad_arguments_are_refused(answers: Answers):
    found = fact(answers, "refusals")
    assert isinstance(found, dict) and len(found) >= 11
    assert {what: (due, came) for what, (due, came, _) in found.items() if due != came or not _} == {}


def test_a_framework_for_the_comparison_is_refused_for_anything_else():
    with pytest.raises(DeviceError, match="neither trains nor generates on tensorflow"):
        frameworks.use("tensorflow")


def test_steps_of_the_optimizer_are_pytorchs(answers: Answers, torch_answers: Answers):
    for name in ("loss", "grad_norm"):
        found, wanted = (np.array(fact(each, "steps")[name]) for each in (answers, torch_answers))  # type: ignore[index]
        assert error(found, wanted) <= FORWARD_TOLERANCE
    ours, theirs = answers.states["steps"], torch_answers.states["steps"]
    assert ours.keys() == theirs.keys() or not any(key.startswith("ema") for key in ours)
    for name, value in ours.items():
        assert error(_felt(name, value), _felt(name, theirs[name])) <= STEPS_TOLERANCE, name


def _felt(name: str, weight: np.ndarray) -> np.ndarray:
    """Return what of a weight the loss depends on. A bias of keys adds the same number to all scores of a query, unless the
    channel is rotated: its gradient is 0, and whether AdamW moves it up or down is left to rounding."""
    if not name.endswith("k_proj.bias"):
        return weight
    return weight.reshape(-1, sizes.TEXT.head_dim)[:, : sizes.TEXT.rotary_dim]


# --- lower precision ---------------------------------------------------------------------------------------------------


def test_results_have_the_dtype_that_is_promised(framework: str, answers: Answers):
    found = fact(answers, "dtypes")
    assert isinstance(found, dict)
    fp32 = {"cast up", "cross_entropy"}
    assert found == {name: ["fp32" if name in fp32 else LOW[framework]] for name in found} and len(found) == 12


def test_norms_softmax_and_losses_are_computed_in_fp32(framework: str, answers: Answers):
    assert fact(answers, "statistics in fp32") is True
    found = {name: array.astype(np.float64) for name, array in answers.states["statistics"].items()}
    x, flat = found["given x"], found["given flat"]
    powers = np.exp(flat)
    shares = powers / powers.sum(-1, keepdims=True)
    wanted = {
        "rms_norm": x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5),
        "layer_norm": (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
        "softmax": shares,
        "cross_entropy": -np.log(shares[[0, 1], [3, 8000]]).mean(),
    }
    for name, value in wanted.items():
        limit = FORWARD_TOLERANCE if name == "cross_entropy" else HALF_TOLERANCE[LOW[framework]]
        assert error(found[name], np.asarray(value)) <= limit, name


def test_mixed_precision_follows_fp32(framework: str, answers: Answers):
    found = fact(answers, "mixed precision")
    assert isinstance(found, dict)
    low, full = np.array(found["low"]), np.array(found["fp32"])
    assert full[-1] < full[0] / 2 and not found["skipped"]
    assert error(low, full) <= MIXED_TOLERANCE[LOW[framework]]
    assert not np.array_equal(low, full)  # it was computed in another dtype at all


def test_a_loss_scale_that_overflows_is_lowered_and_no_step_is_lost(framework: str, answers: Answers):
    if LOW.get(framework) != "fp16":
        pytest.skip(f"{framework} does not compute in fp16 (decision record 0003)")
    found = fact(answers, "mixed precision")
    assert isinstance(found, dict)
    after, plain = found["overflow"], found["low"]
    assert not after["skipped"] and 1 < after["loss_scale"] < 2**24
    assert after["saved loss_scale"] == after["loss_scale"]
    assert after["losses"] == pytest.approx(plain[: len(after["losses"])], rel=1e-3)
    assert after["working dtypes"] == ["float16"] and after["saved dtypes"] == ["float32"]


# --- files -------------------------------------------------------------------------------------------------------------


def test_files_are_bit_equal_after_reading_and_writing(framework: str, answers: Answers, workers: Workers):
    written = fact(answers, "files")
    assert isinstance(written, list) and written
    wanted = files.contents(workers.folder / f"{files.HOST}.safetensors")
    for name in written:
        assert files.contents(workers.folder / name) == wanted, name


def test_a_file_of_each_framework_is_read_by_the_other(workers: Workers, torch_answers: Answers, tmp_path: Path):
    if not is_installed("mindspore"):
        pytest.skip("mindspore is not installed")
    assert "by-mindspore-from-torch.safetensors" in workers.of("mindspore").facts["files"]
    from sampan.frameworks.torch import io  # this process's own; the other way round is the worker's

    found = io.read_tensors(workers.folder / "by-mindspore.safetensors", "cpu")
    io.save_tensors(tmp_path / "again.safetensors", found, {})
    assert files.contents(tmp_path / "again.safetensors") == files.contents(workers.folder / "host.safetensors")


def test_fp32_is_written_as_bf16_by_rounding_to_the_nearest(framework: str, answers: Answers, workers: Workers):
    fact(answers, "files")
    found = files.contents(workers.folder / f"bf16-{framework}.safetensors")
    host = files.contents(workers.folder / f"{files.HOST}.safetensors")
    numbers = np.frombuffer(host["fp32"][2], np.float32)
    assert found["int64"] == host["int64"]  # what is no floating number stays
    assert found["fp32"] == ("BF16", host["fp32"][1], numbers.astype(ml_dtypes.bfloat16).tobytes())
