"""A job's picture set, opened: rows read, pictures examined, sizes given, what cannot be used left out and said."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.data import bucket, examine, readers, report
from sampan.data.image_cache import ImageCache
from sampan.data.image_source import ImageSource
from sampan.data.pictures import ImageFacts
from sampan.data.readers import Columns, Sample
from sampan.data.report import DataReport
from sampan.errors import JobError
from sampan.job.sections import DataSection
from sampan.models.config import ModelConfig
from sampan.progress import bars
from sampan.train.stages import unique_pictures

_FEW_PICTURES = 500


@dataclass(frozen=True)
class TrainingSet:
    """What can be trained on.

    Args:
        samples: Every usable sample; `image_of[i]` is sample i's picture number, `references_of[i]` those of its references.
        pictures: Every picture once.
        training, validation: Sample numbers; no picture of one is in the other.
        report: What was left out and what was converted.
        digest: Names the set: its samples, their captions and the bytes of their pictures.
    """

    samples: tuple[Sample, ...]
    image_of: tuple[int, ...]
    references_of: tuple[tuple[int, ...], ...]
    pictures: ImageCache
    training: tuple[int, ...]
    validation: tuple[int, ...]
    report: DataReport
    digest: str


def open_dataset(settings: DataSection, config: ModelConfig, cache: Path, console: Any) -> TrainingSet:
    """Read and examine the set that a job names.

    Args:
        cache: Folder where what was found out about pictures is kept, and the report is written.

    Raises:
        JobError, DataError: The set cannot be read, or more of it is unusable than the job allows.
    """
    listing = readers.get(settings.reader)(
        settings.path,
        columns=Columns(settings.image_column, settings.caption_columns, settings.references_column),
        split=settings.split,
        limit=settings.limit,
    )
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
    )
    for line in seen.lines():
        console.print(line, highlight=False)
    pictures_of, image_of, references_of = unique_pictures(samples)
    known = [found for source in pictures_of if isinstance(found := facts[source], ImageFacts)]
    shapes = [(f.height_px, f.width_px) for f in known]
    pictures = ImageCache(pictures_of, shapes, _sizes(shapes, settings, config), [f.digest for f in known])
    training, validation = _split(pictures, image_of, references_of, settings.validation_share)
    return TrainingSet(
        tuple(samples),
        tuple(image_of),
        tuple(references_of),
        pictures,
        training,
        validation,
        seen,
        _digest(samples, facts),
    )


def num_workers(settings: DataSection, num_pictures: int) -> int:
    """Return how many processes open pictures; starting them takes longer than a few pictures do."""
    if settings.workers is not None:
        return settings.workers
    return min(8, os.cpu_count() or 1) if num_pictures >= _FEW_PICTURES else 0


def _sizes(shapes: Sequence[tuple[int, int]], settings: DataSection, config: ModelConfig) -> list[tuple[int, int]]:
    """Return the size that each picture is brought to."""
    geometry = config.geometry
    wanted = settings.resolutions_px or (geometry.default_px,)
    for side in wanted:
        if side % geometry.prior_px:
            raise JobError(
                f"`data.resolutions_px` has {side}",
                f"sides of this model's pictures are multiples of {geometry.prior_px} px",
                f"{max(1, round(side / geometry.prior_px)) * geometry.prior_px} is the nearest",
            )
    sizes = bucket.sizes(wanted, settings.max_aspect_ratio, geometry.prior_px)
    return [sizes[bucket.assign(shape, sizes)] for shape in shapes]


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


def _digest(samples: Sequence[Sample], facts: dict[ImageSource, Any]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        row = [sample.key, sample.captions, facts[sample.image].digest, [facts[r].digest for r in sample.references]]
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
