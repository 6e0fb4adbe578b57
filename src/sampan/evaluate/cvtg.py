"""The questions of CVTG-2K, from a folder that the reader has fetched: several texts in one picture.

    FOLDER/CVTG/2.json … 5.json          {"data_list": [{"index": 0, "prompt": "…"}, …]}: two to five texts
    FOLDER/CVTG-Style/2.json … 5.json    the same with fonts, sizes and colours said

What should be read is what stands in quotes in the prompt.
Source: Du et al. 2025, "TextCrafter: Accurately Rendering Multiple Texts in Complex Visual Scenes" (arXiv:2503.23461).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.errors import DataError
from sampan.evaluate.case import EvalCase, Suite
from sampan.samplers import noise

SUBSETS = ("CVTG", "CVTG-Style")
AREAS = (2, 3, 4, 5)
MAIN = "all"
# quotes that stand alone: the apostrophe in "it's" is none
_QUOTED = re.compile(r"(?<!\w)'(.+?)'(?!\w)|“(.+?)”|‘(.+?)’(?!\w)|\"(.+?)\"")
_LAYOUT = "CVTG/2.json to 5.json and CVTG-Style/2.json to 5.json, with a `data_list` of `index` and `prompt`"


def questions(folder: Path, count: int, seed: int) -> Suite:
    """Return `count` questions, the files in turn; all where there are fewer.

    Raises:
        DataError: The folder has no such file, or one is not in that format.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder `{folder}`", (), "fetch CVTG-2K and pass --data FOLDER")
    files = [(subset, area, folder / subset / f"{area}.json") for area in AREAS for subset in SUBSETS]
    read = [list(_rows(path, subset, area, seed)) for subset, area, path in files if path.is_file()]
    cases = [rows[place] for place in range(max(map(len, read), default=0)) for rows in read if place < len(rows)]
    if not cases:
        raise DataError(f"there are no questions of CVTG-2K in `{folder}`", f"looked for {_LAYOUT}", "see docs/eval.md")
    notes = ["no true pictures: the ceiling is not known", f"{len(cases)} questions in the folder"]
    if missing := [f"{subset}/{area}.json" for subset, area, path in files if not path.is_file()]:
        notes.append(f"not there: {', '.join(missing)}")
    return Suite("cvtg", MAIN, tuple(cases[:count]), notes=tuple(notes))


def quoted(prompt: str) -> tuple[str, ...]:
    """Return the texts in quotes, from left to right."""
    return tuple(next(filter(None, found)) for found in _QUOTED.findall(prompt))


def _rows(path: Path, subset: str, area: int, seed: int) -> Iterator[EvalCase]:
    try:
        document: Any = documents.parse_json(documents.read_text(path))
        rows = [(int(row["index"]), str(row["prompt"])) for row in document["data_list"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(
            f"`{path}` is not a file of CVTG-2K", f"{type(error).__name__}: {error}", f"wanted {_LAYOUT}"
        ) from error
    for index, prompt in rows:
        if words := quoted(prompt):
            own = int(noise.generator(seed, f"quality/{subset}/{area}", index).integers(1 << 31))
            yield EvalCase(prompt, MAIN, own, words=words, groups=(("subset", subset), ("texts", str(area))))
