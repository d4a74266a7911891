"""Votes of people: kept line by line, counted by Bradley and Terry, given to a study as a task. Home of
study.vote_judge, study.vote_record, study.win_rates and cli.votes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_openai import KEY, FakeServer

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.data import DataConfig, read
from adaptkit.errors import DataError
from adaptkit.study.vote_judge import agreement_of, judge_votes, votes_of_judge
from adaptkit.study.vote_record import (
    Choice,
    Vote,
    VotedAnswer,
    append_vote,
    open_votes,
    preference_rows,
    read_votes,
)
from adaptkit.study.win_rates import Comparisons, comparisons_of, strengths, wilson, win_rates


def vote(first: str, second: str, choice: Choice, *, voter: str = "v", prompt: str = "Why?") -> Vote:
    return Vote(
        at="2026-11-27T12:00:00Z",
        voter=voter,
        consent="Keep it.",
        prompt=prompt,
        first=VotedAnswer(model=first, text=f"{first} says {prompt}"),
        second=VotedAnswer(model=second, text=f"{second} says {prompt}"),
        choice=choice,
    )


def votes_of(*counts: tuple[str, str, int], ties: int = 0) -> list[Vote]:
    """So many wins of the first model over the second, each on its own prompt; ties of the first pair."""
    rows = [(a, b, Choice.FIRST) for a, b, count in counts for _ in range(count)]
    rows += [(*counts[0][:2], Choice.TIE)] * ties
    return [vote(a, b, choice, prompt=f"prompt {i}?") for i, (a, b, choice) in enumerate(rows)]


def test_votes_are_read_as_they_were_written_and_what_a_kill_cut_is_none(tmp_path: Path) -> None:
    path, kept = tmp_path / "kept" / "votes.jsonl", votes_of(("a", "b", 2))
    assert open_votes(path) == 0 and path.stat().st_mode & 0o077 == 0
    for each in kept:
        append_vote(path, each)
    with path.open("a") as file:
        file.write('{"version": 1, "at"')
    assert read_votes(path) == kept and open_votes(path) == 2
    append_vote(path, kept[0])
    assert read_votes(path) == [*kept, kept[0]]
    path.write_text('{"version": 1}\n')
    with pytest.raises(DataError, match=r"votes.jsonl:1: is no vote: at: Field required"):
        open_votes(path)
    with pytest.raises(DataError, match="votes cannot be kept here"):
        open_votes(tmp_path / "kept" / "votes.jsonl" / "below")


def test_two_models_win_what_they_won() -> None:
    compared = comparisons_of(votes_of(("a", "b", 11), ("b", "a", 5), ties=4))
    rates = {(row.model, row.against): row for row in win_rates(compared)}
    assert rates["a", ""].rate == pytest.approx(13 / 20, abs=1e-3)  # 11 wins and 4 halves, closed form
    assert rates["a", "b"].rate == pytest.approx(13 / 20, abs=1e-3)
    assert rates["b", ""].rate == pytest.approx(7 / 20, abs=1e-3)
    error = 1.96 * np.sqrt((11 * 0.35**2 + 5 * 0.65**2 + 4 * 0.15**2) / 20**2)  # of a mean of 20 votes
    assert rates["a", ""].low == pytest.approx(13 / 20 - error, abs=0.04)
    assert rates["a", ""].high == pytest.approx(13 / 20 + error, abs=0.04)


def test_strengths_of_three_are_the_fixed_point_of_the_likelihood() -> None:
    compared = comparisons_of(
        votes_of(("a", "b", 7), ("b", "a", 3), ("b", "c", 6), ("c", "b", 4), ("c", "a", 2))
    )
    found = strengths(compared)
    weight = np.ones(3)
    wins = np.array([[0, 7, 0], [3, 0, 6], [2, 4, 0]], float)
    for _ in range(2000):  # Zermelo's iteration (1929), as Hunter (2004) proves it
        met = (wins + wins.T) / (weight[:, None] + weight[None, :])
        weight = wins.sum(axis=1) / met.sum(axis=1)
        weight /= np.exp(np.log(weight).mean())
    assert found == pytest.approx(np.log(weight), abs=1e-3)


def test_many_votes_of_few_voters_say_little_of_others() -> None:
    fans = [
        vote("a", "b", Choice.FIRST, voter=f"fan {i}", prompt=f"{i} {j}") for i in range(8) for j in range(9)
    ]
    foes = [
        vote("a", "b", Choice.SECOND, voter=f"foe {i}", prompt=f"{i} {j}") for i in range(4) for j in range(9)
    ]
    by_voter, by_prompt = (
        next(row for row in win_rates(comparisons_of(fans + foes, cluster)) if row.model == "a")
        for cluster in (None, "prompt")
    )
    assert by_voter.rate == by_prompt.rate == pytest.approx(2 / 3, abs=1e-3)
    assert comparisons_of(fans + foes).cluster == "voter" and comparisons_of(fans).cluster == "prompt"
    assert by_voter.high - by_voter.low > 2 * (by_prompt.high - by_prompt.low)


def test_who_won_every_vote_may_still_lose_one() -> None:
    row = win_rates(comparisons_of(votes_of(("a", "b", 8))))[0]
    assert row.model == "a" and row.rate > 0.99 and 0.6 < row.low < 0.7 and row.high > 0.99
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_models_that_never_met_share_no_scale() -> None:
    compared = comparisons_of(votes_of(("a", "b", 3), ("b", "a", 1), ("c", "d", 2), ("d", "c", 2)))
    assert not compared.connected
    assert [(row.model, row.against) for row in win_rates(compared)] == [("a", "b"), ("c", "d")]
    assert isinstance(compared, Comparisons) and compared.num_clusters == 8


def test_preferences_are_a_task_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [*votes_of(("a", "b", 2), ("b", "a", 1), ties=1), vote("a", "b", Choice.SECOND)]
    same = kept[0].model_copy(update={"second": kept[0].first})
    rows = preference_rows([*kept, same])
    assert [row["chosen"].split()[0] for row in rows] == ["a", "a", "b", "b"]
    assert len({row["group"] for row in rows}) == 4
    path = tmp_path / "votes.jsonl"
    for each in kept:
        append_vote(path, each)
    out = tmp_path / "preferences.jsonl"
    assert run_command(app, ["votes", str(path), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["preferences"] == 4 and told["choices"] == {"first": 3, "tie": 1, "second": 1}
    assert told["left"] == 0.75 and told["cluster"] == "prompt"
    read_back = read(DataConfig(files=[str(out)]), "labelled_pairs").rows
    assert {row.values["label"] for row in read_back} <= {"first", "second"} and len(read_back) == 4
    assert run_command(app, ["votes", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "all others" in shown and "5 votes of 1 voters: 1 ties" in shown
    path.write_text("")
    assert run_command(app, ["votes", str(path)]) == 2 and "holds no votes yet" in capsys.readouterr().err


def test_a_judge_comes_with_its_agreement_and_is_asked_once_in_each_order(tmp_path: Path) -> None:
    people = votes_of(("a", "b", 6), ("b", "a", 2), ties=2)
    asked: list[str] = []

    def prefers_a(request: str) -> str:
        asked.append(request)
        return "A" if request.index("a says") < request.index("b says") else "B"

    judged = judge_votes(people, prefers_a, "j", tmp_path / "kept.jsonl")
    assert len(asked) == 20 and judged.swayed == 0
    assert judge_votes(people, prefers_a, "j", tmp_path / "kept.jsonl") == judged and len(asked) == 20
    agreed = agreement_of(people, judged)
    assert agreed.share == 0.6 and agreed.decided == 0.75 and agreed.low < 0.6 < agreed.high
    # people: first 8, tie 2; the judge: first 8, second 2; 6 the same, and 64 / 100 by chance
    assert agreed.kappa == pytest.approx((0.6 - 0.64) / 0.36)
    assert win_rates(comparisons_of(votes_of_judge(people, judged)))[0].rate > 0.99
    first = judge_votes(people, lambda request: "A", "sways", tmp_path / "kept.jsonl")
    assert first.swayed == 1 and set(first.choices) == {Choice.TIE}
    assert agreement_of(people, first).decided is None
    unsure = judge_votes(people, lambda request: "A or B, a hard one", "unsure", tmp_path / "kept.jsonl")
    assert unsure.swayed == 0 and set(unsure.choices) == {Choice.TIE}


def test_the_command_asks_a_served_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "votes.jsonl"
    for each in votes_of(("a", "b", 3), ("b", "a", 1)):
        append_vote(path, each)
    with FakeServer([("judge", "generate")], delay_s=0.0) as fake:
        fake.answer = lambda request: "B"
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert run_command(app, ["votes", str(path), "--judge", fake.url, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["judge"]
        assert told["model"] == "judge" and told["agreement"]["swayed"] == 1
        assert run_command(app, ["votes", str(path), "--judge", fake.url]) == 0
    shown = capsys.readouterr().out
    assert "the judge judge says what people say in 0%" in shown and "worth as much as that" in shown
    assert len((tmp_path / "votes.judge.jsonl").read_text().splitlines()) == 8
