"""Split text of any script into words: the one splitter of scores, baselines, overlap and duplicates.

    words("Don't PANIC, sch\\u00f6n!")   ["don", "t", "panic", "sch\\u00f6n"]

A word is a run of letters, digits and underscores with the marks on them. Scripts that put no blanks between
words have no such runs: there every letter, with its marks, is a word of its own. An emoji is a word. Words
are compared folded (`fold`): composed and decomposed accents, wide and narrow letters, capital and small
letters are the same. For ASCII text this is the splitter of rouge-score, but for the underscore.

How much text a number of words is differs by script: `units_per_word` says how many letters of a script
without blanks hold as much as an English word.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_CHARACTERS = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c"  # iteration marks and numerals
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"  # kana
    "\U0001aff0-\U0001affe\U0001b000-\U0001b167"
    "\u3105-\u312f\u31a0-\u31bf"  # bopomofo
    "\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\ua000-\ua48c\U00017000-\U00018d7f\U0001b170-\U0001b2fb"  # Yi, Tangut, Khitan, Nushu
)
"""Characters that stand for about half a word each."""
_LETTERS = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"  # Thai
    "\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"  # Lao
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e"
    "\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7a\uaa7e\uaa7f"  # Burmese
    "\u1780-\u17b3\u17d7\u17dc"  # Khmer
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a54\u1aa7\uaa80-\uaadd"  # Tai Le, Tai Lue, Tai Tham, Tai Viet
    "\u1b05-\u1b33\u1b45-\u1b4c\ua984-\ua9b2\ua9cf"  # Balinese, Javanese
)
"""Letters of alphabets that are written without blanks: about a quarter of a word each."""
_JOINERS = "\u00ad\u200c\u200d\u2060\ufeff"  # invisible inside words
_VARIANTS = "\ufe00-\ufe0f"  # of one character's look
_EMOJI = "[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
_TONES = "\U0001f3fb-\U0001f3ff\u20e3"
_FLAG = "[\U0001f1e6-\U0001f1ff]{2}"
_ASCII_WORD, _PLAIN_WORD = re.compile(r"\w+", re.ASCII), re.compile(r"\w+")
_INVISIBLE = re.compile(f"[{_JOINERS}{_VARIANTS}\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CHARACTER, _LETTER = re.compile(f"[{_CHARACTERS}]"), re.compile(f"[{_LETTERS}]")
_HAN_BLANK = re.compile(rf"(?<=[{_CHARACTERS}])\s+|(?<!\s)\s+(?=[{_CHARACTERS}])")
_BLANKLESS = re.compile(f"[{_CHARACTERS}{_LETTERS}]")
_ALONE = re.compile(f"[{_CHARACTERS}{_LETTERS}]|{_EMOJI}")


def words(text: str) -> list[str]:
    """The words of a text, folded, in order."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return [fold(word) for word in _found(text)]


