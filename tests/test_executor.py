"""What a study says when a stage fails, and the order in which stages may start."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from adaptkit.compare.executor import Stage, StageFailed, _raise_failure, _ready, result_path, run_stage
from adaptkit.errors import DataError

STAGE = Stage("tokenizer", "tokenizer", "train the domain tokenizer", needs=("prepare",))


def test_a_stage_waits_for_what_it_needs():
    first = Stage("prepare", "prepare", "")
    assert _ready({"prepare": first, "tokenizer": STAGE}, {}) == [first]
    assert _ready({"prepare": first, "tokenizer": STAGE}, {"prepare": 0.0}) == []
    assert _ready({"tokenizer": STAGE}, {}) == [STAGE]


def test_a_circle_is_an_error_and_no_endless_wait():
    circle = {"a": Stage("a", "x", "", needs=("b",)), "b": Stage("b", "x", "", needs=("a",))}
    with pytest.raises(StageFailed, match="wait for each other: a, b"):
        _ready(circle, {})


def test_a_stage_killed_without_a_word_is_named_with_its_log(tmp_path):
    with pytest.raises(StageFailed, match="'tokenizer' was killed: out of memory") as failure:
        _raise_failure(tmp_path, STAGE)
    assert failure.value.where.endswith("tokenizer.log") and "resumes" in failure.value.fix


def test_an_error_of_the_users_keeps_its_kind_place_and_fix(tmp_path):
    told = {"kind": "DataError", "what": "empty text", "where": "a.jsonl:3", "fix": "fill it"}
    path = tmp_path / "stages" / "tokenizer.error"
    path.parent.mkdir()
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match="a.jsonl:3: stage 'tokenizer': empty text") as failure:
        _raise_failure(tmp_path, STAGE)
    assert failure.value.fix == "fill it"
    assert not path.exists(), "the next try must not meet the old error"


def test_an_unexpected_error_leaves_its_name_and_no_result(tmp_path):
    (tmp_path / "config.yaml").write_text("name: 3\n")
    with pytest.raises(SystemExit):
        run_stage(tmp_path, STAGE, threads=1)
    assert not result_path(tmp_path, "tokenizer").exists()
    assert json.loads((tmp_path / "stages" / "tokenizer.error").read_text())["what"]


def test_files_in_the_working_folder_are_not_imported(tmp_path):
    (tmp_path / "sklearn.py").write_text("open('shadowed', 'w')")
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(
        "from pathlib import Path\n"
        "from adaptkit.compare import executor\n"
        "if __name__ == '__main__':\n"
        "    executor.PRELOAD[:] = ['sklearn']\n"
        "    process = executor._LocalPool(Path('study'), 1).context.Process(target=print, args=('ran',))\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, check=True, timeout=300, capture_output=True, text=True
    )
    assert done.stdout == "ran\n" and not (tmp_path / "shadowed").exists()


LONG_STAGE = """
import sys, time
from pathlib import Path
from adaptkit.compare import executor

def run_stage(study, stage, threads):
    (study / "begun").touch()
    time.sleep(600)

executor.run_stage = run_stage
if __name__ == "__main__":
    pool = executor._LocalPool(Path(sys.argv[1]), 1)
    pool.start(executor.Stage("long", "long", "sleeps"))
    pool.wait()
"""


def test_a_stage_ends_with_its_study(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(LONG_STAGE)
    study = psutil.Popen([sys.executable, str(script), str(tmp_path)])
    while not (tmp_path / "begun").exists():
        assert study.poll() is None
        time.sleep(0.05)
    offspring = study.children(recursive=True)
    study.kill()
    study.wait()
    assert len(offspring) >= 2 and not psutil.wait_procs(offspring, timeout=60)[1]
