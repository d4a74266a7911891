"""Words of every script: scores, baselines and overlap against plain references. Home of data.words."""

from __future__ import annotations

import random
import re
import unicodedata

import bm25s
import pytest
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given, settings
from hypothesis import strategies as st
from many_scripts import SCRIPTS
from sklearn.feature_extraction.text import TfidfVectorizer
from test_data_overlap import dataset

from adaptkit.data import words as splitter
from adaptkit.data.cutting import cut_overlap
from adaptkit.data.dedup import deduplicate
from adaptkit.data.ngrams import Novelty
from adaptkit.data.overlap import overlap
from adaptkit.data.words import (
    first_words,
    fold,
    index_terms,
    num_words,
    units_per_word,
    word_starts,
    words,
    words_as_written,
)
from adaptkit.study import scores

ascii_text = st.text(st.characters(max_codepoint=127, categories=["L", "N", "P", "S", "Zs"]), max_size=60)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scripts = st.sampled_from(sorted(SCRIPTS))


def plain_words(text: str) -> list[str]:
    """Words by a loop over characters: letters and digits with their marks; alone where no blanks are."""
    blankless = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
    parts: list[str] = []
    open_word = False
    for letter in unicodedata.normalize("NFKC", text).casefold():
        if unicodedata.category(letter)[0] == "M":
            if parts:
                parts[-1] += letter
        elif not letter.isalnum():
            open_word = False
        elif unicodedata.name(letter, "").startswith(blankless) and not letter.isdecimal():
            parts.append(letter)
            open_word = False
        elif open_word:
            parts[-1] += letter
        else:
            parts.append(letter)
            open_word = True
    return parts


def plain_rouge(left: list[str], right: list[str]) -> float:
    rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
    return 2 * rows[-1][-1] / (len(left) + len(right)) if rows[-1][-1] else 0.0


@settings(max_examples=100, deadline=None)
@given(scripts, scripts, st.integers(0, 2**31))
def test_rouge_l_of_every_script_equals_a_plain_table(one: str, other: str, seed: int) -> None:
    rng = random.Random(seed)
    script, shared = SCRIPTS[one], SCRIPTS[one].words(rng, 4)
    left = f"{script.blank.join([*shared, *script.words(rng, 3)])} {SCRIPTS[other].text(rng, 3)}"
    right = f"{script.blank.join([*script.words(rng, 2), *shared])} 12 {SCRIPTS[other].text(rng, 2)}"
    assert words(left) == plain_words(left)
    expected = plain_rouge(plain_words(left), plain_words(right))
    assert scores.rouge_l([left], [right]) == pytest.approx(expected)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_answer_scores_one_and_another_less(name: str) -> None:
    script, rng = SCRIPTS[name], random.Random(1)
    text, other = script.text(rng, 30), script.text(rng, 30)
    for form in ("NFC", "NFD", "NFKD"):
        written = unicodedata.normalize(form, text)
        assert scores.rouge_l([written], [text]) == scores.exact_match([written], [text]) == 1.0
    assert scores.rouge_l([other], [text]) < 0.5 and scores.exact_match([other], [text]) == 0.0
    assert scores.exact_match([f"\u300c{text}\u300d \u2026"], [text]) == 1.0


@pytest.mark.parametrize(
    ("left", "right", "score"),
    [
        ("sch\u00f6n fertig", "schon fertig", 0.5),
        ("sch\u00f6n fertig", "sch n fertig", 0.4),
        ("scho\u0308n", "SCH\u00d6N", 1.0),
        ("\uff21\uff22 \uff11", "ab 1", 1.0),
        ("\u0130zmir", "izmir", 1.0),
        ("\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0645\u06cc\u0631\u0648\u062f", 1.0),
        ("\u0661\u0662\u0663", "\u0661\u0662\u0663", 1.0),
        ("\u0661\u0662\u0663", "\u0661\u0662\u0664", 0.0),
        ("\U0001f642", "\U0001f642", 1.0),
        ("\U0001f642", "\U0001f641", 0.0),
        ("\u2764\ufe0f ok", "\u2764 OK", 1.0),
        ("\uff83\uff9e\uff70\uff80", "\u30c7\u30fc\u30bf", 1.0),
    ],
)
def test_rouge_l_by_hand(left: str, right: str, score: float) -> None:
    assert scores.rouge_l([left], [right]) == pytest.approx(score)


def test_exact_match_knows_the_punctuation_of_other_scripts() -> None:
    pairs = [
        ("\u4f60\u597d\uff0c \u4e16\u754c\uff01", "\u4f60\u597d\u4e16\u754c"),
        ("\u00abThe \u0434\u0430\u00bb.", "\u0434\u0430"),
        ("\u0939\u093e\u0901\u0964", "\u0939\u093e\u0901"),
        ("\u061f\u0646\u0639\u0645", "\u0646\u0639\u0645"),
    ]
    assert [scores.exact_match([left], [right]) for left, right in pairs] == [1.0] * 4
    assert scores.exact_match(["a\u0331 b"], ["b"]) == 0.0, "a letter with a mark is no article"


