"""Rows that say how likely each label is: read, and learnt by a classification head. Home of
finetune.soft_labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_rows import dataset
from torch import Tensor, nn

from adaptkit import models
from adaptkit.data import DataConfig, LabelledRows, read, train_tokenizer
from adaptkit.data.readers import Dataset
from adaptkit.errors import DataError
from adaptkit.finetune.soft_labels import SoftLabelledRows, has_soft_labels
from adaptkit.finetune.task_protocol import Classify
from adaptkit.trainer.objective import Classification

TEXTS = ["one apple", "an old saw", "a pear and a drill", "plums"]
LABELS = ["fruit", "tool", "tool", "fruit"]
SOFT = [{"fruit": 1.0, "tool": 0.0}, {"tool": 1.0}, {"fruit": 0.4, "tool": 0.6}, None]


def rows(soft: bool) -> Dataset:
    lines = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    if soft:
        lines = [
            {**line, "label_probabilities": chances}
            for line, chances in zip(lines, SOFT, strict=True)
            if chances
        ] + lines[3:]
    return dataset(lines, "labelled")


@pytest.fixture(scope="module")
def classifier() -> tuple[Classify, nn.Module]:
    """A tiny classifier of two labels, and its task."""
    from transformers import BertConfig

    tokenizer = train_tokenizer(TEXTS * 20, "bpe", 300, masked=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = models.build(config, "classifier", seed=0).eval()
    return Classify(tokenizer, ["fruit", "tool"], 32, 0), model


def gradient(task: Classify, model: nn.Module, data: Dataset, indices: list[int]) -> tuple[float, Tensor]:
    model.zero_grad()
    out = task.objective().loss(model, task.source(data).collate(indices, seed=0, epoch=0))
    out.total.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(out.total.detach()), torch.cat(grads)


def test_rows_that_are_sure_teach_what_their_label_does(classifier: tuple[Classify, nn.Module]) -> None:
    task, model = classifier
    sure = [0, 1, 3]
    hard, soft = gradient(task, model, rows(False), sure), gradient(task, model, rows(True), sure)
    assert hard[0] == pytest.approx(soft[0], rel=1e-6) and torch.allclose(hard[1], soft[1], atol=1e-7)
    assert hard[1].norm() > 0


def test_a_doubtful_row_teaches_both_labels_by_their_shares(classifier: tuple[Classify, nn.Module]) -> None:
    task, model = classifier
    doubtful = gradient(task, model, rows(True), [2])
    each = []
    for label in ("fruit", "tool"):
        as_label = dataset(
            [{"text": TEXTS[2], "label": label}, {"text": TEXTS[0], "label": "fruit"}], "labelled"
        )
        each.append(gradient(task, model, as_label, [0]))
    assert doubtful[0] == pytest.approx(0.4 * each[0][0] + 0.6 * each[1][0], rel=1e-5)
    assert torch.allclose(doubtful[1], 0.4 * each[0][1] + 0.6 * each[1][1], atol=1e-6)
    assert not torch.allclose(doubtful[1], each[1][1], atol=1e-3)


def test_accuracy_counts_the_likeliest_label(classifier: tuple[Classify, nn.Module]) -> None:
    task, model = classifier
    batch = task.source(rows(True)).collate([0, 1, 2, 3], seed=0, epoch=0)
    assert batch["labels"].shape == (4, 2) and batch["labels"].dtype == torch.float32
    said = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
    out = Classification().loss(model, batch)
    assert int(out.metrics["accuracy"]) == int((said == torch.tensor([0, 1, 1, 0])).sum())


def test_labels_that_no_row_has_are_left_out(classifier: tuple[Classify, nn.Module]) -> None:
    data = dataset(
        [{"text": "a", "label": "tool", "label_probabilities": {"tool": 0.6, "fruit": 0.2, "stone": 0.2}}],
        "labelled",
    )
    soft = SoftLabelledRows(data, classifier[0].tokenizer, 8, ["fruit", "tool"])
    assert soft.soft_NC.tolist() == [pytest.approx([0.25, 0.75])]


def test_hard_rows_stay_as_they_were(classifier: tuple[Classify, nn.Module]) -> None:
    assert not has_soft_labels(rows(False)) and type(classifier[0].source(rows(False))) is LabelledRows


def test_a_later_file_may_bring_them_and_columns_give_them_up(tmp_path: Path) -> None:
    hard, soft = tmp_path / "hard.csv", tmp_path / "soft.jsonl"
    hard.write_text("text,label\n" + "".join(f"row {i},a\n" for i in range(150)))
    line = {"text": "late", "label": "a", "label_probabilities": {"a": 0.7, "b": 0.3}}
    soft.write_text(json.dumps(line) + "\n")
    files = [str(hard), str(soft)]
    assert read(DataConfig(files=files), "labelled").rows[-1].values["label_probabilities"] == {
        "a": 0.7,
        "b": 0.3,
    }
    given_up = read(DataConfig(files=files, columns={"label_probabilities": "none"}), "labelled")
    assert not has_soft_labels(given_up) and len(given_up.rows) == 151


@pytest.mark.parametrize(
    ("chances", "what"),
    [
        ({"a": 0.7}, "add up to 0.7"),
        ({"a": 1.2, "b": -0.2}, "gives the label 'a' no probability"),
        ({"b": 1.0}, "says nothing of the row's own label 'a'"),
        ("often", "is str, not probabilities"),
        ([0.5, 0.5], "is list, not probabilities"),
    ],
)
def test_what_is_no_probability_is_refused_at_its_line(tmp_path: Path, chances: object, what: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "t", "label": "a", "label_probabilities": chances}) + "\n")
    with pytest.raises(DataError, match=f"rows.jsonl:1: .*{what}"):
        read(DataConfig(files=[str(path)]), "labelled")
