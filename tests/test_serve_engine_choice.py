"""Which engine serves an embedding model: measured once for a model and machine, then remembered."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from fake_serving import FakeLaunch, fake_launch, no_inspection
from tiny_served import write_model

from adaptkit.cli import console
from adaptkit.errors import ConfigError, ServerError
from adaptkit.export.source import Source
from adaptkit.serve import engine_choice
from adaptkit.serve.engine.launches import with_our_encoder
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.engine_choice import BATCH, ROUNDS, SENTENCES, choose, example_texts, seconds_of
from adaptkit.serve.status import StatusLine


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand-ins have no tensors to look at; what is remembered, and logs, lie beside them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_choice, "Engine", functools.partial(Engine, inspect=no_inspection))


def embedder(folder: Path, mode: str = "good", **config: object) -> FakeLaunch:
    written = write_model(folder, "embed", **config).folder
    (written / "tokenizer.json").write_text("{}")
    (written / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return fake_launch(written, mode, name="vectors", kind="embed")


def decide(launches: Sequence[FakeLaunch]) -> tuple[list[str], list[str]]:
    chosen, notes = choose(launches, with_our_encoder(launches), StatusLine())
    return [launch.engine for launch in chosen], notes


@pytest.mark.parametrize(
    ("vllm", "ours", "engine", "said"),
    [
        (0.4, 0.1, "adaptkit", "adaptkit's own encoder, which gave 4.00 times vLLM's vectors per second"),
        (0.1, 0.2, "vllm", "vLLM, which gave 2.00 times the vectors per second of adaptkit's own encoder"),
    ],
)
def test_the_faster_engine_is_chosen_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vllm: float, ours: float, engine: str, said: str
) -> None:
    asked: list[str] = []

    def seconds(engine: Engine, texts: Sequence[str]) -> float:
        assert seconds_of(engine, texts) > 0
        asked.append(engine.launch.engine)
        first = len(asked) <= 2  # what is slow the first time does not count
        return 9.0 if first else {"vllm": vllm, "adaptkit": ours}[engine.launch.engine]

    monkeypatch.setattr(engine_choice, "seconds_of", seconds)
    launches = [fake_launch(tmp_path, name="writer"), embedder(tmp_path / "m")]
    engines, [note] = decide(launches)
    assert engines == ["vllm", engine] and asked == ["vllm", "adaptkit"] * ROUNDS
    assert said in note and f"{BATCH} texts a request, measured now" in note
    monkeypatch.setattr(engine_choice, "Engine", None)  # nothing is started again
    engines, [note] = decide(launches)
    assert engines == ["vllm", engine] and said in note and "measured at an earlier start" in note
    [speeds] = json.loads(engine_choice.cache_path().read_text()).values()
    assert speeds == {"vllm": pytest.approx(BATCH / vllm), "adaptkit": pytest.approx(BATCH / ours)}
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\3\0\0\0\0\0\0\0{ }")
    with pytest.raises(TypeError):  # other weights are another model
        decide(launches)


def test_one_that_does_not_start_is_told_of_and_nothing_is_remembered(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no weights in this folder"):
        decide([embedder(tmp_path / "m", "exit 1")])
    assert not engine_choice.cache_path().exists()


def test_what_our_encoder_cannot_read_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "Engine", None)
    engines, [note] = decide([embedder(tmp_path / "m", quantization_config={"bits": 8})])
    assert engines == ["vllm"] and note.startswith("vectors: served by vLLM: its weights are quantised")
    with pytest.raises(ConfigError, match="none is given"):
        decide([fake_launch(tmp_path, name="writer")])


def test_texts_of_a_batch_are_an_exports_own_and_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(tmp_path, "embed", "vectors", "")
    texts = example_texts(source)
    assert len(set(texts)) == BATCH and texts[4] == f"4. {SENTENCES[1]}"
    (tmp_path / "answers.json").write_text("{}")  # damaged
    assert example_texts(source) == texts


def test_the_command_line_names_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adaptkit.cli import app
    from adaptkit.serve.engine import layout_check

    monkeypatch.setattr(layout_check, "check", lambda sources: None)
    folder = embedder(tmp_path / "m").source.folder
    line = ["serve", f"v={folder}", "--engine", "adaptkit", "--print", "--port", "8100"]
    assert console.run(app.app, line) == 0
    printed = capsys.readouterr().out
    assert f"-m adaptkit.serve.engine.vector_server {folder} v 127.0.0.1 8100" in printed
    assert console.run(app.app, [*line, "--", "--max-model-len", "64"]) == 2
    assert "takes no flags" in capsys.readouterr().err
    assert console.run(app.app, [*line[:2], "--print"]) == 2
    assert "fix: serve it with --engine adaptkit" in capsys.readouterr().err, "heads 16 wide are not vLLM's"
    other = embedder(tmp_path / "n", head_dim=32).source.folder
    assert console.run(app.app, ["serve", str(other), "--engine", "auto", "--print"]) == 2
    assert "name one" in capsys.readouterr().err
