"""Two studies side by side: what changed is shown, and what did not is only counted."""

from __future__ import annotations

import json

import pytest
from fake_study import edit_study, write_study
from typer.testing import CliRunner

from adaptkit.cli.app import app
from adaptkit.errors import ConfigError
from adaptkit.report.changes import compare_studies
from adaptkit.run import Run, write_jsonl
from adaptkit.study.results import collect

SMALL = {"num_documents": 60, "num_rows": 120}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    before = write_study(root / "before", **SMALL, arms=("generic+full", "continued+full", "scratch+full"))
    after = write_study(
        root / "after", **SMALL, arms=("generic+full", "continued+full", "placebo+full"), seeds=4
    )
    record = edit_study(after)
    domain = record.data.corpora["domain"]
    grown = domain.train.model_copy(update={"documents": 9_999, "digest": "ff" * 32})
    corpora = {**record.data.corpora, "domain": domain.model_copy(update={"train": grown})}
    edit_study(after, data=record.data.model_copy(update={"corpora": corpora}))
    return before, after


def changed(pair, part):
    return {
        change.what: (change.before, change.after)
        for change in compare_studies(*pair).changed
        if change.part == part
    }


def test_data_arms_and_budget(pair):
    data = changed(pair, "data")
    assert list(data) == ["domain, train"] and "9,999 rows" in data["domain, train"][1]
    assert changed(pair, "arms") == {"scratch+full": ("ran", "-"), "placebo+full": ("-", "ran")}
    assert changed(pair, "budget") == {"seeds": ("3", "4")}


def test_scores_are_those_of_arms_in_both(pair):
    scores = changed(pair, "scores")
    assert any(what.startswith("continued+full: accuracy") for what in scores)
    assert not any("placebo+full" in what or "scratch+full" in what for what in scores)


def test_a_study_beside_itself_has_no_change(pair):
    same = compare_studies(pair[0], pair[0])
    assert same.changed == [] and same.lines[0] == same.lines[1] and len(same.changes) > 20


def test_what_an_arm_gained_is_paired_by_item(pair):
    gains = {(gain.task, gain.arm): gain for gain in compare_studies(*pair).gains}
    before, after = (collect(path) for path in pair)
    for (task, arm), gain in gains.items():
        means = [results.replicates(task).mean(arm) for results in (before, after)]
        assert gain.pair.difference == pytest.approx(means[1] - means[0])
        assert gain.pair.low <= gain.pair.difference <= gain.pair.high
    assert {arm for _, arm in gains} >= {"generic+full", "continued+full"}
    assert not [arm for _, arm in gains if arm in ("scratch+full", "placebo+full")]
    alone = next(iter(before.of("rct_role", "continued+full"))).rows
    assert gains["rct_role", "continued+full"].pair.num_items == len(alone)
    none = compare_studies(pair[0], pair[0]).gains
    assert none and all("no difference is shown" in gain.sentence for gain in none)
    assert all((gain.pair.difference, gain.pair.outcome) == (0.0, "tie") for gain in none)


def spoilt(cell, change):
    """Write an arm's items anew, each changed."""
    write_jsonl(Run(cell.run).items(cell.suite), [change(row) for row in cell.rows])


def test_a_worse_arm_is_called_worse_and_other_items_are_not_paired(tmp_path):
    before = write_study(tmp_path / "before", **SMALL, arms=("generic+full", "continued+full"))
    after = write_study(tmp_path / "after", **SMALL, arms=("generic+full", "continued+full"))
    results = collect(after)
    for cell in results.of("rct_role", "continued+full"):
        spoilt(cell, lambda row: {**row, "prediction": "nothing"})
    for cell in results.of("rct_role", "generic+full"):
        spoilt(cell, lambda row: {**row, "prediction": row["label"]})
    sentences = {gain.arm: gain.sentence for gain in compare_studies(before, after).gains}
    assert sentences["continued+full"].endswith(": worse") and "changed by -0." in sentences["continued+full"]
    assert sentences["generic+full"].endswith(": better") and "changed by +0." in sentences["generic+full"]
    for task in {cell.task for cell in results.cells}:
        for cell in [cell for cell in results.cells if cell.task == task]:
            spoilt(cell, lambda row: {**row, "id": f"other-{row['id']}"})
    assert compare_studies(before, after).gains == ()
    shown = CliRunner().invoke(app, ["report", str(before), str(after)])
    assert "nothing is paired" in shown.output


def test_the_command_shows_both_answers(pair):
    shown = CliRunner().invoke(app, ["report", *map(str, pair)])
    assert "paired by item:" in shown.output and "on the same" in shown.output
    assert shown.exit_code == 0 and shown.output.count("VERDICT:") == 2 and "placebo+full" in shown.output
    told = CliRunner().invoke(app, ["report", *map(str, pair), "--json"])
    assert {"before", "after", "lines", "changes", "gains"} == set(json.loads(told.stdout))
    three = CliRunner().invoke(app, ["report", *map(str, pair), str(pair[0])])
    assert isinstance(three.exception, ConfigError)
