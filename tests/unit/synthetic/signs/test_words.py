import pytest

from sampan.samplers import noise
from sampan.synthetic.signs.split import is_test_word
from sampan.synthetic.signs.words import NAMES, REAL, WordSource, made_up, number, random_signs, small
from sampan.synthetic.text_rendering import ALPHABET

_QUOTES = set("'\"‘’“”「」")


def drawn(is_test, count=600, most=10, least=2):
    random, words = noise.generator(3, "test"), WordSource(is_test)
    return [words.draw(random, most, least) for _ in range(count)]


def test_real_words_can_be_drawn_in_every_case_and_quoted():
    letters = {
        letter
        for word in (*REAL, *NAMES)
        for form in (word, word.upper(), word.title(), small(word))
        for letter in form
    }
    assert letters <= ALPHABET
    assert not letters & _QUOTES
    assert len(REAL) > 700


@pytest.mark.parametrize("make", [made_up, number, lambda random: random_signs(random, 10)])
def test_invented_ones_can_be_drawn_and_quoted(make):
    random = noise.generator(0, "test")
    texts = [make(random) for _ in range(400)]
    assert {letter for text in texts for letter in text + text.upper()} <= ALPHABET
    assert not {letter for text in texts for letter in text} & _QUOTES
    assert len(set(texts)) > 250


@pytest.mark.parametrize("is_test", [False, True])
def test_every_word_is_of_its_side(is_test):
    assert {is_test_word(part) for text in drawn(is_test) for part in text.split(" ")} == {is_test}


def test_lengths_are_kept_and_words_do_not_run_out():
    texts = drawn(None, count=3000, most=7, least=3)
    assert {len(text) for text in texts} == {3, 4, 5, 6, 7}
    assert len(set(texts)) > 1200


def test_the_same_seed_draws_the_same_words():
    assert drawn(False, 50) == drawn(False, 50)
    assert small("İZMİR Łódź") == "izmir łódź"
