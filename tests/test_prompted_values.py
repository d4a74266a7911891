"""Several labels, numbers and spans by prompts, of one's own model and of an API; nothing trained. Home of
finetune.prompted_spans and finetune.prompted_values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from paid_server import KEY, PaidServer
from tiny_rows import dataset
from transformers import LlamaConfig

from adaptkit import models
from adaptkit.client.openai import Client
from adaptkit.client.paid import Ledger, PaidClient, TokenPrice
from adaptkit.data import Dataset, train_tokenizer
from adaptkit.errors import DataError
from adaptkit.finetune import prompted_spans
from adaptkit.finetune import prompted_values as values
from adaptkit.finetune.asked_answers import Asking
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.finetune.prompted_spans import found_spans
from adaptkit.finetune.prompted_values import Prompted, numbers_of

Parts = dict[str, Dataset]


def split(rows: list[dict], kind: str) -> Parts:
    """A third of the rows each; no text twice, so every row has its own id."""
    return {name: dataset(rows[i::3], kind) for i, name in enumerate(("train", "dev", "test"))}


def set_rows() -> list[dict]:
    kinds = [["bill"], ["refund"], ["bill", "refund"], []]
    return [{"text": f"text {i} {' '.join(kinds[i % 4])}", "labels": kinds[i % 4]} for i in range(36)]


def number_rows() -> list[dict]:
    return [{"text": f"text {i} has {1 + i % 5} stars", "score": float(1 + i % 5)} for i in range(30)]


def span_rows() -> list[dict]:
    rows = []
    for i in range(24):
        name = ("Ann", "Bob")[i % 2]
        spans = [{"start": 0, "end": 3, "label": "person"}, {"start": 13, "end": 17, "label": "place"}]
        rows.append({"text": f"{name} lives in Rome{i % 7:02d}"[:17] + f" since {1900 + i}", "spans": spans})
    return rows


@pytest.fixture(scope="module")
def prompted() -> Prompted:
    rows = [row["text"] for row in (*set_rows(), *number_rows(), *span_rows())]
    tokenizer = train_tokenizer([*rows, '{"person": ["Ann"], "place": []} 1 2 3 4 5'], "bpe", 400)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **size)
    model = models.build(shape, "causal", seed=0)
    return Prompted(model, tokenizer, TaskWords(), 2, 2, 0, "", 64)


def with_metric(prompted: Prompted, metric: str) -> Prompted:
    return Prompted(**{**vars(prompted), "metric": metric})


def test_labels_apply_from_a_threshold_that_dev_rows_choose(prompted: Prompted) -> None:
    parts = split(set_rows(), "multi_label")
    outcome = values.prompt_label_sets(with_metric(prompted, "micro_f1"), parts)
    assert [row["labels"] for row in outcome.rows] == [list(row.labels) for row in parts["test"].rows]
    threshold = outcome.chosen[values.THRESHOLD]
    for row in outcome.rows:
        likely = [name for name, p in row["probabilities"].items() if p >= threshold - 1e-6]
        assert row["predicted_labels"] == likely and sum(row["probabilities"].values()) == pytest.approx(1)
    assert len(outcome.trials) == 2 and outcome.dev["micro_f1"] == max(t["micro_f1"] for t in outcome.trials)
    assert values.SETS_INSTRUCTION in outcome.chosen["prompt"] and not outcome.dev_rows


@pytest.mark.parametrize("metric", ["spearman", "mae"])
def test_a_number_is_the_mean_of_those_that_rows_have(prompted: Prompted, metric: str) -> None:
    parts = split(number_rows(), "scored")
    outcome = values.prompt_scores(with_metric(prompted, metric), parts)
    assert [row["score"] for row in outcome.rows] == [row.values["score"] for row in parts["test"].rows]
    assert all(1 <= row["predicted_score"] <= 5 for row in outcome.rows)
    best = min if metric == "mae" else max
    assert outcome.dev[metric] == best(trial[metric] for trial in outcome.trials)


def test_many_numbers_are_offered_evenly_by_rank() -> None:
    assert numbers_of([3.0, 1.0, 2.5]) == {"1": 1.0, "2.5": 2.5, "3": 3.0}
    many = numbers_of([float(i) for i in range(1001)])
    assert list(many) == ["0", "100", "200", "300", "400", "500", "600", "700", "800", "900", "1e+03"]


def test_a_model_of_ones_own_writes_spans(prompted: Prompted) -> None:
    parts = split(span_rows(), "spans")
    outcome = prompted_spans.prompt_spans(with_metric(prompted, "entity_f1"), parts)
    assert all(row["spans"][0][:2] == [0, 3] and "predicted_spans" in row for row in outcome.rows)
    assert {"entity_f1", "macro_entity_f1"} <= outcome.dev.keys()


def test_what_is_written_is_found_as_whole_words_once_each() -> None:
    row = dataset([{"text": "Ann met Annie and Ann.", "spans": []}], "spans").rows[0]
    found = found_spans(row, {"person": ["Ann", "Ann", "Ann", "Zoe", "Anni"], "place": ["Ann", ""]})
    assert [(span["start"], span["end"], span["label"]) for span in found] == [
        (0, 3, "person"),
        (18, 21, "person"),
    ]


@pytest.mark.parametrize(
    ("kind", "rows", "ask"),
    [
        ("multi_label", [{"text": f"t{i}", "labels": []} for i in range(6)], values.prompt_label_sets),
        ("scored", [{"text": f"t{i}", "score": 2.0} for i in range(6)], values.prompt_scores),
        ("spans", [{"text": f"t{i}", "spans": []} for i in range(6)], prompted_spans.prompt_spans),
    ],
)
def test_rows_that_teach_nothing_are_named(prompted: Prompted, kind: str, rows: list[dict], ask) -> None:
    with pytest.raises(DataError, match="training row"):
        ask(prompted, split(rows, kind))


# Over an API


def replies(messages: list[dict[str, str]]) -> str:
    """What a good model says: read off the last text."""
    text = messages[-1]["content"]
    if "stars" in text:
        return text.split(" has ")[1][0] if " 7 " not in text else "many"
    if "lives" in text:
        return json.dumps({"person": [text[:3]], "place": [text[13:17]]})
    return json.dumps({"labels": [name for name in ("bill", "refund") if name in text]})


@pytest.fixture
def server() -> Iterator[PaidServer]:
    with PaidServer(replies) as server:
        yield server


def asking(server: PaidServer, folder: Path, metric: str) -> Asking:
    ledger = Ledger(folder / "spent.json", 10.0)
    price = TokenPrice(10.0, 20.0)
    model = PaidClient(Client(server.url, KEY), "small", price, replies=folder / "replies", ledger=ledger)
    return Asking(model=model, words=TaskWords(), examples=2, trials=2, seed=0, metric=metric)


def test_an_api_is_held_to_a_list_of_the_labels(server: PaidServer, tmp_path: Path) -> None:
    outcome = values.ask_for_label_sets(
        asking(server, tmp_path, "micro_f1"), split(set_rows(), "multi_label")
    )
    assert all(row["predicted_labels"] == row["labels"] and row["usd"] > 0 for row in outcome.rows)
    held = server.bodies[0]["structured_outputs"]["json"]["properties"]["labels"]
    assert held == {"type": "array", "items": {"type": "string", "enum": ["bill", "refund"]}}


def test_an_api_chooses_a_number_and_none_counts_as_the_mean(server: PaidServer, tmp_path: Path) -> None:
    outcome = values.ask_for_scores(asking(server, tmp_path, "mae"), split(number_rows(), "scored"))
    assert server.bodies[0]["structured_outputs"] == {"choice": ["1", "2", "3", "4", "5"]}
    wrong = [row for row in outcome.rows if row["predicted_score"] != row["score"]]
    assert all(row["usd"] > 0 for row in outcome.rows) and len(wrong) <= 1


def test_an_api_writes_spans_that_are_looked_for_in_the_text(server: PaidServer, tmp_path: Path) -> None:
    outcome = prompted_spans.ask_for_spans(asking(server, tmp_path, "entity_f1"), split(span_rows(), "spans"))
    assert outcome.dev["entity_f1"] > 0.4 and all(row["tokens_in"] > 0 for row in outcome.rows)
    assert set(server.bodies[0]["structured_outputs"]["json"]["properties"]) == {"person", "place"}
