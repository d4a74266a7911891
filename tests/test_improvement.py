"""Whether a training was still improving, from its evaluations."""

from __future__ import annotations

import pytest

from adaptkit.trainer.improvement import improvement


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([2.0, 1.5, 1.2], "still improving when it ended: the last evaluation took 20 % off the dev loss"),
        ([2.0, 1.2, 1.5], "best at step 2 of 3: it got worse after that, more steps will not help"),
        ([2.0, 1.5, 1.499], "no longer improving at step 3: the last evaluations differ by less than 1 %"),
        ([2.0], "evaluated once or never: trainer.eval_every would tell whether it is still improving"),
    ],
)
def test_the_sentence_follows_the_losses(losses: list[float], sentence: str) -> None:
    rows = [{"step": step, "eval_loss": loss} for step, loss in enumerate(losses, 1)]
    assert improvement([{"step": 1, "loss": 9.0}, *rows]) == sentence
