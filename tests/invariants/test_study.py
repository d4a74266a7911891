"""A whole small study: run, killed, resumed, run again; its numbers must not depend on any of that. Home of
compare.driver and compare.ranks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import study_config, write_texts

from adaptkit.compare.driver import compare
from adaptkit.compare.plan import make_plan
from adaptkit.compare.ranks import run_by_ranks
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import result_path
from adaptkit.errors import DataError
from adaptkit.export.resolve import resolve
from adaptkit.run import Run, read_json, read_jsonl
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.forecast_record import WHOLE
from adaptkit.study.record import read_study
from adaptkit.study.stage_record import RESULTS, StageKey, read_result

OPEN = Path.open
FORECAST = ("forecast.share=0.9", "forecast.least_steps=8")
SMALL = ("seeds=1", "budget.trials=1", "arms=[generic+prompt, generic+lora, scratch]")
RUN = "import sys; from adaptkit.cli.app import main; sys.argv[0] = 'adaptkit'; main()"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def finished(texts, tmp_path_factory):
    """(outcome, root) of an uninterrupted study that forecasts."""
    root = tmp_path_factory.mktemp("runs")
    return compare(study_config(texts, *FORECAST), root), root


@pytest.fixture(scope="module")
def small(texts, tmp_path_factory):
    """(outcome, root) of an uninterrupted study of fewer arms and seeds."""
    root = tmp_path_factory.mktemp("small")
    return compare(study_config(texts, *SMALL), root), root


def test_a_study_ends_in_one_line_and_a_page_of_its_own(finished):
    outcome, _ = finished
    assert outcome.verdict_line
    page = outcome.report_path.read_text()
    assert "scratch+full" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_every_arm_spent_at_most_its_budget(finished):
    outcome, root = finished
    study = read_study(outcome.study_path)
    for score in study.scores:
        spent, tuning = (
            sum(read_json(root / run / "cost.json")["flops"] for run in runs)
            for runs in (score.paid_by, score.tuned_by)
        )
        spent += tuning / len(study.seeds)
        assert spent <= study.budget.flops_per_seed, score


def test_the_largest_run_was_predicted_before_it_began_and_the_report_says_how_well(finished):
    outcome, root = finished
    study = read_study(outcome.study_path)
    assert study.forecast.came_first and len(study.forecast.portions) >= 3
    assert [prediction.arm for prediction in study.forecast.predictions] == ["scratch"]
    scratch = [score for score in study.scores if (score.arm, score.seed) == ("scratch", 0)]
    assert {score.portion for score in scratch} == {*study.forecast.portions, WHOLE}
    whole = next(score for score in scratch if score.portion == WHOLE)
    for score in scratch:
        assert score.read_bytes == pytest.approx(score.compute * whole.read_bytes, rel=0.25), "whole steps"
        assert read_json(root / score.run / "eval" / "language.json")["num_items"] > 0
    assert "Predicted before it ran, and measured" in outcome.report_path.read_text()


def test_fewer_labels_predict_the_run_with_all_before_it_begins(finished, texts):
    """Another rank, so that nothing but data and base is found finished."""
    _, root = finished
    labels = ("arms=[generic+lora]", "adapter.rank=2", "forecast.labels_share=0.9")
    outcome = compare(study_config(texts, *labels), root)
    study = read_study(outcome.study_path)
    (record,) = study.label_forecasts
    assert record.came_first and [row.arm for row in record.predictions] == ["generic+lora"]
    assert [portion.labels for portion in record.portions] == [0.125, 0.25, 0.5]
    mine = [score for score in study.scores if (score.arm, score.seed) == ("generic+lora", 0)]
    assert [score.labels for score in mine] == [0.125, 0.25, 0.5, 1.0]
    for score in mine:
        passes = score.read_labels / (score.labels * record.num_labels)
        assert passes == pytest.approx(3, rel=0.1), "as many passes over fewer labels"
    assert len({score.run for score in mine}) == 4
    assert "With more labels" in outcome.report_path.read_text()


def test_every_interval_can_be_recomputed_from_stored_items(finished):
    outcome, root = finished
    for score in read_study(outcome.study_path).scores:
        items = list(read_jsonl(root / score.run / "eval" / f"{score.suite}.jsonl"))
        assert items and all("id" in item for item in items)


def test_a_second_run_executes_nothing_and_ends_the_same(finished, texts, monkeypatch):
    outcome, root = finished
    monkeypatch.setattr(
        "adaptkit.compare.executor._local", lambda *_: pytest.fail("a finished study started a process")
    )
    assert compare(study_config(texts, *FORECAST), root).verdict == outcome.verdict


def test_a_moved_study_executes_nothing_and_ends_the_same(finished, tmp_path, monkeypatch):
    """Under another root name, with its data elsewhere too; what lay there before is not read."""
    outcome, root = finished
    moved = shutil.copytree(root, tmp_path / "archive")
    (tmp_path / "texts").mkdir()
    write_texts(tmp_path / "texts")
    monkeypatch.setattr(
        "adaptkit.compare.executor._local", lambda *_: pytest.fail("a finished study started a process")
    )
    opened = []
    monkeypatch.setattr(
        Path, "open", lambda path, *args, **kw: opened.append(path) or OPEN(path, *args, **kw)
    )
    assert compare(study_config(tmp_path / "texts", *FORECAST), moved).verdict == outcome.verdict
    assert opened and not [path for path in opened if path.absolute().is_relative_to(root)]
    for path in (moved / outcome.study_path.name / "stages").glob("*.json"):
        assert str(root) not in path.read_text(), f"{path.name} says where it stood"
    assert resolve(moved / outcome.study_path.name, arm="generic+lora").folder.is_relative_to(moved)


def test_a_killed_study_resumes_to_the_same_numbers(small, texts, tmp_path):
    """Killed as soon as one arm is scored, while the others train."""
    outcome, root = small
    config = texts / "study.yaml"
    study_config(texts)
    command = [sys.executable, "-c", RUN, "compare", str(config), "--root", str(tmp_path), *SMALL]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while (
        not list(tmp_path.glob("tiny-*/stages/task.*.json"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("tiny-*/study.json")), "killed too late to show anything"
    resumed = compare(study_config(texts, *SMALL), tmp_path)
    assert _scores(resumed.study_path, tmp_path) == _scores(outcome.study_path, root)


def _scores(study: Path, root: Path) -> dict:
    return {
        (score.arm, score.seed, score.portion, score.task): (
            root / score.run / "eval" / f"{score.suite}.jsonl"
        ).read_text()
        for score in read_study(study).scores
    }


def test_ray_gives_what_local_processes_give(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("seeds=1", "budget.trials=1", "arms=[generic+prompt, scratch]")
    local, on_ray = Path("local"), Path("ray")
    outcomes = [
        compare(study_config(texts, *small), root, executor=name)
        for root, name in ((local, "local"), (on_ray, "ray"))
    ]
    assert _scores(outcomes[0].study_path, local) == _scores(outcomes[1].study_path, on_ray)


@pytest.mark.parametrize(
    "key", [StageKey.for_language(Origin.SCRATCH), StageKey.for_task("mood", Arm.parse("generic+lora"))]
)
def test_a_stage_in_two_processes_that_share_its_model_gives_what_one_gives(finished, texts, tmp_path, key):
    outcome, root = finished
    shutil.copytree(root, tmp_path / "runs")
    study = tmp_path / "runs" / outcome.study_path.name
    config = study_config(texts, *FORECAST)
    stage = next(stage for stage in make_plan(config, Run(study)).stages if stage.key == key)
    kind = RESULTS[key.kind]
    alone = read_result(result_path(study, key), kind)
    for name in (alone.run, getattr(alone, "score_run", None)):
        if name is not None:
            shutil.rmtree(study.parent / name)
    result_path(study, key).unlink()
    run_by_ranks(run_stage, study, replace(stage, gpus=2), threads=1)
    shared = read_result(result_path(study, key), kind)
    assert shared.run == alone.run and shared.model_copy(update={"seconds": 0, "ended": 0}) != alone
    training = read_json(study.parent / shared.run / "manifest.json")["training"]["train"]
    assert training["ranks"] == 2
    losses = [
        [row["loss"] for row in read_jsonl(folder / alone.run / "metrics.jsonl") if "loss" in row]
        for folder in (root, study.parent)
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)  # later ones carry rounding on
    assert losses[0] == pytest.approx(losses[1], rel=0.1, abs=0.02)
    dev = "dev" if key.origin else "tuning"
    assert getattr(shared, dev) == pytest.approx(getattr(alone, dev), rel=0.02, abs=0.02)


def test_held_out_text_is_in_no_training_file(finished):
    outcome, root = finished
    data = root / read_study(outcome.study_path).prepared_run
    for name in ("domain", "general", "mood"):
        train, dev, test = (
            {r["text"] for r in read_jsonl(data / f"{name}.{part}.jsonl")}
            for part in ("train", "dev", "test")
        )
        held_out = {f" {passage} " for passage in dev | test}  # room 28 is not in room 286
        assert held_out and not any(passage in f" {text} " for passage in held_out for text in train)


def test_a_failed_stage_names_the_reason_and_the_place(texts, tmp_path):
    broken = tmp_path / "texts"
    broken.mkdir()
    write_texts(broken)
    rows = (broken / "domain.jsonl").read_text().splitlines()
    rows[6] = json.dumps({"text": 7})
    (broken / "domain.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="domain.jsonl:7"):
        compare(study_config(broken), tmp_path / "runs")
