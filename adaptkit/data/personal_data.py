"""Mask personal data in rows: e-mail addresses, phone numbers, IBANs and card numbers, counted, never shown.

    masker = Masker(["email", "phone"], region="DE")
    masker.text("Call 030 901820 or write to anna@example.org")   # "Call [PHONE] or write to [EMAIL]"
    masker.masked                                                 # {"email": {"": 1}, "phone": {"": 1}}

Phone numbers are found and checked by `phonenumbers`, the Python port of Google's library. E-mail addresses,
IBANs (ISO 13616, mod 97) and card numbers (ISO/IEC 7812, Luhn) have exact forms and check digits, for which
no library is needed. Names and addresses are not found: that takes a model, which errs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from adaptkit.data.guesses import FACTS
from adaptkit.errors import ConfigError

Personal = Literal["email", "phone", "iban", "card"]
ORDER: tuple[Personal, ...] = ("email", "iban", "card", "phone")
"""What is masked first is no longer taken for another kind."""
UNTOUCHED = frozenset({*FACTS, "label", "labels", "score", "tags"})
"""Roles that are no text."""
INTERNATIONAL = "ZZ"
"""The region of `phonenumbers` in which only numbers with + and a country's code are read."""
_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.+-])[3-6]\d{3}(?:[ -]?\d{2,6}){2,4}(?![\w-]|\.\d)")
CARD_DIGITS = range(13, 20)


class Masker:
    """Masks kinds of personal data, and counts what it masked.

    Args:
        kinds: which.
        region: the country, by two letters, whose phone numbers are read without a country's code.
    Raises: ConfigError for a country that there is none of, or that nothing reads; ModuleNotFoundError
        without `phonenumbers`.
    """

    def __init__(self, kinds: Sequence[Personal], region: str = ""):
        self.kinds = [kind for kind in ORDER if kind in kinds]
        self.region = region or INTERNATIONAL
        self.masked: dict[str, dict[str, int]] = {kind: {} for kind in self.kinds}
        if region:
            self._check_region()

    def _check_region(self) -> None:
        if "phone" not in self.kinds:
            what = "protect_region says how phone numbers are written, and none are masked"
            raise ConfigError(what, where="protect_region", fix="add phone to protect, or leave it out")
        import phonenumbers

        if self.region not in phonenumbers.SUPPORTED_REGIONS:
            fix = "name it by its two letters, such as DE or US"
            raise ConfigError(f"no country is called '{self.region}'", where="protect_region", fix=fix)

    @property
    def sentence(self) -> str:
        """What was masked, in numbers."""
        found = (f"{sum(of_files.values()):,} of {kind}" for kind, of_files in self.masked.items())
        return f"personal data masked: {', '.join(found)}"

    def values(self, values: dict[str, Any], file: str) -> dict[str, Any]:
        """The values by role of a row of a file, with their texts masked."""
        return {
            role: value if role in UNTOUCHED else self._any(value, file) for role, value in values.items()
        }

    def _any(self, value: Any, file: str) -> Any:
        if isinstance(value, str):
            return self.text(value, file)
        if isinstance(value, list):
            return [self._any(part, file) for part in value]
        if isinstance(value, dict):
            return {key: self._any(part, file) for key, part in value.items()}
        return value

    def text(self, text: str, file: str = "") -> str:
        """A text with a word such as [EMAIL] for each thing that was found."""
        for kind in self.kinds:
            spans = FINDERS[kind](text, self.region)
            if spans:
                self.masked[kind][file] = self.masked[kind].get(file, 0) + len(spans)
            for start, stop in reversed(spans):
                text = f"{text[:start]}[{kind.upper()}]{text[stop:]}"
        return text


def _emails(text: str, region: str) -> list[tuple[int, int]]:
    return [match.span() for match in _EMAIL.finditer(text)] if "@" in text else []


def _phones(text: str, region: str) -> list[tuple[int, int]]:
    if region == INTERNATIONAL and "+" not in text and "\uff0b" not in text:
        return []
    from phonenumbers import PhoneNumberMatcher

    return [(match.start, match.end) for match in PhoneNumberMatcher(text, region)]


def _ibans(text: str, region: str) -> list[tuple[int, int]]:
    return [match.span() for match in _IBAN.finditer(text) if _is_iban(match[0].replace(" ", ""))]


def _is_iban(code: str) -> bool:
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1


def _cards(text: str, region: str) -> list[tuple[int, int]]:
    return [match.span() for match in _CARD.finditer(text) if _is_card(re.sub("[ -]", "", match[0]))]


def _is_card(digits: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return len(digits) in CARD_DIGITS and sum(sum(divmod(value, 10)) for value in doubled) % 10 == 0


FINDERS: dict[Personal, Callable[[str, str], list[tuple[int, int]]]] = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "phone": _phones,
}
"""Kind -> where it stands in a text [start, stop), in order, given the region."""
