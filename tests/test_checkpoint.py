"""Checkpoints: what is on disk, in which order it gets there, and that damage is found and named."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import train

from adaptkit.errors import AdaptkitError, CheckpointError, DiskFullError
from adaptkit.run import Run
from adaptkit.trainer.checkpoint import Checkpoints, verify, write_safetensors

IDENTITY = {"trained weights": "abc"}


def store(folder: Path, keep: int = 3, **identity: str) -> Checkpoints:
    return Checkpoints(folder, keep=keep, identity={**IDENTITY, **identity})


def save(checkpoints: Checkpoints, step: int, size: int = 1000) -> Path:
    groups = {
        "model": {"w": torch.full((size,), float(step)), "n": torch.tensor(step)},
        "optimizer": {"w|m": torch.ones(3)},
    }
    return checkpoints.save(step, {"progress": {"seconds": 0.1}}, groups)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    save(store(tmp_path / "c"), 5)
    found = store(tmp_path / "c").newest()
    assert found.step == 5 and found.state["progress"] == {"seconds": 0.1}
    assert torch.equal(found.tensors("model")["w"], torch.full((1000,), 5.0))
    assert found.tensors("no such group") == {}


def test_nothing_saved_means_nothing_found(tmp_path):
    assert store(tmp_path / "c").newest() is None


def test_safetensors_files_are_readable_by_the_library_in_every_dtype(tmp_path):
    tensors = {
        str(dtype): (torch.arange(7) % 2).to(dtype)
        for dtype in (
            torch.float64,
            torch.float32,
            torch.bfloat16,
            torch.float16,
            torch.int64,
            torch.uint8,
            torch.bool,
        )
    }
    tensors |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "strided": torch.arange(12.0).view(3, 4).T,
    }
    row = write_safetensors(tmp_path / "t.safetensors", tensors)
    back = load_file(tmp_path / "t.safetensors")
    assert back.keys() == tensors.keys() and row["size"] == (tmp_path / "t.safetensors").stat().st_size
    assert all(
        torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors
    )


def test_the_order_of_calls_survives_power_loss(tmp_path, monkeypatch):
    """Every file and its folder are synced before the rename; the parent after it; then pruning."""
    checkpoints, log = store(tmp_path / "c", keep=1), []
    save(checkpoints, 1)
    fsync, rename, rmtree = os.fsync, os.rename, shutil.rmtree

    def name(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir() and path.name != "c":
            return "folder"
        return path.name

    monkeypatch.setattr(os, "fsync", lambda fd: (log.append(f"fsync {name(fd)}"), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (log.append(f"rename to {Path(b).name}"), rename(a, b)))

    def remove(path: Path, **options: bool) -> None:
        if path.exists():
            log.append(f"remove {path.name}")
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", remove)
    save(checkpoints, 2)
    files = ["MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert sorted(log[:4]) == [f"fsync {name}" for name in files]
    assert log[4:] == ["fsync folder", "rename to step-000002", "fsync c", "remove step-000001"]


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    checkpoints = store(tmp_path / "c")
    save(checkpoints, 1)
    for name in (".step-000002.77.tmp", ".step-000001.77.old"):
        shutil.copytree(tmp_path / "c/step-000001", tmp_path / "c" / name)
    assert store(tmp_path / "c").newest().step == 1
    save(checkpoints, 2)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-000001", "step-000002"]


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = store(tmp_path / "c", keep=2)
    for step in (1, 2, 3, 10):
        save(checkpoints, step)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-000003", "step-000010"]


def test_every_flipped_bit_and_every_truncation_is_found(tmp_path):
    path, rng = save(store(tmp_path / "c"), 1), random.Random(0)
    files = sorted(path.iterdir())
    for trial in range(200):
        file = files[trial % len(files)]
        data = bytearray(good := file.read_bytes())
        if trial % 2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        file.write_bytes(data)
        assert verify(path) is not None or _same_json(file, good, data), f"{file.name} {trial}"
        file.write_bytes(good)
    assert verify(path) is None


def _same_json(file: Path, good: bytes, data: bytes) -> bool:
    """A flipped bit of the manifest that leaves its meaning alone (a space that became another blank) is no
    damage."""
    try:
        return file.name == "MANIFEST.json" and json.loads(data) == json.loads(good)
    except ValueError:
        return False


def test_missing_and_extra_files_are_found(tmp_path):
    path = save(store(tmp_path / "c"), 1)
    (path / "extra.bin").write_bytes(b"x")
    assert "extra.bin is not in the manifest" in verify(path)
    (path / "extra.bin").unlink()
    (path / "state.json").unlink()
    assert "state.json is missing" in verify(path)
    (path / "MANIFEST.json").unlink()
    assert "never completed" in verify(path)


def test_a_damaged_checkpoint_is_skipped_with_its_reason_and_replaced_later(tmp_path):
    first = store(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        save(first, step)
    damaged = tmp_path / "c/step-000003/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = store(tmp_path / "c", keep=2)
    assert again.newest().step == 2
    assert [(p.name, "model.safetensors has" in why) for p, why in again.rejected.items()] == [
        ("step-000003", True)
    ]
    save(again, 3)
    assert verify(tmp_path / "c/step-000003") is None and store(tmp_path / "c").newest().step == 3


def test_pruning_after_damage_never_removes_the_good_ones(tmp_path):
    """Newer rejected checkpoints must not push the ones just written out of the kept set."""
    first = store(tmp_path / "c", keep=3)
    for step in (10, 20, 30):
        save(first, step)
    for step in (20, 30):
        (tmp_path / f"c/step-0000{step}/state.json").write_text("{}")
    again = store(tmp_path / "c", keep=2)
    assert again.newest().step == 10
    save(again, 15)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-000010", "step-000015"]


def test_a_run_never_starts_afresh_over_checkpoints_that_are_all_damaged(tmp_path):
    save(store(tmp_path / "c"), 1)
    (tmp_path / "c/step-000001/MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints is valid .*never completed"):
        store(tmp_path / "c").newest()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save(store(tmp_path / "c"), 1)
    with pytest.raises(CheckpointError, match="another run: frozen weights, trained weights differ"):
        Checkpoints(
            tmp_path / "c", keep=1, identity={"trained weights": "other", "frozen weights": "x"}
        ).newest()


def test_a_full_disk_is_said_with_need_and_have_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints = store(tmp_path / "c")
    save(checkpoints, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    monkeypatch.setattr(
        "adaptkit.trainer.checkpoint.write_safetensors", lambda *args: pytest.fail("wrote on a full disk")
    )
    with pytest.raises(
        DiskFullError, match=r"needs 5\.\d MB, 0\.0 MB are free; last good checkpoint step-000001 is intact"
    ):
        save(checkpoints, 2, size=1_000_000)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["step-000001"] and store(
        tmp_path / "c"
    ).newest().step == 1


@pytest.mark.parametrize("limit", [100, 20_000, 400_000])
def test_a_disk_that_fills_while_writing_leaves_the_last_good_one(tmp_path, limit):
    """The file size limit of the process stands in for the disk: the same short write, at several places of
    the save."""
    checkpoints = store(tmp_path / "c")
    save(checkpoints, 1)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1][1]))
    try:
        with pytest.raises(DiskFullError, match="step-000001 is intact"):
            save(checkpoints, 2, size=100_001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["step-000001"] and verify(
        tmp_path / "c/step-000001"
    ) is None


def test_a_run_goes_on_bit_identical_after_space_is_freed(tmp_path, monkeypatch):
    train(tmp_path / "whole")
    usage = shutil.disk_usage(tmp_path)
    free = iter([usage.free, 0, 0])  # room for the first save, none for the second
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=next(free)))
    with pytest.raises(DiskFullError):
        train(tmp_path / "full")
    monkeypatch.undo()
    train(tmp_path / "full")
    assert Run(tmp_path / "full").manifest()["training"]["train"]["resumed_from_step"] == 2
    for name in ("model.safetensors", "optimizer.safetensors"):
        whole, full = (tmp_path / run / "checkpoints/step-000006" / name for run in ("whole", "full"))
        assert whole.read_bytes() == full.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mount is not allowed here")
    try:
        checkpoints = store(disk / "c")
        save(checkpoints, 1, size=200_000)
        with pytest.raises(DiskFullError, match="no space"):
            save(checkpoints, 2, size=400_000)
        assert verify(disk / "c/step-000001") is None
    finally:
        subprocess.run(["umount", disk], check=True)


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def broken(*args):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(AdaptkitError, match="cannot be written: input/output error") as no:
        save(store(tmp_path / "c"), 1)
    assert not isinstance(no.value, DiskFullError) and list((tmp_path / "c").iterdir()) == []


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    train(tmp_path, ema_decay=0.9)
    names = {p.name for p in (tmp_path / "checkpoints/step-000006").iterdir()}
    assert names == {
        "model.safetensors",
        "optimizer.safetensors",
        "average.safetensors",
        "state.json",
        "MANIFEST.json",
    }


def test_frozen_weights_are_not_saved(tmp_path):
    train(tmp_path, "lora")
    saved = load_file(tmp_path / "checkpoints/step-000006/model.safetensors")
    assert saved and all("lora_" in name for name in saved)
