"""Tab "Classify": a text's class, with probabilities calibrated on the study's development items."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import gradio as gr

from adaptkit.client.openai import CUT, Client
from adaptkit.demo.html import render
from adaptkit.demo.second_click import draw_note, say_while_busy
from adaptkit.demo.served_models import Failure, Server, explain
from adaptkit.demo.shown_models import ShownModel
from adaptkit.demo.study_view import Calibration, Judged, Study
from adaptkit.demo.text_window import cut_sentence
from adaptkit.errors import ServerError

MAX_TEXT_CHARS, MAX_ITEMS, BATCH = 8000, 400, 32
ROUNDING = 0.01
SHOWN_DIGITS = 3
"""Of a calibration error: a gain that these do not show is none."""
NO_CLASSES = Failure(
    "refused",
    "This model does not choose one of several classes: it gives any number of labels, or a number.",
    "Ask it over HTTP, at /classify.",
)


@dataclass(frozen=True)
class Bar:
    """One class: its probability as the server gave it, and calibrated."""

    label: str
    raw: float
    after: float


@dataclass
class Classify:
    """The tab's components, and what they do.

    Attributes:
        models: by name; filled whenever the server is looked at.
    """

    server: Server
    study: Study
    models: dict[str, ShownModel] = field(default_factory=dict)
    _calibrated: dict[str, Calibration | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def build(self) -> tuple[gr.Dropdown, gr.HTML]:
        """Draw the tab. Returns the choice of the model, and where the answer stands."""
        text = gr.Textbox(
            label="Text",
            value=self._example(),
            lines=3,
            max_lines=8,
            max_length=MAX_TEXT_CHARS,
            placeholder="A sentence or a paragraph.",
            elem_id="to-classify",
        )
        with gr.Row(elem_classes="actions"):
            model = gr.Dropdown([], label="Classifier", elem_id="classifier", filterable=False)
            go = gr.Button("Classify", variant="primary", elem_id="classify")
        note = draw_note("classified")
        answer = gr.HTML(self.empty(), elem_id="classified", apply_default_css=False)
        classifying = gr.on(
            [go.click, text.submit],
            self.classify,
            [text, model],
            answer,
            concurrency_limit=8,
            show_progress="hidden",
            api_visibility="private",
        )
        say_while_busy(
            note,
            [go.click, text.submit],
            classifying,
            "classified",
            "The text is still being classified: wait a moment.",
        )
        return model, answer

    def empty(self) -> str:
        """Draw the tab before anything was asked, as HTML."""
        state = "empty" if self.models else "none"
        return render("classified", state=state, tasks=self.labelled_tasks(), study=self.study.name)

    def labelled_tasks(self) -> list[str]:
        """Name the study's tasks on which a model chooses one of several labels."""
        return [task for task in self.study.tasks if self.study.labels(task)]

    def classify(self, text: str, model: str | None) -> Iterator[str]:
        """Draw the server's probabilities at once, and the calibrated ones when they are there, as HTML."""
        if not model or model not in self.models or not text.strip():
            yield self.empty()
            return
        yield render("classified", state="asking")
        try:
            with self.server.client() as client:
                row = client.classify_rows(model, [text[:MAX_TEXT_CHARS]], **CUT)[0]
                raw, unsure = row["probs"], row.get("confidence") if row.get("abstain") else None
                cut = cut_sentence(client, self.models[model], text, MAX_TEXT_CHARS)
                if abs(sum(raw) - 1) > ROUNDING:
                    yield render("classified", state="failed", failure=NO_CLASSES)
                    return
                if model not in self._calibrated:
                    yield self._draw(model, raw, None, "calibrating", cut, unsure)
                calibration = self._calibration(client, model, len(raw))
        except (ServerError, ValueError, KeyError, TypeError) as error:
            yield render("classified", state="failed", failure=explain(error, self.server.url, model))
            return
        state = "raw"
        if calibration is not None:
            gains = round(calibration.after, SHOWN_DIGITS) < round(calibration.before, SHOWN_DIGITS)
            state = "calibrated" if gains else "worse"
        yield self._draw(model, raw, calibration, state, cut, unsure)

    def _draw(
        self,
        model: str,
        raw: Sequence[float],
        calibration: Calibration | None,
        state: str,
        cut: str,
        unsure: float | None,
    ) -> str:
        """Draw the classes, likeliest first.

        Args:
            unsure: the confidence of a model that abstains from this text; None where it answers.
        """
        after = raw
        if calibration is not None and state == "calibrated":
            after = calibration.apply(raw)
        rows = zip(self._labels(model, len(raw)), raw, after, strict=True)
        bars = sorted((Bar(*row) for row in rows), key=lambda bar: -bar.after)
        shown = self.models[model]
        said = {"model": shown, "cut": cut, "unsure": unsure}
        return render("classified", state=state, bars=bars, calibration=calibration, **said)

    def _labels(self, model: str, count: int) -> Sequence[str]:
        """List the task's classes in the order of the model's outputs; numbers where they are unknown."""
        labels = self.study.labels(self._task(model, count))
        if len(labels) != count:
            return [f"class {i}" for i in range(count)]
        return labels

    def _task(self, model: str, count: int) -> str:
        """Choose the task that the server says the model answers, else the only one with as many classes."""
        task = self.models[model].task
        if task in self.study.tasks:
            return task
        fitting = [name for name in self.study.tasks if len(self.study.labels(name)) == count]
        if len(fitting) != 1:
            return ""
        return fitting[0]

    def _calibration(self, client: Client, model: str, count: int) -> Calibration | None:
        """Fit a calibration once per model, on what the server itself answers for development items."""
        task = self._task(model, count)
        with self._lock:
            if model not in self._calibrated:
                dev: Judged = ()
                test: Judged = ()
                if len(self.study.labels(task)) == count:
                    dev = self._judged(client, model, task, "dev")
                    test = self._judged(client, model, task, "test")
                self._calibrated[model] = self.study.calibrate(dev, test)
            return self._calibrated[model]

    def _judged(self, client: Client, model: str, task: str, part: str) -> Judged:
        """Ask for probabilities of a part's items; each stands beside the true class."""
        labels = list(self.study.labels(task))
        judged: list[tuple[Sequence[float], int]] = []
        items = [(text, label) for text, label in self.study.items(part, task) if label in labels][:MAX_ITEMS]
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            answers = client.classify(model, [text[:MAX_TEXT_CHARS] for text, _ in batch], **CUT)
            for (_, probabilities), (_, label) in zip(answers, batch, strict=True):
                judged.append((probabilities, labels.index(label)))
        return judged

    def _example(self) -> str:
        texts = (text for task in self.study.tasks for text, _ in self.study.items("test", task)[:1])
        return next(texts, "")
