"""Starting the page: logins, keys and passwords go where they belong, and the command from start to end. Home
of cli.demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from demo_study import IDENTITIES, MODELS
from fake_openai import KEY, FakeServer
from fake_study import write_study
from safetensors.torch import save_file

from adaptkit.demo import launch
from adaptkit.errors import ConfigError, ModelError
from adaptkit.run import write_json
from adaptkit.serve.address import free_port

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    return write_study(root, num_rows=60)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_the_card_is_the_exports_without_its_front_matter(study: Path, tmp_path: Path) -> None:
    from adaptkit.cli.demo import _card

    assert _card(study).startswith("There is no card: ")
    model = tmp_path / "tiny"
    write_json(model / "config.json", {"architectures": ["LlamaForCausalLM"]})
    save_file({"weight": torch.ones(1)}, model / "model.safetensors")
    assert _card(model) == "tiny: the model folder tiny."
    (model / "README.md").write_text("---\nlicense: mit\n---\n\n# Tiny\n")
    assert _card(model).strip() == "# Tiny"
    with pytest.raises(ModelError, match="no such folder"):
        _card(tmp_path / "nothing")


def test_this_machines_key_goes_to_this_machine_only(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADAPTKIT_API_KEY", "ADAPTKIT_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert len(launch.find_server("http://127.0.0.1:8000/v1/").key) >= 16
    assert launch.find_server("http://127.0.0.1:8000/v1/").url == "http://127.0.0.1:8000"
    assert launch.find_server("http://models.example:8000").key == ""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    assert launch.find_server("https://models.example", file).key == KEY
    assert KEY not in repr(launch.find_server("https://models.example", file))
    for wrong in ("models.example:8000", "ftp://h", "http://", "http://user:pass@h:1"):
        with pytest.raises(ConfigError, match="not an address"):
            launch.find_server(wrong)


def test_loopback_needs_no_login_and_everything_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(launch.PASSWORD_VARIABLE, raising=False)
    assert launch.listen_address("127.0.0.1", 7860, None, False).password is None
    assert launch.listen_address("localhost", 7860, None, False).password is None
    for host, share in (("0.0.0.0", False), ("10.0.0.5", False), ("::", False), ("127.0.0.1", True)):
        address = launch.listen_address(host, 7860, None, share)
        assert address.made_password and len(address.password or "") >= 16
    monkeypatch.setenv(launch.PASSWORD_VARIABLE, "from the environment")
    assert launch.listen_address("127.0.0.1", 7860, None, False).password == "from the environment"
    file = tmp_path / "password"
    file.write_text("from a file!\n")
    assert launch.listen_address("0.0.0.0", 7860, file, False).password == "from a file!"
    file.write_text("short\n")
    with pytest.raises(Exception, match="at least 10"):
        launch.listen_address("0.0.0.0", 7860, file, False)
    with pytest.raises(Exception, match="no password can be read"):
        launch.listen_address("0.0.0.0", 7860, tmp_path / "missing", False)


def test_a_made_password_is_never_in_a_log(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = launch.listen_address("0.0.0.0", 7999, None, False)
    launch.announce(address, address.url)
    log = capsys.readouterr().err
    path = state / "adaptkit" / "demo-password-7999"
    assert path.read_text().strip() == address.password and oct(path.stat().st_mode & 0o777) == "0o600"
    assert address.password not in log and str(path) in log and "without encryption" in log


def test_a_public_address_needs_the_whole_word(study: Path) -> None:
    from adaptkit.cli import console
    from adaptkit.cli.app import app

    for flag in ("--share", "--share-pub", "--share-publicl", "-s"):
        assert console.run(app, ["demo", str(study), flag]) == 2


def test_without_a_relay_there_is_no_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    networking = pytest.importorskip("gradio.networking", reason="the demo extra is not installed")

    def refuse(*_: object) -> str:
        raise RuntimeError("offline")

    monkeypatch.setattr(networking, "setup_tunnel", refuse)
    with pytest.raises(Exception, match="no public address"):
        launch._public_url(launch.ListenAddress("127.0.0.1", 7860, "a password", share=True))


@pytest.mark.slow
def test_the_command_starts_answers_and_ends_on_a_signal(
    study: Path, fake: FakeServer, tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    environment = {
        **os.environ,
        "ADAPTKIT_API_KEY": KEY,
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "adaptkit",
            "demo",
            str(study),
            "--server",
            fake.url,
            "--port",
            str(free_port()),
            "--json",
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as child:
        try:
            url = json.loads(next(line for line in child.stderr if "ready: " in line))["text"].removeprefix(
                "ready: "
            )
            page = httpx.get(url, trust_env=False)
            assert page.status_code == 200 and "clinical-trials" in page.text and KEY not in page.text
        finally:
            child.send_signal(signal.SIGTERM)
            out, errors = child.communicate(timeout=60)
    assert child.returncode == 0 and json.loads(out)["url"] == url and KEY not in out + errors
