"""`adaptkit init`: from a file that nobody has described to a study. Home of compare.first_study,
compare.fitting_budget, data.column_suggestions and cli.init."""

import csv
import json
import math
import random
import re
import shlex
from types import SimpleNamespace

import pytest
from tiny_study import study_config, write_texts

from adaptkit.cli import init
from adaptkit.cli.app import app
from adaptkit.cli.console import run
from adaptkit.compare import first_study as first_study_module
from adaptkit.compare import fitting_budget
from adaptkit.compare.driver import compare, open_study
from adaptkit.compare.first_study import _parts, first_study
from adaptkit.compare.plan import make_plan, measure_study
from adaptkit.compare.workspace import result_path
from adaptkit.config import load
from adaptkit.data.column_suggestions import suggest
from adaptkit.data.readers import read
from adaptkit.errors import EXIT_USER, ConfigError, DataError
from adaptkit.study.config import StudyConfig
from adaptkit.study.stage_record import PREPARE

PARTS = {
    "billing": ("an invoice is wrong", "the card was charged twice", "a refund is missing"),
    "network": ("the wireless is down", "the tunnel drops", "pages load slowly"),
    "access": ("the password expired", "the account is locked", "a code never came"),
}


def tickets(path, names, num_rows=240):
    """A table whose columns are called by `names`: id, date, title, body, queue, priority, language."""
    rng = random.Random(0)
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        for number in range(num_rows):
            queue = rng.choice(sorted(PARTS))
            what, more = rng.sample(PARTS[queue], 2)
            when, room = rng.randrange(1, 12), rng.randrange(99)
            body = f"Since {when} o'clock {what} on floor {number}, room {room}. Also {more}."
            day = f"2026-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}"
            priority, language = rng.choice(["low", "high"]), rng.choice(["en", "de"])
            table.writerow([f"T-{number}", day, f"Help, {what}", body, queue, priority, language])


GERMAN = ["nummer", "erstellt", "Betreff", "Anliegen", "Team", "Dringlichkeit", "Language"]
ENGLISH = ["ticket_id", "created_at", "Subject", "Body", "Queue", "Priority", "Language"]


def test_data_check_guesses_columns_for_all_files_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tickets(tmp_path / "en.csv", ["nr", "day", "x", "Body of it", "Queue", "Priority", "Language"])
    tickets(tmp_path / "de.csv", GERMAN)
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n3,4\n")
    assert run(app, ["data", "check", "en.csv", "de.csv", "numbers.csv"]) == EXIT_USER
    shown = capsys.readouterr().err
    assert "3 files cannot be read" in shown and "numbers.csv:2: no known roles in columns a, b" in shown
    assert "guess by what they hold: {text: Anliegen, label: Team}" in shown
    command = "--column text='Body of it' --column label=Queue"
    assert command in shown
    assert run(app, ["data", "check", "en.csv", *shlex.split(command)]) == 0


def test_columns_are_told_by_name_and_by_what_they_hold(tmp_path):
    tickets(tmp_path / "en.csv", ENGLISH)
    found = suggest(tmp_path / "en.csv")
    assert found.columns == {"text": "Subject+Body", "label": "Queue"}
    assert found.others == ("Priority",), "neither a language nor a date is what anyone wants to learn"
    tickets(tmp_path / "de.csv", GERMAN)
    found = suggest(tmp_path / "de.csv")
    assert found.columns == {"text": "Anliegen", "label": "Team"}
    assert found.others == ("Dringlichkeit",)


