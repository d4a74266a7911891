"""Questions that a served generator writes to documents: pairs to learn retrieval from where nobody has asked
yet.

    out/  pairs.jsonl  anchor, positive, from     `embed train` learns from it as it is
          answers.jsonl  what the generator wrote, word for word      questions.json  model, prompt, dates,
          counts

Documents stream by; each answer is on disk before it is counted, so that a killed run asks only for what is
missing. pairs.jsonl is made from the answers at the end, by rules alone. How to reach the generator is the
caller's business: no address beyond its host and no key comes here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import date
from pathlib import Path
from typing import Any

from adaptkit.data.files import find_files
from adaptkit.embed.encoding import documents, progress
from adaptkit.errors import ConfigError, DataError
from adaptkit.run import append_jsonl, digest, file_digest, read_json, read_jsonl, write_json, write_jsonl

PROMPT = """Write {count} different questions that a person might type into a search engine and that the text below answers.
Use other words than the text where you can. One question per line, nothing else.

Text:
{text}

Questions:
"""
INFO, ANSWERS, PAIRS = "questions.json", "answers.jsonl", "pairs.jsonl"
MIN_WORDS, MAX_WORDS = 8, 400
"""Words of a text that is asked about: shorter ones answer nothing, longer ones are cut."""
LONGEST = 40
"""Words of a question; more are no question."""
_MARK = re.compile(r"^(?:[-*>\u2022]+|\(?\d{1,3}[.):]|q(?:uestion)?\s*\d*\s*[:.])\s*", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_WORD = re.compile(r"\w+")

Ask = Callable[[str], str]
"""From the words of a request to the words of the answer."""


def write_questions(
    patterns: list[str],
    out: str | Path,
    ask: Ask,
    told: dict[str, str],
    *,
    count: int = 3,
    prompt: str = PROMPT,
    jobs: int = 8,
) -> dict[str, Any]:
    """Ask for `count` questions about every document of some files; what was answered before is not asked
    again.

    Args:
        ask: called from `jobs` threads at once.
        told: what is recorded of the generator: its model, its server.
        prompt: the request, with {count} and {text} in it.
    Returns: what questions.json holds, counts included.
    Raises: DataError for unreadable rows or a folder of other questions; whatever `ask` raises, with all
        answers kept.
    """
    out, (files, _) = Path(out), find_files(patterns)
    if "{text}" not in prompt:
        raise ConfigError(
            "the prompt does not say where the text goes", where="prompt", fix="write {text} into it"
        )
    asked = {**told, "prompt": prompt, "count": count, "files": digest([file_digest(file) for file in files])}
    begun = (
        read_json(out / INFO)
        if (out / INFO).exists()
        else {"started": date.today().isoformat(), "finished": ""}
    )
    differing = [key for key in asked if (out / INFO).exists() and begun.get(key) != asked[key]]
    if differing:
        raise DataError(
            f"holds questions with another {differing[0]}",
            where=str(out),
            fix="choose another --out, or delete it",
        )
    if begun["finished"]:
        return begun
    write_json(out / INFO, {**asked, **begun})
    answers = _ask_all(files, out / ANSWERS, ask, count, prompt, jobs)
    counts: Counter[str] = Counter()
    write_jsonl(out / PAIRS, _pairs(files, answers, count, counts))
    if not counts["pairs"]:
        fix = "look at answers.jsonl; a larger model or another prompt may be needed; delete the folder and ask again"
        raise DataError("no answer holds a question that can be used", where=str(out), fix=fix)
    found = {**asked, **begun, "finished": date.today().isoformat(), "counts": dict(sorted(counts.items()))}
    write_json(out / INFO, found)
    return found


def questions_of(answer: str) -> list[str]:
    """The lines of an answer without numbers, bullets, quotes and thoughts."""
    lines = (
        _MARK.sub("", line.strip()).strip().strip("\"'`") for line in _THOUGHT.sub("", answer).splitlines()
    )
    return [line.strip() for line in lines if _WORD.search(line)]


def passage(text: str) -> str:
    """As much of a document as is asked about and learnt from."""
    words = text.split()
    return text if len(words) <= MAX_WORDS else " ".join(words[:MAX_WORDS])


def _ask_all(
    files: Sequence[Path], path: Path, ask: Ask, count: int, prompt: str, jobs: int
) -> dict[str, str]:
    """Answers by passage, old and new; every new one is appended to `path` first."""
    answers = {row["passage"]: row["answer"] for row in read_jsonl(path)} if path.exists() else {}
    write_jsonl(
        path, ({"passage": name, "answer": answer} for name, answer in answers.items())
    )  # without a line cut by a kill
    running: dict[Future[str], str] = {}

    def keep(done: Iterable[Future[str]]) -> BaseException | None:
        """Write down what was answered; the first failure among the rest."""
        failed = None
        for future in done:
            name = running.pop(future)
            if future.cancelled():
                continue
            if error := future.exception():
                failed = failed or error
                continue
            answers[name] = future.result()
            append_jsonl(path, {"passage": name, "answer": answers[name]})
        tell(len(answers))
        return failed

    def take() -> None:
        if failed := keep(wait(running, return_when=FIRST_COMPLETED).done):
            raise failed

    with progress("answered") as tell, ThreadPoolExecutor(jobs) as pool:
        try:
            for _, text in _passages(files):
                name = _name(text)
                if name not in answers and name not in running.values():
                    request = prompt.replace("{count}", str(count)).replace("{text}", text)
                    running[pool.submit(ask, request)] = name
                if len(running) >= 2 * jobs:
                    take()
            while running:
                take()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            keep(list(running))
            raise
    return answers


def _passages(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(id, passage) of documents that are long enough."""
    for name, text in documents(files):
        if len(text.split()) >= MIN_WORDS:
            yield name, passage(text)


def _pairs(
    files: Sequence[Path], answers: dict[str, str], count: int, counts: Counter[str]
) -> Iterator[dict[str, str]]:
    """The rows of pairs.jsonl; `counts` tells what became of every document and question."""
    asked_before: set[str] = set()
    seen: set[str] = set()
    for name, text in documents(files):
        counts["documents"] += 1
        if len(text.split()) < MIN_WORDS:
            counts["documents too short"] += 1
            continue
        text = passage(text)
        key = _name(text)
        if key in seen:
            counts["documents seen before"] += 1
            continue
        seen.add(key)
        found = questions_of(answers[key])
        counts["answers without a question"] += not found
        kept = 0
        for question in found:
            reason = _fault(question, text, asked_before) if kept < count else "questions beyond the count"
            counts[reason or "pairs"] += 1
            if not reason:
                kept += 1
                asked_before.add(_plain(question))
                yield {"anchor": question, "positive": text, "from": name}


def _fault(question: str, text: str, asked_before: set[str]) -> str:
    """Why a question is left out; empty if it is not."""
    plain = _plain(question)
    if len(plain.split()) > LONGEST:
        return "questions too long"
    if f" {plain} " in f" {_plain(text)} ":
        return "questions copied from the text"
    return "questions asked before" if plain in asked_before else ""


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
