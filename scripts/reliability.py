"""Do to the program what goes wrong in practice, and keep what came of it: the tests of `scripts/reliability.toml`.

    python scripts/reliability.py [--only 1a,2,25] [--quick]
    python scripts/reliability.py --page

Runs the tests of each fault, slow ones too, and adds a record to `results/`: how many tests there were, the seconds, the
numbers that the tests measured, and the commit. `docs/reliability.md` is written from the faults and the newest record of
each, by `--page` and after every run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ROOT / "scripts" / "reliability.toml"
PAGE = ROOT / "docs" / "reliability.md"
STEM = "reliability"
_HEAD = """<!-- written by scripts/reliability.py from scripts/reliability.toml and results/reliability_*.json -->

# Reliability

What goes wrong in practice is done to the program on purpose, by tests. A row says what is done, what must come of it,
which tests do it, and what was measured when all of them ran, the slow ones included. `python scripts/reliability.py`
runs them and adds the record; `--only 2` takes one row, `--quick` leaves the slow tests out. Inputs are bounded, and
nothing is sent to other programs or machines.

| | fault | what must come of it | tests | measured | record |
|---|---|---|---|---|---|
"""


def faults() -> list[dict[str, Any]]:
    """Return the table: `number`, `fault`, `bar`, and `tests`, as pytest names them below tests/.

    Where the tests write a record of their own (SAMPAN_KEEP_RESULTS=1), also `record`, its stem, and `numbers` of it.
    """
    return tomllib.loads(FAULTS.read_text(encoding="utf-8"))["fault"]


def page() -> str:
    """Return docs/reliability.md."""
    return _HEAD + "".join(_row(fault) for fault in faults())


def write_page() -> None:
    """Write docs/reliability.md."""
    PAGE.write_text(page(), encoding="utf-8", newline="\n")


def _row(fault: dict[str, Any]) -> str:
    if "record" in fault:
        name, measured = _of_the_tests(fault["record"], fault["numbers"])
    else:
        name, found = newest(fault["number"])
        measured = "not yet" if found is None else _measured(found)
    files = dict.fromkeys(test.partition("::")[0] for test in fault["tests"])
    tests = ", ".join(f"`{file}`" for file in files)
    cells = (fault["number"], fault["fault"], fault["bar"], tests, measured, f"`{name}`" if name else "")
    return f"| {' | '.join(cells)} |\n"


def _measured(found: dict[str, Any]) -> str:
    words = [f"{found['passed']} tests passed{' (without the slow ones)' if found['quick'] else ''}"]
    words += [f"{found[key]} {key}" for key in ("failed", "skipped") if found[key]]
    return ", ".join([*words, *(f"{value} {what}" for what, value in found["measured"].items())])


def _of_the_tests(stem: str, numbers: list[list[str]]) -> tuple[str, str]:
    """Return the newest record that tests have written themselves, and numbers of it in words.

    Args:
        numbers: What a number is, its unit first, and where it stands, as "crowd.health.p99_s".
    """
    path = max((ROOT / "results").glob(f"{stem}_*.json"), key=_order)
    record, words = json.loads(path.read_text(encoding="utf-8")), []
    for what, place in numbers:
        value: Any = record
        for key in place.split("."):
            value = value[key]
        words.append(f"{value if isinstance(value, int) else f'{value:.3g}'} {what}")
    return path.name, ", ".join(words)


def newest(number: str) -> tuple[str | None, dict[str, Any] | None]:
    """Return the newest record's name that has a fault, and what it says of it."""
    paths = sorted((ROOT / "results").glob(f"{STEM}_*.json"), key=_order)
    for path in reversed(paths):
        found = json.loads(path.read_text(encoding="utf-8"))["faults"].get(number)
        if found is not None:
            return path.name, found
    return None, None


def _order(path: Path) -> tuple[str, int]:
    _, day, *suffix = path.stem.split("_")
    return day, int(suffix[0]) if suffix else 1


def measure(fault: dict[str, Any], quick: bool) -> dict[str, Any]:
    """Run the tests of a fault and return what came of them."""
    marks = "not gpu and not npu and not network" + (" and not slow" if quick else "")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            marks,
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
        ]
        subprocess.run(
            [*command, *(f"tests/{test}" for test in fault["tests"])],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # pytest's own
    ends = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    measured: dict[str, Any] = {}
    for prop in (prop for case in cases for prop in case.iter("property")):
        what, text = prop.attrib["name"], prop.attrib["value"]
        value = float(text) if "." in text else int(text)
        measured[what] = max(measured.get(what, value), value) if what.startswith(("s ", "ms ", "MB ")) else value
    failed = ends["failure"] + ends["error"]
    return {
        "passed": len(cases) - failed - ends["skipped"],
        "failed": failed,
        "skipped": ends["skipped"],
        "seconds": round(time.perf_counter() - begun, 1),
        "quick": quick,
        "measured": measured,
    }


def main() -> int:
    """Run and record; 1 where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers of faults, separated by commas; default: all")
    parser.add_argument("--quick", action="store_true", help="leave the slow tests out")
    parser.add_argument("--page", action="store_true", help="run nothing, and write docs/reliability.md")
    arguments = parser.parse_args()
    if arguments.page:
        write_page()
        return 0
    chosen = set(arguments.only.split(",")) if arguments.only else None
    # what is measured is what is checked out now, whatever is edited while the tests run
    commit, load_before, found = results.commit(), results.load_average(), {}
    for fault in faults():
        if (chosen is None and "record" not in fault) or (chosen is not None and fault["number"] in chosen):
            found[fault["number"]] = measure(fault, arguments.quick)
    record = {"what": "faults done to the program, and what came of them", **commit, **results.conditions(load_before)}
    print(results.add(STEM, {**record, "faults": found}, ROOT / "results"))
    write_page()
    return int(any(fault["failed"] for fault in found.values()))


if __name__ == "__main__":
    sys.exit(main())
