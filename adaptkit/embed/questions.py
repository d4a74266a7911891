"""Write questions to documents with a served generator: pairs to learn retrieval from where nobody has
asked yet.

    out/  pairs.jsonl      anchor, positive, from: `embed train` learns from it as it is
          answers.jsonl    what the generator wrote, word for word
          questions.json   model, prompt, dates, counts

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
from adaptkit.data.words import first_words, num_words, units_per_word, words
from adaptkit.embed.encoding import documents, progress
from adaptkit.errors import ConfigError, DataError
from adaptkit.run import append_jsonl, digest, file_digest, read_json, read_jsonl, write_json, write_jsonl

PROMPT = """\
Write {count} different questions that a person might type into a search engine and that the text below
answers. Use other words than the text where you can. One question per line, nothing else.

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

Ask = Callable[[str], str]
"""From the words of a request to the words of the answer."""


def write_questions(
    patterns: list[str],
    out: str | Path,
    ask: Ask,
    generator: dict[str, str],
    *,
    count: int = 3,
    prompt: str = PROMPT,
    jobs: int = 8,
) -> dict[str, Any]:
    """Ask for `count` questions about every document of some files; what was answered before is not asked
    again.

    Args:
        ask: called from `jobs` threads at once.
        generator: what is recorded of it: its model, its server.
        prompt: the request, with {count} and {text} in it.
    Returns: what questions.json holds, counts included.
    Raises: DataError for unreadable rows or a folder of other questions; whatever `ask` raises, with all
        answers kept.
    """
    if "{text}" not in prompt:
        fix = "write {text} into it"
        raise ConfigError("the prompt does not say where the text goes", where="prompt", fix=fix)
    out, (files, _) = Path(out), find_files(patterns)
    settings = {**generator, "prompt": prompt, "count": count}
    settings["files"] = digest([file_digest(file) for file in files])
    info = _begun(out, settings)
    if info["finished"]:
        return info
    write_json(out / INFO, info)
    answers = _ask_all(files, out / ANSWERS, ask, _request(prompt, count), jobs)
    counts: Counter[str] = Counter()
    write_jsonl(out / PAIRS, _pairs(files, answers, count, counts))
    if not counts["pairs"]:
        what = "no answer holds a question that can be used"
        fix = (
            "read answers.jsonl; try a larger model or another prompt; delete the folder before you ask again"
        )
        raise DataError(what, where=str(out), fix=fix)
    info |= {"finished": date.today().isoformat(), "counts": dict(sorted(counts.items()))}
    write_json(out / INFO, info)
    return info


def _begun(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What questions.json holds, or will hold at first.

    Raises: DataError if the folder was begun with other settings.
    """
    if not (out / INFO).exists():
        return {**settings, "started": date.today().isoformat(), "finished": ""}
    info = read_json(out / INFO)
    for key, value in settings.items():
        if info.get(key) != value:
            fix = "choose another --out, or delete it"
            raise DataError(f"holds questions with another {key}", where=str(out), fix=fix)
    return info


def _request(prompt: str, count: int) -> Callable[[str], str]:
    """From a passage to the words of a request."""
    return lambda text: prompt.replace("{count}", str(count)).replace("{text}", text)


def questions_of(answer: str) -> list[str]:
    """The lines of an answer without numbers, bullets, quotes and thoughts."""
    lines = (
        _MARK.sub("", line.strip()).strip().strip("\"'`") for line in _THOUGHT.sub("", answer).splitlines()
    )
    return [line.strip() for line in lines if words(line)]


def passage(text: str) -> str:
    """As much of a document as is asked about and learnt from."""
    return first_words(text, MAX_WORDS)


def _ask_all(
    files: Sequence[Path], path: Path, ask: Ask, request: Callable[[str], str], jobs: int
) -> dict[str, str]:
    """Answers by passage, old and new; every new one is appended to `path` before it counts."""
    answers = {}
    if path.exists():
        answers = {row["passage"]: row["answer"] for row in read_jsonl(path)}
    rows = ({"passage": name, "answer": answer} for name, answer in answers.items())
    write_jsonl(path, rows)  # without a line that a kill cut
    running: dict[Future[str], str] = {}
    with progress("answered") as show, ThreadPoolExecutor(jobs) as pool:

        def keep(done: Iterable[Future[str]]) -> BaseException | None:
            """Write the answers down; the first failure among them."""
            failures = []
            for future in done:
                name = running.pop(future)
                if future.cancelled():
                    continue
                if error := future.exception():
                    failures.append(error)
                    continue
                answers[name] = future.result()
                append_jsonl(path, {"passage": name, "answer": answers[name]})
            show(len(answers))
            return next(iter(failures), None)

        def wait_for_one() -> None:
            if failure := keep(wait(running, return_when=FIRST_COMPLETED).done):
                raise failure

        try:
            for _, text in _passages(files):
                name = _name(text)
                if name not in answers and name not in running.values():
                    running[pool.submit(ask, request(text))] = name
                if len(running) >= 2 * jobs:
                    wait_for_one()
            while running:
                wait_for_one()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            keep(list(running))
            raise
    return answers


def _passages(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(id, passage) of documents that are long enough."""
    for name, text in documents(files):
        if num_words(text) >= MIN_WORDS:
            yield name, passage(text)


def _pairs(
    files: Sequence[Path], answers: dict[str, str], count: int, counts: Counter[str]
) -> Iterator[dict[str, str]]:
    """The rows of pairs.jsonl; `counts` says what became of every document and question."""
    earlier_questions: set[str] = set()
    earlier_passages: set[str] = set()
    for name, text in documents(files):
        counts["documents"] += 1
        if num_words(text) < MIN_WORDS:
            counts["documents too short"] += 1
            continue
        text = passage(text)
        key = _name(text)
        if key in earlier_passages:
            counts["documents seen before"] += 1
            continue
        earlier_passages.add(key)
        questions = questions_of(answers[key])
        counts["answers without a question"] += not questions
        num_pairs = 0
        for question in questions:
            reason = "questions beyond the count"
            if num_pairs < count:
                reason = _fault(question, text, earlier_questions)
            counts[reason or "pairs"] += 1
            if not reason:
                num_pairs += 1
                earlier_questions.add(_plain(question))
                yield {"anchor": question, "positive": text, "from": name}


def _fault(question: str, text: str, earlier_questions: set[str]) -> str:
    """Why a question is left out; empty if it is not."""
    plain = _plain(question)
    if sum(1 / units_per_word(word) for word in plain.split()) > LONGEST:
        return "questions too long"
    if f" {plain} " in f" {_plain(text)} ":
        return "questions copied from the text"
    if plain in earlier_questions:
        return "questions asked before"
    return ""


def _plain(text: str) -> str:
    return " ".join(words(text))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
