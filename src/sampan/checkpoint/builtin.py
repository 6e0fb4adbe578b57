"""Models that come with the package: their names stand for their folders wherever a model is asked for."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def builtin_models() -> dict[str, Path]:
    """Return name and folder of each model of this installation; the folders are in the released layout."""
    if not WEIGHTS.is_dir():
        return {}
    return {path.name: path for path in sorted(WEIGHTS.iterdir()) if (path / "model_index.json").is_file()}


def find(path: Path) -> Path:
    """Return the folder of a shipped model where the path is its name and nothing lies there; else the path itself."""
    return path if path.exists() else builtin_models().get(str(path), path)
