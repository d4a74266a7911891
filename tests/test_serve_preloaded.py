"""Processes forked from one that has imported vLLM: their own arguments, keys, logs, groups and ends.

Home of serve.engine.preload. A few lines of Python stand in for vLLM.
"""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from fake_serving import fake_launch

from adaptkit.export.hardware import Hardware
from adaptkit.serve.engine.child import Child
from adaptkit.serve.engine.command import FEW_CORES
from adaptkit.serve.engine.preloaded import Preloaded
from adaptkit.serve.server import load_at_once

STAND_IN = """
import os, socket, sys, time
from adaptkit.serve.engine import preload
imported = os.getpid()
if preload.fork_for_orders(socket.socket(fileno=int(sys.argv[1]))):
    lifeline = os.fstat(int(os.environ["ADAPTKIT_LIFELINE"])) and "lifeline"
    print(imported, os.environ["ADAPTKIT_API_KEY"], lifeline, *sys.argv[1:], flush=True)
    if "wait" in sys.argv:
        time.sleep(600)
    sys.exit(7)
"""
COMMAND = (sys.executable, "-m", "adaptkit.serve.engine.entrypoint", "serve")
SHARED = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
SHARED.pop("ADAPTKIT_API_KEY", None)


def preloaded() -> Preloaded:
    return Preloaded(SHARED, (sys.executable, "-c", STAND_IN))


def with_key(key: str) -> dict[str, str]:
    return {**SHARED, "ADAPTKIT_API_KEY": key}


async def until_written(log: Path) -> list[str]:
    while not log.read_text():
        await asyncio.sleep(0.02)
    return log.read_text().split()


def test_forks_share_the_import_and_nothing_else(tmp_path: Path) -> None:
    async def two() -> None:
        source, logs = preloaded(), [tmp_path / "a.log", tmp_path / "b.log"]
        one = await Child.spawn([*COMMAND, "a"], with_key("key-a"), logs[0], source)
        other = await Child.spawn([*COMMAND, "b", "wait"], with_key("key-b"), logs[1], source)
        assert await one.wait() == 7 == one.exit_code
        written = [await until_written(log) for log in logs]
        assert written[0][1:] == ["key-a", "lifeline", "serve", "a"]
        assert written[1][1:] == ["key-b", "lifeline", "serve", "b", "wait"]
        assert written[0][0] == written[1][0] not in (str(one.process.pid), str(other.process.pid))
        assert os.getpgid(other.process.pid) == other.process.pid and other.exit_code is None
        await other.terminate(20)
        assert other.exit_code == -signal.SIGTERM
        await one.kill()
        await other.kill()
        source.close()
        with pytest.raises(ProcessLookupError):
            os.kill(int(written[0][0]), 0)

    asyncio.run(two())


def test_a_lost_source_ends_its_forks_and_others_start_anew(tmp_path: Path) -> None:
    async def lose() -> None:
        source = preloaded()
        child = await Child.spawn([*COMMAND, "wait"], with_key("k"), tmp_path / "a.log", source)
        imported, *_ = await until_written(tmp_path / "a.log")
        os.kill(int(imported), signal.SIGKILL)
        assert await asyncio.wait_for(child.wait(), 20) == -signal.SIGKILL
        assert not source.fits([*COMMAND], with_key("k"))
        await child.kill()

    asyncio.run(lose())


def test_a_source_that_does_not_start_costs_a_start_and_no_model(tmp_path: Path) -> None:
    async def spawn() -> None:
        source = Preloaded(SHARED, (sys.executable, "-c", "raise SystemExit(1)"))
        words = [sys.executable, "-m", "adaptkit.serve.engine.entrypoint"]
        child = await Child.spawn(words, with_key("k"), tmp_path / "log", source)
        assert isinstance(child.process, asyncio.subprocess.Process)
        await child.kill()

    asyncio.run(spawn())


def test_what_was_imported_with_other_variables_is_not_forked() -> None:
    source = preloaded()
    assert source.fits([*COMMAND, "a"], with_key("any"))
    assert not source.fits([*COMMAND, "a"], {**with_key("any"), "ADAPTKIT_NO_TILES": "1"})
    assert not source.fits([sys.executable, "fake_engine.py", "serve"], with_key("any"))


def test_it_helps_several_models_on_few_cores(tmp_path: Path) -> None:
    few = Hardware(cores=2.0)
    launches = [replace(fake_launch(tmp_path, name=name), hardware=few) for name in ("one", "two")]
    assert Preloaded.of(launches) is not None
    assert Preloaded.of(launches[:1]) is None
    for other in (Hardware(cores=FEW_CORES + 1), Hardware(cores=2.0, gpus=("a GPU",))):
        assert Preloaded.of([replace(launch, hardware=other) for launch in launches]) is None


@pytest.mark.parametrize(
    ("hardware", "count"),
    [(Hardware(cores=2.5), 2), (Hardware(cores=0.5), 1), (Hardware(cores=8, gpus=("x",)), 1)],
)
def test_engines_load_one_to_a_core_and_alone_on_a_gpu(hardware: Hardware, count: int) -> None:
    assert load_at_once(hardware) == count
