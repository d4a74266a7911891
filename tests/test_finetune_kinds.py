"""Fine-tuning for several labels, spans, numbers and pairs: what is learnt, saved and answered again. Home
of finetune.task_protocol, finetune.label_sets, finetune.word_tags, finetune.predicted_scores,
finetune.text_pairs and data.annotated_rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_kinds import made_rows, write_rows
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    pipeline,
)

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.data import DataConfig, read, train_tokenizer
from adaptkit.data.annotated_rows import WordTokens, fit_pairs
from adaptkit.data.heldout import read_held_out
from adaptkit.data.readers import Row
from adaptkit.errors import DataError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.finetune.tasks import task_of
from adaptkit.finetune.word_tags import tell_cut_words
from adaptkit.run import Run, read_json, read_jsonl
from adaptkit.run_record import read_record
from adaptkit.trainer.config import TrainerConfig

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
KIND_OF = {
    "multi_label": "multi_label",
    "offsets": "spans",
    "tagged": "spans",
    "scored": "regression",
    "pairs": "pairs",
    "preference": "pairs",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Rows of every kind, and random bases: llama (causal) and bert (masked)."""
    root = tmp_path_factory.mktemp("kinds")
    texts = []
    for kind in KIND_OF:
        for part, count, seed in (("train", 240, 1), ("dev", 48, 2), ("test", 60, 3)):
            write_rows(root / f"{kind}.{part}.jsonl", kind, count, seed)
        texts += [" ".join(str(value) for value in row.values()) for row in made_rows(kind, 200)]
    for kind, config in (("causal", LlamaConfig), ("masked", BertConfig)):
        tokenizer = train_tokenizer(texts, "bpe", 500, masked=kind == "masked")
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        shape = config(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZES, **ids)
        models.save(models.build(shape, kind, seed=0), tokenizer, root / kind)
    return root


def trained(
    world: Path, folder: Path, rows: str, base: str = "masked", adapter: str = "none", steps: int = 80
):
    files = {
        part: DataConfig(files=[str(world / f"{rows}.{part}.jsonl")]) for part in ("train", "dev", "test")
    }
    trainer = TrainerConfig(
        num_steps=steps, global_batch_size=16, learning_rate=5e-3, schedule="linear", threads=1, select="best"
    )
    config = FinetuneConfig(
        base=str(world / base),
        kind=KIND_OF[rows],
        max_length=64,
        adapter=AdapterConfig(kind=adapter, rank=8),
        trainer=trainer,
        **files,
    )
    run = Run.open(folder / "runs", config.name, config.model_dump(mode="json"))
    return run, finetune(config, run)


def check_answers_again(run: Run) -> None:
    """The record, the rows that are kept and the saved model are enough to answer the items again."""
    record, held = read_record(run), read_held_out(run)
    model = models.load(run.model, record.model_kind)
    task = task_of(record, models.load_tokenizer(run.model))
    rows = {row["id"]: row for row in read_jsonl(run.items("task"))}
    assert task.rows(model, held.items) == [rows[row.id] for row in held.items.rows]


@pytest.mark.parametrize(("base", "adapter"), [("masked", "none"), ("causal", "lora")])
def test_several_labels_are_learnt_and_their_threshold_is_saved(world, tmp_path, base, adapter):
    run, result = trained(world, tmp_path, "multi_label", base, adapter, steps=150)
    assert result.scores["micro_f1"] > 0.8 and result.dev_scores["micro_f1"] > 0.8
    config = read_json(run.model / "config.json")
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "care", "1": "cost", "2": "speed"}
    threshold = config["decision_threshold"]
    assert 0 < threshold < 1 and read_record(run).facts["decision_threshold"] == threshold
    served = AutoModelForSequenceClassification.from_pretrained(run.model)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    rows = {row["id"]: row for row in read_jsonl(run.items("task"))}
    for row in read(DataConfig(files=[str(world / "multi_label.test.jsonl")]), "multi_label").rows[:10]:
        with torch.no_grad():
            chances = served(**tokenizer(row.text, return_tensors="pt")).logits[0].sigmoid()
        applies = [served.config.id2label[i] for i, p in enumerate(chances) if p >= threshold]
        assert applies == rows[row.id]["predicted_labels"]
    check_answers_again(run)


@pytest.mark.parametrize(
    ("rows", "base", "adapter"),
    [("offsets", "masked", "none"), ("tagged", "masked", "lora"), ("offsets", "causal", "none")],
)
def test_spans_are_learnt_and_a_pipeline_finds_them(world, tmp_path, rows, base, adapter):
    run, result = trained(world, tmp_path, rows, base, adapter, steps=150)
    assert result.scores["entity_f1"] > 0.8
    config = read_json(run.model / "config.json")
    assert config["id2label"]["0"] == "O" and set(config["label2id"]) == {
        *("O", "B-person", "I-person", "B-place", "I-place")
    }
    assert read_record(run).model_kind == "tagger"
    AutoModelForTokenClassification.from_pretrained(run.model)
    find = pipeline("token-classification", model=str(run.model), aggregation_strategy="first")
    items = {row["id"]: row for row in read_jsonl(run.items("task"))}
    data = read(DataConfig(files=[str(world / f"{rows}.test.jsonl")]), "spans")
    agreeing = 0
    for row in data.rows[:20]:
        found = [[part["start"], part["end"], part["entity_group"]] for part in find(row.text)]
        stripped = [[start + (row.text[start] == " "), end, label] for start, end, label in found]
        agreeing += stripped == items[row.id]["predicted_spans"]
    assert agreeing >= 17
    check_answers_again(run)


