"""Everything that trains and generates is there without PyTorch: each module is imported where importing torch fails."""

from __future__ import annotations

import os
import subprocess
import sys

ALONE = """
import importlib, pkgutil, sys
for name in ("torch", "torch_npu", "tensorflow", "transformers", "diffusers"):
    sys.modules[name] = None
import sampan
from sampan import frameworks
frameworks.use("mindspore")
others = ("sampan.frameworks.torch", "sampan.bench.tensorflow", "sampan.__main__")
modules = [m.name for m in pkgutil.walk_packages(sampan.__path__, "sampan.", onerror=print) if not m.name.startswith(others)]
optional = {"sampan.train.wandb"}  # services and readers that other extras bring
for name in modules:
    if name not in optional:
        importlib.import_module(name)
assert frameworks.chosen() == "mindspore" and "mindspore" in sys.modules
assert not [name for name in sys.modules if name.startswith(("torch.", "tensorflow."))]
print(len(modules))
"""


def test_no_module_needs_pytorch():
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 100
