"""Files and folders are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from adaptkit import disk
from adaptkit.disk import whole_file, whole_folder
from adaptkit.errors import AdaptkitError, ConfigError, DiskFullError


def _files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.bin"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert _files(tmp_path) == {"deep/x.bin": "new"}


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    for word in ("old", "new"):
        with whole_folder(folder) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / word).write_text(word)
            assert word == "old" or _files(folder) == {"inner/old": "old"}
    assert _files(tmp_path) == {"deep/model/inner/new": "new"}


def test_a_folder_of_another_process_stays_where_it_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    with whole_folder(folder, replace=False) as temporary:
        (temporary / "a").write_text("mine")
        folder.mkdir()
        (folder / "a").write_text("theirs")
    assert _files(tmp_path) == {"shards/a": "theirs"}
    with whole_folder(tmp_path / "other", replace=False) as temporary:
        (temporary / "a").write_text("mine")
    assert _files(tmp_path / "other") == {"a": "mine"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("no"), ConfigError("no")])
def test_a_failure_leaves_what_was_there(tmp_path: Path, failure: BaseException) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("old")
    (tmp_path / "file").write_text("old")
    before = _files(tmp_path)
    with pytest.raises(type(failure)), whole_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("half")
        raise failure
    with pytest.raises(type(failure)), whole_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise failure
    assert _files(tmp_path) == before


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        OSError("4096 requested and 112 written"),  # numpy's
    ],
)
def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path, writer, failure: Exception) -> None:
    with pytest.raises(DiskFullError, match=r"no space: has \d+ bytes"), writer(tmp_path / "x"):
        raise failure
    with pytest.raises(DiskFullError, match=r"needs 7 bytes, has \d+"), whole_file(tmp_path / "x", 7):
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_other_failures_of_the_disk_are_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(AdaptkitError, match="cannot be written") as no, whole_folder(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "not yours")
    assert "--root" in no.value.fix


def test_all_is_on_the_disk_before_a_folder_takes_the_name(tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []
    sync, rename = disk._sync, os.rename
    monkeypatch.setattr(disk, "_sync", lambda path: (calls.append(path.name[:2]), sync(path)))
    monkeypatch.setattr(disk.os, "rename", lambda *args: (calls.append("rename"), rename(*args)))
    with whole_folder(tmp_path / "x") as temporary:
        (temporary / "ab").write_text("")
    assert calls == ["ab", ".x", "rename", tmp_path.name[:2]]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_files_of_a_folder_may_be_read_by_those_who_may_read_the_folder(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with whole_folder(tmp_path / "model") as temporary:
            (temporary / "inner").mkdir()
            for name in ("model.safetensors", "inner/config.json"):
                os.close(os.open(temporary / name, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    for name in ("model.safetensors", "inner/config.json"):
        assert (tmp_path / "model" / name).stat().st_mode & 0o777 == 0o666 & ~mask
