"""A record of quality as one HTML file: what was measured, ceiling and floor beside it, and pictures to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sampan.evaluate.case import EvalCase
from sampan.evaluate.report import facts, tables
from sampan.evaluate.scorer import CaseScore
from sampan.report.render import render

GRID, EXTREMES, _SHOWN_PX = 60, 12, 192  # pictures shown, and their greatest side


@dataclass(frozen=True)
class ReportImage:
    """One picture of the grid.

    Args:
        read: What was read in it; None where nothing was to be read.
    """

    case: EvalCase
    image: Image.Image
    judgement: CaseScore
    read: str | None


def page(record: Mapping[str, Any], shown: Sequence[ReportImage]) -> str:
    """Return the whole file, with pictures of every stratum."""
    return render(
        "evaluate/page.html",
        title=f"sampan eval: {record['suite']}",
        facts=facts(record),
        tables=tables(record),
        groups=_groups(record, shown),
        picture=_picture,
    )


def _groups(record: Mapping[str, Any], shown: Sequence[ReportImage]) -> Iterator[tuple[str, Sequence[ReportImage]]]:
    """Yield headings and the images below them."""
    for name in record["strata"]:
        members = [image for image in shown if image.case.slice == name]
        first = GRID if name == record["main"] else EXTREMES
        yield f"{name}: the first pictures, as they came", members[:first]
        if len(members) > first:
            order = sorted(members, key=lambda image: image.judgement.points)
            yield f"{name}: the worst", order[:EXTREMES]
            yield f"{name}: the best", order[::-1][:EXTREMES]


def _picture(shown: ReportImage) -> str:
    """Return references, image and truth side by side, as the address of a picture that is its own content."""
    images = [*shown.case.references, shown.image, *([shown.case.truth] if shown.case.truth else [])]
    images = [image.resize((_SHOWN_PX, _SHOWN_PX)) if image.width > _SHOWN_PX else image for image in images]
    wide = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        wide.paste(image.convert("RGB"), (left, 0))
        left += image.width
    data = io.BytesIO()
    wide.save(data, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
