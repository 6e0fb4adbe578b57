import json
import sys

import numpy as np
import pytest
from PIL import Image

from sampan.data.readers import image_folder
from sampan.errors import DataError
from sampan.synthetic import emoji
from sampan.synthetic.color_font import ColorFont
from sampan.synthetic.emoji import COLORS, compose, hidden_share, write


def rows(directory):
    return [json.loads(line) for line in (directory / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("emoji") / "small"
    return directory, write(directory, count=20, edits=2)


def test_the_summary_counts_what_is_there(small):
    directory, summary = small
    assert summary.counts == {"num_emoji": 20, "num_left_out": 0, "num_pictures": 60, "num_rows": 100}
    assert summary.written
    assert len(list((directory / "images").iterdir())) == 60
    assert len(rows(directory)) == 100


def test_first_rows(small):
    directory, _ = small
    plain, colored, edit = rows(directory)[:3]
    assert plain == {
        "file_name": "images/1f600.png",
        "text": "grinning face",
        "texts": {"en": "grinning face", "pt": "rosto risonho", "zh": "嘿嘿"},
        "emoji": "😀",
    }
    color = colored["file_name"].removeprefix("images/1f600-").removesuffix(".png")
    assert color in COLORS
    assert colored["text"] in (f"grinning face on a {color} background", f"grinning face on an {color} background")
    assert list(colored["texts"]) == list(edit["texts"]) == ["en", "pt", "zh"]
    assert edit["file_name"] == colored["file_name"]
    assert edit["references"] == ["images/1f600.png"]
    assert edit["text"] == f"make the background {color}"
    assert "references" not in plain | colored


def test_the_reader_takes_every_row(small):
    directory, _ = small
    listing = image_folder.read(directory)
    assert len(listing.samples) == 100
    assert listing.faults == ()
    assert len({sample.key for sample in listing.samples}) == 100
    assert sum(len(sample.references) for sample in listing.samples) == 40


def test_pictures_are_centred_on_their_background_within_a_margin(small):
    directory, _ = small
    for row in rows(directory):
        with Image.open(directory / row["file_name"]) as image:
            assert (image.mode, image.size) == ("RGB", (128, 128))
            pixels = np.asarray(image, int)
        color = row["file_name"].removesuffix(".png").partition("-")[2]
        background = COLORS.get(color, (255, 255, 255))
        edge = np.concatenate([pixels[:7].reshape(-1, 3), pixels[-7:].reshape(-1, 3), pixels[:, :7].reshape(-1, 3)])
        assert (edge == background).all(), row["file_name"]
        drawn = np.argwhere((pixels != background).any(axis=2))
        assert len(drawn) > 1000
        if color == "blue":  # on white a faint rim is lost, so that centres are compared on a strong colour
            assert np.abs((drawn.min(axis=0) + drawn.max(axis=0)) / 2 - 63.5).max() <= 1.5, row["file_name"]


def test_an_edit_changes_the_background_alone(small):
    directory, _ = small
    edit = next(row for row in rows(directory) if "references" in row and row["emoji"] == "🍎")
    with Image.open(directory / edit["file_name"]) as target, Image.open(directory / edit["references"][0]) as source:
        after, before = np.asarray(target, int), np.asarray(source, int)
    same = (after == before).all(axis=2)
    assert 0.25 < same.mean() < 0.75
    assert not same[:8].any()


def test_the_same_command_finds_its_work_done(small):
    directory, summary = small
    stamp = (directory / "metadata.jsonl").stat().st_mtime_ns
    again = write(directory, count=20, edits=2)
    assert not again.written
    assert again.counts == {"num_emoji": 20, "num_left_out": 0, "num_pictures": 60, "num_rows": 100}
    assert (directory / "metadata.jsonl").stat().st_mtime_ns == stamp
    assert again.directory == summary.directory


def test_the_same_command_writes_the_same_bytes(small, tmp_path):
    directory, _ = small
    write(tmp_path / "again", count=20, edits=2)
    for file in directory.rglob("*.*"):
        assert (tmp_path / "again" / file.relative_to(directory)).read_bytes() == file.read_bytes()


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small, tmp_path):
    directory, _ = small
    write(tmp_path / "few", count=4, edits=1, size_px=32)
    few, many = ([row["file_name"] for row in rows(folder)] for folder in (tmp_path / "few", directory))
    assert [name for name in many if name in few] == few
    with Image.open(tmp_path / "few" / few[0]) as image:
        assert image.size == (32, 32)


def test_another_recipe_replaces_the_folder_but_edited_ones_stay(tmp_path):
    write(tmp_path / "set", count=3)
    assert write(tmp_path / "set", count=2).written
    assert len(rows(tmp_path / "set")) == 2
    (tmp_path / "set/metadata.jsonl").write_text("{}")
    with pytest.raises(DataError, match="is not overwritten"):
        write(tmp_path / "set", count=2)


def test_languages_and_seed(tmp_path):
    write(tmp_path / "zh", count=5, edits=3, languages=["zh"])
    assert rows(tmp_path / "zh")[0] == {
        "file_name": "images/1f600.png",
        "text": "嘿嘿",
        "texts": {"zh": "嘿嘿"},
        "emoji": "😀",
    }
    write(tmp_path / "seed", count=5, edits=3, languages=["zh"], seed=1)
    assert {r["file_name"] for r in rows(tmp_path / "zh")} != {r["file_name"] for r in rows(tmp_path / "seed")}


def test_progress_is_told(tmp_path):
    seen: list[tuple[int, int]] = []
    write(tmp_path / "set", count=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_all_eight_colours_are_given_and_hiding_ones_come_last(tmp_path):
    write(tmp_path / "set", count=16, edits=8)
    heart = [row["file_name"] for row in rows(tmp_path / "set") if row["emoji"] == "❤️" and "references" in row]
    assert {name.removesuffix(".png").partition("-")[2] for name in heart} == set(COLORS)
    assert any("-red" in name for name in heart[-3:])


def test_hidden_share():
    glyph = Image.new("RGBA", (8, 8), (*COLORS["red"], 255))
    assert hidden_share(glyph, COLORS["red"]) == 1
    assert hidden_share(glyph, COLORS["blue"]) == 0
    assert hidden_share(Image.new("RGBA", (8, 8)), COLORS["blue"]) == 1


def test_colours_are_clearly_distinct():
    values = [np.array(color) for color in (*COLORS.values(), (255, 255, 255))]
    nearest = min(np.linalg.norm(a - b) for i, a in enumerate(values) for b in values[:i])
    assert nearest > 80


def test_compose_keeps_small_things_small_and_rims_clean():
    glyph = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
    glyph.paste((255, 255, 255, 255), (0, 0, 34, 32))
    image = np.asarray(compose(glyph, 128, COLORS["blue"]), int)
    drawn = np.argwhere((image == 255).all(axis=2))
    assert drawn.min() >= 48
    assert drawn.max() <= 80
    # between white and blue there is nothing darker than the blue: transparent black does not bleed in
    assert (image >= np.array(COLORS["blue"]) - 1).all()


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"edits": 9}, "`edits` is 9, and it must be from 0 to 8"),
        ({"edits": -1}, "`edits` is -1, and it must be from 0 to 8"),
        ({"size_px": 8}, "`size_px` is 8, and it must be from 16 to 1024"),
        ({"count": 0}, "`count` is 0, and it must be at least 1"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, because):
    with pytest.raises(DataError) as caught:
        write(tmp_path / "set", **options)
    assert str(caught.value) == f"error: the emoji pictures cannot be made\n  because {because}"
    assert not (tmp_path / "set").exists()


def test_more_than_there_are(tmp_path):
    with pytest.raises(DataError) as caught:
        write(tmp_path / "set", count=5000)
    assert caught.value.hint == "ask for fewer, or name another font"
    assert caught.value.because[0].startswith("5000 are wanted, and the font draws 1899 of ")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uharfbuzz", None)
    with pytest.raises(DataError) as caught:
        write(tmp_path / "set", count=1)
    assert str(caught.value) == (
        "error: the emoji pictures cannot be made\n"
        "  because the package `uharfbuzz` is missing\n\n"
        "hint: pip install 'sampan[data]'"
    )


def test_without_a_count_all_that_the_font_draws_are_chosen():
    names = emoji.catalogue(["en"])
    chosen, num_left_out = emoji._choose(names, ColorFont(), None)
    assert len(chosen) == 1899
    assert len(chosen) + num_left_out == len(names)
