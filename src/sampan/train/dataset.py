"""A job's picture set, opened: rows read, pictures examined, sizes given, what cannot be used left out and said."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.data import bucket, examine, readers, report
from sampan.data.caption_check import CaptionCheck
from sampan.data.image_cache import ImageCache
from sampan.data.image_source import FileSource, ImageSource
from sampan.data.pictures import ImageFacts
from sampan.data.readers import CaptionOptions, Columns, RowFault, Sample
from sampan.data.report import DataReport
from sampan.errors import BadRowError, JobError
from sampan.job.sections import DataSection
from sampan.models.config import ModelConfig
from sampan.models.quotations import straighten
from sampan.models.text import PromptTokenizer
from sampan.progress import bars
from sampan.train.stages import unique_pictures

_FEW_PICTURES = 500
_REPEATS = re.compile(r"(\d+)_")  # how the name of a folder begins that asks kohya's scripts for repeats
_MAX_REPEATS = 10_000
_MUCH_ENLARGED = 2.0
_LITTLE_KEPT = 0.5


@dataclass(frozen=True)
class TrainingSet:
    """What can be trained on.

    Args:
        samples: Every usable sample; `image_of[i]` is sample i's picture number, `references_of[i]` those of its references.
        pictures: Every picture once.
        training, validation: Sample numbers; no picture of one is in the other. A sample of training that is repeated
            stands there once, and again behind all of them.
        report: What was left out and what was converted.
        digest: Names the set: its samples, their captions, repeats and the bytes of their pictures.
    """

    samples: tuple[Sample, ...]
    image_of: tuple[int, ...]
    references_of: tuple[tuple[int, ...], ...]
    pictures: ImageCache
    training: tuple[int, ...]
    validation: tuple[int, ...]
    report: DataReport
    digest: str


def open_dataset(
    settings: DataSection, config: ModelConfig, cache: Path, console: Any, tokenizer: PromptTokenizer | None = None
) -> TrainingSet:
    """Read and examine the set that a job names.

    Args:
        cache: Folder where what was found out about pictures is kept, and the report is written.
        tokenizer: The prompt tokenizer; None where it is learned from the set.

    Raises:
        JobError, DataError: The set cannot be read, or more of it is unusable than the job allows.
    """
    check = _SampleCheck(settings, config, tokenizer)
    listing = readers.get(settings.reader)(
        settings.path,
        columns=Columns(settings.image_column, settings.caption_columns, settings.references_column),
        captions=check.caption_options(),
        split=settings.split,
        limit=settings.limit,
    )
    if config.prompt.quotation_marks == "straight":  # as prompts of this model are read
        listing = dataclasses.replace(listing, samples=tuple(map(_straightened, listing.samples)))
    sources = list(dict.fromkeys(s for sample in listing.samples for s in (sample.image, *sample.references)))
    with bars(console) as show:
        found = examine.examine(
            sources,
            record=cache / "pictures.jsonl",
            max_pixels=settings.max_pixels,
            workers=settings.workers,
            progress=lambda done, total: show("examining pictures", done, total),
        )
    facts = dict(zip(sources, found, strict=True))
    samples, seen = report.usable(
        listing,
        facts,
        max_bad_share=settings.max_bad_share,
        what=f"picture set `{settings.path}`",
        folder=cache,
        check=check,
    )
    for line in seen.lines():
        console.print(line, highlight=False)
    pictures_of, image_of, references_of = unique_pictures(samples)
    known = [found for source in pictures_of if isinstance(found := facts[source], ImageFacts)]
    shapes = [(f.height_px, f.width_px) for f in known]
    pictures = ImageCache(pictures_of, shapes, list(map(check.size_of, shapes)), [f.digest for f in known])
    training, validation = _split(pictures, image_of, references_of, settings.validation_share)
    repeats = [check.repeats_of(sample) if settings.folder_repeats else 1 for sample in samples]
    training += tuple(i for i in training for _ in range(repeats[i] - 1))
    return TrainingSet(
        tuple(samples),
        tuple(image_of),
        tuple(references_of),
        pictures,
        training,
        validation,
        seen,
        _digest(samples, facts, repeats),
    )


def _straightened(sample: Sample) -> Sample:
    return dataclasses.replace(sample, captions=tuple(map(straighten, sample.captions)))


def num_workers(settings: DataSection, num_pictures: int) -> int:
    """Return how many processes open pictures; starting them takes longer than a few pictures do."""
    if settings.workers is not None:
        return settings.workers
    return min(8, os.cpu_count() or 1) if num_pictures >= _FEW_PICTURES else 0


class _SampleCheck:
    """What is checked of every sample: its captions, and what becomes of its pictures.

    Raises:
        JobError: A setting cannot be used.
    """

    def __init__(self, settings: DataSection, config: ModelConfig, tokenizer: PromptTokenizer | None):
        self.settings = settings
        self.root = settings.path / settings.split if settings.split else settings.path
        self._sizes = _sizes(settings, config)
        self._captions = CaptionCheck(config, tokenizer)
        self._seen: set[ImageSource | str] = set()

    def caption_options(self) -> CaptionOptions:
        """Return what the job says of captions."""
        for name in ("caption", "trigger"):
            value = getattr(self.settings, name)
            if value is None:
                continue
            try:
                if not value.strip():
                    raise BadRowError("no-caption", "it is blank")
                self._captions.refuse(value)
            except BadRowError as error:
                raise JobError(f"`data.{name}` cannot be used", str(error), "write the text without it") from error
        caption, trigger = (value and value.strip() for value in (self.settings.caption, self.settings.trigger))
        return CaptionOptions(self.settings.caption_lines, caption, trigger)

    def size_of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a picture of a (height, width) is brought to."""
        return self._sizes[bucket.assign(shape, self._sizes)]

    def repeats_of(self, sample: Sample) -> int:
        """Return how often a sample counts by the name of its folder: ten times in `10_dog`.

        Raises:
            JobError: Not at all, or more often than makes sense.
        """
        folder, number = self._asks_for_repeats(sample)
        if not 1 <= number <= _MAX_REPEATS:
            raise JobError(
                f"`data.folder_repeats` cannot be used with the folder `{folder}`",
                f"its name asks for {number:,} repeats, and 1 to {_MAX_REPEATS:,} can be had",
                "give the folder another name, or move it out of the set",
            )
        return number

    def __call__(self, sample: Sample, facts: Sequence[ImageFacts]) -> list[RowFault]:
        """Return notes about a sample.

        Args:
            facts: Of its picture and its references.

        Raises:
            BadRowError: It cannot be trained on.
        """
        shapes = [(known.height_px, known.width_px) for known in facts]
        sizes = [self.size_of(shape) for shape in shapes]
        notes = self._captions.check(sample.where, sample.captions, sizes[0], sizes[1:])
        for source, shape, size in zip((sample.image, *sample.references), shapes, sizes, strict=True):
            if source not in self._seen:
                self._seen.add(source)
                notes += _fit_notes(sample.where, source.name, shape, size)
        folder, number = self._asks_for_repeats(sample)
        if folder and folder not in self._seen and not self.settings.folder_repeats:
            self._seen.add(folder)
            notes.append(RowFault(folder, "repeats", f"{number:,} repeats; data.folder_repeats = true takes them"))
        return notes

    def _asks_for_repeats(self, sample: Sample) -> tuple[str, int]:
        """Return the outermost folder whose name asks for repeats, and for how many; "" and 1 where none does."""
        if isinstance(sample.image, FileSource) and sample.image.path.is_relative_to(self.root):
            for folder in sample.image.path.relative_to(self.root).parts[:-1]:
                if number := _REPEATS.match(folder):
                    return folder, int(number[1])
        return "", 1


