"""Labels by rules: tables and Python files, what is said of them, and a task file that studies read. Home of
labelling.weak_labels and labelling.label_rules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import EXIT_USER, ConfigError, DataError
from adaptkit.labelling.label_model import NONE
from adaptkit.labelling.label_rules import read_keywords, vote
from adaptkit.labelling.weak_labels import weak_labels, write_task
from adaptkit.study.task import TaskConfig

TABLE = "label,pattern,is_regex\nfruit,apple,\nfruit,pear,\ntool,saw,no\ntool,\\bdrill(s|ed)?\\b,1\n"
POOL = [
    "Apple pie",
    "a pear and an apple",
    "the saw",
    "apple saw",
    "Drilled holes",
    "nothing",
    "seesaw",
    "a pear",
]
KNOWN = [("one apple", "fruit"), ("two apples and a saw", "tool"), ("red apple", "tool"), ("a drill", "tool")]


def write(path: Path, rows: list[dict[str, object]]) -> DataConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(files=[str(path)])


@pytest.fixture
def pool(tmp_path: Path) -> DataConfig:
    return write(tmp_path / "pool.jsonl", [{"text": text, "n": [number]} for number, text in enumerate(POOL)])


@pytest.fixture
def known(tmp_path: Path) -> DataConfig:
    return write(tmp_path / "known.jsonl", [{"text": text, "label": label} for text, label in KNOWN])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "rules.csv").write_text(TABLE)
    return tmp_path / "rules.csv"


def python(folder: Path, text: str) -> Path:
    (folder / "rules.py").write_text(text)
    return folder / "rules.py"


def test_words_are_whole_and_patterns_are_found_anywhere(table: Path, tmp_path: Path) -> None:
    found = {
        name: [text for text in [*POOL, "pears"] if pattern.search(text)]
        for name, _, pattern in read_keywords(table)
    }
    assert found["fruit: apple"] == ["Apple pie", "a pear and an apple", "apple saw"]
    assert found["tool: saw"] == ["the saw", "apple saw"]
    assert found["fruit: pear"] == ["a pear and an apple", "a pear"]
    assert found["tool: \\bdrill(s|ed)?\\b"] == ["Drilled holes"]
    (tmp_path / "more.csv").write_text("label,pattern\na,(x)\nb,\u6771\u4eac\n")
    (_, _, brackets), (_, _, han) = read_keywords(tmp_path / "more.csv")
    assert brackets.search("f(x)=1") and not brackets.search("x") and han.search("\u5728\u6771\u4eac\u7684")


def test_rows_get_labels_or_are_counted(pool: DataConfig, table: Path) -> None:
    weak = weak_labels(pool, table)
    assert [(row.record["text"], row.label) for row in weak.rows] == [
        ("Apple pie", "fruit"),
        ("a pear and an apple", "fruit"),
        ("the saw", "tool"),
        ("apple saw", "fruit"),  # that rule agrees with another
        ("Drilled holes", "tool"),
        ("a pear", "fruit"),
    ]
    assert (weak.num_silent, weak.num_tied, weak.num_known) == (2, 0, 0)
    apple, pear, saw, drill = weak.rules
    assert (apple.covers, apple.overlaps, apple.conflicts) == (3 / 8, 2 / 8, 1 / 8)
    assert (pear.covers, pear.overlaps, pear.conflicts) == (2 / 8, 1 / 8, 0)
    assert (saw.covers, saw.conflicts, drill.overlaps) == (2 / 8, 1 / 8, 0) and saw.labels == ("tool",)
    assert weak.accuracy is None and all(rule.measured is None for rule in weak.rules) and weak.settled
    both = {row.record["text"]: row.chances["fruit"] for row in weak.rows}
    assert both["a pear and an apple"] > both["Apple pie"] > 0.5 > both["the saw"]


def test_an_even_split_is_not_written(tmp_path: Path) -> None:
    rows = write(tmp_path / "even.jsonl", [{"text": "x y"}, {"text": "x"}, {"text": "y"}])
    (tmp_path / "one.csv").write_text("label,pattern\na,x\n")
    with pytest.raises(DataError, match="the rules give one label, 'a'"):
        weak_labels(rows, tmp_path / "one.csv")
    rules = python(
        tmp_path,
        "def first(text):\n    return 'a' if 'x' in text else None\n\n"
        "def second(text):\n    return 'b' if 'y' in text else None\n",
    )
    weak = weak_labels(rows, rules)
    assert weak.num_tied == 1 and {row.record["text"]: row.label for row in weak.rows} == {"x": "a", "y": "b"}


def test_rules_are_measured_and_weighed_on_labelled_rows(
    pool: DataConfig, known: DataConfig, table: Path
) -> None:
    weak = weak_labels(pool, table, known)
    apple, _, saw, drill = weak.rules
    assert apple.measured is not None and apple.measured.mean == pytest.approx(1 / 2)
    assert apple.num_measured == 2 and apple.weight == pytest.approx((1 + 7) / (2 + 10))
    assert apple.measured.low == pytest.approx(0.0945, abs=1e-3)  # Wilson's interval of 1 in 2
    assert apple.measured.high == pytest.approx(0.9055, abs=1e-3)
    assert saw.weight == pytest.approx((1 + 7) / (1 + 10)) and drill.num_measured == 1
    torn = next(row for row in weak.rows if row.record["text"] == "apple saw")
    assert torn.label == "tool", "the rule that is right more often wins"
    # of four covered rows, each weighed without itself: apple is wrong on one, right on one
    assert weak.num_measured == 4 == weak.num_labelled and weak.accuracy is not None
    assert weak.accuracy.mean == pytest.approx(3 / 4) and weak.majority is not None


def test_a_labelled_row_has_no_say_in_how_its_own_rules_are_weighed(tmp_path: Path) -> None:
    rules = python(
        tmp_path,
        "def first(text):\n    return 'a' if 'x' in text else None\n\n"
        "def second(text):\n    return 'b' if 'y' in text else None\n",
    )
    pool = write(tmp_path / "pool.jsonl", [{"text": "x"}])
    known = write(tmp_path / "known.jsonl", [{"text": "x y", "label": "a"}, {"text": "q", "label": "b"}])
    weak = weak_labels(pool, rules, known)
    assert weak.num_measured == 1 and weak.accuracy is not None
    assert weak.accuracy.mean <= 0.5, (
        "the other row, which no rule covers, does not tell which of two is right"
    )


def test_the_text_of_a_labelled_row_is_left_out(pool: DataConfig, table: Path, tmp_path: Path) -> None:
    rows = [
        {"text": POOL[0], "label": "fruit"},
        {"text": "else", "label": "tool"},
        {"text": "x", "label": "stone"},
    ]
    weak = weak_labels(pool, table, write(tmp_path / "some.jsonl", rows))
    assert weak.num_known == 1 and POOL[0] not in [row.record["text"] for row in weak.rows]
    assert weak.missing == ("stone",)


def test_a_task_reads_the_file_as_it_is(pool: DataConfig, table: Path, tmp_path: Path) -> None:
    write_task(weak_labels(pool, table), tmp_path / "weak.jsonl")
    task = TaskConfig(name="kinds", train=DataConfig(files=[str(tmp_path / "weak.jsonl")]))
    read_rows = task.task_kind.read(task)
    rows = [*read_rows.train.rows, *read_rows.test.rows]
    assert {row.values["label"] for row in rows} == {"fruit", "tool"}
    for row in rows:
        chances = row.values["label_probabilities"]
        assert max(chances, key=chances.get) == row.values["label"] and sum(
            chances.values()
        ) == pytest.approx(1)
    first = json.loads((tmp_path / "weak.jsonl").read_text().splitlines()[0])
    assert first["text"] == "Apple pie" and first["n"] == [0]


def test_labels_are_spelt_as_in_the_labelled_rows(pool: DataConfig, table: Path, tmp_path: Path) -> None:
    table.write_text(TABLE.replace("fruit", "1").replace("tool", "0"))
    rows = [{"text": text, "kind": int(label == "fruit")} for text, label in KNOWN]
    known = write(tmp_path / "numbers.jsonl", rows).model_copy(update={"columns": {"label": "kind"}})
    weak = weak_labels(pool, table, known)
    assert weak.label_column == "kind" and {row.label for row in weak.rows} == {0, 1}
    write_task(weak, tmp_path / "weak.jsonl")
    config = DataConfig(files=[known.files[0], str(tmp_path / "weak.jsonl")], columns={"label": "kind"})
    assert read(config, "labelled").labels == ["0", "1"]


def test_functions_see_the_text_or_the_whole_row(pool: DataConfig, tmp_path: Path) -> None:
    rules = python(
        tmp_path,
        "import json\nfrom os.path import join\n\ndef _helper(a, b):\n    return a + b\n\n"
        "def apples(text):\n    return 'fruit' if 'apple' in text else None\n\n"
        "def odd(row):\n    print('aside')\n    return row['n'][0] % 2 == 1\n\n"
        "def two(row):\n    return 2 if row['n'] == [2] else None\n",
    )
    rows = read(pool, "text").rows
    votes = vote(rules, [({"text": row.text, "n": [n]}, row) for n, row in enumerate(rows)])
    assert votes.names == ("apples", "odd", "two") and votes.labels == ("2", "false", "fruit", "true")
    assert votes.votes_NR[:, 0].tolist() == [NONE, 2, NONE, 2, NONE, NONE, NONE, NONE]
    assert votes.votes_NR[:, 1].tolist() == [1, 3] * 4 and np.flatnonzero(
        votes.votes_NR[:, 2] == 0
    ).tolist() == [2]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("def pick(words):\n    return None\n", ":1", "pick\\(words\\) takes neither `text` nor `row`"),
        ("x = 1\n", "", "defines no function of `text` or `row`"),
        ("\ndef bad(text):\n    return 0.5\n", ":2", "bad gives 0.5, and no label"),
        ("def bad(text):\n    return text.nothing\n", ":2", "AttributeError"),
        ("def slow(text):\n    while True:\n        pass\n", "", "did not come to an end within 2 s"),
    ],
)
def test_a_python_file_that_fails_is_shown_at_its_line(
    pool: DataConfig, tmp_path: Path, text: str, where: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as failed:
        weak_labels(pool, python(tmp_path, text), seconds=2.0 if "slow" in text else 60.0)
    assert failed.value.where == f"{tmp_path / 'rules.py'}{where}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("label,word\na,b\n", "rules.csv:2: no rule"),
        ("label,pattern\na,\n", "rules.csv:2: a rule without label or pattern"),
        ("label,pattern\na,b\na,b\n", "rules.csv:3: the rule 'a: b' stands twice"),
        ("label,pattern,is_regex\na,b,maybe\n", "is_regex is 'maybe'"),
        ("label,pattern,is_regex\na,(b,1\n", "'\\(b' is no regular expression"),
        ("label,pattern\nfruit,zzz\ntool,yyy\n", "the rules give no row a label"),
        (
            "label,pattern\nfruit,apple\ntools,saw\n",
            "no row of --labelled has the label 'tools' .did you mean 'tool'",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    pool: DataConfig, known: DataConfig, table: Path, text: str, what: str
) -> None:
    table.write_text(text)
    with pytest.raises(DataError, match=what):
        weak_labels(pool, table, known)


def test_the_command_shows_and_writes(
    pool: DataConfig,
    known: DataConfig,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ask = ["labels", "weak", "pool.jsonl", "--rules", "rules.csv"]
    assert run_command(app, [*ask, "--labelled", "known.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "pool.jsonl.weak.jsonl: 6 of 8 rows labelled (75.0%)" in shown
    assert "not written: 2 of which no rule speaks, 0 evenly torn" in shown
    assert "50.0% [9, 91] of 2" in shown and "together, on labelled rows that they speak of" in shown
    assert "Never test on weak labels" in shown and "Rules were weighed by how well they agree" not in shown
    assert run_command(app, ask) == EXIT_USER and "is there already" in capsys.readouterr().err
    assert run_command(app, [*ask, "--out", "b.jsonl"]) == 0
    assert "Rules were weighed by how well they agree" in capsys.readouterr().out
    assert run_command(app, [*ask, "--out", "c.jsonl", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == "c.jsonl" and said["num_silent"] == 2 and len(said["rules"]) == 4
    assert (
        run_command(app, ["labels", "weak", "pool.jsonl", "--rules", "no.py", "--out", "d.jsonl"])
        == EXIT_USER
    )
    assert "there is no such file" in capsys.readouterr().err
