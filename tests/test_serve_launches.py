"""From the words of the command line to processes: which models, under which names, with which adapters.
Home of cli.serve."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from tiny_served import QLORA, SMALL, write_adapter, write_bases, write_model, write_run

from adaptkit.cli import console
from adaptkit.errors import ConfigError, ModelError
from adaptkit.serve.engine import lora
from adaptkit.serve.engine.launches import Choice, ModelWord, make_launches, split_words


def test_the_next_command_reaches_the_server_with_a_key_that_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptkit.cli.serve import demo_command
    from adaptkit.demo.launch import find_server
    from adaptkit.serve import api_keys

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in (api_keys.KEY_VARIABLE, api_keys.FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    source = write_model(tmp_path / "m", head_dim=32)
    file = tmp_path / "a key"
    file.write_text("a" * 20)
    file.chmod(0o600)
    for host, url, key_file, options in (
        ("127.0.0.1", "http://127.0.0.1:8000", None, []),
        ("0.0.0.0", "http://127.0.0.1:8000", None, []),
        ("::", "http://[::1]:8000", file, ["--key-file", str(file)]),
        ("10.0.0.5", "http://10.0.0.5:8000", None, ["--key-file", str(api_keys.own_file())]),
    ):
        keys = api_keys.load(key_file)
        words = shlex.split(demo_command(source, host, 8000, keys))
        assert words == ["adaptkit", "demo", str(source.folder), "--server", url, *options]
        found = find_server(url, Path(options[1]) if options else None)
        assert keys.match(b"Bearer " + found.key.encode()), "the page may ask with it"
    monkeypatch.setenv(api_keys.KEY_VARIABLE, "b" * 20)
    assert "--key-file" not in demo_command(source, "127.0.0.1", 8000, api_keys.load())


def test_serve_print_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adaptkit.cli import app
    from adaptkit.serve import preflight, server

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(server, "Server", None)
    monkeypatch.setattr(preflight, "check_packages", lambda *_: None)
    folder = write_model(tmp_path / "m", head_dim=32).folder
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    line = ["serve", f"name={folder}", "--print", "--json", "--port", "8100", "--", "--max-model-len", "64"]
    assert console.run(app.app, line) == 0
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert printed["notes"] == ["name: the model folder m"] and "the model folder m" in shown.err
    assert printed["commands"][0].endswith("--max-model-len 64") and "--port 8100" in printed["commands"][0]
    assert "--served-model-name name " in printed["commands"][0]
    assert Path(printed["key"]).read_text().strip() not in printed["commands"][0]
    assert console.run(app.app, ["serve", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_words_are_divided_into_models_and_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd=name").mkdir()
    words, extra = split_words(["a", "b=runs/x", "odd=name", "-tp", "2", "c"])
    assert words == [
        ModelWord(None, Path("a")),
        ModelWord("b", Path("runs/x")),
        ModelWord(None, Path("odd=name")),
    ]
    assert extra == ["-tp", "2", "c"]
    with pytest.raises(ConfigError, match="no model was given"):
        split_words(["--max-model-len", "64"])


def test_a_plan_lets_adapters_ride_and_serves_the_others_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write_bases(tmp_path)
    for base in (one, two):
        (base.folder / "tokenizer.json").write_text("{}")
    good, dora = (
        write_adapter(tmp_path / "good", two.folder),
        write_adapter(tmp_path / "dora", one.folder, use_dora=True),
    )
    run = tmp_path / "run"
    write_run(run, adapter=QLORA, task="intent")
    qlora = write_adapter(run / "adapter", one.folder)
    write_model(run / "model")
    monkeypatch.setattr(
        lora.subprocess,
        "run",
        lambda command, **_: write_model(Path(command[-1])) and type("Done", (), {"returncode": 0}),
    )
    words = [
        ModelWord(None, one.folder),
        ModelWord("second", two.folder),
        ModelWord("x", good),
        ModelWord("y", dora),
        ModelWord("z", qlora),
    ]
    planned, notes = make_launches(words, SMALL, Choice(), ["-v"])
    assert [launch.names for launch in planned] == [("one",), ("second", "x"), ("y",), ("z",)]
    assert planned[2].source.folder.name.startswith("dora-merged-")
    assert planned[3].source.folder == run / "model"
    assert any("y: served merged, because vLLM does not serve DoRA" in note for note in notes)
    assert any("z: served merged" in note and "QLoRA" in note for note in notes)
    assert all((launch.extra, launch.share) == (("-v",), 0.25) for launch in planned)


def test_an_export_that_is_not_there_is_said_with_the_command(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m").folder
    save_file({"weight": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="no int8 export") as refused:
        make_launches([ModelWord(None, folder)], SMALL, Choice(format="int8"))
    assert "adaptkit export" in refused.value.fix and "--format int8" in refused.value.fix
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        make_launches([ModelWord(None, folder)], SMALL, Choice(format="int88"))
