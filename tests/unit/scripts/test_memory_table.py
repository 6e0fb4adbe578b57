"""Counts of memory held against every published figure that can be counted."""

import importlib.util
import statistics
from pathlib import Path

import pytest

from sampan.catalog.memory_points import memory_points
from sampan.errors import CatalogError

ROOT = Path(__file__).resolve().parents[3]


def _script():
    spec = importlib.util.spec_from_file_location("memory_table", ROOT / "scripts" / "memory_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


counted_bytes = _script().counted_bytes

COUNTED = [point for point in memory_points() if point.left_out is None]
RELEASE = [point for point in COUNTED if point.pictures and point.pictures["model"] == "glm-image"]


def error(point):
    return counted_bytes(point) / point.bytes - 1


@pytest.mark.parametrize("point", RELEASE, ids=lambda point: point.name)
def test_the_releases_own_figures_are_within_a_tenth(point):
    assert abs(error(point)) <= 0.1


def test_half_of_all_figures_are_within_six_in_a_hundred_and_three_quarters_within_sixteen():
    errors = sorted(abs(error(point)) for point in COUNTED)
    assert len(errors) >= 20
    assert statistics.median(errors) <= 0.065
    assert statistics.quantiles(errors, n=4)[2] <= 0.16


def test_a_figure_that_leaves_something_open_is_not_counted():
    left = next(point for point in memory_points() if point.left_out)
    with pytest.raises(ValueError, match="is left out"):
        counted_bytes(left)


def test_every_figure_has_its_source_and_date():
    for point in memory_points():
        assert point.url.startswith("https://")
        assert point.as_of.year >= 2023
        assert point.bytes > 1e9


def test_a_file_of_another_form_is_an_error(tmp_path):
    from sampan.catalog.memory_points import read

    path = tmp_path / "new.toml"
    path.write_text(
        'title = "t"\nurl = "https://x"\nas_of = 2026-01-01\nunit = "GB"\ncounter = "guessed"\npoint = []\n'
    )
    with pytest.raises(CatalogError) as caught:
        read(path)
    assert caught.value.what == "`new.toml` cannot be read as published memory"
    assert caught.value.because == ("ValueError: `counter` is 'guessed', not one of allocated, reserved, not said",)
    path.write_text(
        path.read_text().replace("guessed", "allocated").replace("point = []", '[[point]]\nname = "p"\namount = 1')
    )
    with pytest.raises(CatalogError) as caught:
        read(path)
    assert caught.value.because == ("ValueError: `p` is not one of training, pictures and forward",)
