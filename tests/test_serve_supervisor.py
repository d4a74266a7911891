"""An engine's life: a real answer before it is ready, restarts that wait longer, hangs that are found."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import os
import signal
from pathlib import Path

import psutil
from fake_serving import FakeLaunch, eventually, fake_launch, no_inspection, running
from tiny_served import write_model

from adaptkit.client.openai import Client
from adaptkit.errors import ModelError, ServerError
from adaptkit.export.hardware import Hardware
from adaptkit.serve.engine import supervisor
from adaptkit.serve.engine.command import dtype
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.status import StatusLine


def test_a_child_that_hangs_is_found_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEALTH_S", 0.2)
    with running([fake_launch(tmp_path)], tmp_path) as (client, server):
        stopped = server.engines[0].process_id
        os.kill(stopped, signal.SIGSTOP)
        eventually(lambda: server.engines[0].restarts == 1, "the hang is noticed")
        eventually(client.healthy, "it comes back")
        assert not psutil.pid_exists(stopped)


@pytest.mark.parametrize(
    ("mode", "said"), [("exit 0", "exit code 0"), ("exit 1", "no weights in this folder")]
)
def test_a_first_start_that_fails_ends_the_server_with_the_reason(
    tmp_path: Path, mode: str, said: str
) -> None:
    engine = Engine(fake_launch(tmp_path, mode), tmp_path / "log", StatusLine(), inspect=no_inspection)
    with pytest.raises(ServerError, match=said):
        asyncio.run(engine.run())
    assert engine.state == "failed"


def test_a_folder_that_is_found_wanting_while_vllm_starts_is_not_served(tmp_path: Path) -> None:
    async def inspect(source: object) -> None:
        raise ModelError("tensors missing: 1", where="folder")

    engine = Engine(fake_launch(tmp_path), tmp_path / "log", StatusLine(), inspect=inspect)
    with pytest.raises(ModelError, match="tensors missing"):
        asyncio.run(engine.run())
    assert engine.process_id == 0


def test_healthy_is_not_ready_until_there_is_an_answer(tmp_path: Path) -> None:
    def check(client: Client, source: object, name: str) -> None:
        client.complete(name, "engine dies")

    engine = Engine(fake_launch(tmp_path), tmp_path / "log", StatusLine(), check, no_inspection)
    with pytest.raises(ServerError):
        asyncio.run(engine.run())


def test_restarts_wait_longer_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(fake_launch(tmp_path), tmp_path / "log", StatusLine(), inspect=no_inspection)
    engine.load_s, waits, stable = 1.0, [], iter([0.0, 0.0, 0.0, 100.0, 0.0] + [0.0] * 8)

    async def start() -> None:
        monkeypatch.setattr(supervisor, "STABLE_S", -1.0 if next(stable) else 60.0)

    async def watch() -> str:
        return "died"

    async def wait_for(awaitable: object, seconds: float) -> None:
        awaitable.close()
        waits.append(seconds)
        if len(waits) == 12:
            engine._stopping.set()

    monkeypatch.setattr(supervisor, "BACKOFF_S", 1.0)
    monkeypatch.setattr(engine, "_start", start)
    monkeypatch.setattr(engine, "_watch", watch)
    monkeypatch.setattr(supervisor.asyncio, "wait_for", wait_for)
    asyncio.run(engine.run())
    assert waits[:7] == [1, 2, 4, 1, 2, 4, 8] and waits[-1] == 60


class Bf16Launch(FakeLaunch):
    """A launch whose child dies of its mode in bfloat16 and is good in float32."""

    def command(self, port: int, host: str = "127.0.0.1") -> list[str]:
        mode = self.mode if dtype(self.source, self.hardware) == "bfloat16" else "good"
        return [*super().command(port, host)[:-1], mode]


def bf16_engine(tmp_path: Path, mode: str, extra: tuple[str, ...] = ()) -> Engine:
    listed = Hardware(flags=frozenset({"avx512f", "amx_bf16"}))
    launch = Bf16Launch(write_model(tmp_path / "m", dtype="bfloat16"), listed, mode=mode, extra=extra)
    return Engine(launch, tmp_path / "log", StatusLine(), inspect=no_inspection)


@pytest.mark.parametrize("mode", ["illegal", "illegal in a child"])
def test_an_illegal_instruction_in_bfloat16_is_told_remembered_and_avoided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    remembered: list[str] = []
    monkeypatch.setattr(supervisor.processor, "remember_fault", remembered.append)
    engine = bf16_engine(tmp_path, mode)

    async def live() -> None:
        running_engine = asyncio.create_task(engine.run())
        while engine.state == "starting" and not running_engine.done():
            await asyncio.sleep(0.05)
        assert engine.state == "ready", running_engine.exception()
        await engine.stop()
        await running_engine

    asyncio.run(live())
    assert "SIGILL" in remembered[0] and len(remembered) == 1
    told = capsys.readouterr().err
    assert "starts again, computed in float32, as vLLM died of an illegal instruction (SIGILL)" in told
    assert engine.launch.exact and engine.restarts == 0


@pytest.mark.parametrize("extra", [(), ("--dtype", "bfloat16")])
def test_an_illegal_instruction_without_a_way_out_is_named(tmp_path: Path, extra: tuple[str, ...]) -> None:
    engine = bf16_engine(tmp_path, "illegal", extra)
    if not extra:
        float32 = write_model(tmp_path / "m", dtype="float32")
        engine.launch = FakeLaunch(float32, engine.launch.hardware, mode="illegal")
    with pytest.raises(ServerError, match="illegal instruction") as caught:
        asyncio.run(engine.run())
    assert str(tmp_path / "log") in caught.value.fix and (tmp_path / "log").is_file()
