"""One framework's answers to all cases and questions of the contract, in a process of its own.

    python tests/contract/worker.py FRAMEWORK FOLDER

reads FOLDER/host.safetensors and the files that other frameworks have left there, and writes FRAMEWORK.npz (outputs and
gradients) and FRAMEWORK.json (facts, CPU seconds, what failed). A case that fails does not stop the others: its error is
its answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(name, "1")  # read when the libraries are loaded
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from contract import subset  # noqa: E402
from sampan import frameworks  # noqa: E402

OUT, GRADIENT = "out", "gradient"


def choose(framework: str) -> None:
    """Make a framework, or the reference, that of this process, with one thread."""
    if framework == "reference":
        from contract import numpy_framework

        numpy_framework.register()
        return
    subset.use(framework)
    frameworks.device.set_threads(1)
    frameworks.device.resolve("cpu")


def answer(framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return arrays by "case|out|number" and "case|gradient|name", and errors by case."""
    from contract.catalogue import CASES
    from contract.differentiate import BY_FRAMEWORK, on_device, outputs
    from sampan.frameworks import device as dev
    from sampan.frameworks import io

    left_out = subset.left_out(framework)
    arrays, failed = {}, {}
    for name, case in CASES.items():
        if not case.is_offered(left_out):
            continue
        try:
            module, inputs = case.build() if case.build else None, case.draw()
            if module is not None:
                io.put_weights(module, case.weights(io.shapes(module)))
            if case.differentiated(inputs) or (case.has_gradient and module is not None):
                found, gradients = BY_FRAMEWORK[framework](case, module, inputs)
            else:
                with dev.no_grad():
                    found, gradients = outputs(case, module, on_device(inputs)), {}
            arrays |= {f"{name}|{OUT}|{i}": dev.to_numpy(one) for i, one in enumerate(found)}
            arrays |= {f"{name}|{GRADIENT}|{leaf}": gradient for leaf, gradient in gradients.items()}
        except Exception:  # noqa: BLE001  # whatever it is, it is this case's answer, and its test shows it
            failed[name] = traceback.format_exc()
    return arrays, failed


def ask(questions: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str], dict[str, float]]:
    """Return the answers, the errors of those that failed, and the CPU seconds each took."""
    answers, failed, seconds = {}, {}, {}
    for name, question in questions.items():
        begin = time.process_time()
        try:
            answers[name] = question()
        except Exception:  # noqa: BLE001  # as above
            failed[name] = traceback.format_exc()
        seconds[name] = time.process_time() - begin
    return answers, failed, seconds


def main() -> None:
    """Answer, and write it down."""
    framework, folder = sys.argv[1], Path(sys.argv[2])
    begin = time.process_time()
    choose(framework)
    loaded = time.process_time()
    arrays, failed = answer(framework)
    answered = time.process_time()
    from contract.questions import questions

    answers, failed_answers, seconds = ask(questions(framework, folder, arrays))
    np.savez(folder / f"{framework}.npz", **arrays)
    record = {
        "answers": answers,
        "failed": {**failed, **failed_answers},
        "seconds": {
            "load": loaded - begin,
            "cases": answered - loaded,
            **seconds,
        },
    }
    (folder / f"{framework}.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
