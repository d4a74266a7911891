"""A language model as a judge of the pairs that people voted on, and how far it agrees with them.

    judged = judge_votes(votes, ask, "gpt-x", Path("votes.judge.jsonl"))
    agreement_of(votes, judged).share

A judge stands for people only as far as it agrees with them, so its choices come with that number or not at
all. Each pair is asked twice, in both orders: who stands first sways a judge (Zheng et al., arXiv
2306.05685), and where its answer follows the order it counts as a tie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.run import append_jsonl, digest, read_jsonl
from adaptkit.study.vote_record import Choice, Vote
from adaptkit.study.win_rates import DRAWS, comparisons_of

REQUEST = """Two assistants answered the same prompt. Which answer is better? Let no order or length sway you.

[Prompt]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Reply with one word: A, B or TIE."""
_WORD = re.compile(r"\b(A|B|TIE)\b")
_SAID = {"A": Choice.FIRST, "B": Choice.SECOND, "TIE": Choice.TIE}
_EXCHANGED = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}


@dataclass(frozen=True)
class Agreement:
    """How far a judge says what people say, over their votes.

    Attributes:
        share: of the votes with the same outcome (first, second, tie; two bad answers are a tie).
        low, high: its 95 % interval, over the clusters of `win_rates`.
        kappa: agreement beyond chance (Cohen 1960): 0 is chance, 1 is all.
        decided: of the votes where both name a winner, the share with the same one; None without any.
        swayed: of the pairs, the share where the answer followed the order.
    """

    share: float
    low: float
    high: float
    kappa: float
    decided: float | None
    swayed: float


@dataclass(frozen=True)
class Judged:
    """The judge's choice for each vote, in order, and in how many pairs the order swayed it."""

    choices: tuple[Choice, ...]
    swayed: float


def judge_votes(votes: Sequence[Vote], ask: Callable[[str], str], judge: str, kept: Path) -> Judged:
    """Ask a judge about every pair of answers once in each order.

    Args:
        ask: gives the judge's reply to a request.
        judge: its name.
        kept: a JSONL file of what it said, for a later call: nothing is asked, or paid, twice.
    Raises: whatever `ask` does.
    """
    said: dict[str, str] = {}
    if kept.exists():
        said = {row["request"]: row["reply"] for row in read_jsonl(kept)}
    choices, swayed = [], {}
    for vote in votes:
        texts = vote.first.text, vote.second.text
        straight, exchanged = (
            _choice(_reply(vote.prompt, pair, ask, judge, kept, said)) for pair in (texts, texts[::-1])
        )
        same = straight is _EXCHANGED.get(exchanged, exchanged)
        choices.append(straight if same else Choice.TIE)
        swayed[vote.prompt, frozenset(texts)] = not same
    return Judged(tuple(choices), float(np.mean(list(swayed.values()))))


def _reply(
    prompt: str, texts: Sequence[str], ask: Callable[[str], str], judge: str, kept: Path, said: dict[str, str]
) -> str:
    request = REQUEST.format(prompt=prompt, first=texts[0], second=texts[1])
    key = digest([judge, request])
    if key not in said:
        said[key] = ask(request)
        append_jsonl(kept, {"request": key, "judge": judge, "reply": said[key]})
    return said[key]


def _choice(reply: str) -> Choice:
    """What a reply says; one that names none of the three, or several, is no choice: a tie."""
    words = set(_WORD.findall(reply.upper() if len(reply.split()) == 1 else reply))
    return _SAID[words.pop()] if len(words) == 1 else Choice.TIE


def agreement_of(votes: Sequence[Vote], judged: Judged) -> Agreement:
    """Compare a judge's choices with people's."""
    from sklearn.metrics import cohen_kappa_score  # late: the demo writes votes without it

    people = [Choice.TIE if vote.choice is Choice.NEITHER else vote.choice for vote in votes]
    same_V = np.array([one is other for one, other in zip(people, judged.choices, strict=True)], float)
    clusters_V = comparisons_of(votes).clusters_V
    sums_C, sizes_C = np.bincount(clusters_V, same_V), np.bincount(clusters_V)
    drawn_RC = np.random.default_rng(0).integers(len(sizes_C), size=(DRAWS, len(sizes_C)))
    shares_R = sums_C[drawn_RC].sum(axis=1) / sizes_C[drawn_RC].sum(axis=1)
    low, high = np.quantile(shares_R, (0.025, 0.975))
    both_V = np.array([Choice.TIE not in pair for pair in zip(people, judged.choices, strict=True)], bool)
    kappa = float(
        cohen_kappa_score([str(choice) for choice in people], [str(each) for each in judged.choices])
    )
    return Agreement(
        share=float(same_V.mean()),
        low=float(low),
        high=float(high),
        kappa=1.0 if np.isnan(kappa) else kappa,
        decided=float(same_V[both_V].mean()) if both_V.any() else None,
        swayed=judged.swayed,
    )


def votes_of_judge(votes: Sequence[Vote], judged: Judged) -> list[Vote]:
    """The same pairs with the judge's choices, for its win rates."""
    pairs = zip(votes, judged.choices, strict=True)
    return [vote.model_copy(update={"choice": choice}) for vote, choice in pairs]
