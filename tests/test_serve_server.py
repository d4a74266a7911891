"""The server as a process: signals let requests end, and no process is left behind."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from fake_serving import KEY, PATIENCE_S, eventually

from adaptkit.client.openai import Client

RUNNING = "adaptkit_requests_running "


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server as a process of its own, ready, with its URL."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fake_serving", str(tmp_path)]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        url = f"http://127.0.0.1:{int(served.stdout.readline())}"
        with Client(url, KEY) as client:
            eventually(client.healthy, "ready")
        yield served, url
    finally:
        served.kill()
        served.wait()


def running(client: httpx.Client) -> float:
    """Requests under way, the one that asks among them."""
    [line] = [line for line in client.get("/metrics").text.splitlines() if line.startswith(RUNNING)]
    return float(line.removeprefix(RUNNING))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_end_and_leaves_no_process(
    process: tuple[subprocess.Popen, str], number: int
) -> None:
    served, url = process
    children = psutil.Process(served.pid).children(recursive=True)
    assert children
    answers: list[int] = []
    asking = httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=30, verify=False)
    before = running(asking)
    slow = threading.Thread(
        target=lambda: answers.append(asking.post("/v1/completions", json={"prompt": "slow"}).status_code)
    )
    slow.start()
    eventually(lambda: running(asking) > before or answers, "the request is under way")
    served.send_signal(number)
    assert served.wait(PATIENCE_S) == 0
    slow.join()
    assert answers == [200]
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_killing_the_server_ends_its_children_too(process: tuple[subprocess.Popen, str]) -> None:
    served, _ = process
    children = psutil.Process(served.pid).children(recursive=True)
    assert children
    served.kill()
    eventually(
        lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children),
        "children end",
    )
