"""What is wrong with a picture set: the kinds there are, which samples can be used, and the report that a person reads.

A row whose target or any of whose references cannot be used is left out whole, with its captions, so that none is ever
said of another picture. What could be converted is used and counted. What is no row and is not read, and what is used in a
way that may not be meant, is noted: it counts as no bad row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan import files
from sampan.data.examine import Problem
from sampan.data.image_source import ImageSource
from sampan.data.pictures import ImageFacts
from sampan.data.readers import Listing, RowFault, Sample
from sampan.errors import BadRowError, DataError

LEFT_OUT = "left out"
CONVERTED = "converted"
NOTED = "noted"
KINDS: dict[str, tuple[str, str]] = {
    "no-caption": (LEFT_OUT, "the row has no caption"),
    "no-file": (LEFT_OUT, "the row has no picture, or names a file that is not there"),
    "outside": (LEFT_OUT, "the row names a file outside the set"),
    "bad-row": (LEFT_OUT, "the row cannot be understood"),
    "control-token": (LEFT_OUT, "a caption has a control token of the model's tokenizer in it"),
    "long-quotation": (LEFT_OUT, "a caption has more in quotes than the glyph encoder reads"),
    "long-caption": (LEFT_OUT, "a caption is longer than the model reads beside its picture"),
    "damaged-shard": (LEFT_OUT, "a tar or a table is cut short or damaged; what comes after it is not read"),
    "empty": (LEFT_OUT, "the picture's file has no bytes"),
    "truncated": (LEFT_OUT, "the picture is cut short or damaged"),
    "not-a-picture": (LEFT_OUT, "the file is no picture of a known format"),
    "too-large": (LEFT_OUT, "the picture has more pixels than are taken"),
    "undefined-colour": (LEFT_OUT, "the picture's pixels have no fixed colours"),
    "missing": (LEFT_OUT, "the picture was listed and is not there"),
    "unreadable": (LEFT_OUT, "the picture's bytes cannot be read, or end the process that decodes them"),
    "16-bit": (CONVERTED, "more than 8 bits a channel; brought to 8"),
    "animated": (CONVERTED, "several frames or pages; the first is taken"),
    "cmyk": (CONVERTED, "inks; brought to sRGB"),
    "rotated": (CONVERTED, "EXIF says that it lies or is mirrored; turned upright"),
    "wrong-suffix": (CONVERTED, "the content is of another format than the name's ending says; the content holds"),
    "hidden": (NOTED, "a hidden folder, or one that a system keeps for itself; it is not read"),
    "stray-text": (NOTED, "a text that belongs to no picture, or in whose place another one holds; it is not read"),
    "unlisted": (NOTED, "a picture that no row of the metadata names; it is not read"),
    "paragraphs": (NOTED, "a caption file of several paragraphs, whose lines are captions of their own"),
    "far-apostrophes": (NOTED, "two apostrophes further apart than words are read to be drawn; not taken as quotes"),
    "splits": (NOTED, "the set looks split by folders or names; all that is read is trained on"),
    "repeats": (NOTED, "a folder whose name asks for repeats, as kohya's scripts read it; pictures count once"),
    "enlarged": (NOTED, "the picture is enlarged more than twofold"),
    "cropped": (NOTED, "more than half of the picture is cropped away"),
}
Check = Callable[[Sample, Sequence[ImageFacts]], Iterable[RowFault]]
_NUM_NAMED = 3
_WHERE_WIDTH = 48


@dataclass(frozen=True)
class DataReport:
    """What became of the rows of a set.

    Args:
        num_rows: All of them.
        num_samples: Those that can be used.
        left_out: One fault a row that cannot be used.
        converted: One entry for each conversion of each picture that is used.
        noted: What counts as no row, and what may not be meant.
        num_captions: How many captions the samples have in all, and the fewest and the most that one has.
    """

    num_rows: int
    num_samples: int
    left_out: tuple[RowFault, ...]
    converted: tuple[RowFault, ...]
    noted: tuple[RowFault, ...] = ()
    num_captions: tuple[int, int, int] | None = None

    @property
    def bad_share(self) -> float:
        """Share of the rows that are left out, in [0, 1]."""
        return len(self.left_out) / self.num_rows if self.num_rows else 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many entries there are of each kind that occurs, in the order of KINDS."""
        counts = Counter(fault.kind for fault in (*self.left_out, *self.converted, *self.noted))
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def to_json(self) -> dict[str, Any]:
        """Return everything, each fault included, as JSON's types."""
        return {
            "num_rows": self.num_rows,
            "num_samples": self.num_samples,
            "num_left_out": len(self.left_out),
            "bad_share": self.bad_share,
            "captions": dict(zip(("total", "fewest", "most"), self.num_captions or (0, 0, 0), strict=True)),
            "kinds": {
                kind: {"action": KINDS[kind][0], "count": count, "meaning": KINDS[kind][1]}
                for kind, count in self.counts.items()
            },
            "left_out": [_entry(fault) for fault in self.left_out],
            "converted": [_entry(fault) for fault in self.converted],
            "noted": [_entry(fault) for fault in self.noted],
        }

    def lines(self) -> list[str]:
        """Return a summary for people: the counts, a line a kind, and where the first of each stand."""
        left_out = f"{len(self.left_out):,} are left out ({self.bad_share:.1%})"
        lines = [f"{self.num_rows:,} rows: {self.num_samples:,} can be used, {left_out}"]
        if self.num_captions:
            total, fewest, most = self.num_captions
            each = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
            lines.append(f"captions: {total:,}, {each} for a row")
        if not self.counts:
            return lines
        entries = (*self.left_out, *self.converted, *self.noted)
        kind_width = max(len(kind) for kind in self.counts)
        lines += ["", f"{'kind':<{kind_width}}  {'action':<9}  {'count':>7}  meaning, and the first of them"]
        for kind, count in self.counts.items():
            action, meaning = KINDS[kind]
            named = [_short(fault.where) for fault in entries if fault.kind == kind][:_NUM_NAMED]
            more = " …" if count > len(named) else ""
            lines.append(f"{kind:<{kind_width}}  {action:<9}  {count:>7,}  {meaning}")
            lines.append(f"{'':<{kind_width}}  {'':<9}  {'':>7}    {', '.join(named)}{more}")
        return lines

    def write(self, folder: Path) -> None:
        """Write report.json and report.txt into a folder, which is made where it is not there; both list every fault.

        Raises:
            DataError: They cannot be written.
        """
        texts = self.lines()
        for title, faults in (("Left out", self.left_out), ("Converted", self.converted), ("Noted", self.noted)):
            if faults:
                texts += ["", f"{title}:", *(f"  {fault.where}: {fault.kind}: {fault.reason}" for fault in faults)]
        # a file name that is not UTF-8 is shown by its escapes, which JSON happens to have too
        as_json = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(folder / "report.json", as_json.encode("utf-8", "backslashreplace"))
            files.write_bytes(folder / "report.txt", ("\n".join(texts) + "\n").encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise DataError(f"the report on the pictures cannot be written to `{folder}`", str(error)) from error


def usable(
    listing: Listing,
    facts: Mapping[ImageSource, ImageFacts | Problem],
    *,
    max_bad_share: float,
    what: str,
    folder: Path | None = None,
    check: Check | None = None,
) -> tuple[list[Sample], DataReport]:
    """Return the samples all of whose pictures can be used, in their order, and a report, which is written first.

    Args:
        facts: Of every picture of the listing, as `sampan.data.examine` finds them.
        max_bad_share: Share of rows left out, in [0, 1], above which none is returned.
        what: The set, as errors call it.
        folder: Where report.json and report.txt go; None writes none.
        check: Called with a sample and the facts of its picture and its references; returns notes, each given once, or
            raises BadRowError for a sample that cannot be used.

    Raises:
        DataError: Too large a share of the rows cannot be used, or none can; or the report cannot be written.
    """
    samples: list[Sample] = []
    left_out = list(listing.faults)
    converted: dict[tuple[ImageSource, str], RowFault] = {}
    noted = list(listing.notes)
    for sample in listing.samples:
        found = {source: facts[source] for source in (sample.image, *sample.references)}
        problems = {source: known for source, known in found.items() if isinstance(known, Problem)}
        if problems:
            reason = "; ".join(f"`{source.name}`: {problem.reason}" for source, problem in problems.items())
            left_out.append(RowFault(sample.where, next(iter(problems.values())).kind, reason))
            continue
        try:
            known_facts = [facts[source] for source in (sample.image, *sample.references)]
            noted += check(sample, [known for known in known_facts if isinstance(known, ImageFacts)]) if check else ()
        except BadRowError as reason:
            left_out.append(RowFault(sample.where, reason.kind, str(reason)))
            continue
        samples.append(sample)
        for source, known in found.items():
            assert isinstance(known, ImageFacts), "problems were dealt with above"
            for kind in known.converted:
                converted.setdefault((source, kind), RowFault(sample.where, kind, f"`{source.name}`"))
    counts = [len(sample.captions) for sample in samples]
    report = DataReport(
        listing.num_rows,
        len(samples),
        tuple(left_out),
        tuple(converted.values()),
        tuple(noted),
        (sum(counts), min(counts), max(counts)) if counts else None,
    )
    if folder is not None:
        report.write(folder)
    if report.bad_share > max_bad_share or not samples:
        raise _too_bad(report, max_bad_share, what, folder)
    return samples, report


def _too_bad(report: DataReport, max_bad_share: float, what: str, folder: Path | None) -> DataError:
    if not report.num_rows:
        noted = [f"{fault.where}: {KINDS[fault.kind][1]} ({fault.reason})" for fault in report.noted[:_NUM_NAMED]]
        return DataError(f"{what} has no rows", noted, "check the path, the split and the limit")
    facts: list[str] = []
    for kind, count in Counter(fault.kind for fault in report.left_out).most_common():
        first = next(fault for fault in report.left_out if fault.kind == kind)
        facts.append(f"{count:,} {kind} (the first is {first.where}: {first.reason})")
    hint = "mend these rows or take them out"
    if folder is not None:
        hint += f"; all are listed in `{folder / 'report.txt'}`"
    if "no-caption" in report.counts:
        hint += "; data.caption gives one to every picture that has none"
    bad = f"{len(report.left_out):,} of {report.num_rows:,} rows ({report.bad_share:.1%}) of {what} cannot be used"
    if not report.num_samples:
        return DataError(f"{bad}: none is left", facts, hint)
    return DataError(
        f"{bad}, and at most {max_bad_share:.1%} may be", facts, f"{hint}; or set data.max_bad_share higher"
    )


def _entry(fault: RowFault) -> dict[str, str]:
    return {"where": fault.where, "kind": fault.kind, "reason": fault.reason}


def _short(where: str) -> str:
    return where if len(where) <= _WHERE_WIDTH else "…" + where[1 - _WHERE_WIDTH :]