def _fit_notes(where: str, name: str, shape: tuple[int, int], size: tuple[int, int]) -> list[RowFault]:
    """Return notes about a picture of a (height, width) that is brought to another."""
    scaled, _ = bucket.crop(shape, size)
    scale, share = max(scaled[0] / shape[0], scaled[1] / shape[1]), size[0] * size[1] / (scaled[0] * scaled[1])
    change = f"`{name}`: {shape[1]}x{shape[0]} px are brought to {size[1]}x{size[0]}"
    notes = [RowFault(where, "enlarged", f"{change}, {scale:.1f} times as large")] if scale > _MUCH_ENLARGED else []
    return notes + (
        [RowFault(where, "cropped", f"{change}, {share:.0%} of it is kept")] if share < _LITTLE_KEPT else []
    )


def _sizes(settings: DataSection, config: ModelConfig) -> tuple[tuple[int, int], ...]:
    """Return the (height, width) of every bucket."""
    geometry = config.geometry
    wanted = settings.resolutions_px or (geometry.default_px,)
    for side in wanted:
        if side % geometry.prior_px:
            raise JobError(
                f"`data.resolutions_px` has {side}",
                f"sides of this model's pictures are multiples of {geometry.prior_px} px",
                f"{max(1, round(side / geometry.prior_px)) * geometry.prior_px} is the nearest",
            )
    return bucket.sizes(wanted, settings.max_aspect_ratio, geometry.prior_px)


def _split(
    pictures: ImageCache, image_of: Sequence[int], references_of: Sequence[tuple[int, ...]], share: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the samples of training and of validation. A picture is held out by the hash of its bytes, wherever it lies,
    and with it every sample that has it, so that no picture is on both sides."""
    held = {p for p, digest in enumerate(pictures.digests) if int(digest[:8], 16) < share * 2**32}
    used = [{image, *references} for image, references in zip(image_of, references_of, strict=True)]
    out = set().union(*(own for own in used if own & held))
    # a picture that a held-out sample has is trained on by nobody
    training = tuple(i for i, own in enumerate(used) if not own & out)
    return training, tuple(i for i, own in enumerate(used) if own & held)


def _digest(samples: Sequence[Sample], facts: dict[ImageSource, Any], repeats: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for sample, number in zip(samples, repeats, strict=True):
        row = [sample.key, sample.captions, facts[sample.image].digest, [facts[r].digest for r in sample.references]]
        row += [number] if number > 1 else []
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