@pytest.mark.parametrize(
    ("base", "adapter"), [("masked", "none"), ("causal", "lora"), ("causal", "none"), ("causal", "qlora")]
)
def test_numbers_are_learnt_and_answered_on_their_own_scale(world, tmp_path, base, adapter):
    run, result = trained(world, tmp_path, "scored", base, adapter, steps=150)
    assert result.scores["spearman"] > 0.8 and result.scores["mae"] < 8
    config = read_json(run.model / "config.json")
    assert config["problem_type"] == "regression" and config["id2label"] == {"0": "score"}
    served = AutoModelForSequenceClassification.from_pretrained(run.model)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    rows = {row["id"]: row for row in read_jsonl(run.items("task"))}
    for row in read(DataConfig(files=[str(world / "scored.test.jsonl")]), "scored").rows[:5]:
        with torch.no_grad():
            number = served(**tokenizer(row.text, return_tensors="pt")).logits[0, 0]
        assert float(number) == pytest.approx(rows[row.id]["predicted_score"], abs=0.01)
    check_answers_again(run)


@pytest.mark.parametrize("rows", ["pairs", "preference"])
def test_pairs_are_learnt(world, tmp_path, rows):
    run, result = trained(world, tmp_path, rows, steps=200 if rows == "preference" else 40)
    labels = {"pairs": ["other", "same"], "preference": ["first", "second"]}[rows]
    assert read_record(run).facts["labels"] == labels
    if rows == "preference":
        assert result.scores["accuracy"] > 0.8
    check_answers_again(run)


def test_a_word_goes_by_its_first_token_and_one_without_goes_on(world):
    tokenizer = models.load_tokenizer(world / "masked")
    row = Row({"text": "bob saw new york.", "spans": []}, "x:1", "1")
    tokens = WordTokens(row, tokenizer, 64)
    assert [row.text[a:b] for a, b in tokens.words] == ["bob", "saw", "new", "york", "."]
    for place, (start, _) in zip(tokens.places, tokens.words, strict=True):
        piece = tokenizer.convert_ids_to_tokens(tokens.ids[place]).lstrip("\u0120")
        assert row.text[start:].startswith(piece)
    short = WordTokens(row, tokenizer, len(tokens.ids) - 2)
    assert short.places[-1] is None and len(short.ids) == len(tokens.ids) - 2
    assert short.ids[-1] == tokens.ids[-1], "the closing token stays"


def test_of_a_long_pair_both_texts_are_cut(world, tmp_path):
    tokenizer = models.load_tokenizer(world / "masked")
    long = {"text_a": "invoice " * 90, "text_b": "slow " * 60, "label": "same"}
    short = {"text_a": "bob", "text_b": "slow " * 90, "label": "other"}
    path = tmp_path / "long.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (long, short)))
    data = read(DataConfig(files=[str(path)]), "labelled_pairs")
    fitting, lengths = fit_pairs(data, tokenizer, 40)
    assert all(length > 40 for length in lengths)
    first, second = fitting.rows
    assert first.values["text1"].count("invoice") >= 5 and first.values["text2"].count("slow") >= 5
    assert second.values["text1"] == "bob" and second.values["text2"].count("slow") >= 15
    assert all(len(tokenizer(row.text)["input_ids"]) <= 40 for row in fitting.rows)


@pytest.mark.parametrize(
    ("rows", "values", "said"),
    [
        ("multi_label", {"text": "a", "labels": []}, "no training row has a label"),
        ("offsets", {"text": "a", "spans": []}, "no training row has a span"),
        ("scored", {"text": "a", "score": 3}, "every training row has the score 3"),
    ],
)
def test_rows_that_nothing_can_be_learnt_from_are_refused(world, tmp_path, rows, values, said):
    for part in ("train", "dev"):
        lines = [{**values, "text": f"{part} {i}"} for i in range(20)]
        (tmp_path / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    files = {part: DataConfig(files=[str(tmp_path / f"{part}.jsonl")]) for part in ("train", "dev")}
    config = FinetuneConfig(base=str(world / "masked"), kind=KIND_OF[rows], **files)
    with pytest.raises(DataError, match=said) as error:
        finetune(config, Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json")))
    assert error.value.where == f"{tmp_path / 'train.jsonl'}:1"


def test_a_label_that_only_test_rows_have_is_named_with_its_row(world, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "x", "labels": ["cost", "colour"]}\n')
    files = {part: DataConfig(files=[str(world / f"multi_label.{part}.jsonl")]) for part in ("train", "dev")}
    config = FinetuneConfig(
        base=str(world / "masked"), kind="multi_label", test=DataConfig(files=[str(path)]), **files
    )
    with pytest.raises(DataError, match="label 'colour' stands in 1 row of test") as error:
        finetune(config, Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json")))
    assert error.value.where == f"{path}:1"


def test_spans_that_cut_words_are_counted_and_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("adaptkit.finetune.word_tags.tell", said.append)
    rows = [{"text": "forty5mg twice", "spans": [{"start": 5, "end": 8, "label": "dose"}]}]
    rows.append({"text": "5 mg twice", "spans": [{"start": 0, "end": 4, "label": "dose"}]})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tell_cut_words(read(DataConfig(files=[str(path)]), "spans"))
    what = f"1 of 2 spans begin or end inside a word (the first at {path}:1)"
    assert said == [f"{what}: they are learnt as whole words, and are only found so"]
