"""The life cycle that all recipes share: who writes, what is written, and what merging may change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Rows, llama, lora
from torch import nn

from adaptkit.data.heldout import held_out, read_calibration, read_held_out
from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError, ModelError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.run import Run, read_json, read_jsonl, read_sealed
from adaptkit.run_record import RecipeKind, RunRecord, SuiteRecord, read_record
from adaptkit.trainer import lifecycle
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.lifecycle import Outcome, first_outputs, merge_checked, run_recipe
from adaptkit.trainer.parallel import Ranks

SUITE = SuiteRecord(judged_on="test", num_items=1, metrics={"accuracy": 1.0}, dev={"loss": 0.5})
RECORD = RunRecord(recipe=RecipeKind.FINETUNE, suite="mood", suites={"mood": SUITE})


@dataclass
class Config:
    trainer: TrainerConfig


CONFIG = Config(TrainerConfig())


class _Rank(Ranks):
    def __init__(self, rank: int):
        super().__init__()
        self.rank, self.world_size, self.waited = rank, 2, 0

    def share(self, value: Any) -> Any:
        self.waited += 1
        return value


def _as_rank(monkeypatch: pytest.MonkeyPatch, rank: int) -> _Rank:
    ranks = _Rank(rank)
    monkeypatch.setattr(lifecycle.parallel, "join", lambda parallel: ranks)
    return ranks


def _dataset() -> Dataset:
    return Dataset([Row({"text": "a cat"}, "x.jsonl:1", "1a")], "text", {"text": "text"})


def _outcome(*_: Any) -> Outcome:
    held = held_out({"dev": _dataset()}, with_items=False)
    return Outcome(RECORD, [{"id": "1a", "prediction": "good"}], {"flops": 3.0}, held)


def test_a_run_ends_with_items_scores_cost_rows_and_record(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "one", {})
    order: list[str] = []

    def train(ranks: Ranks) -> str:
        order.append("train")
        assert run.manifest()["status"] == "running"
        return "trained"

    def deliver(trained: str) -> str:
        order.append("deliver")
        return f"{trained} and merged"

    def score(trained: str, delivered: str) -> Outcome:
        order.append("score")
        assert (trained, delivered) == ("trained", "trained and merged")
        return _outcome()

    run_recipe(CONFIG, run, train, deliver, score)
    assert run.finished and order == ["train", "deliver", "score"]
    assert read_record(run) == RECORD
    assert list(read_jsonl(run.items("mood"))) == [{"id": "1a", "prediction": "good"}]
    scores = read_json(run.scores("mood"))
    assert (
        scores["suite"] == "mood"
        and scores["metrics"] == {"accuracy": 1.0}
        and scores["dev"] == {"loss": 0.5}
    )
    assert read_sealed(run.cost_path) == {"flops": 3.0}
    held = read_held_out(run)
    assert held is not None and held.passages == [("1a", "a cat")] and read_calibration(run) is None


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "one", {})
    run.finish()
    before = run.manifest_path.read_bytes()
    run_recipe(CONFIG, run, lambda ranks: pytest.fail("trained"), pytest.fail, pytest.fail)
    assert run.manifest_path.read_bytes() == before


def test_other_ranks_train_but_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = _as_rank(monkeypatch, 1)
    run = Run.open(tmp_path, "one", {})
    before = run.manifest_path.read_bytes()
    trained: list[Ranks] = []
    run_recipe(CONFIG, run, trained.append, lambda _: pytest.fail("delivered"), _outcome)
    assert trained == [ranks] and ranks.waited == 1
    assert run.manifest_path.read_bytes() == before
    assert not run.cost_path.exists() and not run.heldout_path.exists()


def _failing(ranks: Ranks) -> None:
    raise DataError("no usable row", where="x.jsonl:1")


def test_only_rank_0_says_that_a_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(tmp_path, "one", {})
    _as_rank(monkeypatch, 1)
    with pytest.raises(DataError):
        run_recipe(CONFIG, run, _failing, _outcome, _outcome)
    assert run.manifest()["status"] == "new"
    _as_rank(monkeypatch, 0)
    with pytest.raises(DataError):
        run_recipe(CONFIG, run, _failing, _outcome, _outcome)
    assert run.manifest()["status"] == "failed" and "no usable row" in run.manifest()["error"]


def test_finetune_fails_a_run_on_rank_0_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank once wrote both, over what the others had written."""
    config = FinetuneConfig(base=str(tmp_path / "nowhere"), train={"files": [str(tmp_path / "none.jsonl")]})
    run = Run.open(tmp_path, "one", config.model_dump(mode="json"))
    for rank, status in ((1, "new"), (0, "failed")):
        _as_rank(monkeypatch, rank)
        with pytest.raises(ModelError):
            finetune(config, run)
        assert run.manifest()["status"] == status


def test_a_kept_adapter_is_merged_without_moving_the_outputs(tmp_path: Path) -> None:
    model, rows, run = lora(), Rows("causal"), Run(tmp_path)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.5)
    before = first_outputs(model.eval(), rows)
    plain = first_outputs(llama().eval(), rows)
    merged, difference = merge_checked(
        model, run, lambda m: first_outputs(m, rows), adapter_base="somebody/base"
    )
    after = first_outputs(merged, rows)
    assert (before - plain).abs().max() > 0.01 and torch.allclose(before, after, atol=1e-5)
    assert 0 < difference < 1e-5 and (run.adapter / "adapter_model.safetensors").is_file()


def test_an_adapter_without_a_named_base_is_not_kept(tmp_path: Path) -> None:
    rows = Rows("causal")
    merge_checked(lora(), Run(tmp_path), lambda m: first_outputs(m, rows))
    assert not Run(tmp_path).adapter.exists()


def test_a_model_without_adapter_comes_back_as_it_is(tmp_path: Path) -> None:
    model = llama()
    same, difference = merge_checked(model, Run(tmp_path), lambda _: pytest.fail("asked"), adapter_base="b")
    assert same is model and difference == 0.0 and not Run(tmp_path).adapter.exists()


@pytest.mark.parametrize("moved", [1e-2, float("nan")])
def test_a_merge_that_moves_the_outputs_is_refused(tmp_path: Path, moved: float) -> None:
    outputs = iter([torch.zeros(2), torch.tensor([0.0, moved])])
    with pytest.raises(ModelError, match="away from the trained one"):
        merge_checked(lora(), Run(tmp_path), lambda _: next(outputs))


def test_pretraining_checks_its_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It once merged adapters without looking at what came out."""
    from adaptkit.pretrain import recipe

    seen: list[str] = []

    def refuse(*args: Any, **named: Any) -> None:
        seen.append("checked")
        raise ModelError("moved")

    monkeypatch.setattr(recipe, "merge_checked", refuse)
    monkeypatch.setattr(recipe, "_train", lambda config, run, ranks: _Started())
    config = recipe.PretrainConfig(data={"files": ["x"]}, size={"params": 1000})
    run = Run.open(tmp_path, "one", {})
    with pytest.raises(ModelError, match="moved"):
        recipe.pretrain(config, run)
    assert seen == ["checked"] and run.manifest()["status"] == "failed"


class _Started:
    class start:
        model, dev = llama(), Rows("causal")
