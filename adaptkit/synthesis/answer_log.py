"""Ask a generator, and keep each answer on disk before it counts: a killed run asks only for what is missing.

answers = ask_all(requests, Path("out/answers.jsonl"), generator, max_tokens=180)
answers[request.sha256].text
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from adaptkit.embed.encoding import progress
from adaptkit.run import append_jsonl, read_jsonl, write_jsonl
from adaptkit.seal import digest
from adaptkit.synthesis.generators import Generator, Written
from adaptkit.synthesis.synthetic_rows import Request


def ask_all(
    requests: Iterable[Request], path: Path, generator: Generator, max_tokens: int
) -> dict[str, Written]:
    """Answers by the sha256 of their requests, old and new; every new one is appended to `path` first.

    Raises: whatever the generator raises, with all answers that had come kept.
    """
    kept = _kept(path)
    missing: dict[str, str] = {}
    answers: dict[str, Written] = {}
    for request in requests:
        found = kept.get(_key(request.sha256, generator, max_tokens))
        if found is None:
            missing[request.sha256] = request.words
        else:
            answers[request.sha256] = found
    _Asking(path, generator, max_tokens, answers).all(list(missing.items()))
    return answers


def num_missing(requests: Iterable[Request], path: Path, generator: Generator, max_tokens: int) -> int:
    """Requests that no kept answer answers."""
    kept = _kept(path)
    digests = {request.sha256 for request in requests}
    return sum(_key(sha256, generator, max_tokens) not in kept for sha256 in digests)


def _kept(path: Path) -> dict[str, Written]:
    """Answers on disk, by key; the file is left without a line that a kill cut."""
    if not path.exists():
        return {}
    rows = list(read_jsonl(path))
    write_jsonl(path, rows)
    return {row["key"]: Written(row["answer"], row["cut"]) for row in rows}


def _key(sha256: str, generator: Generator, max_tokens: int) -> str:
    """What an answer is kept under: another model or length is asked anew."""
    return digest([sha256, generator.identity, max_tokens])


class _Asking:
    """Requests under way; answers are written down by the thread that waits for them."""

    def __init__(self, path: Path, generator: Generator, max_tokens: int, answers: dict[str, Written]):
        self.path, self.generator, self.max_tokens, self.answers = path, generator, max_tokens, answers
        self.running: dict[Future[list[Written]], Sequence[str]] = {}

    def all(self, missing: Sequence[tuple[str, str]]) -> None:
        """Ask every (sha256, words)."""
        size, at_once = self.generator.batch, self.generator.at_once
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        with progress("answered") as show, ThreadPoolExecutor(at_once) as pool:
            try:
                for batch in batches:
                    words = [request for _, request in batch]
                    future = pool.submit(self.generator.write, words, self.max_tokens)
                    self.running[future] = [sha256 for sha256, _ in batch]
                    if len(self.running) >= 2 * at_once:
                        self._wait_for_one()
                        show(len(self.answers))
                while self.running:
                    self._wait_for_one()
                    show(len(self.answers))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                self._keep(list(self.running))
                raise

    def _wait_for_one(self) -> None:
        if failure := self._keep(wait(self.running, return_when=FIRST_COMPLETED).done):
            raise failure

    def _keep(self, done: Iterable[Future[list[Written]]]) -> BaseException | None:
        """Write answers down; the first failure among them."""
        failures = []
        for future in done:
            digests = self.running.pop(future)
            if future.cancelled():
                continue
            if error := future.exception():
                failures.append(error)
                continue
            for sha256, written in zip(digests, future.result(), strict=True):
                key = _key(sha256, self.generator, self.max_tokens)
                append_jsonl(self.path, {"key": key, "answer": written.text, "cut": written.cut})
                self.answers[sha256] = written
        return next(iter(failures), None)
