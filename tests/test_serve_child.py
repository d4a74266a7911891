"""A child and its whole group end together, however they end, and its log is open as its folder."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from pathlib import Path

import psutil
from fake_serving import eventually, fake_launch, running


def test_what_a_killed_child_leaves_behind_is_killed(tmp_path: Path) -> None:
    with running([fake_launch(tmp_path, "grandchild")], tmp_path) as (client, server):
        child = psutil.Process(server.engines[0].process_id)
        (grandchild,) = child.children()
        child.kill()
        eventually(
            lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE,
            "the orphan ends",
        )
        eventually(client.healthy, "it comes back")


@pytest.mark.parametrize(("folder", "log"), [(0o700, 0o600), (0o750, 0o640), (0o770, 0o660)])
def test_logs_of_children_are_for_those_who_may_read_their_folder(
    tmp_path: Path, folder: int, log: int
) -> None:
    tmp_path.chmod(folder)
    with running([fake_launch(tmp_path)], tmp_path):
        assert (tmp_path / "fake.log").stat().st_mode & 0o777 == log
