"""Scaling laws: what loss a model of some size reaches after some tokens, and which size is the best buy.

    loss(N, D) = floor + size_scale * N^-size_exponent + data_scale * D^-data_exponent

N counts parameters, D tokens that are read once. Text that is read again is worth less each time
(Muennighoff et al. 2023, arXiv 2305.16264): U tokens that are read D / U = 1 + R times teach as much as
U + U * 15.39 * (1 - exp(-R / 15.39)) tokens would.

Three published laws are at hand. They were fitted on web text with tokenizers of their own: compare their
losses with each other, not with losses of yours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptkit.planning.config import Published

REPEATS_WORTH = 15.39
"""R* of arXiv 2305.16264: repeating can add at most so many times the text."""
_MOST_REPEATS = 60 * REPEATS_WORTH
_STEPS = 200


@dataclass(frozen=True)
class Law:
    """Loss by size and tokens.

    Attributes:
        name, source: which law it is, and where it was read.
        unit: of the loss.
        sizes, tokens: smallest and largest that it was fitted on, tokens as worth read once; (0, inf) where
            that is not known.
    """

    name: str
    source: str
    floor: float
    size_scale: float
    data_scale: float
    size_exponent: float
    data_exponent: float
    unit: str = "nats per token"
    sizes: tuple[float, float] = (0.0, math.inf)
    tokens: tuple[float, float] = (0.0, math.inf)

    def loss(self, params: float, tokens: float, text_tokens: float = math.inf) -> float:
        """The loss after `tokens`, of which `text_tokens` are different ones."""
        fresh = worth_of_tokens(tokens, text_tokens)
        data = self.data_scale * fresh**-self.data_exponent
        return self.floor + self.size_scale * params**-self.size_exponent + data

    def tokens_for(self, loss: float, params: float, text_tokens: float = math.inf) -> float:
        """Tokens after which a model of `params` reaches `loss`; inf where it never does."""
        left = loss - self.floor - self.size_scale * params**-self.size_exponent
        if left <= 0:
            return math.inf
        fresh = math.exp((math.log(self.data_scale) - math.log(left)) / self.data_exponent)
        return tokens_worth(fresh, text_tokens)

    def best_tokens(self, params: float, text_tokens: float = math.inf) -> float:
        """Tokens for which a model of `params` is the best that its training FLOPs (6 N D) can buy.

        There a share more parameters and the same share more tokens lower the loss alike.
        """
        by_size = self.size_exponent * self.size_scale * params**-self.size_exponent
        scale = self.data_exponent * self.data_scale
        tokens = (scale / by_size) ** (1 / self.data_exponent)
        if tokens <= text_tokens:
            return tokens
        low, high = math.log(text_tokens), math.log(text_tokens * (1 + _MOST_REPEATS))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if self._gain(math.exp(middle), text_tokens) > by_size:
                low = middle
            else:
                high = middle
        return math.exp(low)

    def _gain(self, tokens: float, text_tokens: float) -> float:
        """How fast the loss falls with the logarithm of the tokens, where text is read again."""
        fresh = worth_of_tokens(tokens, text_tokens)
        slope = math.exp(-(tokens / text_tokens - 1) / REPEATS_WORTH)
        return self.data_exponent * self.data_scale * fresh**-self.data_exponent * tokens * slope / fresh

    def why_beyond(self, params: float, tokens: float) -> str:
        """A clause on how a model lies outside of what the law was fitted on; empty where it does not.

        Args:
            tokens: worth, read once, of what it reads.
        """
        if not self.sizes[0] <= params <= self.sizes[1]:
            return "a size beyond those that the law was fitted on"
        if not self.tokens[0] <= tokens <= self.tokens[1]:
            return "a number of tokens beyond those that the law was fitted on"
        return ""


def worth_of_tokens(tokens: float, text_tokens: float) -> float:
    """Tokens read once that teach as much as `tokens` of a text of `text_tokens`."""
    if tokens <= text_tokens:
        return tokens
    repeats = tokens / text_tokens - 1
    return text_tokens * (1 + REPEATS_WORTH * (1 - math.exp(-repeats / REPEATS_WORTH)))


def tokens_worth(fresh: float, text_tokens: float) -> float:
    """Tokens of a text of `text_tokens` that teach as much as `fresh` ones read once; inf where none do."""
    if fresh <= text_tokens:
        return fresh
    left = 1 - (fresh / text_tokens - 1) / REPEATS_WORTH
    if left <= 0:
        return math.inf
    return text_tokens * (1 - REPEATS_WORTH * math.log(left))


_HOFFMANN_SIZES, _HOFFMANN_TOKENS = (70e6, 16e9), (5e9, 500e9)

PUBLISHED: dict[Published, Law] = {
    "besiroglu-2024": Law(
        name="besiroglu-2024",
        source="Besiroglu et al. 2024, arXiv 2404.10102: Hoffmann et al.'s third approach, fitted again",
        floor=1.8172,
        size_scale=482.01,
        data_scale=2085.43,
        size_exponent=0.3478,
        data_exponent=0.3658,
        sizes=_HOFFMANN_SIZES,
        tokens=_HOFFMANN_TOKENS,
    ),
    "hoffmann-2022": Law(
        name="hoffmann-2022",
        source="Hoffmann et al. 2022, arXiv 2203.15556, third approach as printed",
        floor=1.69,
        size_scale=406.4,
        data_scale=410.7,
        size_exponent=0.34,
        data_exponent=0.28,
        sizes=_HOFFMANN_SIZES,
        tokens=_HOFFMANN_TOKENS,
    ),
    "sardana-2024": Law(
        name="sardana-2024",
        source="Hoffmann et al. 2022 with exponents of three digits, 0.336 and 0.283: gives the figures of "
        "Sardana et al. 2024, arXiv 2401.00448",
        floor=1.69,
        size_scale=406.4,
        data_scale=410.7,
        size_exponent=0.336,
        data_exponent=0.283,
        sizes=_HOFFMANN_SIZES,
        tokens=_HOFFMANN_TOKENS,
    ),
}
