"""Sentences that differ in a word, and word lists, asked of tiny models and of made-up numbers. Home of
audit.bias, audit.bias_record, audit.sentence_sets, audit.sentence_gaps, audit.word_association and
models.sentence_likelihood."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tiny_architectures
import torch
from scipy.stats import permutation_test

from adaptkit import models
from adaptkit.audit.bias import audit_bias, audit_run_bias
from adaptkit.audit.bias_record import BiasRecord, read_bias, write_bias
from adaptkit.audit.sentence_gaps import sentence_gaps
from adaptkit.audit.sentence_sets import SentenceSets, read_sentence_sets
from adaptkit.audit.subjects import Subject
from adaptkit.audit.word_association import (
    WordTest,
    associations,
    effect_size,
    effect_table,
    least_p,
    permutation_p,
    read_word_test,
)
from adaptkit.embed.encoder import Encoder
from adaptkit.errors import ConfigError, DataError, ModelError
from adaptkit.models.control_tokens import frame
from adaptkit.models.sentence_likelihood import sentence_likelihoods
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord

TEXTS = [
    f"The trial in {place} was {size}."
    for place in ("Norway", "Spain", "Japan")
    for size in ("large", "small")
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tokenizers = tiny_architectures.make_tokenizers(TEXTS)
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_architectures.make_folder(name, tokenizers, root) for name in ("llama", "bert")}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"first": f"The trial in Spain was {end}.", "second": f"The trial in Norway was {end}."}
        for end in ("large", "small", "in Japan", "the large trial")
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def test_a_causal_model_is_asked_for_each_token_given_those_before(folders: dict[str, Path]) -> None:
    model, tokenizer = models.load(folders["llama"], "causal").eval(), models.load_tokenizer(folders["llama"])
    for text, found in zip(TEXTS[:3], sentence_likelihoods(model, tokenizer, TEXTS[:3]), strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0].double()
        wanted = [float(logits[i].log_softmax(-1)[token]) for i, token in enumerate(ids)]
        assert found.tokens == ids and found.nats == pytest.approx(wanted, abs=1e-4)


def test_a_masked_model_is_asked_for_each_token_with_that_one_masked(folders: dict[str, Path]) -> None:
    model, tokenizer = models.load(folders["bert"], "masked").eval(), models.load_tokenizer(folders["bert"])
    before, behind = frame(tokenizer)
    assert len(before) == len(behind) == 1
    for text, found in zip(TEXTS[:2], sentence_likelihoods(model, tokenizer, TEXTS[:2]), strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for place, token in enumerate(ids):
            row = [*before, *ids[:place], tokenizer.mask_token_id, *ids[place + 1 :], *behind]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([row])).logits[0, 1 + place].double()
            assert found.nats[place] == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)


def test_a_document_is_no_sentence(folders: dict[str, Path]) -> None:
    model, tokenizer = models.load(folders["llama"], "causal"), models.load_tokenizer(folders["llama"])
    with pytest.raises(DataError, match="can be read"):
        sentence_likelihoods(model, tokenizer, ["The trial was large. " * 200])


def test_what_stands_around_a_word_does_not_count_the_word(folders: dict[str, Path]) -> None:
    model, tokenizer = models.load(folders["llama"], "causal"), models.load_tokenizer(folders["llama"])
    last = SentenceSets(("first", "second"), (("was in Spain", "was in Norway"),), ("a",))
    gaps = sentence_gaps(model, tokenizer, last)
    assert gaps.whole_UK[0, 0] != 0 and gaps.whole_UK[0, 0] == -gaps.whole_UK[0, 1]
    assert (
        abs(gaps.around_UK[0, 0]) < 1e-6
    )  # a causal model has read what stands before it, and no more follows
    words = ("Norway", "Spain", "Japan")
    three = SentenceSets(words, (tuple(f"In {word} the trial was large." for word in words),), ("a",))
    gaps = sentence_gaps(model, tokenizer, three)
    found = sentence_likelihoods(model, tokenizer, three.sentences[0])
    totals = np.array([each.nats.sum() for each in found]) / math.log(2)
    assert gaps.whole_UK[0, 0] == pytest.approx(totals[0] - totals[1:].mean(), abs=1e-6)
    tail = len(tokenizer(" the trial was large.", add_special_tokens=False)["input_ids"])
    ends = np.array([each.nats[-tail:].sum() for each in found]) / math.log(2)
    assert gaps.around_UK[0, 0] == pytest.approx(ends[0] - ends[1:].mean(), abs=1e-5)


def test_pairs_and_templates_are_read_and_faults_are_placed(tmp_path: Path) -> None:
    file = tmp_path / "sets.csv"
    file.write_text(
        "first,second,template,words,group\n"
        ",,In {group} it rained.,Oslo|Rome,\n"
        "It rained.,It snowed.,,,a\nIt rains.,It snows.,,,b\n"
        ",,It rained in {group}.,Oslo|Rome,\n"
    )
    first, second = read_sentence_sets(file)
    assert (
        first.are_pairs
        and first.clusters == ("a", "b")
        and first.sentences[0] == ("It rained.", "It snowed.")
    )
    assert second.words == ("Oslo", "Rome") and second.sentences[1] == (
        "It rained in Oslo.",
        "It rained in Rome.",
    )
    assert second.num_clusters == 2
    faults = {
        '{"first": "one", "second": "one"}': "both sentences are the same",
        '{"first": "one"}': "neither a pair of sentences nor a template",
        '{"template": "In it", "words": ["a", "b"]}': "has no {group}",
        '{"template": "In {group}", "words": ["a", "a"]}': "'a' is given twice",
        '{"template": "In {group}", "words": ["a"]}': "two words or more",
        '{"template": "In {group}", "words": ["a", "b"]}': "nothing says how much they vary",
    }
    for line, what in faults.items():
        file = tmp_path / "fault.jsonl"
        file.write_text(line + "\n")
        with pytest.raises(DataError, match=what) as told:
            read_sentence_sets(file)
        assert str(file) in str(told.value)


def test_the_effect_and_its_p_are_those_of_the_literature() -> None:
    s = np.array([0.9, 0.7, 0.8, 0.4, 0.1, 0.3, 0.5, 0.2])
    spread = s.std(ddof=1)
    assert effect_size(s, 4) == pytest.approx((s[:4].mean() - s[4:].mean()) / spread)
    assert effect_table(s, 4).value == pytest.approx(effect_size(s, 4))
    known = permutation_test(
        (s[:4], s[4:]),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        vectorized=True,
        n_resamples=10_000,
    )
    assert permutation_p(s, 4) == pytest.approx(float(known.pvalue), abs=1e-12)
    assert permutation_p(np.sort(s)[::-1], 4) == pytest.approx(least_p(4, 4)) == 2 / 70
    assert least_p(2, 3) == 1 / 10 and least_p(10, 10) == 1 / 20_001
    rng = np.random.default_rng(0)
    many = rng.normal(size=24)
    assert permutation_p(many, 12) == permutation_p(many, 12) > 0.01
    assert permutation_p(many + np.repeat([3.0, 0.0], 12), 12) < 0.001
    small = [permutation_p(rng.normal(size=10), 5) <= 0.05 for _ in range(400)]
    assert np.mean(small) < 0.08  # 252 deals: 12 of them are the nominal 4.8 %


def test_words_that_share_tokens_with_attributes_lie_nearer_to_them(folders: dict[str, Path]) -> None:
    test = WordTest(
        targets={"x": ["large", "large trial"], "y": ["small", "small trial"]},
        attributes={"a": ["large large", "large"], "b": ["small small", "small"]},
        templates=["The trial was {word}.", "In Spain it was {word}"],
    )
    found = associations(Encoder.load(folders["bert"]), test)
    assert set(found) == {"words", "sentences"} and found["words"].shape == (4,)
    assert effect_size(found["words"], 2) > 1 and effect_size(found["sentences"], 2) > 0.5
    plain = test.model_copy(update={"templates": []})
    assert set(associations(Encoder.load(folders["bert"]), plain)) == {"words"}


def test_four_lists_are_checked(tmp_path: Path) -> None:
    good = "targets: {n: [Oslo, Bergen], s: [Rome, Milan]}\nattributes: {a: [good, fine], b: [bad, poor]}\n"
    file = tmp_path / "lists.yaml"
    file.write_text(good + "templates: ['It was {word}.']\n")
    assert read_word_test(file).second == ["Rome", "Milan"]
    faults = {
        good.replace(", s: [Rome, Milan]", ""): "two lists",
        good.replace("Rome", "Oslo"): "both lists of targets",
        good.replace("[bad, poor]", "[bad]"): "needs 2 words",
        good + "templates: [It was]\n": "needs {word}",
    }
    for text, what in faults.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=what):
            read_word_test(file)


def test_models_are_asked_side_by_side_and_what_was_found_is_kept(
    folders: dict[str, Path], pairs: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "lists.yaml"
    lists.write_text(
        "targets: {n: [Norway, Japan], s: [Spain, large]}\nattributes: {a: [large, trial], b: [small, in]}\n"
    )
    same = [Subject("base", "", (folders["llama"],)), Subject("own", "", (folders["llama"],) * 2)]
    record = audit_bias(same, pairs=pairs, words=lists, control="base")
    (sets,) = record.sentences
    first, second = sets.gaps
    assert (first.subject, second.subject, sets.num_sets) == ("base", "own", 4) and first.change is None
    assert second.change is not None and second.change.mean == second.change.low == second.change.high == 0
    assert first.around.low < first.around.mean < first.around.high and sets.level == 0.95
    assert first.likelier.high - first.likelier.low > 0.5  # four pairs say little
    run = Run(tmp_path / "own-00000000")
    assert read_bias(run) is None
    write_bias(run, record)
    assert read_bias(run) == record
    alone = audit_bias(same, words=lists, control="base")
    assert not alone.sentences and alone.words[0].least_p == pytest.approx(1 / 3)
    assert alone.words[0].found[0].p >= 1 / 3 - 1e-9 and len(alone.words[0].found) == 2
    assert write_bias(run, alone).sentences == record.sentences  # what was not asked again stays
    assert isinstance(read_bias(run), BiasRecord)


def test_a_run_without_sentences_or_a_language_model_is_refused(
    folders: dict[str, Path], pairs: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "queue-00000000")
    record = RunRecord(recipe=RecipeKind.FINETUNE, model_kind="classifier", task="queue", suite="queue")
    run.update_manifest(name="queue")
    run.finish(record=record.model_dump(mode="json"))
    with pytest.raises(DataError, match="needs sentences or words of yours"):
        audit_run_bias(run)
    with pytest.raises(DataError, match="kept no model"):
        audit_run_bias(run, pairs=pairs)
    model, tokenizer = (
        models.load(folders["bert"], "classifier", num_labels=2),
        models.load_tokenizer(folders["bert"]),
    )
    models.save(model, tokenizer, run.model)
    with pytest.raises(ModelError, match="a classifier gives no likelihood of a sentence"):
        audit_run_bias(run, pairs=pairs)
