"""A domain beside general text: distances, chance, what a base makes of both, and the rule of what to expect.

Home of data.text_shift and data.base_shift.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from test_bits_per_byte import letters
from tiny_training import llama

from adaptkit import models
from adaptkit.cli import console
from adaptkit.cli.app import app
from adaptkit.data.base_shift import PASSAGE_BYTES, Reading, compare_states, cut_bytes, halves_noise
from adaptkit.data.shift import expect, measure_shift
from adaptkit.data.text_shift import (
    Distance,
    Estimate,
    Passages,
    Sides,
    by_document,
    compare_words,
    divergence,
    ratio,
    unshared_words,
)
from adaptkit.errors import ConfigError, DataError
from adaptkit.models.bits_per_byte import score_documents

WORDS = {
    "domain": ["dose", "trial", "arm", "placebo", "patients", "cohort", "serum", "lesion"],
    "general": ["river", "house", "letter", "garden", "winter", "music", "teacher", "market"],
}


def write(path: Path, kind: str, seed: int, number: int = 40) -> str:
    draw = random.Random(seed)
    rows = [{"text": " ".join(draw.choices(WORDS[kind], k=60)) + f" {i}."} for i in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def side(texts: list[str]) -> Passages:
    return Passages(texts, np.arange(len(texts)), ["file"] * len(texts), len(texts), sum(map(len, texts)))


def test_divergence_is_nothing_for_equal_shares_and_a_bit_for_nothing_shared() -> None:
    assert divergence(np.array([1.0, 3.0]), np.array([2.0, 6.0])) == pytest.approx(0.0, abs=1e-12)
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 5.0])) == pytest.approx(1.0)
    three_quarters = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert divergence(np.array([4.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(three_quarters - 0.5)


def test_words_that_are_not_shared_are_counted_among_those_that_occur() -> None:
    first, second = np.array([[5.0, 3.0, 1.0, 0.0]]), np.array([[4.0, 0.0, 0.0, 9.0]])
    assert unshared_words(first, second)[0] == pytest.approx(0.5)
    assert unshared_words(first, first)[0] == 0.0


def test_a_distance_stands_beside_what_chance_shows() -> None:
    rng = np.random.default_rng(5)
    alike = [rng.multinomial(50, [0.25] * 4, size=40).astype(float) for _ in range(2)]
    same = Sides(alike[0], alike[1], divergence).distance()
    assert not same.beyond and same.estimate.value == pytest.approx(same.chance, abs=2e-3)
    other = rng.multinomial(50, [0.7, 0.1, 0.1, 0.1], size=40).astype(float)
    apart = Sides(alike[0], other, divergence).distance()
    assert apart.beyond and apart.estimate.low > 10 * apart.chance


def test_sums_of_documents_and_ratios_hang_on_documents() -> None:
    assert by_document(np.array([1.0, 2.0, 4.0]), np.array([7, 7, 9])).tolist() == [3.0, 4.0]
    value, drawn = ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), np.array([0, 1, 2]))
    assert (value.value, value.low, value.high) == (0.5, 0.5, 0.5) and len(drawn) == 400
    spread, _ = ratio(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([0, 1]))
    assert spread.value == 1.0 and spread.low < 0.5 and spread.high > 1.5


def test_texts_of_one_source_differ_no_more_than_chance() -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS["general"], k=60)) for _ in range(80)]
    assert not any(of.beyond for of in compare_words(side(texts[:40]), side(texts[40:])))
    others = [" ".join(draw.choices(WORDS["domain"], k=60)) for _ in range(40)]
    vocabulary, pairs = compare_words(side(others), side(texts[:40]))
    assert vocabulary.estimate.value == 1.0 and pairs.estimate.value == pytest.approx(1.0)
    assert vocabulary.beyond and pairs.beyond


def test_halves_of_equal_documents_have_no_noise_and_states_a_distance() -> None:
    nats, sizes = np.full(40, 70.0), np.full(40, 100.0)
    assert halves_noise(Reading(nats, sizes, np.zeros((40, 2))), np.arange(40)) == 0.0
    uneven = np.where(np.arange(40) % 2, 70.0, 140.0)
    assert halves_noise(Reading(uneven, sizes, np.zeros((40, 2))), np.arange(40)) > 0.1
    signs = np.where(np.arange(40) % 2, 1.0, -1.0)
    first = Reading(None, sizes, np.stack([signs, np.zeros(40)], axis=1))
    second = Reading(None, sizes, np.stack([signs, np.full(40, 3.0)], axis=1))
    apart = compare_states(first, second, (side(["a"] * 40), side(["b"] * 40)))
    assert apart.estimate.value == pytest.approx(3.0) and apart.beyond


FAR, NEAR = (Distance(Estimate(0.5, 0.4, 0.6), 0.1, beyond) for beyond in (True, False))
WORSE, ALIKE = Estimate(0.3, 0.2, 0.4), Estimate(0.02, -0.1, 0.14)


@pytest.mark.parametrize(
    ("words", "gap", "documents", "says", "reason"),
    [
        (FAR, WORSE, 50, "likely", "the texts differ, and the base reads the domain worse"),
        (NEAR, ALIKE, 50, "unlikely", "the texts differ no more than chance, and the base reads both alike"),
        (FAR, ALIKE, 50, "cannot say", "it is not shown that the base reads the domain worse"),
        (NEAR, WORSE, 50, "cannot say", "the words differ no more than chance"),
        (FAR, WORSE, 19, "cannot say", "19 documents on one side are too few: 20 are needed"),
        (FAR, None, 50, "cannot say", "no base was given that predicts text"),
        (None, None, 50, "cannot say", "no general text was given to compare with"),
    ],
)
def test_the_rule(
    words: Distance | None, gap: Estimate | None, documents: int, says: str, reason: str
) -> None:
    expected = expect(words, gap, None if gap is None else 0.1, [documents, 60])
    assert expected.says == says and reason in expected.reason
    if gap is not None and documents >= 20:
        assert f"{gap.value:+.3f} bits per byte" in expected.reason and "noise 0.100" in expected.reason


def test_states_are_seen_beside_the_loss() -> None:
    model, seen = llama().eval(), {}

    def watch(documents: list[int], hidden_BTD: torch.Tensor, lengths: list[int]) -> None:
        for document, states_TD, length in zip(documents, hidden_BTD, lengths, strict=True):
            seen[document] = states_TD[:length]

    documents = [("a", "abc"), ("b", "abcdef 01")]
    rows = score_documents(model, letters(), documents, seq_len=32, watch=watch)
    assert rows == score_documents(model, letters(), documents, seq_len=32)
    assert [len(seen[number]) for number in range(2)] == [3, 9]


def test_a_passage_is_cut_between_letters() -> None:
    assert len(cut_bytes("x" * 999)) == PASSAGE_BYTES
    assert cut_bytes("\u00e9" * 999) == "\u00e9" * (PASSAGE_BYTES // 2)


def test_a_base_reads_both_sides(tmp_path: Path) -> None:
    base = tmp_path / "base"
    models.save(llama(), letters(), base)
    files = [write(tmp_path / f"{kind}.jsonl", kind, 1) for kind in WORDS]
    shift = measure_shift(files[:1], files[1:], base=base, num_passages=24)
    assert shift.gap is not None and shift.states is not None and shift.noise is not None
    assert shift.general is not None and shift.general.bits_per_byte is not None
    first, second = shift.domain.bits_per_byte, shift.general.bits_per_byte
    assert first is not None and shift.gap.value == pytest.approx(first.value - second.value)
    assert shift.domain.sampled == (
        "40 passages of 40 documents, from 40 rows; the base read the first 384 bytes of 24"
    )
    again = measure_shift(files[:1], files[1:], base=base, num_passages=24)
    assert again.gap == shift.gap and again.word_pairs == shift.word_pairs
    assert shift.word_pairs is not None and shift.word_pairs.beyond


def test_the_command_compares_texts_without_a_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain, general = write(tmp_path / "d.jsonl", "domain", 1), write(tmp_path / "g.jsonl", "general", 2)
    assert console.run(app, ["data", "shift", domain, "--general", general]) == 0
    shown = capsys.readouterr().out
    assert "frequent words not shared" in shown and "beyond chance" in shown
    assert "pretraining on this domain: cannot say: no base was given that predicts text" in shown
    assert console.run(app, ["data", "shift", domain, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["general"] is None and fields["expectation"]["says"] == "cannot say"
    with pytest.raises(DataError, match="nothing matches"):
        measure_shift(["nowhere.jsonl"])
    with pytest.raises(ConfigError, match="5 passages are too few"):
        measure_shift([domain], num_passages=5)
