#!/usr/bin/env bash
# MindSpore 2.10.0 tells pip that any numpy>=1.25.0 will do. Beside NumPy 2 it imports and makes tensors; the first product
# raises SystemError, and the same product computes when it is asked for again. `pip check` finds nothing wrong.
#
#   PYTHON=python3.11 findings/mindspore-numpy2.sh      ends with 0 while that is so, with 1 when it has changed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check mindspore==2.10.0 numpy==2.2.6
"$python" -m pip check
cd "$folder"
cat > product.py <<'PROGRAM'
import importlib.metadata
import platform
import sys

import mindspore
import numpy

asked = [line for line in importlib.metadata.requires("mindspore") if line.startswith("numpy")]
print(f"Python {platform.python_version()}, mindspore {mindspore.__version__}, which asks for {asked}")
print(f"numpy {numpy.__version__}")
x = mindspore.Tensor(numpy.full((2, 3), 3, numpy.float32))
said = []
for attempt in ("first", "second"):
    try:
        said.append(str((x * x).asnumpy().tolist()))
    except SystemError as error:
        said.append(f"SystemError: {error}")
    print(f"x * x, the {attempt} time: {said[-1]}")
same = asked == ["numpy>=1.25.0"] and said[0].startswith("SystemError") and said[1] == str([[9.0] * 3] * 2)
print("as it was found" if same else "this has changed")
sys.exit(not same)
PROGRAM
"$python" product.py 2> "$folder/stderr" || { status=$?; tail -5 "$folder/stderr"; exit "$status"; }
grep -m1 "A module that was compiled using NumPy 1.x" "$folder/stderr"

# Seen on 2026-12-01, Linux x86-64:
#   No broken requirements found.
#   Python 3.11.7, mindspore 2.10.0, which asks for ['numpy>=1.25.0']
#   numpy 2.2.6
#   x * x, the first time: SystemError: <method '__mul__' of 'TensorPy' objects> returned a result with an exception set
#   x * x, the second time: [[9.0, 9.0, 9.0], [9.0, 9.0, 9.0]]
#   as it was found
#   A module that was compiled using NumPy 1.x cannot be run in
