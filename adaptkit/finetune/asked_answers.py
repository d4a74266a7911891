"""Answer a task by asking a model over an API: instruction and examples as turns, nothing trained.

The formats of the prompt compete on development rows, as many as other arms try settings, and with a finder
the passages that stand in it with them. Labels are asked
for as one of a list where the server can hold a model to it (vLLM's structured outputs); where it cannot, the
reply is read for a label, and replies without one are counted and are wrong.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any, Protocol

from adaptkit.data.drawing import draw_from
from adaptkit.data.json_fields import Schema
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import label_scores
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow, Score
from adaptkit.errors import ServerError
from adaptkit.finetune.frozen_answers import FrozenAnswers, goodness
from adaptkit.finetune.prompt_chat import turns_of
from adaptkit.finetune.prompt_examples import drawn_examples
from adaptkit.finetune.prompt_formats import Choices, Format, formats, num_examples
from adaptkit.finetune.prompt_passages import Finder, Setting, passage_facts, with_lookups
from adaptkit.finetune.prompt_template import Question, Sections, question_and_answer
from adaptkit.finetune.prompt_words import TaskWords, written_labels
from adaptkit.finetune.prompted_labels import blocks
from adaptkit.notices import tell

MAX_DEV_ROWS = 64
"""Rows, drawn by hash, that each format is tried on: every one is paid for."""
BYTES_PER_TOKEN = 4
"""By which texts are cut: the server's own tokens are not known."""
LABEL_TOKENS = 8
"""That a reply may have beside its label."""
UNPARSABLE = ""
"""The prediction of a reply that names no label."""
UNKNOWN_OPTION = (400, 404, 422)
"""What a server answers that does not know an option."""
_MARKS = re.compile(r"[\W_]+")


