"""A study as the page needs it, made up, and the models that a server of it offers: no report, no runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study.calibration import Calibration, Judged, calibrate

LABELS = ("background", "objective", "methods", "results", "conclusions")
PLAIN, TAUGHT, OWN, STUDENT, SORTER = "plain", "taught", "own", "student", "sorter"
GENERIC_VECTORS, DOMAIN_VECTORS = "generic-vectors", "domain-vectors"
MODELS = [
    (PLAIN, "generate"),
    (TAUGHT, "generate"),
    (OWN, "generate"),
    (STUDENT, "generate"),
    (SORTER, "classify"),
    (GENERIC_VECTORS, "embed"),
    (DOMAIN_VECTORS, "embed"),
]


def identity(role: str, origin: str, arm: str = "", task: str = "") -> dict[str, str]:
    """The fields that an adaptkit server tells of a model."""
    fields = {"study": "clinical-trials", "role": role, "origin": origin, "arm": arm, "task": task}
    return {name: value for name, value in fields.items() if value}


IDENTITIES = {
    PLAIN: identity("generic", "generic", "generic+prompt", "language"),
    TAUGHT: identity("finetuned", "generic", "generic+lora", "language"),
    OWN: identity("pretrained", "scratch", "scratch+full", "language"),
    STUDENT: identity("distilled", "distilled", "distilled+full", "language"),
    SORTER: identity("finetuned", "generic", "generic+lora", "rct_role"),
    GENERIC_VECTORS: identity("generic", "generic"),
    DOMAIN_VECTORS: identity("pretrained", "continued"),
}


@dataclass(frozen=True)
class FakeDial:
    name: str
    value: float
    low: float
    high: float
    log: bool = True
    main: bool = True
    label: str = "A number"
    origin: str = "as in the study"

    def show(self, value: float) -> str:
        return f"{value:.3g} of it"


class FakeStudy:
    """Rows and passages of the sizes of a small study; `weighed` is what the sliders asked for."""

    name = "clinical-trials"
    tasks: Sequence[str] = ("rct_role",)

    def __init__(self) -> None:
        self.weighed: list[dict[str, float]] = []

    def verdict(self) -> str:
        return "<h1>the verdict</h1>"

    def evidence(self) -> str:
        return "<p>the evidence</p>"

    def about(self) -> str:
        return "<p>about it</p>"

    def dials(self) -> list[FakeDial]:
        months = FakeDial("months", 12.0, 1.0, 60.0, log=False, main=False)
        return [months, FakeDial("usd_per_hour", 0.4, 0.05, 10.0)]

    def weigh(self, **values: float) -> str:
        self.weighed.append(values)
        return f"<p>{sorted(values.items())}</p>"

    def labels(self, task: str) -> Sequence[str]:
        return LABELS if task == "rct_role" else ()

    def items(self, part: str, task: str) -> list[tuple[str, str]]:
        return [(f"class{i % 5} item {i} of {part}", LABELS[i % 5]) for i in range(120)]

    def documents(self) -> list[tuple[str, str]]:
        text = "on adults with asthma who took a drug for weeks."
        return [(f"d:{i}", f"Passage {i} {text}") for i in range(60)]

    def questions(self) -> list[tuple[str, str]]:
        return [(f"Which drug helps in case {i}?", f"Drug {i}.") for i in range(3)]

    def calibrate(self, dev: Judged, test: Judged) -> Calibration | None:
        return calibrate(dev, test)