@pytest.mark.parametrize(
    ("row", "kind", "columns"),
    [
        ({"text": "a b c", "label": "x"}, "labelled", {}),
        ({"text": "a b c", "labels": ["x", "y"]}, "multi_label", {}),
        ({"text": "a b c", "spans": [[0, 1, "x"]]}, "spans", {}),
        ({"text": "a b c", "score": 4.5}, "scored", {}),
        ({"question": "what is it", "answer": "a small thing"}, "sft", {}),
        ({"query": "what is it", "reply": "a small thing"}, "sft",
         {"prompt": "query", "completion": "reply"}),
        ({"id": "1", "body": "some words here"}, "text", {"text": "body"}),
        ({"text": "some words here", "year": 2020, "licence": "x"}, "text", {}),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
         "messages", {}),
        ({"id": "1", "説明": "部屋のプリンターが動きません"}, "text", {"text": "説明"}),
    ],
)  # fmt: skip
def test_each_shape_of_rows_is_seen(tmp_path, row, kind, columns):
    rows = [{**row, **({"year": 2000 + n % 3} if "year" in row else {})} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = suggest(tmp_path / "rows.jsonl")
    assert (found.kind, found.columns) == (kind, columns)


def test_a_table_of_numbers_is_refused_by_its_columns(tmp_path):
    (tmp_path / "n.csv").write_text("a,b\n" + "1,2\n" * 40)
    with pytest.raises(DataError, match="no column holds text; it has a, b"):
        suggest(tmp_path / "n.csv")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return measure_study(study_config(folder, "arms=[]", "seeds=3", "budget.amount=1e12"))


def test_the_budget_is_the_largest_that_ends_in_time(measured, monkeypatch):
    monkeypatch.setattr(fitting_budget, "TEXT_EPOCHS", math.inf)
    fit = fitting_budget.fitting_budget(measured, seconds=600)
    larger = fitting_budget.AMOUNTS[fitting_budget.AMOUNTS.index(fit.amount) + 1]
    assert fit.bound == "time" and fit.seconds <= 600 < fitting_budget.study_seconds(measured, larger)
    again = fitting_budget.fitting_budget(measured, seconds=6000)
    assert again.amount > fit.amount


def test_the_memory_of_a_stage_holds_the_process_itself(measured):
    machine = measured.machine
    assert machine.memory_bytes > machine.process_bytes > 1e8, "torch alone is larger than the tiny model"


def test_no_budget_wears_out_the_text(measured):
    fit = fitting_budget.fitting_budget(measured, seconds=1e9)
    assert fit.bound == "text" and fit.epochs <= fitting_budget.TEXT_EPOCHS
    larger = fitting_budget.AMOUNTS[fitting_budget.AMOUNTS.index(fit.amount) + 1]
    assert fitting_budget.text_epochs(measured, larger) > fitting_budget.TEXT_EPOCHS


def test_where_nothing_fits_the_least_that_trains_is_taken_and_said(measured):
    fit = fitting_budget.fitting_budget(measured, seconds=0.01)
    smaller = fitting_budget.AMOUNTS[fitting_budget.AMOUNTS.index(fit.amount) - 1]
    assert fit.bound == "least" and fit.seconds > 0.01
    assert fitting_budget.study_seconds(measured, smaller) is None


def test_a_budget_that_leaves_arms_out_says_the_smallest_that_takes_them_in(measured):
    def left_out(amount):
        return {row.arm for row in measured.under(amount).decide().left_out if not row.task}

    small = fitting_budget.fitting_budget(measured, seconds=0.01).amount
    room = fitting_budget.room_for_more(measured, small)
    assert room is not None and {"scratch", "continued"} <= set(room.arms) <= left_out(small)
    before = fitting_budget.AMOUNTS[fitting_budget.AMOUNTS.index(room.amount) - 1]
    assert left_out(before).intersection(room.arms) and not left_out(room.amount).intersection(room.arms)
    assert room.seconds == fitting_budget.study_seconds(measured, room.amount)
    assert fitting_budget.room_for_more(measured, room.amount) is None


def test_init_tells_what_has_no_room_from_what_never_runs():
    room = fitting_budget.Room(("scratch", "continued"), 5e11, 600.0)
    study = SimpleNamespace(left_out=("scratch", "continued", "generic+probe"), room=room)
    rows = dict(init._left_out(study))
    assert rows["no room for"] == "scratch, continued" and "budget.amount=5e+11" in rows["room for them"]
    assert rows["left out too"].startswith("generic+probe (")
    assert init._left_out(SimpleNamespace(left_out=(), room=None)) == []


def test_a_dry_run_doubts_a_budget_out_of_proportion(tmp_path):
    write_texts(tmp_path)
    config = study_config(tmp_path, "budget.amount=1e17")
    advice = fitting_budget.out_of_proportion(make_plan(config, open_study(config, tmp_path)))
    assert re.fullmatch(r"about \d+\.\d days on this machine; budget.amount=\S+ takes \d+ min", advice[0])
    assert "passes over your text, and more than 16 buy next to nothing" in advice[1]
    fitting = study_config(tmp_path)
    assert fitting_budget.out_of_proportion(make_plan(fitting, open_study(fitting, tmp_path))) == []
    assert compare(config, tmp_path, dry_run=True)["advice"][1] == advice[1]


def test_a_table_becomes_a_study_that_compare_goes_on_with(tmp_path, monkeypatch):
    write_texts(tmp_path)
    tickets(tmp_path / "tickets.csv", ENGLISH)
    monkeypatch.chdir(tmp_path)
    study = first_study(
        ["tickets.csv"],
        out=tmp_path / "study.yaml",
        root=tmp_path / "runs",
        seconds=300,
        general=["general.jsonl"],
    )
    config = load(StudyConfig, tmp_path / "study.yaml").config
    assert config.budget == study.config.budget and config.base_flops == study.config.base_flops
    assert [task.name for task in config.tasks] == ["queue"]
    assert config.tasks[0].train.columns == {"text": "Subject+Body", "label": "Queue"}
    assert config.domain.train.columns == {"text": "Subject+Body"}
    assert [baseline.name for baseline in study.baselines] == ["tfidf"] and study.baselines[0].score > 0.5
    run = open_study(config, tmp_path / "runs")
    assert result_path(run.path, PREPARE).exists(), "compare finds the data prepared"
    assert "could be learnt: Priority" in (tmp_path / "study.yaml").read_text()
    with pytest.raises(ConfigError, match="exists already"):
        first_study(["tickets.csv"], out=tmp_path / "study.yaml", root=tmp_path / "runs", seconds=300)


def retrieval_set(folder, num_documents=60):
    """Documents, one question to each, and grades for training and test questions."""
    (folder / "qrels").mkdir(parents=True)
    faults = PARTS["network"]
    pairs = [(n, f"The engine of car {n}: {faults[n % 3]} in {n % 7} places.") for n in range(num_documents)]
    documents = [{"_id": f"d{n}", "title": f"Car {n}", "text": text} for n, text in pairs]
    questions = [{"_id": f"q{n}", "text": f"what of the engine in car {n}?"} for n, _ in pairs]
    for name, rows in (("corpus", documents), ("queries", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, numbers in (("train", range(40)), ("test", range(40, num_documents))):
        lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in numbers)]
        (folder / "qrels" / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def test_a_retrieval_set_becomes_a_study_by_its_folder_or_its_files(tmp_path, monkeypatch):
    write_texts(tmp_path)
    retrieval_set(tmp_path / "search-test")
    monkeypatch.chdir(tmp_path)
    files = ["search-test/corpus.jsonl", "search-test/queries.jsonl"]
    assert _parts(files) == _parts(["search-test"]) == ("search-test", [], [])
    study = first_study(
        files, out=tmp_path / "study.yaml", root=tmp_path / "runs", seconds=300, general=["general.jsonl"]
    )
    config = load(StudyConfig, tmp_path / "study.yaml").config
    assert [(task.name, task.kind, task.train.files) for task in config.tasks] == [
        ("search", "retrieve", ["search-test"])
    ]
    assert config.domain.train.files == ["search-test/corpus.jsonl"] and config.budget == study.config.budget
    assert [baseline.name for baseline in study.baselines] == ["bm25"] and study.baselines[0].score > 0.5
    assert result_path(open_study(config, tmp_path / "runs").path, PREPARE).exists()


def test_general_text_of_our_own_is_read_without_a_guess(tmp_path, monkeypatch):
    rows = [{"text": f"some words {number}", "source": f"pack/{number % 3}"} for number in range(30)]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = SimpleNamespace(general=tmp_path / "general.jsonl")
    monkeypatch.setattr(first_study_module, "offline_corpus", lambda *_: made)
    told = []
    general = first_study_module._general([], tmp_path)
    assert len(read(general, "text", tell=told.append).rows) == 30 and told == []
    assert first_study_module._general(["a.txt"], tmp_path).files == ["a.txt"]


def test_the_command_says_what_to_run_next(tmp_path, monkeypatch, capsys):
    from adaptkit.cli.console import run

    write_texts(tmp_path)
    monkeypatch.chdir(tmp_path)
    tickets(tmp_path / "tickets.csv", ENGLISH)
    tickets(tmp_path / "tickets-test.csv", ENGLISH, num_rows=80)
    words = ["init", "tickets.csv", "tickets-test.csv", "domain.jsonl", "--general", "general.jsonl"]
    assert run(app, [*words, "--out", "my.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "next: adaptkit compare my.yaml" in shown and "tfidf, no language model" in shown
    config = load(StudyConfig, tmp_path / "my.yaml").config
    assert config.tasks[0].test.files == ["tickets-test.csv"]
    assert config.domain.train.files == ["domain.jsonl"]
