"""Words and vectors are fused in the way that development questions find best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_embed
from test_kind_arms import work_on

from adaptkit.data.beir import RetrievalSet
from adaptkit.embed import hybrid
from adaptkit.embed.fusion import FUSING, FUSIONS, Fusion
from adaptkit.embed.hybrid import choose_fusion, hybrid_rows
from adaptkit.embed.retrieval_metrics import retrieval_scores
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import TaskConfig, TaskFiles

DOCUMENTS = {"a": "fever and cough", "b": "broken arm", "c": "cough syrup", "d": "a sprained ankle"}


def test_fusions_by_hand() -> None:
    words, vectors = np.array([0.0, 2.0, 1.0]), np.array([0.9, 0.1, 0.5])
    ranks = Fusion("reciprocal rank").scores(words, vectors)
    assert ranks == pytest.approx(
        [1 / (FUSING + 1), 1 / (FUSING + 1) + 1 / (FUSING + 3), 1 / (FUSING + 2) + 1 / (FUSING + 2)]
    ), "a document without a shared word gets nothing from the words"
    assert Fusion("weighted", 0.25).scores(words, vectors) == pytest.approx([0.25, 0.75, 0.5])
    assert Fusion("weighted", 0.5).scores(np.zeros(3), vectors) == pytest.approx([0.5, 0.0, 0.25])
    assert np.argsort(-Fusion("weighted", 0.0).scores(words, vectors)).tolist() == [1, 2, 0]
    assert np.argsort(-Fusion("weighted", 1.0).scores(words, vectors)).tolist() == [0, 2, 1]


def searched(queries: dict[str, str], grades: dict[str, dict[str, int]]) -> RetrievalSet:
    return RetrievalSet(queries=queries, documents=DOCUMENTS, grades=grades, where={})


def vectors_that_find(monkeypatch: pytest.MonkeyPatch, rankings: dict[str, str]) -> Any:
    """An encoder whose products rank the documents in this order for each query."""

    def scores(encoder: object, searched: RetrievalSet) -> Any:
        for query in searched.queries:
            order = rankings[query]
            yield query, np.array([1 - order.index(name) / 4 for name in searched.documents])

    monkeypatch.setattr(hybrid, "vector_scores", scores)
    return SimpleNamespace()


def test_words_win_where_they_are_enough_and_vectors_where_words_find_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = searched({"q": "cough syrup", "r": "arm"}, {"q": {"c": 1}, "r": {"b": 1}})
    encoder = vectors_that_find(monkeypatch, {"q": "dbac", "r": "dcab"})
    fusion, tried = choose_fusion(encoder, shared, "ndcg_at_10")
    assert fusion == FUSIONS[0] == Fusion("weighted", 0.0), "of equal ones words alone are taken"
    assert len(tried) == len(FUSIONS) and tried[0]["ndcg_at_10"] == 1.0
    none_shared = searched({"q": "temperature", "r": "fracture"}, {"q": {"a": 1}, "r": {"b": 1}})
    encoder = vectors_that_find(monkeypatch, {"q": "abcd", "r": "bacd"})
    fusion, _ = choose_fusion(encoder, none_shared, "mrr_at_10")
    rows = hybrid_rows(encoder, none_shared, fusion)
    assert retrieval_scores(rows)["mrr_at_10"] == 1.0


def test_both_together_beat_either(monkeypatch: pytest.MonkeyPatch) -> None:
    both = searched({"q": "cough", "r": "syrup pain"}, {"q": {"a": 1}, "r": {"d": 1}})
    encoder = vectors_that_find(monkeypatch, {"q": "abcd", "r": "dabc"})
    fusion, tried = choose_fusion(encoder, both, "mrr_at_10")
    best = max(each["mrr_at_10"] for each in tried)
    assert best == 1.0 and best > tried[0]["mrr_at_10"]
    assert retrieval_scores(hybrid_rows(encoder, both, fusion))["mrr_at_10"] == best


def test_an_arm_of_a_search_task_tries_what_its_budget_allows(tmp_path: Path) -> None:
    files = TaskFiles(tmp_path / "set", *(tmp_path / f"{part}.jsonl" for part in ("train", "dev", "test")))
    tiny_embed.write_set(files.folder)
    base = tiny_embed.bert(tmp_path / "bert")
    task = TaskConfig.model_validate(
        {"name": "find", "kind": "retrieve", "train": {"files": [str(files.folder)]}}
    )
    work = work_on(task, files, base, "generic+hybrid", tmp_path)
    answers = task.task_kind.frozen(work)
    assert len(answers.rows) == 8 and answers.cost["flops"] > 0
    assert len(answers.facts["trials"]) == hybrid.FEWEST > work.trials
    assert answers.dev == {"ndcg_at_10": max(each["ndcg_at_10"] for each in answers.facts["trials"])}
    assert not task.model_copy(update={"kind": "classify"}).task_kind.learns_by(Adaptation.HYBRID)
    assert task.task_kind.learns_by(Adaptation.HYBRID) and not Adaptation.HYBRID.trains