def words_as_written(text: str) -> list[str]:
    """The words of a text, folded only where that is all of ASCII; as many as `word_starts` names."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _found(text)


def word_starts(text: str) -> list[int]:
    """Where each word of a text begins, in characters."""
    if text.isascii():
        return [match.start() for match in _ASCII_WORD.finditer(text)]
    starts: list[int] = []
    at = 0
    for line in text.splitlines(keepends=True):
        starts += [at + match.start() for match in _pattern_for(line).finditer(line)]
        at += len(line)
    return starts


def index_terms(text: str) -> list[str]:
    """The words that a search or a word count looks at: without those of one letter, which say little, but
    with the letters of scripts without blanks, and emoji."""
    return [word for word in words(text) if len(word) > 1 or _ALONE.match(word)]


def fold(text: str) -> str:
    """A text as it is compared: in Unicode's NFKC, without letter case and what is invisible.

    The dotted capital I of Turkish becomes an i.
    """
    if text.isascii():
        return text.lower()
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFKC", visible.casefold()).replace("i\u0307", "i")


def units_per_word(word: str) -> int:
    """How many such words hold as much as one English word: 1, or 2 Han or kana, or 4 letters of Thai."""
    if _CHARACTER.match(word):
        return 2
    return 4 if _LETTER.match(word) else 1


def is_plain(text: str) -> bool:
    """Whether the words of a text are its runs of letters, digits and underscores, of 65,536 characters."""
    return text.isascii() or not any(map(_SPECIAL.__getitem__, set(text)))


def has_blankless(text: str) -> bool:
    """Whether any of a text is in a script that puts no blanks between words."""
    return not text.isascii() and _BLANKLESS.search(text) is not None


def num_words(text: str) -> int:
    """How long a text is, in runs between blanks; where a script has no blanks, in as much as English words
    hold."""
    if not has_blankless(text):
        return len(text.split())
    return round(sum(_size(part) for part in text.split()))


def first_words(text: str, most: int) -> str:
    """The first `most` words of a text as `num_words` counts; other texts come back as they are."""
    if num_words(text) <= most:
        return text
    if not has_blankless(text):
        return " ".join(text.split()[:most])
    size = 0.0
    for match in re.finditer(r"\S+", text):
        part = match.group()
        if size + _size(part) > most:
            place = _places(part, most - size)
            if size + _size(part[:place]) > most:  # cut off from its letters, a sign is a run of its own
                place = 0
            return text[: match.start() + place].strip()
        size += _size(part)
    return text


def _size(part: str) -> float:
    """Words in a run without blanks."""
    if not has_blankless(part):
        return 1.0
    return sum(1 / units_per_word(word) for word in _pattern().findall(part))


def _places(part: str, most: float) -> int:
    """Where the first `most` words of a run without blanks end, in characters; a run that is one word of its
    own does not fit in part."""
    if not has_blankless(part):
        return 0
    size = 0.0
    for match in _pattern().finditer(part):
        size += 1 / units_per_word(match.group())
        if size > most:
            return match.start()
    return len(part)


def without_han_blanks(text: str) -> str:
    """A text without the blanks before and after Han and kana, which mean nothing there."""
    if text.isascii():
        return text
    return _HAN_BLANK.sub("", text)


@cache
def _marks() -> str:
    """All marks of Unicode that stand on, under or around letters, as the inside of a pattern's class."""
    letters = map(chr, [*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0)])
    return "".join(letter for letter in letters if unicodedata.category(letter)[0] == "M") + "\uff9e\uff9f"


def _found(text: str) -> list[str]:
    """The words of a text, line by line: no word crosses one, and few lines need the slow pattern."""
    return [word for line in text.splitlines() for word in _pattern_for(line).findall(line)]


def _pattern_for(text: str) -> re.Pattern[str]:
    """A pattern of this text's words: where nothing special stands in it, a simple one ten times as fast."""
    return _PLAIN_WORD if is_plain(text) else _pattern()


class _Special(dict[str, bool]):
    """character -> whether it is special, filled on first sight: the class is too long to search for."""

    def __missing__(self, character: str) -> bool:
        self[character] = character > "\uffff" or _special().match(character) is not None
        return self[character]


_SPECIAL = _Special()


@cache
def _special() -> re.Pattern[str]:
    """What makes words other than runs of letters: scripts without blanks, marks, emoji, joiners."""
    return re.compile(f"[{_CHARACTERS}{_LETTERS}{_marks()}{_JOINERS}{_VARIANTS}{_TONES}{_EMOJI[1:-1]}]")


@cache
def _pattern() -> re.Pattern[str]:
    attached = f"[{_marks()}{_JOINERS}]"
    letter = rf"[^\W{_CHARACTERS}{_LETTERS}{_marks()}]"
    emoji = f"{_EMOJI}[{_VARIANTS}{_TONES}]*"
    return re.compile(
        f"{letter}+(?:{attached}+{letter}*)*"
        f"|[{_CHARACTERS}{_LETTERS}]{attached}*"
        f"|{_FLAG}|{emoji}(?:\u200d{emoji})*"
    )


@cache
def punctuation() -> dict[int, None]:
    """All punctuation of Unicode and all of ASCII's symbols, for `str.translate` to remove."""
    symbols = "$+<=>^`|~"
    return {i: None for i in range(0x1F000) if unicodedata.category(chr(i))[0] == "P" or chr(i) in symbols}
