#!/usr/bin/env bash
# pyarrow 26.0.1 asks pip for nothing, and refuses to be imported beside NumPy 1; without any NumPy it works. So pip puts it
# into an environment that holds NumPy below 2 for another package, and `pip check` finds nothing wrong. 25.0.1 is well with
# NumPy 1.26.
#
#   PYTHON=python3.11 findings/pyarrow-numpy1.sh        ends with 0 while that is so, with 1 when it has changed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
python="$folder/venv/bin/python"
pip() { "$python" -m pip --disable-pip-version-check "$@"; }
cd "$folder"
cat > table.py <<'PROGRAM'
import importlib.metadata as found

try:
    numpy = found.version("numpy")
except found.PackageNotFoundError:
    numpy = "none"
print(f"pyarrow {found.version('pyarrow')}, which asks for {found.requires('pyarrow')}; numpy {numpy}:", end=" ")
try:
    import pyarrow
except ImportError as error:
    print(f"ImportError: {error}")
else:
    print(pyarrow.table({"number": [1, 2]}).to_pydict())
PROGRAM
pip install --quiet pyarrow==26.0.1
"$python" table.py | tee said
pip install --quiet pyarrow==26.0.1 numpy==1.26.4
pip check
"$python" table.py | tee -a said
pip install --quiet pyarrow==25.0.1
"$python" table.py | tee -a said
cat > right <<'SAID'
pyarrow 26.0.1, which asks for None; numpy none: {'number': [1, 2]}
pyarrow 26.0.1, which asks for None; numpy 1.26.4: ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4
pyarrow 25.0.1, which asks for None; numpy 1.26.4: {'number': [1, 2]}
SAID
if diff right said; then echo "as it was found"; else echo "this has changed"; exit 1; fi

# Seen on 2026-12-01 with Python 3.11.7, Linux x86-64: the three lines above, and between the first and the second
#   No broken requirements found.
