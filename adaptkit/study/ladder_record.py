"""Records of models from scratch that a study trained at other sizes than its own."""

from __future__ import annotations

from adaptkit.run_record import Record


class RungScoreRecord(Record):
    """One training from scratch at another size, scored on held-out domain text."""

    arm: str
    seed: int
    size: int
    """Parameters that were asked for, which name it."""
    params: int
    """Parameters that the model has."""
    learning_rate: float
    """Carried over from the study's own size."""
    run: str
    """The run that holds its scores by passage."""
    model_run: str
    """The run that trained it."""
    read_bytes: float | None = None
    """Bytes of domain text that it read, repeats counted; None in studies of older releases."""


class LadderRecord(Record):
    """All sizes that models from scratch were to be trained at."""

    own: int
    """Parameters of the study's own models from scratch, whose scores stand with the others."""
    sizes: tuple[int, ...]
    """Those that were trained, ascending, the study's own among them."""
    left_out: tuple[int, ...] = ()
    """Those that could not be: too few steps, or no shape."""
    scores: tuple[RungScoreRecord, ...] = ()
