"""Which emoji there are, what they are called in three languages, and which of them come first.

The names are those of the Unicode CLDR, as the `emoji` package has them; it writes `:grinning_face:` where a caption
says "grinning face". Skin-tone variants are left out: they repeat a picture in five shades.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.errors import DataError, did_you_mean

# what to begin with: a subject a line, the most ordinary first; taken column by column, so that a small set has a few
# of each and no hundred faces
_OPENING = """
😀 😍 😎 😢 😡 😂 😱 😴 🥳 🤔 🤢 🥶
🐶 🐱 🐼 🦁 🐸 🐷 🐰 🦊 🐵 🐮 🐯 🐻
🍎 🍌 🍇 🍓 🍊 🍉 🍋 🍍 🍒 🍑 🥝 🥥
🚗 🚌 🚲 🚀 ✈️ ⛵ 🚂 🚁 🚜 🚑 🛵 🚢
☀️ 🌙 ⭐ 🌈 ☁️ ❄️ ⚡ 🔥 💧 🌍 🌊 ☂️
🍕 🍔 🍞 🧀 🥚 🌽 🥕 🍩 🎂 🍪 🍟 🍿
🏠 🏰 ⛪ 🗼 ⛺ 🌋 🏥 🏭 🗽 🎡 🌉 🏫
⚽ 🏀 🎾 🏈 🎱 ⚾ 🎳 ⛳ 🏓 🏆 🥊 🎯
🌳 🌹 🌻 🌵 🍀 🍁 🍄 🌴 🌷 🎄 🌲 🌸
🎸 🎹 🎺 🥁 🎻 🎈 🎁 🎲 🧩 🧸 🪁 🎨
🐟 🐧 🐙 🦀 🦆 🦉 🐢 🐬 🦋 🐝 🐞 🐌
👕 👖 👗 👑 👓 🎩 👟 🧦 🧤 👒 👜 👠
❤️ ✅ ❌ ❓ 💯 🛑 🔴 🔷 🔺 ♻️ ➕ 🎵
👍 ✋ 👀 👂 👃 👄 👻 🤖 👽 🎃 🦷 🦴
🔑 📚 ⏰ 💡 📷 📱 ✂️ 🔨 ☎️ 💻 🕯️ 🪑
☕ 🍷 🍺 🥛 🍵 🍽️ 🥄 🔪 🍭 🍫 🍦 🧃
"""
OPENING = tuple(text for column in zip(*map(str.split, _OPENING.strip().split("\n")), strict=True) for text in column)

_SKIN_TONES = range(0x1F3FB, 0x1F3FF + 1)
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F1FF + 1)
_TAGS = range(0xE0020, 0xE007F + 1)
_PORTUGUESE_PARTICLES = {word: word for word in ("da", "das", "de", "do", "dos", "e")}
_PORTUGUESE_SPELLINGS = _PORTUGUESE_PARTICLES | {"eua": "EUA", "rae": "RAE", "mcdonald": "McDonald"}


@dataclass(frozen=True)
class CaptionPhrases:
    """How a language says it. `{name}` is an emoji's name, `{color}` a colour's, `{a}` English's "a" or "an"."""

    on_background: str
    change_background: str
    colors: dict[str, str]

    def describe(self, name: str, color: str) -> str:
        """Return the caption of an emoji on a coloured background; the colour by its English name."""
        a = "an" if color[0] in "aeiou" else "a"
        return self.on_background.format(name=name, color=self.colors[color], a=a)

    def instruct(self, color: str) -> str:
        """Return the instruction that asks for a coloured background; the colour by its English name."""
        return self.change_background.format(color=self.colors[color])


_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")


def _colors(words: str) -> dict[str, str]:
    """Return a language's words for the colours by their English names."""
    return dict(zip(_COLORS, words.split(), strict=True))


LANGUAGES = {
    "en": CaptionPhrases(
        "{name} on {a} {color} background",
        "make the background {color}",
        _colors("red orange yellow green blue purple pink black"),
    ),
    "pt": CaptionPhrases(
        "{name} sobre um fundo {color}",
        "deixe o fundo {color}",
        _colors("vermelho laranja amarelo verde azul roxo rosa preto"),
    ),
    "zh": CaptionPhrases(
        "{color}背景上的{name}",
        "把背景变成{color}",
        _colors("红色 橙色 黄色 绿色 蓝色 紫色 粉色 黑色"),
    ),
}


@dataclass(frozen=True)
class Emoji:
    """An emoji and its names by language, in the order the languages were asked for."""

    text: str
    names: dict[str, str]

    @property
    def stem(self) -> str:
        """A file name without suffix: the code points in hexadecimal, as in `1f468_200d_1f469`."""
        return "_".join(f"{ord(character):x}" for character in self.text)


def catalogue(languages: Sequence[str]) -> list[Emoji]:
    """Return the fully qualified emoji without skin tones, the most ordinary first.

    After the opening they follow the version of Unicode emoji that brought them, which is about their age and use, and
    within it their code points.

    Raises:
        DataError: A language without phrases, none, or one named twice.
    """
    import emoji

    for language in languages:
        if language not in LANGUAGES:
            raise DataError(f"there are no captions in `{language}`", (), did_you_mean(language, LANGUAGES))
    if not languages or len(set(languages)) < len(languages):
        raise DataError("the languages of the captions are not clear", f"given: {', '.join(languages) or 'none'}")
    emoji.config.load_language(list(languages))
    rank = {text: index for index, text in enumerate(OPENING)}
    entries = [
        (rank.get(text, len(rank)), entry["E"], text, entry)
        for text, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == emoji.STATUS["fully_qualified"] and not any(ord(c) in _SKIN_TONES for c in text)
    ]
    entries.sort(key=lambda item: item[:3])
    return [
        Emoji(text, {language: caption(text, entry[language], language) for language in languages})
        for _, _, text, entry in entries
    ]


def caption(text: str, name: str, language: str) -> str:
    """Return the caption of an emoji from the name that the `emoji` package gives it."""
    words = name.strip(":").replace("_", " ")
    head, _, rest = words.partition(" ")
    if ord(text[0]) in _REGIONAL_INDICATORS or any(ord(character) in _TAGS for character in text):
        # a bare country in English and Chinese, lower-case in Portuguese: the flag is said, and names get their capital
        if language == "en":
            return f"flag: {words}"
        if language == "zh":
            return "旗：" + re.sub(" (.+)", r"（\1）", words)
        return f"{head}: {' '.join(_PORTUGUESE_SPELLINGS.get(word) or _capital(word) for word in rest.split(' '))}"
    if language == "zh":
        return words.replace(" ", "：")
    return f"{head}: {rest}" if head in ("keycap", "tecla") else words


def _capital(word: str) -> str:
    """Capitalise the first letter, past an opening parenthesis and after hyphens."""
    return re.sub(r"(^|[(-])(\w)", lambda match: match[1] + match[2].upper(), word)
