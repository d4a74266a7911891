"""Choose what serves an embedding model on this machine: vLLM, or our own encoder where that is faster.

Both are started as they serve (ready once their answers are the export's), asked for 32 texts at once in
turns, and ended. The speeds are remembered for this model and machine in a file that may be deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import pydantic

from adaptkit.client.openai import CUT, Client
from adaptkit.disk import whole_file
from adaptkit.doctor import machine, processor
from adaptkit.errors import AdaptkitError, DataError, ModelError
from adaptkit.export.source import Source
from adaptkit.export.verify.record import read_answers
from adaptkit.run import model_digest
from adaptkit.run_record import Record
from adaptkit.serve import api_keys, preflight
from adaptkit.serve.bench import wait_ready
from adaptkit.serve.engine.command import EngineName, Launch
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.status import StatusLine
from adaptkit.version import __version__

BATCH, ROUNDS = 32, 7
SENTENCES = (
    "How do I change the address of an order?",
    "The first result of the trial is that half of the patients slept longer.",
    "Please open the door of the old library, and tell me how many books are left.",
)
"""What is asked where a folder stores no texts of its own."""


class Speeds(Record):
    """Texts per second of both engines, in one measurement."""

    vllm: float
    adaptkit: float

    @property
    def faster(self) -> EngineName:
        return "adaptkit" if self.adaptkit > self.vllm else "vllm"

    def in_words(self) -> str:
        """Why an engine was chosen: a clause."""
        if self.faster == "adaptkit":
            ratio = self.adaptkit / self.vllm
            return f"adaptkit's own encoder, which gave {ratio:.2f} times vLLM's vectors per second here"
        ratio = self.vllm / self.adaptkit
        return f"vLLM, which gave {ratio:.2f} times the vectors per second of adaptkit's own encoder here"


def choose(
    planned: Sequence[Launch], ours: Sequence[Launch], status: StatusLine
) -> tuple[list[Launch], list[str]]:
    """Take each model's faster engine; what was never measured on this machine is measured now.

    Args:
        planned: by vLLM.
        ours: the same models, with our own encoder where it can serve them.
    Returns: the launches, and sentences that say which and why.
    Raises: AdaptkitError if one of the engines does not start.
    """
    chosen, notes = [], []
    for launch, other in zip(planned, ours, strict=True):
        if launch.engine == other.engine:
            chosen.append(launch)
            continue
        try:
            preflight.check_encoder(other.source)
        except ModelError as error:
            chosen.append(launch)
            notes.append(f"{launch.name}: served by vLLM: {error.what}")
            continue
        speeds, when = _speeds(launch, other, status)
        chosen.append(other if speeds.faster == "adaptkit" else launch)
        asked = f"{BATCH} texts a request, {when}; rm {cache_path()} to measure anew"
        notes.append(f"{launch.name}: served by {speeds.in_words()} ({asked})")
    return chosen, notes


def cache_path() -> Path:
    """Name the file that holds what was measured."""
    return processor.cache_path().with_name("engines.json")


def _speeds(launch: Launch, other: Launch, status: StatusLine) -> tuple[Speeds, str]:
    """What is remembered of a model on this machine, or else measured; and which of the two, in words."""
    parts = (model_digest(launch.source.folder), processor.machine_key(machine.cpu_flags()), __version__)
    key = hashlib.sha256("\n".join((*parts, *launch.hardware.gpus)).encode()).hexdigest()[:16]
    remembered = _read_cache()
    with contextlib.suppress(KeyError, pydantic.ValidationError):
        return Speeds.model_validate(remembered[key]), "measured at an earlier start"
    status.note(launch.name, "measures vLLM and adaptkit's own encoder, once for this model and machine")
    speeds = asyncio.run(_measure(launch, other, status))
    with contextlib.suppress(OSError, AdaptkitError):  # it is only measured again then
        cache_path().parent.mkdir(parents=True, exist_ok=True)
        with whole_file(cache_path()) as temporary:
            content = {**remembered, key: speeds.model_dump()}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return speeds, "measured now"


async def _measure(launch: Launch, other: Launch, status: StatusLine) -> Speeds:
    """Start both engines, ask them in turns, end them: the medians of their rounds."""
    engines = [
        Engine(each, api_keys.log_folder() / f"measure-{each.name}-{each.engine}.log", status)
        for each in (launch, other)
    ]
    texts, running = example_texts(launch.source), list[asyncio.Task[None]]()
    try:
        for engine in engines:
            running.append(asyncio.create_task(engine.run()))
            await wait_ready(engine, running[-1])
        rounds = [
            [await asyncio.to_thread(seconds_of, engine, texts) for engine in engines] for _ in range(ROUNDS)
        ]
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines))
        await asyncio.gather(*running, return_exceptions=True)  # a failed start was reported above
    vllm, adaptkit = (BATCH / statistics.median(times) for times in zip(*rounds[1:], strict=True))
    return Speeds(vllm=vllm, adaptkit=adaptkit)


def seconds_of(engine: Engine, texts: Sequence[str]) -> float:
    """How long one request for the vectors of some texts takes.

    Raises: ServerError.
    """
    with Client(engine.url, engine.key) as client:
        began = time.perf_counter()
        client.embed(engine.name, texts, **CUT)
        return time.perf_counter() - began


def example_texts(source: Source) -> list[str]:
    """A batch of the texts that an export stores its answers to; each is another one, by its number."""
    try:
        record = read_answers(source.folder)
    except DataError:  # `verify` tells of a damaged record
        record = None
    stored = SENTENCES if record is None else record.questions.texts
    return [f"{number}. {stored[number % len(stored)]}" for number in range(BATCH)]


def _read_cache() -> dict[str, object]:
    try:
        content = json.loads(cache_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
