"""The truth table: what is cut from the texts, is run, and is counted. Home of benchmarks/truth/."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fake_study import DOMAIN_BYTES, PASSES, PORTIONS, MadeLaw, edit_study, write_study

from adaptkit.config import load
from adaptkit.errors import ConfigError
from adaptkit.run import Run, read_json, write_json, write_text
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_answers import Crossing
from adaptkit.study.record import read_study

TRUTH = Path(__file__).resolve().parents[1] / "benchmarks/truth"
MODULES = ("prepare", "agreement", "table", "run", "keep_study")


@pytest.fixture(scope="module")
def truth():
    """The modules of benchmarks/truth, by name."""
    sys.path.insert(0, str(TRUTH))
    try:
        yield {
            name: importlib.import_module(name)
            for name in ("prepare", "agreement", "table", "run", "keep_study")
        }
    finally:
        sys.path.remove(str(TRUTH))


def kept_pair(truth, folder: Path, levels: dict[str, dict[str, float]], **fields) -> Path:
    """Two kept studies of three arms on text, with the bits per byte of each budget.

    The larger one read four times as much.
    """
    keep_study = truth["keep_study"]
    for budget, bpb in levels.items():
        portions = PORTIONS if budget == "b" else ()
        texts = ("generic", "continued", "scratch")
        root = folder / "studies" / budget
        study = write_study(root, texts=texts, tasks=("language",), portions=portions, bpb=bpb, **fields)
        if budget == "4b":
            read = {"read_bytes": 4 * PASSES * DOMAIN_BYTES}
            scores = [
                score.model_copy(update=read) if score.read_bytes else score
                for score in read_study(study).scores
            ]
            edit_study(study, scores=tuple(scores))
        write_text(Run(study).report / "report.md", "")
        write_json(Run(study).report / "verdict.json", {})
        keep_study.keep(study, folder / "kept" / "made" / budget)
    return folder / "kept"


def expected(folder: Path, **fields) -> Path:
    path = folder / "predictions.yaml"
    path.write_text(yaml.safe_dump({"made": {"b": "no gain", "4b": "gain", **fields}}))
    return path


def law_at_4b(law: MadeLaw) -> float:
    """The score after four times the compute."""
    return law(1.0, 4.0)


def test_a_verdict_that_turns_is_counted_as_one_with_the_compute_at_which_it_did(truth, tmp_path):
    own, kept_on = MadeLaw(1.80, 0.0), MadeLaw(1.75, 3.0)
    levels = {
        "b": {"scratch": 1.80, "continued": 1.75},
        "4b": {"scratch": law_at_4b(own), "continued": law_at_4b(kept_on)},
    }
    kept = kept_pair(truth, tmp_path, levels, seed_noise=0.001)
    (row,) = truth["agreement"].rows_of(kept, expected(tmp_path))
    assert (row.sides["b"].answer, row.sides["4b"].answer) == ("no gain", "gain")
    assert row.agreement == "turned"
    crossing = next(f for f in (1 + i / 100 for i in range(300)) if own(1, f) <= kept_on(1, f))
    assert row.turn.measured == pytest.approx(crossing, rel=0.3)
    assert [each.arm for each in row.beyond] == ["continued", "scratch"]
    assert all(each.held for each in row.beyond)
    lines = truth["table"].summary([row])
    assert lines[0].startswith("verdicts agree in 0 of 1") and lines[0].endswith("1 turned")
    assert lines[-1] == "our own predictions: 2 of 2 answers as expected"


def test_a_control_may_not_gain_and_a_run_outside_its_interval_is_not_held(truth, tmp_path):
    levels = {"b": {"scratch": 1.60, "continued": 1.90}, "4b": {"scratch": 1.00, "continued": 1.80}}
    kept = kept_pair(truth, tmp_path, levels)
    (row,) = truth["agreement"].rows_of(kept, expected(tmp_path, control=True))
    assert row.agreement == "agree" and not row.control_holds
    assert not next(each for each in row.beyond if each.arm == "scratch").held
    assert truth["table"].summary([row])[1].startswith("controls without shift: tie or undecided in 0 of 1")


@pytest.mark.parametrize(
    ("status", "value", "high", "measured", "right"),
    [
        ("at", 1.5, 2.0, 2.9, True),
        ("at", 1.5, 2.0, 3.1, False),
        ("at", 1.5, 2.0, 0.0, False),
        ("at", 1.5, 2.0, math.inf, False),
        ("already", 0.0, 0.5, 0.0, True),
        ("already", 0.0, 0.5, 0.7, False),
        ("beyond", math.inf, math.inf, math.inf, True),
        ("beyond", math.inf, math.inf, 1.9, False),
    ],
)
def test_what_is_counted_as_a_right_amount(truth, status, value, high, measured, right):
    crossing = Crossing("compute", "scratch", "continued", status, value, 0.0, high, "")
    assert truth["agreement"]._is_right(crossing, value, high, measured, reach=2.0) is right


def test_every_study_is_valid_and_predicted_and_runs_at_four_times_its_budget(truth):
    run = truth["run"]
    predictions = yaml.safe_load((TRUTH / "predictions.yaml").read_text())
    assert set(predictions) == set(run.STUDIES) == {path.stem for path in (TRUTH / "studies").glob("*.yaml")}
    assert sum("control" in row for row in predictions.values()) >= 2
    for study in run.STUDIES:
        smaller, larger = run.jobs_of(study, 1.0)
        configs = [
            load(StudyConfig, TRUTH / "studies" / f"{study}.yaml", job.overrides).config
            for job in (smaller, larger)
        ]
        assert configs[1].budget.amount == 4 * configs[0].budget.amount
        assert configs[0].name == study


def test_slices_of_any_domain_share_no_document_with_what_the_base_reads_or_the_test(truth, tmp_path):
    data = tmp_path / "data"
    data.mkdir()

    def written(name: str, rows: list[dict]) -> str:
        with gzip.open(data / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return name

    def documents(name: str, size: int) -> str:
        return written(name, [{"text": f"{name} {i} " * 40, "source": f"s{i % 3}"} for i in range(size)])

    def labels(name: str) -> str:
        rows = [{"a": f"{name} {i}", "b": ["x", "y"], "kind": i % 2, "of": f"g{i}"} for i in range(30)]
        return written(name, rows)

    def pair(make, *size) -> dict:
        return {
            "train": make(f"{make.__name__}{len(list(data.iterdir()))}.jsonl.gz", *size),
            "test": make(f"{make.__name__}{len(list(data.iterdir()))}.jsonl.gz", *size),
        }

    texts = {name: pair(documents, 60) for name in ("general_text", "domain_text", "code_text")}
    fields = {"text": ["a", "b"], "label": "kind", "group": "of"}
    names = ("domain_labels", "second_labels", "general_labels", "code_labels")
    sources = {**texts, **{name: {**pair(labels), **fields} for name in names}}
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(sources))
    for base in ("full", "young"):
        (tmp_path / "out" / "bases" / base).mkdir(parents=True)
    prepare = truth["prepare"].prepare
    prepare(data, path, tmp_path / "out")
    prepare(data, path, tmp_path / "out")
    with pytest.raises(ConfigError, match="slices of other files"):
        prepare(tmp_path, path, tmp_path / "out")

    def texts_of(name: str) -> set[str]:
        with gzip.open(tmp_path / "out" / "data" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            return {json.loads(line)["text"] for line in file}

    assert texts_of("base_text") and not texts_of("base_text") & texts_of("other_half")
    assert len(texts_of("base_text") | texts_of("other_half")) == 60
    assert texts_of("one_source") < texts_of("other_half")
    assert any(text.endswith("\nx\ny") for text in texts_of("second_labels"))


def test_a_study_that_is_out_of_time_is_stopped_and_not_kept(truth, tmp_path, monkeypatch):
    run = truth["run"]
    started = []

    def sleep(self, job):
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    monkeypatch.setattr(run.Runner, "_start", sleep)
    begun = time.monotonic()
    run.Runner(tmp_path, 4, begun + 0.5).run(run.jobs_of("domain_text", 1.0))
    assert time.monotonic() - begun < 15
    assert len(started) == 2 and all(process.returncode for process in started)
    assert not (tmp_path / "kept").exists()


def test_what_is_kept_is_not_run_again(truth, tmp_path, monkeypatch):
    run = truth["run"]
    jobs = run.jobs_of("domain_text", 1.0)
    for job in jobs:
        write_json(job.kept(tmp_path) / "verdict.json", {})
    monkeypatch.setattr(run.Runner, "_start", lambda self, job: pytest.fail("run again"))
    run.Runner(tmp_path, 4, math.inf).run(jobs)


def test_the_table_is_written_into_the_readme_with_every_miss(truth, tmp_path, monkeypatch):
    table, agreement = truth["table"], truth["agreement"]
    side = agreement.Side(
        "no gain", "continued", "VERDICT: continued is enough; not tried: placebo", (), True
    )
    sides = {"b": side, "4b": dataclasses.replace(side, answer="gain", line="VERDICT: scratch on bits")}
    missed = agreement.Coverage("scratch", 1.0, 1.1, 1.2)
    turn = agreement.Turn("at", 1.5, 1.0, 2.5, math.inf, False)
    said = {"b": "gain", "4b": "gain"}
    row = agreement.Row("made", True, said, sides, turn, (missed,), (), "likely", False)
    (tmp_path / "README.md").write_text(f"Before\n{table.BEGIN}\nstale\n{table.END}\nafter\n")
    for budget in sides:
        write_json(tmp_path / "kept" / "made" / budget / "verdict.json", {})
    monkeypatch.setattr(table, "HERE", tmp_path)
    table.publish(tmp_path / "kept", [row])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"Before\n{table.BEGIN}\n") and text.endswith(f"{table.END}\nafter\n")
    assert "stale" not in text and "| 1.5 B [1 B, 2.5 B] | beyond 4 |" in text
    for line in (
        "- made: turned; at B continued is enough; at 4B scratch on bits",
        "- made: a control without shift gains",
        "- made: largest run at B of scratch 1.200, predicted 1.000 to 1.100",
        "- made: D* 1.5 B [1 B, 2.5 B], measured beyond 4",
        "- made: pretraining was likely to gain, which did not hold",
    ):
        assert line in text
    assert (tmp_path / "results" / "made" / "4b" / "verdict.json").exists()
    assert read_json(tmp_path / "results" / "table.json")["rows"][0]["turn"]["measured"] is None


def test_the_readme_shows_what_the_kept_studies_say(truth):
    """The counts of all, and the first study judged again."""
    folder, readme = TRUTH / "results", (TRUTH / "README.md").read_text(encoding="utf-8")
    if not folder.is_dir():
        pytest.skip("no study is kept yet")
    table = read_json(folder / "table.json")
    assert all(f"- {line}" in readme for line in table["summary"])
    first = table["rows"][0]
    (row,) = truth["agreement"].rows_of(folder, TRUTH / "predictions.yaml", [first["study"]])
    assert [row.sides[budget].line for budget in row.sides] == [
        side["line"] for side in first["sides"].values()
    ]
    assert truth["table"].cells(row)[0] in readme