class Reply(Protocol):
    """What an API answered; `adaptkit.client.paid` has such."""

    @property
    def text(self) -> str: ...
    @property
    def tokens_in(self) -> int: ...
    @property
    def tokens_out(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def usd(self) -> float: ...
    @property
    def kept(self) -> bool: ...


class Asked(Protocol):
    """A model behind an API."""

    def ask(self, messages: Sequence[dict[str, str]], *, max_tokens: int, **options: Any) -> Reply: ...


@dataclass(frozen=True)
class Asking:
    """How an API is asked for a task.

    Attributes:
        words: the task's instruction and what its labels mean.
        examples: examples in a prompt; None takes one of each label, or two for free text.
        trials: formats compared on the dev split.
        seed: of the examples.
        metric: what the choice is made by.
        max_length: tokens of each text, about; 0 cuts nothing.
        at_once: requests at once.
        schema: what a written answer must be an object of, where the server can hold a model to it.
        finder: looks up passages for each question; None asks without any.
    """

    model: Asked
    words: TaskWords
    examples: int | None
    trials: int
    seed: int
    metric: str
    max_length: int = 0
    at_once: int = 1
    schema: Schema | None = None
    finder: Finder | None = None


def ask_for_labels(
    asking: Asking,
    train: Dataset,
    dev: Dataset,
    test: Dataset,
    label_names: Sequence[str],
    *,
    score: Score = label_scores,
) -> FrozenAnswers:
    """Choose a format on dev, label the test split with it.

    Args:
        score: item rows -> metrics, `asking.metric` among them.

    Raises: ServerError where the API gives no answer, BudgetError where it may cost more than is left.
    """
    for part in (dev, test):
        check_labels(part, label_names)
    names = list(label_names)
    written = dict(zip(names, written_labels(names), strict=True))
    shots = _shots(asking, train, (dev, test), len(names))
    examples = [(_cut(row.text, asking), written[row.values["label"]]) for row in shots]
    meter = _Meter(asking.model, bool(names))
    limit = LABEL_TOKENS + max(len(name.encode()) for name in written.values())

    def rows(part: Sequence[Row], setting: Setting) -> list[ItemRow]:
        def one(row: Row, question: Question) -> ItemRow:
            turns = _turns(asking, names, setting.fmt, examples, question)
            reply = meter.ask_within({"choice": list(written.values())}, turns, limit)
            label = named_label(reply.text, written)
            item = {"id": row.id, "label": row.values["label"], "prediction": label or UNPARSABLE}
            return {**item, "reply": reply.text[:200], **_price(reply)}

        return _each(asking, one, part, [Question(_cut(row.text, asking)) for row in part], setting)

    outcome = _choose(asking, meter, rows, score, dev, test, names, len(shots))
    lost = sum(row["prediction"] == UNPARSABLE for row in outcome.rows)
    if lost:
        tell(f"{lost} of {len(outcome.rows)} replies of the API name no label, and count as wrong")
    outcome.chosen.update(unparsable=lost, constrained=meter.constrained)
    return outcome


def ask_for_answers(
    asking: Asking, train: Dataset, dev: Dataset, test: Dataset, *, score: Score, max_new_tokens: int = 64
) -> FrozenAnswers:
    """Choose a format on dev, answer the test split with it.

    Raises: as `ask_for_labels`.
    """
    shots = [question_and_answer(row) for row in _shots(asking, train, (dev, test), 0)]
    examples = [(question.whole, answer) for question, answer in shots]
    options = {} if asking.schema is None else {"json": asking.schema.json_schema}
    meter = _Meter(asking.model, bool(options))

    def rows(part: Sequence[Row], setting: Setting) -> list[ItemRow]:
        def one(row: Row, question: Question) -> ItemRow:
            reference = question_and_answer(row)[1]
            turns = _turns(asking, [], setting.fmt, examples, question)
            reply = meter.ask_within(options, turns, max_new_tokens)
            item = {"id": row.id, "reference": reference, "prediction": reply.text.strip()}
            if setting.lookup is not None:
                item |= passage_facts(question.whole, question.passages, reference, item["prediction"])
            return {**item, **_price(reply)}

        return _each(asking, one, part, [question_and_answer(row)[0] for row in part], setting)

    outcome = _choose(asking, meter, rows, score, dev, test, [], len(shots))
    if options:
        outcome.chosen.update(constrained=meter.constrained)
    return outcome


def api_formats(trials: int, num_labels: int, words: TaskWords, num_shots: int) -> list[Format]:
    """The formats that an API is asked in: a conversation that begins with the instruction."""
    described = any(words.descriptions.values())
    every = formats(10_000, Choices(True, described, num_shots, labels=num_labels > 0))
    asked = [fmt for fmt in every if fmt.style == "chat" and fmt.instruction and not fmt.normalised]
    alike = {(fmt.descriptions, fmt.shots): fmt for fmt in reversed(asked)}
    firsts = set(alike.values())
    return [fmt for fmt in asked if fmt in firsts][:trials]


def named_label(reply: str, written: dict[str, str]) -> str | None:
    """The one label that a reply names; None where it names none, or several.

    Args:
        written: label -> as it stands in the prompt.
    """
    said = _plain(reply)
    spoken = {label: _plain(name) for label, name in written.items()}
    exact = [label for label, name in spoken.items() if said == name]
    if exact:
        return exact[0] if len(exact) == 1 else None
    named = [label for label, name in spoken.items() if name and f" {name} " in f" {said} "]
    # "no" stands in "no reply" too: only the longer one is meant
    within = {
        label
        for label in named
        for other in named
        if other != label
        and f" {spoken[label]} " in f" {spoken[other]} "
        and f" {said} ".count(f" {spoken[label]} ") <= f" {said} ".count(f" {spoken[other]} ")
    }
    left = [label for label in named if label not in within]
    return left[0] if len(left) == 1 else None


class _Meter:
    """Asks and adds up what that takes; notices where a server cannot hold a model to a constraint."""

    def __init__(self, model: Asked, constrained: bool):
        self.model, self.constrained = model, constrained
        self.replies: list[Reply] = []

    def ask(self, turns: Sequence[dict[str, str]], limit: int, **options: Any) -> Reply:
        reply = self.model.ask(turns, max_tokens=limit, **options)
        self.replies.append(reply)
        return reply

    def ask_within(self, constraint: dict[str, Any], turns: Sequence[dict[str, str]], limit: int) -> Reply:
        """A reply within a constraint (one of a list, an object of a schema), where the server knows how."""
        if self.constrained:
            try:
                return self.ask(turns, limit, structured_outputs=constraint)
            except ServerError as error:
                if getattr(error, "status", 0) not in UNKNOWN_OPTION:
                    raise
                self.constrained = False
        return self.ask(turns, limit)

    def cost(self, seconds: float, answered: Sequence[ItemRow]) -> dict[str, Any]:
        """For cost.json: all requests, and what one item of the test took."""
        waited = [row["seconds"] for row in answered]
        latency = {"p50": waited[0], "p95": waited[0]} if waited else {}
        if len(waited) > 1:
            parts = quantiles(waited, n=20, method="inclusive")
            latency = {"p50": parts[9], "p95": parts[18]}
        tokens_in, tokens_out = (sum(row[name] for row in answered) for name in ("tokens_in", "tokens_out"))
        num_items = max(1, len(answered))
        return {
            "flops": 0.0,
            "seconds": round(seconds, 3),
            "tokens": sum(reply.tokens_in + reply.tokens_out for reply in self.replies),
            "requests": len(self.replies),
            "requests_kept": sum(reply.kept for reply in self.replies),
            "usd": sum(reply.usd for reply in self.replies),
            "usd_paid": sum(reply.usd for reply in self.replies if not reply.kept),
            "usd_per_item": sum(row["usd"] for row in answered) / num_items,
            "tokens_in_per_item": tokens_in / num_items,
            "tokens_out_per_item": tokens_out / num_items,
            "latency_s": {name: round(value, 4) for name, value in latency.items()},
        }


def _choose(
    asking: Asking,
    meter: _Meter,
    rows: Callable[[Sequence[Row], Setting], list[ItemRow]],
    score: Score,
    dev: Dataset,
    test: Dataset,
    label_names: Sequence[str],
    num_shots: int,
) -> FrozenAnswers:
    begun = time.perf_counter()
    judges = draw_from(dev, MAX_DEV_ROWS).rows
    ways = api_formats(asking.trials, len(label_names), asking.words, num_shots)
    settings = with_lookups(ways, asking.trials, asking.finder)
    tried = [(setting, score(rows(judges, setting))) for setting in settings]
    best, scores = max(tried, key=lambda pair: goodness(pair[1], asking.metric))
    answered = rows(test.rows, best)
    cost = meter.cost(time.perf_counter() - begun, answered)
    cost["flops"] = asking.finder.flops if asking.finder is not None else 0.0
    chosen = {**best.fields, "instruction_text": (blocks(asking.words, label_names, best.fmt) or [""])[0]}
    trials = [{**setting.fields, **each} for setting, each in tried]
    return FrozenAnswers(answered, scores, chosen, trials, cost)


def _shots(asking: Asking, train: Dataset, judged: Sequence[Dataset], num_labels: int) -> list[Row]:
    return drawn_examples(train, judged, num_examples(asking.examples, num_labels), asking.seed)


def _turns(
    asking: Asking,
    label_names: Sequence[str],
    fmt: Format,
    examples: Sequence[tuple[str, str]],
    question: Question,
) -> list[dict[str, str]]:
    block = blocks(asking.words, label_names, fmt)[0]
    return turns_of(Sections(block, tuple(examples[: fmt.shots]), question))


def _each(
    asking: Asking,
    one: Callable[[Row, Question], ItemRow],
    rows: Sequence[Row],
    questions: Sequence[Question],
    setting: Setting,
) -> list[ItemRow]:
    """Item rows in order, with what the setting looks up; several requests at once, and the first error ends
    it."""
    if asking.finder is not None and setting.lookup is not None:
        found = asking.finder.find([question.whole for question in questions], rows, setting.lookup)
        pairs = zip(questions, found, strict=True)
        questions = [replace(question, passages=tuple(passages)) for question, passages in pairs]
    # the first shows whether the server can be asked at all, and what it knows
    first = [one(row, question) for row, question in zip(rows[:1], questions[:1], strict=True)]
    with ThreadPoolExecutor(max(1, asking.at_once)) as pool:
        try:
            return [*first, *pool.map(one, rows[1:], questions[1:])]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _price(reply: Reply) -> dict[str, float]:
    return {
        "seconds": round(reply.seconds, 4),
        "usd": reply.usd,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
    }


def _cut(text: str, asking: Asking) -> str:
    """The beginning of a text, as long as `max_length` tokens are about."""
    if not asking.max_length:
        return text
    return text.encode()[: asking.max_length * BYTES_PER_TOKEN].decode(errors="ignore")


def _plain(text: str) -> str:
    """Words alone, in small letters: what a reply and a label are compared by."""
    return _MARKS.sub(" ", text.casefold()).strip() or text.strip()
