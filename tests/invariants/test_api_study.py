"""A whole study against a real server as its API: a verdict is reached, and no answer is paid for twice."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_study import write_texts

from adaptkit.cli.app import app
from adaptkit.cli.console import run
from adaptkit.run import Run, read_json, read_sealed
from adaptkit.study.results import Results, collect
from adaptkit.study.verdict_record import read_verdict

if TYPE_CHECKING:
    from real_server import Served

STUDY = """
name: api
base: BASE
api:
  url: URL
  model: writer
  key_file: KEY
  price: {usd_per_million_in: 1, usd_per_million_out: 2, source: a test, date: 2026-11-01}
  ceiling: 5
domain: {train: {files: [FOLDER/domain.jsonl]}, test_items: 4, dev_items: 4}
general: {train: {files: [FOLDER/general.jsonl]}, test_items: 4, dev_items: 4}
tasks:
  - {name: day, train: {files: [FOLDER/day.jsonl]}, instruction: Name the day, examples: 0, max_length: 32,
     test_items: 10, dev_items: 6}
arms: [generic+prompt, api+prompt]
budget: {amount: 1e10, trials: 1, price: {usd_per_hour: 0.4, source: a test, date: 2026-11-01}}
decision: {requests_per_month: 200000}
seeds: 2
size: {params: 130k, seq_len: 64}
tokenizer: {vocab_size: 512}
jobs: 1
"""


def compare(folder: Path, *overrides: str) -> tuple[int, set[Path]]:
    """Run the study: its exit code, and the folders of the studies that are there now."""
    with contextlib.chdir(folder):
        code = run(app, ["compare", "study.yaml", *overrides, "--root", "runs"])
    return code, {path.parent for path in (folder / "runs").glob("*/study.json")}


def paid(results: Results) -> list[dict]:
    """What each run of the API's arm cost."""
    return [read_sealed(Run(cell.run).cost_path) for cell in results.of("day", "api+prompt")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_texts(folder)
    rows = [{"text": f"{('sun', 'rain')[i % 2]} {i}", "label": ("good", "bad")[i % 2]} for i in range(80)]
    (folder / "day.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"BASE": served.folder / "writer", "URL": served.url, "KEY": served.folder / "key"}
    text = STUDY.replace("FOLDER", str(folder))
    for name, value in places.items():
        text = text.replace(name, str(value))
    (folder / "study.yaml").write_text(text)
    return folder


def test_a_study_reaches_its_verdict_and_a_second_one_pays_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = compare(folder, "--dry-run")
    assert plan == 0 and "api+prompt" in capsys.readouterr().out
    refused, none = compare(folder, "api.ceiling=1e-9")
    assert refused == 2 and "the API may cost" in capsys.readouterr().err and not none
    assert not (folder / "runs" / "api-replies").exists(), "neither sends anything"

    first, studies = compare(folder)
    assert first in (0, 3)
    (study,) = studies
    assert "VERDICT" in read_verdict(study).of("day").line
    results = collect(study)
    assert {arm.name for arm in results.scored_arms("day")} == {"tfidf", "generic+prompt", "api+prompt"}
    assert all(
        row["reply"] in ("good", "bad") for cell in results.of("day", "api+prompt") for row in cell.rows
    )
    costs = paid(results)
    assert len(costs) == 2 and sum(cost["usd_paid"] for cost in costs) > 0
    assert all(cost["tokens_in_per_item"] > 0 and cost["latency_s"]["p95"] > 0 for cost in costs)
    spent = read_json(study / "api_spent.json")["usd"]
    assert spent == pytest.approx(sum(cost["usd_paid"] for cost in costs))

    report = (study / "report" / "report.md").read_text()
    assert "month 24: own / API" in report and "200,000 requests a month" in report

    # another set of runs would have to ask again, and finds every reply kept
    second, both = compare(folder, "tasks.0.max_length=31")
    assert second in (0, 3)
    (last,) = both - studies
    asked = paid(collect(last))
    assert all(cost["usd_paid"] == 0 and cost["requests_kept"] == cost["requests"] > 0 for cost in asked)
