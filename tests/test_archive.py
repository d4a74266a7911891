"""A study as one file: it comes back whole elsewhere, and nothing but its own plain files is unpacked."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_root import write_root, write_run

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.compare.archive import INDEX, archive, unpack
from adaptkit.errors import AdaptkitError, DataError
from adaptkit.run import Run, write_text
from adaptkit.run_lock import release
from adaptkit.seal import sealed
from adaptkit.study.record import read_study, runs_of
from adaptkit.study.results import collect

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def study(tmp_path: Path):
    yield write_root(tmp_path / "runs")
    release()


@pytest.fixture
def packed(study: Path, tmp_path: Path) -> Path:
    archive(study, tmp_path / "study.tar")
    return tmp_path / "study.tar"


def test_a_study_comes_back_whole_under_another_root(study: Path, packed: Path, tmp_path: Path) -> None:
    there = unpack(packed, tmp_path / "kept")
    assert collect(there.study).record == collect(study).record
    names = {path.name for path in (tmp_path / "kept").iterdir() if not path.name.startswith(".")}
    assert names == {study.name, *runs_of(read_study(study))}, "no other run came along"
    assert not list((tmp_path / "kept").glob("*/checkpoints")) and not list(
        (tmp_path / "kept").glob(".*.tmp")
    )
    for path in study.parent.glob("*/model/config.json"):
        if path.parent.parent.name in names:
            assert (tmp_path / "kept" / path.relative_to(study.parent)).read_bytes() == path.read_bytes()


def test_what_a_runs_weights_came_from_comes_along(study: Path, tmp_path: Path) -> None:
    write_run(study.parent, "older-base")
    write_run(study.parent, "base", base="older-base/model")
    archive(study, tmp_path / "study.tar")
    assert (unpack(tmp_path / "study.tar", tmp_path / "kept").study.parent / "older-base").is_dir()


def test_importing_again_changes_nothing_and_another_run_is_refused(
    study: Path, packed: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    num_runs = unpack(packed, kept).num_runs
    assert unpack(packed, kept).already_there == num_runs + 1
    write_text(kept / "base" / "model" / "config.json", "other")
    with pytest.raises(DataError, match="another run with this name is there already"):
        unpack(packed, kept)
    assert (kept / "base" / "model" / "config.json").read_text() == "other"


def test_a_trial_whose_model_was_taken_away_is_packed(study: Path, tmp_path: Path) -> None:
    shutil.rmtree(study.parent / "base" / "model")
    archive(study, tmp_path / "study.tar")
    (study.parent / "base" / "metrics.jsonl").write_text("{}")
    Run(study.parent / "base").finish()
    (study.parent / "base" / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match="this file is missing"):
        archive(study, tmp_path / "study.tar")


def test_a_damaged_a_missing_and_a_linked_file_are_not_packed(study: Path, tmp_path: Path) -> None:
    config = study.parent / "base" / "model" / "config.json"
    config.write_text("{ }")
    with pytest.raises(DataError, match="this file is damaged"):
        archive(study, tmp_path / "study.tar")
    config.write_text("{}")
    (study.parent / "base" / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="this is a link"):
        archive(study, tmp_path / "study.tar")
    (study.parent / "base" / "manifest.json").unlink()
    with pytest.raises(DataError, match="this run is missing"):
        archive(study, tmp_path / "study.tar")
    with pytest.raises(DataError, match="this is no study"):
        archive(study.parent / "prepared", tmp_path / "study.tar")
    assert not (tmp_path / "study.tar").exists()


def rewritten(packed: Path, change: Callable[[Members], Members]) -> Path:
    """The archive with its members changed."""
    members: Members = []
    with tarfile.open(packed) as tar:
        for info in tar:
            content = tar.extractfile(info)
            members.append((info, content.read() if content else b""))
    with tarfile.open(packed, "w") as tar:
        for info, content in change(members):
            if info.isreg():
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed


def with_index(members: Members, edit: Callable[[dict], None]) -> Members:
    index = json.loads(members[0][1])
    edit(index)
    return [(members[0][0], json.dumps(sealed(index)).encode()), *members[1:]]


def another(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def renamed(old: str, new: str) -> Callable[[Members], Members]:
    """A file under another name, in the index too: whoever writes an archive writes its index."""

    def change(members: Members) -> Members:
        def edit(index: dict) -> None:
            index["files"][new] = index["files"].pop(old)

        for info, _ in members:
            info.name = new if info.name == old else info.name
        return with_index(members, edit)

    return change


def of_kind(kind: bytes, target: str = "") -> Callable[[Members], Members]:
    """A file of the index that is not a plain file."""

    def change(members: Members) -> Members:
        return [another(FILE, kind, target) if info.name == FILE else (info, text) for info, text in members]

    return change


FILE = "base/model/config.json"
HOSTILE: dict[str, tuple[Callable[[Members], Members], str]] = {
    "a path up": (renamed(FILE, "base/../../out.json"), "leads out"),
    "an absolute path": (renamed(FILE, "/tmp/adaptkit-out.json"), "leads out"),
    "a file beside the runs": (renamed(FILE, "out.json"), "leads out"),
    "a run that is not named": (renamed(FILE, "other/model/config.json"), "leads out"),
    "a hidden file": (renamed(FILE, "base/.locks/x"), "leads out"),
    "a backslash": (renamed(FILE, "base\\..\\x/config.json"), "leads out"),
    "a link": (of_kind(tarfile.SYMTYPE, "/etc/passwd"), "not a plain file"),
    "a hard link": (of_kind(tarfile.LNKTYPE, "base/manifest.json"), "not a plain file"),
    "a device": (of_kind(tarfile.CHRTYPE), "not a plain file"),
    "a FIFO": (of_kind(tarfile.FIFOTYPE), "not a plain file"),
    "a folder": (of_kind(tarfile.DIRTYPE), "not a plain file"),
    "a file twice": (lambda members: [*members, members[1]], "twice"),
    "a file that is not listed": (lambda members: [*members, another("base/extra")], "not in its index"),
    "a missing file": (lambda members: members[:-1], "missing"),
    "a changed file": (
        lambda members: [(info, b"[]" if info.name == FILE else text) for info, text in members],
        "damaged",
    ),
    "no index": (lambda members: members[1:], "does not come first"),
    "a changed index": (
        lambda members: [(members[0][0], members[0][1].replace(b'"base"', b'"cafe"')), *members[1:]],
        "damaged",
    ),
    "a run named to lead out": (
        lambda members: with_index(members, lambda index: index["runs"].update({"../x": "1"})),
        "cannot name a run",
    ),
    "no study": (
        lambda members: with_index(members, lambda index: index.update(study="other")),
        "does not name its study",
    ),
    "another shape": (lambda members: with_index(members, lambda index: index.pop("files")), "does not fit"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(what: str, packed: Path, tmp_path: Path) -> None:
    change, message = HOSTILE[what]
    with pytest.raises(DataError, match=message):
        unpack(rewritten(packed, change), tmp_path / "kept")
    assert not (tmp_path / "kept").exists() or not list((tmp_path / "kept").iterdir())
    assert not (tmp_path / "out.json").exists() and not Path("/tmp/adaptkit-out.json").exists()


def test_what_is_no_tar_file_or_cut_short_is_refused(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for content in (b"", b"no tar", whole[: len(whole) // 2]):
        packed.write_bytes(content)
        with pytest.raises(DataError):
            unpack(packed, tmp_path / "kept")
        assert not list(tmp_path.glob("kept/*"))
    with pytest.raises(DataError, match="no such file"):
        unpack(tmp_path / "none.tar", tmp_path / "kept")


def test_too_little_room_is_said_before(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "adaptkit.compare.archive.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})
    )
    with pytest.raises(AdaptkitError, match="too little room: need .* have 10 bytes"):
        unpack(packed, tmp_path / "kept")


def test_the_commands(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, kept = tmp_path / "study.tar", tmp_path / "kept"
    assert run_command(app, ["runs", "export", str(study), str(file)]) == 0
    assert run_command(app, ["runs", "import", str(file), "--root", str(kept)]) == 0
    assert f"next: adaptkit report {kept / study.name}" in capsys.readouterr().out
    assert Run(kept / study.name).finished
    with tarfile.open(file) as tar:
        assert tar.next().name == INDEX
