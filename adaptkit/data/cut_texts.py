"""Count the texts that are longer than a model reads, and say so.

cut = CutTexts.of([12, 300, 40], limit=256)
cut.sentence("max_length")   # 1 of 3 texts are cut at 256 tokens: 12 % of all tokens are lost; ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from adaptkit.notices import Tell, tell


@dataclass(frozen=True)
class CutTexts:
    """How many texts are cut, and what they lose.

    Attributes:
        limit: tokens after which a text is cut, special tokens included.
        num_tokens: of all texts, before any is cut.
        num_lost: tokens behind the limit.
    """

    limit: int = 0
    num_texts: int = 0
    num_cut: int = 0
    num_tokens: int = 0
    num_lost: int = 0

    @classmethod
    def of(cls, lengths: Iterable[int], limit: int) -> CutTexts:
        """Count texts of so many tokens against a limit."""
        sizes = list(lengths)
        lost = [size - limit for size in sizes if size > limit]
        return cls(limit, len(sizes), len(lost), sum(sizes), sum(lost))

    def plus(self, other: CutTexts) -> CutTexts:
        """Both counts together, under the later limit."""
        return CutTexts(
            other.limit,
            self.num_texts + other.num_texts,
            self.num_cut + other.num_cut,
            self.num_tokens + other.num_tokens,
            self.num_lost + other.num_lost,
        )

    def sentence(self, setting: str, what: str = "texts", beside: str = "") -> str:
        """What to know; empty where nothing is cut.

        Args:
            setting: what changes the limit.
            beside: more counts, for brackets behind the first.
        """
        if not self.num_cut:
            return ""
        count = f"{self.num_cut:,} of {self.num_texts:,} {what} are cut at {self.limit:,} tokens"
        share = self.num_lost / self.num_tokens
        lost = "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"
        if beside:
            count += f" ({beside})"
        return f"{count}: {lost} of all tokens are lost; {setting} changes that"


def tell_cuts(parts: Mapping[str, CutTexts], setting: str, tell: Tell = tell) -> None:
    """Say in one line what is cut of the parts of some data: of the first part, and in brackets of the
    others."""
    cut = {name: part for name, part in parts.items() if part.num_cut}
    if not cut:
        return
    first, *others = cut
    beside = [f"{name}: {cut[name].num_cut:,} of {cut[name].num_texts:,}" for name in others]
    counted = cut[first]
    for name in others:
        whole = counted.plus(cut[name])
        counted = replace(counted, num_tokens=whole.num_tokens, num_lost=whole.num_lost)
    what = "texts" if first == next(iter(parts)) else f"{first} texts"
    tell(counted.sentence(setting, what, ", ".join(beside)))
