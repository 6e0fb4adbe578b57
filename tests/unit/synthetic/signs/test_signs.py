import json
import time

import numpy as np
import pytest
from PIL import Image

from sampan.data.readers import image_folder
from sampan.errors import DataError
from sampan.models.text import glyph_texts
from sampan.samplers import noise
from sampan.synthetic import text_rendering
from sampan.synthetic.signs import write
from sampan.synthetic.signs.captions import captions
from sampan.synthetic.signs.colors import COLORS, LEAST_CONTRAST, contrast, readable_on
from sampan.synthetic.signs.layouts import LAYOUTS, paint
from sampan.synthetic.signs.sign import LEAST_CAPITAL, Sign, least_capital
from sampan.synthetic.signs.specification import EDITS, SignFilter, SignSpecs
from sampan.synthetic.signs.split import is_test_composition, is_test_pair, is_test_word


def rows(directory):
    return [json.loads(line) for line in (directory / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def words(sign):
    return [word for line in sign.lines for word in line.split(" ")]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("signs") / "small"
    return directory, write(directory, count=24, edits=True)


@pytest.fixture(scope="module")
def drawn():
    return {split: [SignSpecs(0, split).draw(number) for number in range(300)] for split in ("train", "test")}


def test_white_on_black_has_the_greatest_contrast():
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # just too little
    assert all(contrast(COLORS[plate], COLORS[ink]) >= LEAST_CONTRAST for plate in COLORS for ink in readable_on(plate))


def test_every_split_keeps_to_its_side(drawn):
    for sign in drawn["train"]:
        assert not any(map(is_test_word, words(sign)))
        assert not any(is_test_pair(sign.font, word) for word in words(sign))
        shared = LAYOUTS[sign.layout].shares_colors
        assert shared or not is_test_composition(sign.layout, sign.plate, sign.ink)
    for sign in drawn["test"]:
        assert all(map(is_test_word, words(sign)))
        shared = LAYOUTS[sign.layout].shares_colors
        assert shared or is_test_composition(sign.layout, sign.plate, sign.ink)
    assert {sign.font for sign in drawn["test"]} >= set(text_rendering.HELD_OUT_FONTS)


def test_signs_are_varied_and_can_be_read(drawn):
    for split, signs in drawn.items():
        assert {sign.layout for sign in signs} >= set(LAYOUTS) - ({"diamond"} if split == "test" else set())
        assert {len(sign.lines) for sign in signs} == {1, 2, 3}
        assert all(least_capital(sign, LAYOUTS[sign.layout]) >= LEAST_CAPITAL for sign in signs)
        assert all(sign.ink in readable_on(sign.plate) for sign in signs)
        assert all(set("".join(sign.lines)) <= text_rendering.ALPHABET for sign in signs)
        assert len({line for sign in signs for line in sign.lines}) > 250


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_letters_lie_inside_on_their_plate(name):
    layout = LAYOUTS[name]
    plate, ink = layout.compositions()[0]
    lines = (("ÁWGQ",), ("ÁWGQ", "Żjgy"), ("ÁWGQ", "Żjgy", "12:30"))[layout.num_lines[1] - 1]
    for number, font in enumerate(text_rendering.FONTS):
        shown = Sign(name, plate, ink, font, lines, layout.scenes[0], bool(number % 2), number)
        blank = Sign(name, plate, ink, font, (" ",) * len(lines), layout.scenes[0], bool(number % 2), number)
        with_letters, without = (np.asarray(paint(sign, 128), int) for sign in (shown, blank))
        changed = np.abs(with_letters - without).max(axis=2) > 48
        edge = np.concatenate(
            [changed[:2].ravel(), changed[-2:].ravel(), changed[:, :2].ravel(), changed[:, -2:].ravel()]
        )
        assert changed.sum() > 60
        assert not edge.any(), (name, font)
        # what was changed had been the plate, and the strongest of it has the colour of the letters
        under = np.abs(without[changed] - np.array(COLORS[plate])).max(axis=1)
        assert (under < 40).mean() > 0.97, (name, font)
        assert np.abs(with_letters[changed] - np.array(COLORS[ink])).max(axis=1).min() < 24, (name, font)


def test_captions_quote_what_is_drawn_in_its_order(drawn):
    for number, sign in enumerate(drawn["train"]):
        for caption in captions(sign, noise.generator(0, "test", number)):
            said = glyph_texts(caption)
            case = str.upper if LAYOUTS[sign.layout].asked_in_any_case else str
            assert [case(text) for text in said] == list(sign.lines)
            assert "'" not in caption and "{" not in caption and "  " not in caption
            assert " a orange" not in f" {caption}" and " an red" not in f" {caption}"


def test_an_edit_changes_one_thing_and_says_so():
    signs = SignSpecs(0, "train")
    kinds = set()
    for number in range(150):
        before, edit = signs.draw(number), signs.edit(number)
        after = edit.after
        kinds.add(edit.kind)
        changed = {
            field for field in ("plate", "ink", "font", "lines") if getattr(before, field) != getattr(after, field)
        }
        assert changed == {edit.kind if edit.kind in ("plate", "ink", "font") else "lines"}
        assert (before.layout, before.scene, before.variant) == (after.layout, after.scene, after.variant)
        assert not any(map(is_test_word, words(after)))
        shared = LAYOUTS[after.layout].shares_colors
        assert shared or not is_test_composition(after.layout, after.plate, after.ink)
    assert kinds == set(EDITS)


def test_rows_of_a_set_with_edits(small):
    directory, summary = small
    assert summary.written and summary.counts == {"num_signs": 24, "num_pictures": 48, "num_rows": 72}
    plain, target, edit = rows(directory)[:3]
    assert plain["file_name"] == "images/000000.png"
    assert len(plain["text"]) == len(target["text"]) == 3
    assert len(edit["text"]) == 2
    assert edit["references"] == ["images/000000.png"]
    assert edit["file_name"] == target["file_name"] == f"images/000000-{edit['edit']}.png"
    assert "references" not in plain | target
    assert {"words", "font", "layout", "plate", "ink", "scene", "split"} <= set(plain)
    with Image.open(directory / plain["file_name"]) as image:
        assert (image.mode, image.size) == ("RGB", (128, 128))


def test_the_reader_takes_every_row(small):
    listing = image_folder.read(small[0])
    assert len(listing.samples) == 72
    assert listing.faults == ()


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small, tmp_path):
    directory, _ = small
    write(tmp_path / "few", count=5, edits=True)
    assert rows(tmp_path / "few") == rows(directory)[:15]
    for row in rows(tmp_path / "few"):
        assert (tmp_path / "few" / row["file_name"]).read_bytes() == (directory / row["file_name"]).read_bytes()


def test_the_same_signs_at_every_size_and_others_for_another_seed(small, tmp_path):
    write(tmp_path / "large", count=5, edits=True, size_px=256)
    assert rows(tmp_path / "large") == rows(small[0])[:15]
    write(tmp_path / "other", count=5, edits=True, seed=1)
    assert rows(tmp_path / "other") != rows(small[0])[:15]


def test_the_same_command_finds_its_work_done(small):
    directory, _ = small
    stamp = (directory / "metadata.jsonl").stat().st_mtime_ns
    assert not write(directory, count=24, edits=True).written
    assert (directory / "metadata.jsonl").stat().st_mtime_ns == stamp


def test_all_has_both_sides_and_says_which(tmp_path):
    write(tmp_path / "all", count=60, split="all")
    found = rows(tmp_path / "all")
    assert {row["split"] for row in found} == {"train", "test"}
    for row in found:
        is_test = [is_test_word(word) for line in row["words"] for word in line.split(" ")]
        assert set(is_test) == {row["split"] == "test"}


@pytest.mark.parametrize(
    ("arguments", "because", "hint"),
    [
        ({"count": 0}, "`count` is 0, and it must be at least 1", None),
        ({"count": 1, "size_px": 64}, "`size_px` is 64, and it must be from 128 to 2048", None),
        ({"count": 1, "split": "trian"}, "`trian` is not a split", "did you mean `train`?"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path, arguments, because, hint):
    with pytest.raises(DataError) as raised:
        write(tmp_path / "set", **arguments)
    assert raised.value.what == "the signs cannot be made"
    assert raised.value.because == (because,)
    assert raised.value.hint == hint
    assert not (tmp_path / "set").exists()


def test_a_thousand_take_seconds(tmp_path):
    began = time.process_time()
    write(tmp_path / "set", count=100)
    assert 100 / (time.process_time() - began) > 60  # measured 230 to 300 a second; this machine may be slow


def test_a_choice_narrows_what_is_drawn():
    choice = SignFilter(("placard",), ("jetbrains-mono", "oswald"), (3, 8), 1)
    signs = [SignSpecs(0, "train", choice).draw(number) for number in range(60)]
    assert {sign.layout for sign in signs} == {"placard"}
    assert {sign.font for sign in signs} == {"jetbrains-mono", "oswald"}
    assert all(len(sign.lines) == 1 and 3 <= len(sign.lines[0]) <= 8 for sign in signs)
    assert len({sign.lines for sign in signs}) > 40


def test_a_choice_holds_for_what_an_edit_writes():
    signs = SignSpecs(0, "train", SignFilter(("placard",), ("jetbrains-mono",), (3, 8), 1))
    edits = [signs.edit(number) for number in range(60)]
    assert {edit.after.font for edit in edits} == {"jetbrains-mono"}
    assert {edit.kind for edit in edits} >= {"word", "plate", "ink"}
    assert "font" not in {edit.kind for edit in edits}
    assert all(3 <= len(line) <= 8 for edit in edits for line in edit.after.lines)


def test_a_placard_is_nothing_but_plate_and_letters():
    sign = next(
        s
        for s in (SignSpecs(0, "train", SignFilter(layouts=("placard",))).draw(n) for n in range(99))
        if len(s.lines) == 1
    )
    pixels = np.asarray(paint(sign, 128))
    plate = COLORS[sign.plate]
    assert (pixels[0] == plate).all() and (pixels[-30:] == plate).all()
    written = np.flatnonzero((pixels != plate).any((0, 2)))
    first = (8 - len(sign.lines[0])) // 2  # letters stand in eight cells of 16 px, one in each
    assert 16 * first <= written[0] < 16 * (first + 1) and written[-1] < 16 * (first + len(sign.lines[0]))


def test_a_placard_is_lettered_in_capitals_and_asked_for_in_any_case():
    signs = [SignSpecs(0, "train", SignFilter(layouts=("placard",))).draw(number) for number in range(99)]
    assert all(line == line.upper() and len(line) <= 8 for sign in signs for line in sign.lines)
    said = [captions(sign, np.random.default_rng(n))[0] for n, sign in enumerate(signs)]
    quoted = [text.split('"')[1] for text in said]
    assert all(one.upper() == sign.lines[0] for one, sign in zip(quoted, signs, strict=True))
    assert any(one != one.upper() for one in quoted) and any(one == one.upper() for one in quoted)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (SignFilter(layouts=("plackard",)), "did you mean `placard`"),
        (SignFilter(fonts=("courier-prime",)), "kept for the test"),
        (SignFilter(fonts=("oswlad",)), "did you mean `oswald`"),
        (SignFilter(fonts=("pacifico",)), "none of the fonts has capitals"),
        (SignFilter(letters=(8, 3)), "8 to 3 letters"),
        (SignFilter(layouts=("placard",), letters=(3, 99)), "has room for 8 letters"),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused(tmp_path, choice, said):
    with pytest.raises(DataError) as caught:
        write(tmp_path / "set", count=2, choice=choice)
    assert said in str(caught.value) + " ".join(map(str, vars(caught.value).values()))
    assert not (tmp_path / "set").exists()
