"""Two studies side by side: what changed is shown, and what did not is only counted."""

from __future__ import annotations

import json

import pytest
from fake_study import edit_study, write_study
from typer.testing import CliRunner

from adaptkit.cli.app import app
from adaptkit.errors import ConfigError
from adaptkit.report.changes import compare_studies

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


def test_the_command_shows_both_answers(pair):
    shown = CliRunner().invoke(app, ["report", *map(str, pair)])
    assert shown.exit_code == 0 and shown.output.count("VERDICT:") == 2 and "placebo+full" in shown.output
    told = CliRunner().invoke(app, ["report", *map(str, pair), "--json"])
    assert {"before", "after", "lines", "changes"} == set(json.loads(told.stdout))
    three = CliRunner().invoke(app, ["report", *map(str, pair), str(pair[0])])
    assert isinstance(three.exception, ConfigError)