@settings(max_examples=200, deadline=None)
@given(ascii_text)
def test_words_of_ascii_are_those_of_the_references(text: str) -> None:
    assert words(text.replace("_", " ")) == re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
    terms = index_terms(text)
    assert terms == TfidfVectorizer().build_analyzer()(text)
    tokens = bm25s.tokenize([text], stopwords="en", return_ids=False, show_progress=False)[0]
    assert [word for word in terms if word not in STOPWORDS_EN] == tokens
    assert num_words(text) == len(text.split())
    assert first_words(text, 3).split() == text.split()[:3]


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_words_of_any_text_have_their_places(text: str) -> None:
    written, starts = words_as_written(text), word_starts(text)
    assert len(words(text)) == len(written) == len(starts)
    assert [fold(word) for word in written] == words(text)
    for word, start in zip(written, starts, strict=True):
        assert fold(text[start : start + len(word)]) == fold(word)
    assert num_words(first_words(text, 2)) <= 2 and text.split()[:1] >= first_words(text, 2).split()[:1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_text_is_as_long_as_its_script_makes_it(name: str) -> None:
    script, rng = SCRIPTS[name], random.Random(2)
    assert {units_per_word(word) for word in words(script.text(rng, 20))} == {script.as_english}
    if script.as_english > 1:
        letters = "".join(rng.choices(script.letters, k=40 * script.as_english))
        assert num_words(letters) == 40
        assert len(first_words(letters, 10)) == 10 * script.as_english
        assert index_terms(letters) == [fold(letter) for letter in letters]


def planted(name: str) -> tuple[list[str], list[str], list[str]]:
    """40 test passages, training texts that hold each of them verbatim, and 40 unrelated passages."""
    script, rng = SCRIPTS[name], random.Random(3)

    def passage(size: int) -> str:
        return script.text(rng, size)

    items = [passage(40) for _ in range(40)]
    joint = " " if script.blank == " " else ""
    train = [joint.join([passage(60), item, passage(60)]) for item in items]
    return items, train, [passage(40) for _ in range(40)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_overlap_is_found_and_cut_in_every_script(name: str) -> None:
    items, train, unrelated = planted(name)
    report = overlap(dataset(train, "train"), dataset(items, "test"))
    assert len(report.contaminated) == len(report.train_ids) == 40
    assert not overlap(dataset(unrelated, "train"), dataset(items, "test")).num_touched
    tests = {"t": dataset(items, "test").rows}
    cut, removals = cut_overlap(dataset(train, "train"), tests)
    assert removals["t"].num_rows == 40
    assert not overlap(cut, dataset(items, "test")).contaminated
    assert cut.num_bytes > 0.4 * sum(len(text.encode()) for text in train), (
        "what surrounds the passages stays"
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_shared_name_is_no_overlap_but_a_shared_sentence_is(name: str) -> None:
    script, rng = SCRIPTS[name], random.Random(4)

    def text(count: int) -> str:
        if script.as_english > 1:
            return "".join(rng.choices(script.letters, k=count * script.as_english))
        return script.blank.join(script.words(rng, count))

    if script.word[1] < 2:
        return
    for shared_words, share in ((9, 0), (15, 1)):
        shared = text(shared_words)
        item = script.blank.join([text(30), shared, text(30)])
        train = script.blank.join([text(50), shared, text(50)])
        found = overlap(dataset([train], "train"), dataset([item], "test"))
        assert len(found.contaminated) == share


@pytest.mark.parametrize("name", SCRIPTS)
def test_near_duplicates_and_novelty_in_every_script(name: str) -> None:
    script, rng = SCRIPTS[name], random.Random(5)
    texts = [script.text(rng, 200) for _ in range(30)]
    near = [f"{script._word(rng)}{script.blank}{text}{script.blank}{script._word(rng)}" for text in texts]
    kept, report = deduplicate(dataset([*texts, *near]))
    assert (report.num_near, len(kept.rows)) == (30, 30)
    assert deduplicate(dataset(texts))[1].num_near == 0
    novel = Novelty()
    assert all(map(novel, texts)) and not any(map(novel, near))


def test_mixed_text_is_found_where_no_run_of_one_script_fits() -> None:
    rng = random.Random(6)
    for size in (5, 6, 8, 10, 20):
        for _ in range(10):
            parts = [SCRIPTS[name].text(rng, size) for name in ("chinese", "latin", "thai")]
            rng.shuffle(parts)
            item = " ".join(parts)
            before, after = SCRIPTS["chinese"].text(rng, 50), SCRIPTS["latin"].text(rng, 50)
            found = overlap(dataset([f"{before}{item} {after}"], "train"), dataset([item], "test"))
            assert len(found.contaminated) == 1


@given(
    st.text(max_size=60)
    | st.text("ab\u00e9\u0301\u4e00\u0e01\u2600\ufe0f\u200d \n\u2028\u0130_1", max_size=60)
)
def test_the_quick_pattern_finds_the_words_of_the_whole_one(text):
    slow = splitter._pattern()
    if not text.isascii():
        assert words_as_written(text) == slow.findall(text)
        assert word_starts(text) == [match.start() for match in slow.finditer(text)]
