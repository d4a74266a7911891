"""One engine lives for as long as a piece of work takes."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from fake_serving import fake_launch, no_inspection

from adaptkit.client.openai import Client
from adaptkit.errors import ModelError
from adaptkit.export.hardware import Hardware
from adaptkit.serve import one_engine
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.status import StatusLine


@pytest.fixture(autouse=True)
def uninspected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand-ins have no tensors to look at, and logs go beside them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(one_engine, "Engine", functools.partial(Engine, inspect=no_inspection))


def test_work_is_done_against_a_ready_engine_which_then_ends(tmp_path: Path) -> None:
    urls = []

    def work(url: str, key: str) -> str:
        urls.append((url, key))
        with Client(url, key) as client:
            return client.models()[0].name

    assert one_engine.with_engine(fake_launch(tmp_path), work, StatusLine()) == "fake"
    (url, key), *others = urls
    assert not others
    with Client(url, key) as client:
        assert not client.healthy(), "it has ended"


def test_what_the_work_raises_is_raised_and_the_engine_ends(tmp_path: Path) -> None:
    def work(url: str, key: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one_engine.with_engine(fake_launch(tmp_path), work, StatusLine())


def test_a_folder_that_could_run_code_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    (tmp_path / "x.py").write_text("")
    with pytest.raises(ModelError):
        one_engine.plan_bare(fake_launch(tmp_path).source, Hardware())


def test_the_precision_is_what_was_chosen_or_stored(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float16"}')
    launch = fake_launch(tmp_path)
    assert one_engine.precision(launch) == "float32", "a CPU computes in float32"
    on_gpu = fake_launch(tmp_path)
    object.__setattr__(on_gpu, "hardware", Hardware(gpus=("H200",)))
    assert one_engine.precision(on_gpu) == "float16"
