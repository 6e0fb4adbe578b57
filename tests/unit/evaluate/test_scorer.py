"""True pictures are right, pictures of other things are wrong, and the floor holds nothing against itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sampan.errors import DataError
from sampan.evaluate import suites
from sampan.evaluate.measures import measures, mismatched_cases
from sampan.evaluate.scorer import Scorer, is_in_order, letters_box, overlap, unchanged_pixels
from sampan.metrics.ocr import Reading


def read_right(case) -> Reading:
    return Reading(tuple(word for line in case.words or () for word in line.split()), 1.0)


@pytest.fixture(scope="module")
def signs():
    return suites.signs(12, 3)


@pytest.fixture(scope="module")
def emojis():
    return suites.emojis(8, 3)


@pytest.fixture(scope="module")
def edits():
    return suites.edits(9, 3)


def test_questions_do_not_depend_on_how_many_are_asked(signs):
    few = [case for case in suites.signs(5, 3).cases if case.slice == signs.main]
    many = [case for case in signs.cases if case.slice == signs.main]
    assert [(case.prompt, case.seed) for case in few] == [(case.prompt, case.seed) for case in many[:5]]
    assert [case.prompt for case in suites.signs(5, 4).cases] != [case.prompt for case in suites.signs(5, 3).cases]


def test_the_main_group_is_one_word_whose_plate_the_prompt_names(signs):
    main = [case for case in signs.cases if case.slice == signs.main]
    assert len(main) == 12
    for case in main:
        (word,) = case.words
        assert 3 <= len(word) <= 8 and word.isalpha() and word.isascii()
        assert f'"{word}"' in case.prompt.upper() and case.plate in case.prompt  # a placard is in capitals


def test_true_signs_are_all_right(signs):
    scorer = Scorer({})
    found = measures([scorer.score(case, case.truth, read_right(case)) for case in signs.cases])
    assert found["word_accuracy"] == found["layout"] == 1
    assert found["ned"] == pytest.approx(1, abs=1e-3)
    assert found["color_accuracy"] >= 0.95


def test_a_sign_of_another_question_is_wrong(signs):
    scorer = Scorer({})
    main = [case for case in signs.cases if case.slice == signs.main]
    ring = mismatched_cases(main, 0)
    assert sorted(ring) == list(range(len(main))) and all(at != other for at, other in enumerate(ring))
    judged = [scorer.score(main[other], case.truth, read_right(case)) for case, other in zip(main, ring, strict=True)]
    found = measures(judged)
    assert found["word_accuracy"] < 0.2 and found["ned"] < 0.6 and found["color_accuracy"] < 0.6


def test_a_bare_plate_has_no_letters_in_their_place(signs):
    case = next(case for case in signs.cases if case.on_plate)
    bare = Image.new("RGB", case.truth.size, case.truth.getpixel((0, 0)))
    judged = Scorer({}).score(case, bare, Reading((), 0.0))
    assert judged.placed is False and judged.words.right == 0
    moved = Image.new("RGB", case.truth.size, case.truth.getpixel((0, 0)))
    moved.paste(case.truth.crop((0, 40, 128, 90)), (0, 78))
    assert Scorer({}).score(case, moved, read_right(case)).placed is False


def test_boxes_overlap_by_shared_over_covered():
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0
    picture = Image.new("RGB", (40, 40), "blue")
    ImageDraw.Draw(picture).rectangle((10, 12, 29, 19), fill="white")
    assert letters_box(picture) == (10, 12, 30, 20)


def test_true_emoji_are_their_own_nearest(emojis):
    scorer = Scorer(emojis.emoji)
    judged = [scorer.score(case, case.truth, read_right(case)) for case in emojis.cases]
    assert measures(judged)["top1"] == 1
    assert measures(judged)["color_accuracy"] == 1
    blank = Image.new("RGB", (128, 128), "white")
    assert np.mean([scorer.score(case, blank, Reading((), 0)).rank < 5 for case in emojis.cases]) < 0.5


def test_an_edit_is_done_if_the_change_is_made_and_the_rest_kept(edits):
    scorer = Scorer({})
    assert measures([scorer.score(case, case.truth, read_right(case)) for case in edits.cases])["edit_done"] == 1
    for case in edits.cases:
        # nothing done: the reference itself, read as what stands in it
        before = case.references[0]
        same = dataclasses.replace(case, words=("nothing",))
        untouched = scorer.score(same if case.edit == "word" else case, before, read_right(case))
        assert untouched.done is False, case.edit
        # all thrown away but the words and colours
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
        assert scorer.score(case, noise, read_right(case)).done is False


def test_what_an_edit_leaves_alone_is_what_both_pictures_share():
    before, after = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "red")
    after.putpixel((32, 32), (0, 255, 0))
    kept = unchanged_pixels(before, after)
    assert not kept[32, 32] and not kept[30, 34] and kept[5, 5]


def test_lines_in_another_order_are_out_of_place(signs):
    assert (
        is_in_order(("Fille", "abend"), ("FILLE", "Abend")) and is_in_order(("a", "b"), ("b",)) and is_in_order((), ())
    )
    assert not is_in_order(("Fille", "abend"), ("abend", "fille"))
    case = next(case for case in signs.cases if case.slice == "two lines")
    assert Scorer({}).score(case, case.truth, read_right(case)).placed is True
    assert Scorer({}).score(case, case.truth, Reading(case.words[::-1], 1.0)).placed is False


def test_a_kind_of_signs_can_be_chosen():
    choice = dataclasses.replace(suites.MAIN, fonts=("oswald",), letters=(4, 4))
    main = [case for case in suites.signs(6, 0, 128, choice).cases if case.slice == "one word"]
    assert {dict(case.groups)["font"] for case in main} == {"oswald"}
    assert {len(word) for case in main for word in case.words or ()} == {4}
    with pytest.raises(DataError, match="oswald"):
        suites.signs(6, 0, 128, dataclasses.replace(suites.MAIN, fonts=("oswlad",)))
    with pytest.raises(DataError, match="hardly any"):
        suites.signs(1, 0, 128, dataclasses.replace(suites.MAIN, letters=(1, 1)))


def test_questions_are_of_the_test(signs):
    from sampan.synthetic.signs.layouts import LAYOUTS
    from sampan.synthetic.signs.split import is_test_composition, is_test_word

    for case in signs.cases:
        assert all(is_test_word(word) for line in case.words for word in line.split())
        layout = dict(case.groups)["layout"]
        shared = LAYOUTS[layout].shares_colors
        assert shared or not case.ink or is_test_composition(layout, case.plate, case.ink)
