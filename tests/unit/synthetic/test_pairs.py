import json

import numpy as np
import pytest

from sampan.data.readers import image_folder
from sampan.errors import DataError
from sampan.models.text import glyph_texts
from sampan.samplers import noise
from sampan.synthetic.pairs import LETTERS, PairSpecs, captions, write
from sampan.synthetic.signs.colors import COLORS, LEAST_CONTRAST, contrast
from sampan.synthetic.signs.split import is_test_emoji, is_test_word


@pytest.fixture(scope="module")
def drawn():
    return {split: [PairSpecs(0, split, 40).draw(number) for number in range(40)] for split in ("train", "test")}


def test_every_split_keeps_to_its_side(drawn):
    for split, pairs in drawn.items():
        for pair in pairs:
            assert is_test_word(pair.word) == (split == "test")
            assert is_test_emoji(pair.emoji.stem, pair.plate) == (split == "test")


def test_words_fit_and_can_be_read(drawn):
    for pair in (*drawn["train"], *drawn["test"]):
        assert LETTERS[0] <= len(pair.word) <= LETTERS[1]
        assert contrast(COLORS[pair.plate], COLORS[pair.ink]) >= LEAST_CONTRAST


def test_a_pair_depends_on_its_number_only():
    pairs = PairSpecs(3, "train", 40)
    later = pairs.draw(7)
    assert PairSpecs(3, "train", 40).draw(7) == later
    assert pairs.draw(8) != later
    assert PairSpecs(4, "train", 40).draw(7) != later


def test_captions_name_the_emoji_and_quote_the_word_alone(drawn):
    for number, pair in enumerate(drawn["train"]):
        for caption in captions(pair, noise.generator(0, "test", number)):
            assert pair.emoji.names["en"] in caption
            assert [word.upper() for word in glyph_texts(caption)] == [pair.word]


def test_the_picture_has_plate_ink_and_emoji(drawn):
    pairs = PairSpecs(0, "train", 40)
    for pair in drawn["train"][:8]:
        pixels = np.asarray(pairs.paint(pair, 128), np.int16)
        assert pixels.shape == (128, 128, 3)
        assert (pixels[-1, :] == COLORS[pair.plate]).all()
        below, above = pixels[80:], pixels[4:78, 27:101]
        assert (np.abs(below - np.array(COLORS[pair.ink])).max(2) < 24).sum() > 30  # letters
        assert (np.abs(above - np.array(COLORS[pair.plate])).max(2) > 60).mean() > 0.05  # a thing


def test_a_set_is_written_once_and_read_whole(tmp_path):
    first = write(tmp_path / "set", count=6, num_emoji=20, size_px=64)
    assert first.written and first.counts == {"num_pictures": 6}
    assert not write(tmp_path / "set", count=6, num_emoji=20, size_px=64).written
    listing = image_folder.read(tmp_path / "set")
    assert len(listing.samples) == 6 and not listing.faults
    rows = [json.loads(line) for line in (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0, "num_emoji": 5}, "none"),
        ({"count": 5, "num_emoji": 100_000}, "the font draws"),
        ({"count": 5, "num_emoji": 5, "split": "tset"}, "not a split"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(tmp_path, settings, said):
    with pytest.raises(DataError, match=said):
        write(tmp_path / "set", **settings)
    assert not (tmp_path / "set").exists()
