import pytest

from sampan.errors import DataError
from sampan.synthetic.emoji_names import LANGUAGES, OPENING, caption, catalogue


@pytest.fixture(scope="module")
def names():
    return catalogue(("en", "pt", "zh"))


def test_names_in_three_languages(names):
    by_text = {emoji.text: tuple(emoji.names.values()) for emoji in names}
    assert by_text["😀"] == ("grinning face", "rosto risonho", "嘿嘿")
    assert by_text["🇧🇷"] == ("flag: Brazil", "bandeira: Brasil", "旗：巴西")
    assert by_text["🇨🇬"] == ("flag: Congo-Brazzaville", "bandeira: República do Congo", "旗：刚果（布）")
    assert by_text["🏴󠁧󠁢󠁷󠁬󠁳󠁿"] == ("flag: Wales", "bandeira: País de Gales", "旗：威尔士")
    assert by_text["🇺🇲"][1] == "bandeira: Ilhas Menores Distantes dos EUA"
    assert by_text["🇬🇼"][1] == "bandeira: Guiné-Bissau"
    assert by_text["🇲🇲"][1] == "bandeira: Mianmar (Birmânia)"
    assert by_text["#️⃣"] == ("keycap: #", "tecla: #", "按键：#")
    assert by_text["🏳️‍🌈"] == ("rainbow flag", "bandeira do arco-íris", "彩虹旗")
    assert by_text["👨‍👩‍👧"] == ("family man woman girl", "família homem mulher e menina", "家庭：男人女人女孩")


def test_names_are_clean_and_each_is_said_once(names):
    assert len(names) > 1400
    for language in LANGUAGES:
        said = [emoji.names[language] for emoji in names]
        assert len(set(said)) == len(said)
        assert all(
            name == name.strip() and not set(name) & set("_") and ":" not in (name[0], name[-1]) for name in said
        )


def test_no_skin_tones_and_no_picture_twice(names):
    assert not any(0x1F3FB <= ord(character) <= 0x1F3FF for emoji in names for character in emoji.text)
    assert len({emoji.stem for emoji in names}) == len(names)
    assert all(set(emoji.stem) <= set("0123456789abcdef_") for emoji in names)


def test_order_begins_with_the_opening_and_is_fixed(names):
    assert len(set(OPENING)) == len(OPENING) == 192
    assert tuple(emoji.text for emoji in names[: len(OPENING)]) == OPENING
    assert "".join(OPENING[:8]) == "😀🐶🍎🚗☀️🍕🏠⚽"
    assert [emoji.text for emoji in names] == [emoji.text for emoji in catalogue(["en"])]


def test_languages_are_kept_in_the_order_asked_for():
    assert list(catalogue(["zh", "en"])[0].names.items()) == [("zh", "嘿嘿"), ("en", "grinning face")]


@pytest.mark.parametrize(
    ("languages", "text"),
    [
        (["en", "fr"], "error: there are no captions in `fr`\n\nhint: known: `en`, `pt`, `zh`"),
        ([], "error: the languages of the captions are not clear\n  because given: none"),
        (["en", "en"], "error: the languages of the captions are not clear\n  because given: en, en"),
    ],
)
def test_wrong_languages(languages, text):
    with pytest.raises(DataError) as caught:
        catalogue(languages)
    assert str(caught.value) == text


def test_caption_of_a_plain_name():
    assert caption("🍎", ":red_apple:", "en") == "red apple"


def test_phrases():
    assert LANGUAGES["en"].describe("red apple", "blue") == "red apple on a blue background"
    assert LANGUAGES["en"].describe("red apple", "orange") == "red apple on an orange background"
    assert LANGUAGES["pt"].describe("maçã vermelha", "blue") == "maçã vermelha sobre um fundo azul"
    assert LANGUAGES["zh"].describe("红苹果", "blue") == "蓝色背景上的红苹果"
    assert LANGUAGES["en"].instruct("blue") == "make the background blue"
    assert LANGUAGES["pt"].instruct("blue") == "deixe o fundo azul"
    assert LANGUAGES["zh"].instruct("blue") == "把背景变成蓝色"
