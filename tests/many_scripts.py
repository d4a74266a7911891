"""Random text of many scripts, for tests."""

from __future__ import annotations

import random
from dataclasses import dataclass


def _letters(*ranges: tuple[int, int]) -> str:
    return "".join(chr(i) for first, last in ranges for i in range(first, last + 1))


@dataclass(frozen=True)
class Script:
    """How text of a script looks.

    Attributes:
        letters, marks: of a word; a mark follows a letter now and then.
        word: letters of a word, at least and at most.
        blank: between words.
        stop: after a sentence.
        as_english: such letters that hold as much as an English word; 1 where words stand between blanks.
    """

    letters: str
    marks: str = ""
    word: tuple[int, int] = (2, 8)
    blank: str = " "
    stop: str = ". "
    as_english: int = 1

    def words(self, rng: random.Random, size: int) -> list[str]:
        return [self._word(rng) for _ in range(size)]

    def _word(self, rng: random.Random) -> str:
        letters = rng.choices(self.letters, k=rng.randint(*self.word))
        marked = (letter + (rng.choice(self.marks) if rng.random() < 0.3 else "") for letter in letters)
        return "".join(marked) if self.marks else "".join(letters)

    def text(self, rng: random.Random, size: int) -> str:
        """Sentences of about 12 words, `size` words in all."""
        words = self.words(rng, size)
        parts = (self.blank.join(words[i : i + 12]) for i in range(0, size, 12))
        return "".join(part[:1].upper() + part[1:] + self.stop for part in parts).strip()


SCRIPTS = {
    "latin": Script(_letters((0x61, 0x7A))),
    "cyrillic": Script(_letters((0x430, 0x44F))),
    "greek": Script(_letters((0x3B1, 0x3C9))),
    "arabic": Script(_letters((0x621, 0x63A), (0x641, 0x64A)), _letters((0x64B, 0x650))),
    "hebrew": Script(_letters((0x5D0, 0x5EA)), _letters((0x5B0, 0x5B9))),
    "devanagari": Script(_letters((0x915, 0x939)), _letters((0x93E, 0x94D)), stop="\u0964 "),
    "tamil": Script(_letters((0xB95, 0xB95), (0xBAE, 0xBB9)), _letters((0xBBE, 0xBC2))),
    "korean": Script(_letters((0xAC00, 0xD7A3)), word=(1, 4)),
    "amharic": Script(_letters((0x1200, 0x1246)), blank="\u1361", stop="\u1362"),
    "tibetan": Script(_letters((0xF40, 0xF47), (0xF49, 0xF6A)), word=(1, 3), blank="\u0f0b", stop="\u0f0d "),
    "chinese": Script(_letters((0x4E00, 0x9FA5)), "", (1, 3), "", "\u3002", 2),
    "japanese": Script(_letters((0x3041, 0x3096), (0x4E00, 0x4F00)), "", (1, 3), "", "\u3002", 2),
    "thai": Script(_letters((0xE01, 0xE2E)), _letters((0xE34, 0xE39)), (2, 6), "", " ", 4),
    "lao": Script(_letters((0xE94, 0xE9F), (0xEA1, 0xEA3)), _letters((0xEB4, 0xEB9)), (2, 6), "", " ", 4),
    "khmer": Script(_letters((0x1780, 0x17A2)), _letters((0x17B6, 0x17C5)), (2, 6), "", "\u17d4", 4),
    "burmese": Script(_letters((0x1000, 0x1020)), _letters((0x102B, 0x1032)), (2, 6), "", "\u104b", 4),
}
