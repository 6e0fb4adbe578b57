"""How long each optional extra takes to install, and how large it is: fresh environments, versions of constraints.txt.

Needs a package index. Times are of this machine and index; sizes are of the environment, what the extra adds to a bare one.

    python scripts/install_size.py [--extras torch,mindspore] [--out results/]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sampan.report import results
from sampan.units import format_bytes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bootstrap  # noqa: E402

EXTRAS = ("", "torch", "mindspore", "tensorflow", "data", "hub", "logs")


def measure(extra: str, folder: Path) -> dict[str, Any]:
    """Install the project with an extra ("" for none) into a fresh environment."""
    python = folder / "bin" / "python"
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    subprocess.run(
        [python, bootstrap.PIP_WHEEL / "pip", "install", *quiet, "--no-index", bootstrap.PIP_WHEEL], check=True
    )
    before = size(folder)
    held = ROOT / "constraints.txt"
    begun = time.monotonic()
    if extra == "torch":
        wanted = bootstrap.torch_attempts(
            bootstrap.DEFAULT_TORCH_VERSION, bootstrap.DEFAULT_TORCH_INDEX, "Linux", False
        )
        for attempt in wanted:
            done = subprocess.run([python, "-m", "pip", "install", *quiet, "--no-deps", *attempt], check=False)
            if done.returncode == 0:
                break
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    subprocess.run(
        [python, "-m", "pip", "install", *quiet, "-c", held, "--build-constraint", held, "-e", target], check=True
    )
    return {"seconds": round(time.monotonic() - begun, 1), "bytes": size(folder) - before}


def size(folder: Path) -> int:
    """Return the bytes of a folder's files, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> None:
    """Measure, write a file into results/ and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", default=",".join(EXTRAS), help="default: all, and none")
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    found = {}
    for extra in arguments.extras.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found[extra] = measure(extra, Path(folder) / "venv")
        print(f"{extra or 'core'}: {found[extra]}", file=sys.stderr, flush=True)
    record = {
        "machine": results.machine(),
        "extras": {n or "core": r for n, r in found.items()},
    }
    path = results.add("install-size", record, arguments.out)
    print(f"{path}\n", file=sys.stderr)
    print("| extra | install | size |\n|---|---|---|")
    for extra, row in found.items():
        print(f"| {f'`{extra}`' if extra else 'none'} | {row['seconds']:.0f} s | {format_bytes(row['bytes'])} |")


if __name__ == "__main__":
    main()
