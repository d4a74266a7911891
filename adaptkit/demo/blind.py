"""Blind comparison: two models answer without names, a visitor votes, then the names are shown.

Which two of the chosen models answer, and which of them stands first, is drawn anew for each prompt. Both
answers appear at once, without speed, cost and colour: each could tell who wrote them. A vote is kept only
where the visitor has agreed to it.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptkit.demo.html import render
from adaptkit.demo.served_models import Server
from adaptkit.demo.shown_models import ShownModel
from adaptkit.demo.streaming import Answer, AnswerStream, Prompt
from adaptkit.study.vote_record import Choice, Vote, VotedAnswer, append_vote

CONSENT = (
    "Keep my vote: the prompt, both answers and what I chose, without my name, in a file of those who run "
    "this page, to find out which model people prefer. What I wrote into the prompt may be read."
)
BUTTONS = {
    Choice.FIRST: "A is better",
    Choice.SECOND: "B is better",
    Choice.TIE: "Equally good",
    Choice.NEITHER: "Both are bad",
}
KEPT = "Your vote is kept."
NOT_KEPT = "Your vote is not kept: you have not agreed to it."


@dataclass(frozen=True)
class Pair:
    """Two finished answers that wait for a vote; stays on the server.

    Attributes:
        token: a random name; each pair is voted on once.
    """

    prompt: Prompt
    answers: tuple[Answer, Answer]
    token: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass
class BlindVotes:
    """Draws pairs and keeps votes.

    Attributes:
        path: the file of votes.
    """

    server: Server
    path: Path
    _random: random.Random = field(default_factory=random.SystemRandom)
    _voted: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(
        self, prompt: Prompt, chosen: Sequence[str], models: Mapping[str, ShownModel]
    ) -> Iterator[tuple[str, Pair | None]]:
        """Draw that two of the chosen models are asked, then both answers; the pair comes last."""
        if len(chosen) < 2:
            yield render("cards", cards=[], note="Choose at least two models: two of them are drawn."), None
            return
        drawn = self._random.sample(list(chosen), 2)
        with AnswerStream(self.server, drawn, prompt) as stream:
            answers: list[Answer] = []
            for answers in stream.progress():
                if any(answer.state not in ("done", "failed") for answer in answers):
                    yield _draw("asking", prompt, (), models), None
        first, second = answers
        if any(answer.state == "failed" for answer in answers):
            yield _draw("failed", prompt, (), models), None
        elif first.text.strip() == second.text.strip():
            yield _draw("same", prompt, (first, second), models), None
        else:
            yield _draw("vote", prompt, (first, second), models), Pair(prompt, (first, second))

    def vote(
        self, choice: Choice, pair: Pair, models: Mapping[str, ShownModel], *, agreed: bool, voter: str
    ) -> str:
        """Keep a vote where the visitor agreed; draws the answers with their names, as HTML.

        Raises: AdaptkitError where it cannot be written.
        """
        with self._lock:
            is_new = pair.token not in self._voted
            self._voted.add(pair.token)
        if agreed and is_new:
            append_vote(self.path, _vote_of(choice, pair, models, voter))
        note = KEPT if agreed else NOT_KEPT
        return _draw("voted", pair.prompt, pair.answers, models, note=note, choice=choice)


def _vote_of(choice: Choice, pair: Pair, models: Mapping[str, ShownModel], voter: str) -> Vote:
    first, second = (
        VotedAnswer(model=answer.model, arm=_shown(answer, models).arm, text=answer.text)
        for answer in pair.answers
    )
    return Vote(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        voter=voter,
        consent=CONSENT,
        prompt=pair.prompt.text,
        first=first,
        second=second,
        choice=choice,
    )


def _shown(answer: Answer, models: Mapping[str, ShownModel]) -> ShownModel:
    """How a model is shown; by its plain name where its server has dropped it since."""
    return models.get(answer.model) or ShownModel(answer.model, answer.model)


def _draw(
    state: str,
    prompt: Prompt,
    answers: Sequence[Answer],
    models: Mapping[str, ShownModel],
    note: str = "",
    choice: Choice | None = None,
) -> str:
    """Draw a state of the comparison; names are in it only where `state` is `voted` or `same`."""
    cards = []
    for letter, side, answer in zip("AB", (Choice.FIRST, Choice.SECOND), answers, strict=False):
        model = _shown(answer, models) if state in ("voted", "same") else None
        cards.append({"letter": letter, "text": answer.text, "model": model, "won": choice is side})
    beginning = "" if prompt.chat else prompt.text
    return render("blind", state=state, cards=cards, beginning=beginning[-160:], note=note)
