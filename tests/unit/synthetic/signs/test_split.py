from sampan.synthetic.signs.split import is_test_composition, is_test_pair, is_test_word
from sampan.synthetic.signs.words import NAMES, REAL
from sampan.synthetic.text_rendering import HELD_OUT_FONTS, TRAIN_FONTS


def test_the_decisions_are_the_same_for_ever():
    # sets that were written before stay apart from sets that are written later
    assert [
        word for word in ("open", "closed", "vinho", "straße", "poire", "limone", "drücken") if is_test_word(word)
    ] == [
        "poire",
        "limone",
        "drücken",
    ]
    assert is_test_composition("board", "red", "white") is False


def test_a_word_is_on_one_side_in_every_case():
    # a word in capitals is no other word; of ı and i, ß and SS nothing else can be known from capitals
    for word in (*REAL, *NAMES):
        assert len({is_test_word(form) for form in (word, word.upper(), word.lower(), word.title())}) == 1, word


def test_about_one_in_eight_is_test():
    words = [f"word{k}" for k in range(4000)]
    assert 0.11 < sum(map(is_test_word, words)) / len(words) < 0.14
    pairs = [is_test_pair("oswald", word) for word in words if not is_test_word(word)]
    assert 0.11 < sum(pairs) / len(pairs) < 0.14


def test_every_pair_of_a_test_word_or_of_a_held_out_font_is_test():
    assert all(is_test_pair(font, "poire") for font in TRAIN_FONTS)
    assert all(is_test_pair(font, "open") for font in HELD_OUT_FONTS)
