"""Have a generator write rows from text, keep those that pass, and say what became of the others.

    out/  rows.jsonl       the rows, each with `source: synthetic`, its document as `group`, and its generator
          rejected.jsonl   the others, each with the reason
          answers.jsonl    what the generator wrote, word for word: nothing is asked for twice
          synthesis.json   what it was made from, and the counts

rows.jsonl is made from the answers by rules alone: the same answers give the same rows. Passages that overlap
with a test are never sent, and training rows that do are never shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from adaptkit.audit.label_review import records_of
from adaptkit.client.paid import TURN_TOKENS
from adaptkit.data.drawing import draw_hash
from adaptkit.data.drawing import passages as passages_of
from adaptkit.data.files import find_files
from adaptkit.data.guesses import SYNTHETIC
from adaptkit.data.readers import DataConfig, Dataset, Want, read
from adaptkit.data.words import num_words
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import documents
from adaptkit.errors import ConfigError, DataError
from adaptkit.run import file_digest, write_json, write_jsonl
from adaptkit.study.task_size import BYTES_PER_TOKEN
from adaptkit.synthesis.answer_log import ask_all, num_missing
from adaptkit.synthesis.generators import Generator, Written
from adaptkit.synthesis.kind import NOTHING, RowsKind
from adaptkit.synthesis.record import SynthesisRecord
from adaptkit.synthesis.row_filters import RealRows, leaked, repeated
from adaptkit.synthesis.synthetic_instructions import Instructions
from adaptkit.synthesis.synthetic_labelled import LabelledTexts
from adaptkit.synthesis.synthetic_questions import Questions
from adaptkit.synthesis.synthetic_rows import Candidate, Passage

KindName = Literal["questions", "rows", "instructions"]
ROWS, REJECTED, ANSWERS, INFO = "rows.jsonl", "rejected.jsonl", "answers.jsonl", "synthesis.json"
MIN_WORDS = 8
"""Words of a passage that is asked about: fewer answer nothing."""


@dataclass(frozen=True)
class Order:
    """What is to be written, and what may not be.

    Attributes:
        files: the domain's text.
        count: rows asked for per passage.
        prompt: the request; None is the kind's own.
        most_passages: asked about at most, drawn by hash; 0 takes all.
        train: real training rows: examples and judge of `rows`, and what no row may repeat.
        meanings: label -> what it means.
        against: rows that are held out.
        top: among so many found first a question's passage must be.
        encoder: folder of the encoder that judges questions in place of BM25.
        least_support: of an answer's content words, the share that the passage must hold.
    """

    files: list[str]
    kind: KindName
    count: int = 3
    prompt: str | None = None
    most_passages: int = 0
    train: DataConfig | None = None
    meanings: dict[str, str] = field(default_factory=dict)
    against: tuple[DataConfig, ...] = ()
    top: int = 10
    encoder: str = ""
    least_support: float = 0.5


@dataclass(frozen=True)
class Forecast:
    """What asking will take, before anything is sent.

    Attributes:
        requests, missing: all of them, and those that no kept answer answers.
        tokens_in, tokens_out: of the missing ones: about, and at most.
        usd: what these cost; None where nothing is paid for.
    """

    passages: int
    requests: int
    missing: int
    tokens_in: float
    tokens_out: float
    usd: float | None


class Synthesis:
    """An order whose files are read, ready to be asked for.

    Raises: DataError for rows that cannot be used, ConfigError for an order that does not fit together.
    """

    def __init__(self, order: Order):
        self.order, self.counts = order, Counter[str]()
        held = [row for config in order.against for row in read(config).rows]
        self.held_out = RealRows(held)
        want: Want | None = "labelled" if order.kind == "rows" else None
        self.train: Dataset | None = read(order.train, want) if order.train else None
        self.files = find_files(order.files)[0]
        every = self._read_passages()
        self.kind = self._make_kind(every)
        asked = self._passages_to_ask(every)
        self.requests = [request for passage in asked for request in self.kind.requests(passage)]

    def forecast(self, out: Path, generator: Generator) -> Forecast:
        most = self.kind.max_tokens
        missing = num_missing(self.requests, out / ANSWERS, generator, most)
        num_bytes = sum(len(request.words.encode()) for request in self.requests)
        each = num_bytes / len(self.requests) / BYTES_PER_TOKEN + TURN_TOKENS
        num_passages = self.counts["passages asked about"]
        tokens_in, tokens_out = missing * each, float(missing * most)
        usd = generator.price.usd(tokens_in, tokens_out) if generator.price else None
        return Forecast(num_passages, len(self.requests), missing, tokens_in, tokens_out, usd)

    def write(self, out: Path, generator: Generator) -> SynthesisRecord:
        """Ask for what is missing, filter, and write the folder.

        Raises: DataError where no row passes; whatever the generator raises, with all answers kept.
        """
        out.mkdir(parents=True, exist_ok=True)
        answers = ask_all(self.requests, out / ANSWERS, generator, self.kind.max_tokens)
        counts = Counter(self.counts)
        kept, rejected = self._filter(list(self._candidates(answers, counts)))
        counts.update(reason for _, reason in rejected)
        line = _Line(self.kind, self._columns(), self._spelling(), generator.identity)
        write_jsonl(out / REJECTED, ({"reason": why, **line.of(row)} for row, why in rejected))
        write_jsonl(out / ROWS, map(line.of, kept))
        record = SynthesisRecord(
            kind=self.kind.name,
            generator=generator.identity,
            prompt=self.kind.prompt,
            count=self.order.count,
            judge=self.kind.judge,
            files={str(path): file_digest(path) for path in self._all_files()},
            date=date.today().isoformat(),
            counts=dict(counts),
            num_rows=len(kept),
        )
        write_json(out / INFO, record.model_dump(mode="json"))
        if not kept:
            what = f"no row of {len(rejected):,} passes; {_listed(counts)}"
            fix = f"read {REJECTED} and {ANSWERS} there; try a larger model or another prompt"
            raise DataError(what, where=str(out), fix=fix)
        return record

    def _read_passages(self) -> list[Passage]:
        """All passages, each once; those that are too short or seen before are counted."""
        found: dict[str, Passage] = {}
        for name, text in documents(self.files):
            self.counts["documents"] += 1
            for part in passages_of(text):
                if num_words(part) < MIN_WORDS:
                    self.counts["passages too short"] += 1
                elif part in found:
                    self.counts["passages seen before"] += 1
                else:
                    found[part] = Passage(name, part)
        return list(found.values())

    def _passages_to_ask(self, every: Sequence[Passage]) -> list[Passage]:
        """Those that overlap with no test, as many as are wanted."""
        overlapping = self.held_out.overlapping([passage.text for passage in every])
        able = [passage for place, passage in enumerate(every) if place not in overlapping]
        most = self.order.most_passages or len(able)
        chosen = sorted(able, key=lambda passage: draw_hash(passage.text))[:most]
        self.counts["passages that overlap with a test"] = len(overlapping)
        self.counts["passages beyond --passages"] = len(able) - len(chosen)
        self.counts["passages asked about"] = len(chosen)
        if not chosen:
            what = f"no passage to ask about; {_listed(self.counts)}"
            raise DataError(what, where=str(self.files[0]), fix="give text that stands in no test")
        return chosen

    def _make_kind(self, every: Sequence[Passage]) -> RowsKind:
        order = self.order
        if order.kind == "questions":
            encoder = Encoder.load(order.encoder) if order.encoder else None
            return Questions(order.count, every, prompt=order.prompt, top=order.top, encoder=encoder)
        if order.kind == "instructions":
            return Instructions(order.count, prompt=order.prompt, least_support=order.least_support)
        if self.train is None:
            fix = "name labelled training rows: --train FILE"
            raise ConfigError("rows need real rows to be like, and to be judged by", where="--kind", fix=fix)
        if joined := [column for column in self.train.roles.values() if "+" in column]:
            what = f"'{joined[0]}' joins columns, and a text that is written fills one"
            raise ConfigError(what, where="--column", fix="give training rows with one column of text")
        rows = self.train.rows
        overlapping = self.held_out.overlapping([row.text for row in rows])
        hidden = frozenset(rows[place].id for place in overlapping)
        self.counts["training rows not shown, as they overlap with a test"] = len(hidden)
        return LabelledTexts(order.count, rows, meanings=order.meanings, prompt=order.prompt, hidden=hidden)

    def _candidates(self, answers: dict[str, Written], counts: Counter[str]) -> Iterator[Candidate]:
        for request in self.requests:
            rows = self.kind.candidates(request, answers[request.sha256])
            counts[NOTHING] += not rows
            yield from rows

    def _filter(self, candidates: list[Candidate]) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
        """Rows that pass, and (row, reason) of the others: form, then leakage, the round trip, repeats."""
        rejected: list[tuple[Candidate, str]] = []

        def sift(reasons: Sequence[str]) -> list[Candidate]:
            pairs = list(zip(candidates, reasons, strict=True))
            rejected.extend(pair for pair in pairs if pair[1])
            return [row for row, reason in pairs if not reason]

        candidates = sift([row.fault for row in candidates])
        candidates = sift(leaked(candidates, self.held_out))
        candidates = sift(self.kind.round_trip(candidates))
        real = RealRows(self.train.rows if self.train else [])
        return sift(repeated(candidates, real.texts)), rejected

    def _columns(self) -> dict[str, str]:
        """Role -> column, as the training rows name theirs."""
        named = self.train.roles if self.train else {}
        return {role: named.get(role, role) for role in (*self.kind.roles, "group", "source")}

    def _spelling(self) -> dict[str, object]:
        """Label -> as the training file writes it, which may be a number."""
        if self.train is None or self.order.train is None or self.kind.name != "rows":
            return {}
        column = self.train.roles["label"]
        pairs = records_of(self.order.train, self.train)
        return {str(row.values["label"]): record[column] for record, row in pairs}

    def _all_files(self) -> list[Path]:
        configs = [*self.order.against, *([self.order.train] if self.order.train else [])]
        return [*self.files, *(path for config in configs for path in find_files(config.files)[0])]


@dataclass(frozen=True)
class _Line:
    """Writes a row as the columns of its file."""

    kind: RowsKind
    columns: dict[str, str]
    spelling: dict[str, object]
    generator: str

    def of(self, row: Candidate) -> dict[str, object]:
        request = row.request
        values: dict[str, object] = dict(row.values)
        if "label" in values:
            values["label"] = self.spelling.get(row.values["label"], row.values["label"])
        values |= {"group": request.passage.document, "source": SYNTHETIC}
        facts = {"synthetic_kind": self.kind.name, "generator": self.generator}
        named = {self.columns[role]: value for role, value in values.items()}
        return {**named, **facts, "request_sha256": request.sha256}


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
