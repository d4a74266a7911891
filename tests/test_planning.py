"""Plans: laws, best buys, memory and prices, against figures that can be worked out by hand.

Home of planning.assumptions, planning.gpus, planning.published_law, planning.optimum, planning.planner,
planning.sizing and trainer.memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from adaptkit.cli import console
from adaptkit.cli.app import app
from adaptkit.cli.plan import count, fits
from adaptkit.errors import ConfigError
from adaptkit.planning import published_law as laws
from adaptkit.planning.config import PlanConfig
from adaptkit.planning.gpus import choose_gpu
from adaptkit.planning.optimum import Costs, best_within, cheapest
from adaptkit.planning.planner import Plan, make_plan
from adaptkit.planning.published_law import PUBLISHED, tokens_worth, worth_of_tokens
from adaptkit.planning.sizing import gpus_needed, size_of
from adaptkit.study.record import MachineRecord, PriceRecord, StudyRecord

PAPER = {
    "size": 13_000_000_000,
    "minimise": "flops",
    "sizes": [],
    "traffic": {"requests_per_month": 2e9, "tokens_in": 1000.0, "tokens_out": 0.0, "months": 1.0},
}
"""13B quality, 2T tokens served: the worked example of arXiv 2401.00448."""


def planned(**settings: Any) -> Plan:
    return make_plan(PlanConfig(**settings))


def test_the_worked_example_of_2401_00448_comes_out_exactly() -> None:
    plan = planned(law="sardana-2024", **PAPER)
    first, last = plan.answers
    assert (first.title, last.title) == ("compute-optimal", "inference-aware")
    assert round(plan.saved, 2) == 0.17 and plan.saved == pytest.approx(0.17447, abs=1e-5)
    assert first.whole - last.whole == pytest.approx(1.7e22, rel=0.01)
    assert round(last.params / 1e9) == 7 and last.params == pytest.approx(6.969e9, rel=1e-3)
    assert last.tokens == pytest.approx(1.248e12, rel=1e-3) and last.loss == pytest.approx(first.loss)
    assert first.train == pytest.approx(6 * 13e9 * first.tokens) and first.serve == 2 * 13e9 * 2e12


@pytest.mark.parametrize(("law", "saved"), [("hoffmann-2022", 0.1011), ("besiroglu-2024", 0.2896)])
def test_the_saving_hangs_on_the_digits_of_the_law(law: str, saved: float) -> None:
    assert planned(law=law, **PAPER).saved == pytest.approx(saved, abs=1e-4)


def test_a_size_is_best_for_its_flops() -> None:
    law = PUBLISHED["besiroglu-2024"]
    for text in (math.inf, 1e9):
        tokens = law.best_tokens(1e9, text)
        losses = [law.loss(1e9 * share, tokens / share, text) for share in (0.97, 1.0, 1.03)]
        assert min(losses) == losses[1]
    assert law.best_tokens(1e9) / 1e9 == pytest.approx(22.70, abs=0.01)
    assert law.best_tokens(1e9, 1e9) < law.best_tokens(1e9)


def test_text_that_is_read_again_is_worth_less() -> None:
    assert worth_of_tokens(90.0, 100.0) == 90.0 and tokens_worth(90.0, 100.0) == 90.0
    assert worth_of_tokens(400.0, 100.0) == pytest.approx(100 + 1539 * (1 - math.exp(-3 / 15.39)))
    assert tokens_worth(worth_of_tokens(700.0, 100.0), 100.0) == pytest.approx(700.0)
    assert tokens_worth(100 * 16.39, 100.0) == math.inf
    assert worth_of_tokens(1e9, 100.0) == pytest.approx(1639)


def test_where_nothing_is_served_both_best_buys_are_one() -> None:
    plan = planned(size=10**9, minimise="flops", sizes=[])
    assert [answer.title for answer in plan.answers] == ["compute-optimal"] and plan.saved == 0.0
    law = PUBLISHED["besiroglu-2024"]
    costs = Costs(lambda params: 6 * params, lambda params: 0.0)
    choice = cheapest(law, law.loss(1e9, law.best_tokens(1e9)), costs)
    assert choice is not None and choice.params == pytest.approx(1e9, rel=1e-3)


def test_a_budget_is_spent_and_buys_more_where_serving_counts() -> None:
    traffic = {"requests_per_month": 1e7}
    plan = planned(gpu_hours=1000.0, sizes=[10**8], traffic=traffic)
    optimal, aware = plan.answers
    assert optimal.whole == pytest.approx(1000) and aware.whole == pytest.approx(1000)
    assert aware.loss < optimal.loss and aware.params < optimal.params and plan.saved == 0.0
    dollars = planned(usd=3990.0, sizes=[10**8], traffic=traffic)
    assert dollars.answers[1].params == pytest.approx(aware.params) and aware.usd == pytest.approx(3990)
    assert best_within(PUBLISHED["hoffmann-2022"], 1.0, Costs(lambda n: 6 * n, lambda n: n)) is None


def test_hours_and_dollars_follow_from_counted_flops() -> None:
    plan = planned(sizes=[10**8], traffic={"requests_per_month": 1e6}, gpu={"name": "A100"})
    (row,) = plan.rows
    assert row.train_hours == pytest.approx(row.train_flops / (312e12 * 0.4) / 3600)
    assert row.train_usd == pytest.approx(row.train_hours * 1.79)
    size = size_of(10**8, PlanConfig())
    seconds = size.read_flops * (500 / 0.5 + 150 / 0.01) / 312e12
    assert row.serve_hours == pytest.approx(1e6 * seconds / 3600)
    assert row.servers == 1 and row.serve_usd_per_month == pytest.approx(730 * 1.79)
    assert row.beyond == "a number of tokens beyond those that the law was fitted on"


def test_memory_is_counted_part_by_part() -> None:
    size = size_of(10**8, PlanConfig(training={"seq_len": 1024, "microbatch_size": 2}))
    params, layers, width = size.shape.parameters, size.shape.layers, size.shape.width
    assert size.state_bytes == 16 * params and size.kept_bytes == 34 * 2048 * layers * width
    assert size.weight_bytes == 2 * params and size.cache_bytes == 2 * layers * width * 2 * 650 * 16
    layout = {"seq_len": 1024, "microbatch_size": 2, "gradient_checkpointing": True}
    checkpointed = size_of(10**8, PlanConfig(training=layout, serve_in="int8"))
    assert checkpointed.kept_bytes == 2048 * width * (34 + 2 * layers)
    assert checkpointed.weight_bytes == params and checkpointed.train_flops > size.train_flops


def test_what_does_not_fit_says_how_many_it_needs() -> None:
    assert gpus_needed(100.0, 0.0, 200.0) == 1 and gpus_needed(360.0, 0.0, 200.0) == 2
    assert gpus_needed(100.0, 180.0, 200.0) == 0
    plan = planned(sizes=[10**9], gpu={"name": "L4"})
    (row,) = plan.rows
    assert (row.training_gpus, row.serving_gpus) == (2, 1)
    assert fits(row.training_bytes, 2, plan) == "29 GB: does not fit one L4, needs 2"
    assert fits(9e9, 0, plan).startswith("9 GB: does not fit any number of L4")


def test_a_small_size_gets_a_small_vocabulary_and_an_impossible_one_a_reason() -> None:
    plan = planned(sizes=[10**6, 1000])
    assert [row.vocab_size for row in plan.rows] == [2048]
    assert "no model of 1,000 parameters" in plan.left_out["1,000"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"usd": 100.0, "gpu": {"name": "L4"}}, "a budget in dollars needs the price of L4"),
        ({"loss": 1.5}, "no model reaches a loss of 1.5 on this text"),
        ({"gpu": {"name": "X1"}}, "no figures are known of the GPU 'X1'"),
        ({"gpu_hours": 1e-12, "traffic": {"requests_per_month": 1e9}}, "buys no model"),
    ],
)
def test_what_cannot_be_planned_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        planned(sizes=[], **settings)
    with pytest.raises(ValueError, match="size and usd are both set"):
        PlanConfig(size=1, usd=1.0)


def test_a_study_gives_its_speed_and_its_price() -> None:
    study = StudyRecord.model_construct(
        name="tickets",
        machine=MachineRecord(flops_per_second=4e10, device="cpu", cores=2),
        price=PriceRecord(usd_per_hour=0.1, source="a page", date="2026-11-01"),
    )
    gpu = choose_gpu(PlanConfig().gpu, study)
    assert gpu.measured and gpu.flops == 4e10 and gpu.price is not None and gpu.price.usd_per_hour == 0.1
    named = choose_gpu(PlanConfig(gpu={"name": "A100"}).gpu, study)
    assert named.name == "A100" and not named.measured


def test_the_command_prints_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "size=100M", "sizes=[100M]", "traffic.requests_per_month=1M", "text_bytes=1G"]
    assert console.run(app, words) == 0
    shown = capsys.readouterr().out
    assert "inference-aware" in shown and "what is assumed:" in shown and "arXiv 2404.10102" in shown
    assert "less to train and serve." in shown and "runpod.io/pricing" in shown
    assert console.run(app, [*words, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["text_tokens"] == pytest.approx(1e9 / 3) and fields["unit"] == "GPU hours"
    assert len(fields["answers"]) == 2 and fields["rows"][0]["vocab_size"] == 32_768


def test_numbers_are_shown_in_their_unit() -> None:
    assert [count(n) for n in (6.969e9, 1.248e12, 993_000, 12)] == ["6.97B", "1.25T", "993k", "12"]
    assert set(laws.PUBLISHED) == {"besiroglu-2024", "hoffmann-2022", "sardana-2024"}
