"""Which words lie nearer to which in a model: the tests WEAT and SEAT, with permutation p.

    test = read_word_test(Path("regions.yaml"))
    found = associations(encoder, test)           # of words, and of sentences where there are templates
    effect_table(found["words"], test).value, permutation_p(found["words"], len(test.first))

WEAT (Caliskan et al. 2017, arXiv 1608.07187): s(w) is the mean cosine of a target word w with one list of
attributes, less that with the other. The effect is the mean s of the first targets less that of the second,
in standard deviations of s over all targets. A word is the mean of the input embeddings of its tokens.
SEAT (May et al. 2019, arXiv 1903.10561) does the same with sentences that hold the words, through the whole
model; s is then averaged over the sentences of a word, so that words, not sentences, are permuted.

Shape letters: W target words, S sentences of a word, D size of a vector.
"""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from adaptkit.config import Config, load
from adaptkit.data.score_table import ScoreTable, mean_table
from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from adaptkit.embed.encoder import Encoder

SLOT = "{word}"
MOST_PARTITIONS = 20_000
"""Counted one by one up to here; beyond, as many are drawn."""
MIN_WORDS = 2
"""Of each list: fewer have no spread."""


class WordTest(Config):
    """A file of four word lists."""

    targets: dict[str, list[str]]
    """Two names of groups, each with its words."""
    attributes: dict[str, list[str]]
    """Two names of what they may be near to, each with its words."""
    templates: list[str] = Field([], max_length=100)
    """Sentences with {word} for a word, such as "This is {word}."; without any, only words are compared."""

    @model_validator(mode="after")
    def _two_lists_each(self) -> WordTest:
        for name, lists in (("targets", self.targets), ("attributes", self.attributes)):
            if len(lists) != 2:
                raise ValueError(f"{name} are two lists, each with a name, and {len(lists)} are given")
            if any(len(set(words)) < MIN_WORDS or len(set(words)) < len(words) for words in lists.values()):
                raise ValueError(f"each list of {name} needs {MIN_WORDS} words or more, each once")
        if both := set(self.first) & set(self.second):
            raise ValueError(f"'{min(both)}' is in both lists of targets")
        if any(SLOT not in template for template in self.templates):
            raise ValueError(f"each template needs {SLOT} where the word goes")
        return self

    @property
    def first(self) -> list[str]:
        return next(iter(self.targets.values()))

    @property
    def second(self) -> list[str]:
        return list(self.targets.values())[1]


def read_word_test(path: Path) -> WordTest:
    """Four word lists from YAML.

    Raises: ConfigError at `file:line:column` for what does not fit.
    """
    return load(WordTest, path).config


def associations(encoder: Encoder, test: WordTest) -> dict[str, np.ndarray]:
    """s of each target word [W], the first list first: of `words`, and with templates of `sentences`."""
    lists = [*test.first, *test.second], *test.attributes.values()
    found = {"words": _differences(*(_word_vectors(encoder, words)[:, None] for words in lists))}
    if test.templates:
        parts = (_sentence_vectors(encoder, words, test.templates) for words in lists)
        found["sentences"] = _differences(*parts)
    return found


def _differences(targets_WSD: np.ndarray, near_WSD: np.ndarray, far_WSD: np.ndarray) -> np.ndarray:
    """Mean cosine with one list less that with the other, [W]."""
    near_D, far_D = (part.reshape(-1, part.shape[-1]).mean(axis=0) for part in (near_WSD, far_WSD))
    return (targets_WSD @ (near_D - far_D)).mean(axis=1)


def _word_vectors(encoder: Encoder, words: list[str]) -> np.ndarray:
    """Unit vectors: the mean of the input embeddings of a word's tokens, as it stands behind a blank."""
    embeddings = encoder.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    tokens = encode(encoder.tokenizer, [f" {word}" for word in words], special=False)
    return _unit(np.stack([embeddings[ids].mean(axis=0) for ids in tokens]))


def _sentence_vectors(encoder: Encoder, words: list[str], templates: list[str]) -> np.ndarray:
    texts = [template.replace(SLOT, word) for word in words for template in templates]
    vectors = _unit(encoder.encode(texts, prompt=""))
    return vectors.reshape(len(words), len(templates), -1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)


def effect_size(s_W: np.ndarray, num_first: int) -> float:
    """Difference of the means of both target lists in standard deviations of all; 0 where there are none."""
    spread = float(s_W.std(ddof=1))
    if spread < 1e-12:
        return 0.0
    return float(s_W[:num_first].mean() - s_W[num_first:].mean()) / spread


def effect_table(s_W: np.ndarray, num_first: int) -> ScoreTable:
    """The effect as what each target word does to it: its jackknife values, whose mean is the effect."""
    whole, size = effect_size(s_W, num_first), len(s_W)
    without = np.array([effect_size(np.delete(s_W, w), num_first - (w < num_first)) for w in range(size)])
    return mean_table((whole + (size - 1) * (without.mean() - without)).tolist())


def permutation_p(s_W: np.ndarray, num_first: int, seed: int = 0) -> float:
    """How often words that are dealt to both lists at random lie as far apart as these: two-sided."""
    total, observed = s_W.sum(), abs(s_W[:num_first].mean() - s_W[num_first:].mean())
    if math.comb(len(s_W), num_first) <= MOST_PARTITIONS:
        dealt = np.array(list(combinations(range(len(s_W)), num_first)))
        drawn = 0
    else:
        rng = np.random.default_rng(seed)
        dealt = rng.permuted(np.tile(np.arange(len(s_W)), (MOST_PARTITIONS, 1)), axis=1)[:, :num_first]
        drawn = 1  # the lists as they are count as one of the deals
    sums = s_W[dealt].sum(axis=1)
    apart = np.abs(sums / num_first - (total - sums) / (len(s_W) - num_first))
    return float((np.sum(apart >= observed - 1e-9) + drawn) / (len(dealt) + drawn))


def least_p(num_first: int, num_second: int) -> float:
    """The smallest p that so many words can give."""
    partitions = math.comb(num_first + num_second, num_first)
    if partitions > MOST_PARTITIONS:
        return 1 / (MOST_PARTITIONS + 1)
    return (1 + (num_first == num_second)) / partitions
