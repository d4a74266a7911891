"""The run directory: found again by content, written atomically, honest about a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptkit import disk
from adaptkit import run as run_module
from adaptkit.config import Config, dump, places
from adaptkit.environment import environment
from adaptkit.errors import AdaptkitError, ConfigError, DataError, DiskFullError
from adaptkit.run import (
    Run,
    digest,
    file_digest,
    model_digest,
    read_json,
    read_jsonl,
    weights_digest,
    write_json,
    write_jsonl,
    write_text,
)

CONFIG = {"name": "study", "rate": 3e-4, "files": ["a.txt"]}


def test_the_same_question_finds_the_same_folder(tmp_path: Path) -> None:
    first = Run.open(tmp_path, "study", CONFIG, {"a.txt": "00"})
    again = Run.open(tmp_path, "study", dict(reversed(CONFIG.items())), {"a.txt": "00"})
    assert again.path == first.path
    assert Run.open(tmp_path, "study", {**CONFIG, "rate": 3e-5}, {"a.txt": "00"}).path != first.path
    assert Run.open(tmp_path, "study", CONFIG, {"a.txt": "01"}).path != first.path


class Settings(Config):
    COST_ONLY: ClassVar[frozenset[str]] = frozenset({"threads"})

    rate: float = 0.1
    threads: int = 1


class Study(Config):
    COST_ONLY: ClassVar[frozenset[str]] = frozenset({"jobs"})

    name: str = "study"
    jobs: int = 2
    trainer: Settings = Settings()
    tasks: list[Settings] = []
    named: dict[str, Settings] = {}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"jobs": 8}, True),
        ({"trainer": Settings(threads=4)}, True),
        ({"tasks": [Settings(threads=4)]}, True),
        ({"named": {"a": Settings(threads=4)}}, True),
        ({"trainer": Settings(rate=0.2)}, False),
        ({"tasks": [Settings(rate=0.2)]}, False),
        ({"tasks": []}, False),
        ({"named": {"b": Settings()}}, False),
    ],
)
def test_what_only_costs_may_change_and_is_written_down(tmp_path, changed, same) -> None:
    study = Study(tasks=[Settings()], named={"a": Settings()})
    run, other = Run.open(tmp_path, "study", study), study.model_copy(update=changed)
    again = Run.open(tmp_path, "study", other)
    assert (again.path == run.path) is same
    assert again.config_path.read_text() == dump(other), "config.yaml says what is used now"
    again.finish()
    Run.open(tmp_path, "study", study if same else other)
    assert again.config_path.read_text() == dump(other), "and, of a finished run, what was"


def test_keys_that_somebody_else_decides_tell_no_runs_apart(tmp_path) -> None:
    first = Run.open(tmp_path, "study", Study(), without=["trainer.rate"])
    other = Study(trainer=Settings(rate=0.5))
    assert Run.open(tmp_path, "study", other, without=["trainer.rate"]).path == first.path
    written = first.config_path.read_text()
    assert "rate" not in written and "threads: 1" in written, "and are not written down"
    assert Run.open(tmp_path, "study", other).path != first.path


def test_the_life_of_a_run(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "study", CONFIG)
    assert run.manifest()["status"] == "new"
    assert not run.finished
    run.start()
    assert Run.open(tmp_path, "study", CONFIG).manifest()["status"] == "running"
    run.fail("out of luck")
    assert run.manifest()["error"] == "out of luck"
    run.finish(rows=3)
    assert run.finished
    assert (run.manifest()["rows"], run.manifest()["name"]) == (3, "study")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "n" * 121, "nul\0", "new\nline"])
def test_a_name_cannot_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Run.open(tmp_path / "runs", name, CONFIG)
    assert caught.value.fix
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_run_is_not_taken_over(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "study", CONFIG)
    run.update_manifest(identity="another")
    with pytest.raises(DataError, match="another run"):
        Run.open(tmp_path, "study", CONFIG)


def test_a_run_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "study", CONFIG)
    run.manifest_path.unlink()
    assert Run.open(tmp_path, "study", CONFIG).manifest()["status"] == "new"


def test_manifests_name_versions_and_no_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/somebody/.venv/bin/adaptkit", "compare", "study.yaml"])
    run = Run.open(tmp_path, "study", CONFIG)
    run.start()
    text = run.manifest_path.read_text()
    assert run.manifest()["argv"] == ["adaptkit", "compare", "study.yaml"]
    assert run.manifest()["versions"]["numpy"]
    assert "somebody" not in text
    assert os.uname().nodename not in json.dumps(environment())


def test_every_path_lies_inside_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "r")
    paths = [run.manifest_path, run.metrics_path, run.checkpoints, run.model, run.report, run.cost_path]
    paths += [run.export("int8"), run.items("language"), run.scores("language")]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(run.path) for path in paths)


def test_metrics_are_appended_and_cut_at_a_step(tmp_path: Path) -> None:
    run = Run(tmp_path / "r")
    assert run.metrics() == []
    for step in range(5):
        run.log_metrics({"step": step, "loss": 1 / (step + 1)})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    assert [row["step"] for row in run.metrics()] == [0, 1, 2, 3, 4]
    run.keep_metrics_before(2)
    run.log_metrics({"step": 3, "loss": 0.5})
    assert [row["step"] for row in run.metrics()] == [0, 1, 2, 3]


def test_a_spoilt_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(DataError) as caught:
        list(read_jsonl(tmp_path / "m.jsonl"))
    assert caught.value.where == f"{tmp_path / 'm.jsonl'}:2"


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe", b""])
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert caught.value.where == str(path)


@given(
    st.lists(
        st.dictionaries(st.text(), st.text(st.characters()) | st.integers() | st.none(), max_size=3),
        max_size=4,
    )
)
def test_any_text_survives_jsonl(tmp_path_factory, rows: list[dict]) -> None:
    rows.append({"line ends that are text": "\u2028\u2029\x85\x0b\x0c\r", "half a pair": "\ud800"})
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, rows)
    assert list(read_jsonl(path)) == rows


def test_json_reads_back_equal(tmp_path: Path) -> None:
    value = {"z": 1, "a": [1.5, None, "\u00e9\ud83d"]}
    write_json(tmp_path / "deep" / "er" / "x.json", value)
    assert read_json(tmp_path / "deep" / "er" / "x.json") == value


def test_digests_know_content_not_order(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": "\ud800"}) == digest({"b": "\ud800", "a": 1}) != digest({"a": 1, "b": "x"})
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("stage", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_need_and_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, code: int
) -> None:
    path = tmp_path / "manifest.json"
    write_text(path, "old")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path if stage == "open" else disk.os, stage, full)
    with pytest.raises(DiskFullError, match=r"needs 9 bytes, has \d+"):
        write_text(path, "new words")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_an_interrupted_write_leaves_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(fileno: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_synced_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            disk.os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))
        )
    write_text(tmp_path / "a.txt", "text")
    assert calls == ["fsync", "replace"]


def test_a_root_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AdaptkitError) as caught:
        Run.open(tmp_path / "file" / "runs", "study", CONFIG)
    assert "cannot be written" in caught.value.what
    assert "--root" in caught.value.fix


def test_metrics_on_a_full_disk_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFullError):
        Run(tmp_path / "r").log_metrics({"step": 1})


def test_a_models_digest_knows_its_weights_and_configs_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a" / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "1_Pooling/config.json", "README.md"):
        (tmp_path / "a" / name).write_text(name)
    first = model_digest(tmp_path / "a")
    assert model_digest((tmp_path / "a").rename(tmp_path / "b")) == first
    (tmp_path / "b" / "README.md").write_text("other words")
    assert model_digest(tmp_path / "b") == first
    for name in ("model.safetensors", "config.json", "1_Pooling/config.json"):
        before = model_digest(tmp_path / "b")
        (tmp_path / "b" / name).write_text(f"another {name}")
        assert model_digest(tmp_path / "b") != before


def test_a_digest_of_weights_knows_nothing_of_what_lies_beside_them(tmp_path: Path) -> None:
    assert weights_digest(tmp_path) == ""
    (tmp_path / "model.safetensors").write_text("weights")
    first = weights_digest(tmp_path)
    (tmp_path / "parity.http.json").write_text("{}")
    assert weights_digest(tmp_path) == first == file_digest(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_text("other weights")
    assert weights_digest(tmp_path) != first


def test_the_format_of_records_is_part_of_a_runs_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Run.open(tmp_path, "study", CONFIG)
    monkeypatch.setattr(run_module, "FORMAT", 1)
    assert Run.open(tmp_path, "study", CONFIG).path != now.path


class Placed(Config):
    PLACES: ClassVar[frozenset[str]] = frozenset({"base", "files"})

    base: str = ""
    files: list[str] = []


class Nested(Config):
    train: Placed


def test_where_data_and_models_stand_is_no_part_of_a_runs_identity(tmp_path: Path) -> None:
    digests = {"train": "1", "train.base": "2"}
    here = Nested(train=Placed(base="/a/model", files=["/a/x.jsonl"]))
    there = Nested(train=Placed(base="/b/model", files=["/b/y/*.jsonl"]))
    run = Run.open(tmp_path / "runs", "study", here, digests)
    moved = Run.open(tmp_path / "archive", "study", there, digests)
    assert moved.path.name == run.path.name
    other = Run.open(tmp_path / "runs", "study", here, {**digests, "train.base": "3"})
    assert other.path != run.path, "other weights at the same place make another run"


def test_a_place_without_a_digest_counts_by_its_name_below_the_root_or_as_written(tmp_path: Path) -> None:
    def name(root: str, place: str) -> str:
        config = Placed(base=str(tmp_path / root / place), files=[str(tmp_path / root / "data-1/*.jsonl")])
        return Run.open(tmp_path / root, "study", config).path.name

    assert name("runs", "base-1/model") == name("archive", "base-1/model") != name("runs", "base-2/model")
    assert name("runs", "../elsewhere/model") != name("runs", "../other/model")


def test_places_below_are_named_by_their_dotted_key() -> None:
    assert places(Nested(train=Placed(files=["a"]))) == {"train.files": ["a"]}


def test_a_run_that_goes_on_elsewhere_says_in_its_config_where_things_are_now(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "study", Placed(base="/a/model"), {"base": "1"})
    run.finish()
    again = Run.open(tmp_path, "study", Placed(base="/b/model"), {"base": "1"})
    assert "/a/model" in run.config_path.read_text(), "a finished run is left as it is"
    again.start()
    assert "/b/model" in run.config_path.read_text()
