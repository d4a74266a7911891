"""Windows of served texts against training text: how often nothing alarms, and what is found where something
changed. Home of data.input_drift and cli.monitor."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from scipy.stats import binom

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.cli.monitor import ALARM
from adaptkit.data.input_drift import LENGTH, UNKNOWN, WORDS, Drift, Reference, windows
from adaptkit.data.readers import Row
from adaptkit.errors import EXIT_USER, DataError
from adaptkit.run import write_jsonl

VOCABULARY = [f"w{i}" for i in range(300)]
SHARES = [1 / (i + 3) for i in range(300)]


def texts(seed: int, num: int, length: int = 12, shift: int = 0, strange: int = 0) -> list[str]:
    """Sentences of words by Zipf's law; `shift` moves the frequent words, `strange` adds words of no use."""
    rng = random.Random(seed)
    names = VOCABULARY[shift:] + VOCABULARY[:shift]
    found = []
    for number in range(num):
        own = rng.choices(names, SHARES, k=max(3, int(rng.gauss(length, 3))))
        found.append(" ".join([*own, *(f"x{seed}y{number}z{i}" for i in range(strange))]))
    return found


def rows(seed: int, num: int, **change: int) -> list[Row]:
    return [Row({"text": text}, f"log:{i}", str(i)) for i, text in enumerate(texts(seed, num, **change))]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(rows(1, 400))


def test_alarms_are_as_rare_as_was_asked_where_nothing_has_changed() -> None:
    """New references and new windows each time: 60 of each rate, held against the binomial's 99.9 %."""
    rate, alarms, runs = 0.2, 0, 0
    for seed in range(20):
        reference = Reference.of(rows(1000 + seed, 160))
        for window in range(3):
            alarms += reference.compare(rows(5000 + 10 * seed + window, 50), rate=rate).alarm
            runs += 1
    assert alarms <= binom.ppf(0.999, runs, rate)
    assert alarms > 0  # three signs, each at a third of the rate, do not sleep either


@pytest.mark.parametrize(
    ("change", "sign"), [({"shift": 4}, WORDS), ({"strange": 1}, UNKNOWN), ({"length": 16}, LENGTH)]
)
def test_a_planted_change_alarms_by_its_own_sign(
    reference: Reference, change: dict[str, int], sign: str
) -> None:
    drift = reference.compare(rows(7, 100, **change))
    assert drift.alarm and {each.name: each.p for each in drift.signs}[sign] <= 0.01
    assert not reference.compare(rows(8, 100)).alarm


def test_the_words_that_tell_are_named(reference: Reference) -> None:
    drift = reference.compare(rows(7, 100, shift=30))
    assert "w0" in drift.fewer and "w30" in drift.more and "w0" not in drift.more
    assert (drift.first, drift.last, drift.num_texts) == ("log:0", "log:99", 100)


def test_repeated_texts_and_rows_of_a_caller_count_once() -> None:
    reference = Reference.of(rows(1, 200))
    once = rows(9, 60)
    many = [*once, *(Row({"text": once[0].text}, "log:x", f"x{i}") for i in range(40))]
    assert reference.compare(many).num_documents == 60
    grouped = [
        Row({**row.values, "group": str(i % 45)}, row.where, row.id) for i, row in enumerate(rows(9, 90))
    ]
    assert reference.compare(grouped).num_documents == 45
    with pytest.raises(DataError, match="30 different texts, and a window needs 40"):
        reference.compare(once[:30])
    with pytest.raises(DataError, match="79 documents, and a reference needs 80"):
        Reference.of(rows(1, 79))


def test_documents_of_several_rows_make_no_alarms() -> None:
    """More text lies closer to the profile; the reference must not be larger than the window by that."""
    train = [
        Row({**row.values, "group": str(i // 4)}, row.where, row.id) for i, row in enumerate(rows(1, 800))
    ]
    reference = Reference.of(train)
    assert reference.num_profile == reference.num_beside == 100
    drifts = [reference.compare(rows(20 + seed, 60)) for seed in range(4)]
    assert min(drift.p for drift in drifts) > 0.02


def test_windows_go_by_time_and_say_what_is_left() -> None:
    plain = rows(1, 250)
    parts, left = windows(plain, 100)
    assert [len(part) for part in parts] == [100, 100, 50] and left == 0
    parts, left = windows(plain[:240], 100)
    assert [len(part) for part in parts] == [100, 100] and left == 40
    assert [len(part) for part in windows(plain[:60], 200)[0]] == [60]
    timed = [Row({**row.values, "time": float(-i)}, row.where, row.id) for i, row in enumerate(plain)]
    assert windows(timed, 100)[0][0][0].where == "log:249"


def test_the_command_alarms_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"text": text} for text in texts(1, 300)])
    served = [*texts(2, 100), *texts(3, 100, shift=30), *texts(4, 20)]
    write_jsonl(tmp_path / "served.jsonl", [{"body": text} for text in served])
    words = [
        "monitor",
        str(tmp_path / "served.jsonl"),
        "--against",
        str(tmp_path / "train.jsonl"),
        "--window",
        "100",
    ]
    words += ["--column", "text=body"]
    assert run_command(app, words) == ALARM
    shown = capsys.readouterr().out
    assert "1 of 2 windows alarm; 0.02 would by chance alone." in shown and "more often w" in shown
    assert "20 texts at the end are less than half a window" in shown
    assert run_command(app, [*words, "--json"]) == ALARM
    found = json.loads(capsys.readouterr().out)
    assert [each["alarm"] for each in found["windows"]] == [False, True] and found["left_out"] == 20
    write_jsonl(tmp_path / "served.jsonl", [{"body": text} for text in served[:100]])
    assert run_command(app, words) == 0
    assert "0 of 1 windows alarm" in capsys.readouterr().out
    write_jsonl(tmp_path / "served.jsonl", [{"body": text} for text in served[:10]])
    assert run_command(app, words) == EXIT_USER
    assert "a window needs 40" in capsys.readouterr().err
    assert isinstance(Reference.of(rows(1, 100)).compare(rows(2, 50)), Drift)
