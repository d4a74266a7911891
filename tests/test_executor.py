"""What a study says when a stage fails, and the order in which stages may start. Home of compare.frozen."""

import json
import subprocess
import sys
import time

import psutil
import pytest
import torch
from tiny_stages import count_frozen, name_the_gpu, sleep_long

from adaptkit.compare import executor
from adaptkit.compare.executor import StageFailed, raise_failure, ready
from adaptkit.compare.stage import Stage
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import error_path, result_path
from adaptkit.errors import DataError
from adaptkit.study.stage_record import BASE, PREPARE, TOKENIZER
from adaptkit.trainer.device import visible_gpus

STAGE = Stage(TOKENIZER, "train the domain tokenizer", needs=(PREPARE,))


def test_a_stage_waits_for_what_it_needs():
    first = Stage(PREPARE, "")
    assert ready({PREPARE: first, TOKENIZER: STAGE}, {}) == [first]
    assert ready({PREPARE: first, TOKENIZER: STAGE}, {PREPARE: 0.0}) == []
    assert ready({TOKENIZER: STAGE}, {}) == [STAGE]


def test_a_circle_is_an_error_and_no_endless_wait():
    circle = {BASE: Stage(BASE, "", (TOKENIZER,)), TOKENIZER: Stage(TOKENIZER, "", (BASE,))}
    with pytest.raises(StageFailed, match="wait for each other: base, tokenizer"):
        ready(circle, {})


def test_a_stage_killed_without_a_word_is_named_with_its_log(tmp_path):
    with pytest.raises(StageFailed, match="'tokenizer' was killed: out of memory") as failure:
        raise_failure(tmp_path, STAGE)
    assert failure.value.where.endswith("tokenizer.log") and "resumes" in failure.value.fix


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "was killed: out of memory"),
        (-15, "was ended by SIGTERM"),
        (-11, "was ended by SIGSEGV"),
        (255, "was lost: the process that starts and watches the stages was killed"),
        (3, "ended with exit code 3"),
    ],
)
def test_how_a_stage_ended_is_said_as_it_was(tmp_path, code, said):
    with pytest.raises(StageFailed, match=said) as failure:
        raise_failure(tmp_path, STAGE, code)
    assert ("memory" in str(failure.value)) == (code == -9) and "resumes" in failure.value.fix


def test_stages_of_a_killed_fork_server_are_lost_and_not_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "PRELOAD", [])
    pool = executor.LocalPool(tmp_path, sleep_long, jobs=1)
    pool.start(STAGE)
    child = psutil.Process(pool.processes[TOKENIZER].pid)
    try:
        child.parent().kill()
        assert pool.wait() == [TOKENIZER]
        with pytest.raises(StageFailed, match="was lost"):
            raise_failure(tmp_path, STAGE, pool.exit_code(TOKENIZER))
    finally:
        child.kill()


class NoWatcher:
    def started(self, stage):
        pass

    def finished(self, stage, seconds):
        pass


def test_stages_at_once_have_a_gpu_each(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "PRELOAD", [])
    monkeypatch.setattr(executor, "visible_gpus", lambda: ["4", "GPU-7f"])
    stages = [Stage(key, "") for key in (PREPARE, TOKENIZER, BASE)]
    executor.execute(tmp_path, stages, worker=name_the_gpu, executor="local", jobs=2, watcher=NoWatcher())
    given = [result_path(tmp_path, stage.key).read_text() for stage in stages]
    assert given[:2] == ["4", "GPU-7f"] and given[2] in given[:2]


def test_what_the_server_imported_is_left_out_of_a_stages_collections(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "PRELOAD", [])
    stages = [Stage(PREPARE, "")]
    executor.execute(tmp_path, stages, worker=count_frozen, executor="local", jobs=1, watcher=NoWatcher())
    assert int(result_path(tmp_path, PREPARE).read_text()) > 1000


def test_a_server_that_ends_reports_nothing_that_it_froze():
    pytest.importorskip("triton.language", reason="its C++ module is what would report")
    script = "import triton.language, adaptkit.compare.frozen"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("set_to", "number", "names"),
    [("", 2, ["0", "1"]), ("3, 5", 2, ["3", "5"]), ("3,5", 1, ["3"]), ("0", 0, [])],
)
def test_gpus_are_named_as_their_variable_does(monkeypatch, set_to, number, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", set_to)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    assert visible_gpus() == names


def test_an_error_of_the_users_keeps_its_kind_place_and_fix(tmp_path):
    told = {"kind": "DataError", "what": "empty text", "where": "a.jsonl:3", "fix": "fill it"}
    path = error_path(tmp_path, TOKENIZER)
    path.parent.mkdir()
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match="a.jsonl:3: stage 'tokenizer': empty text") as failure:
        raise_failure(tmp_path, STAGE)
    assert failure.value.fix == "fill it"
    assert not path.exists(), "the next try must not meet the old error"


def test_an_unexpected_error_leaves_its_name_and_no_result(tmp_path):
    (tmp_path / "config.yaml").write_text("name: 3\n")
    with pytest.raises(SystemExit):
        run_stage(tmp_path, STAGE, threads=1)
    assert not result_path(tmp_path, TOKENIZER).exists()
    assert json.loads(error_path(tmp_path, TOKENIZER).read_text())["what"]


def test_files_in_the_working_folder_are_not_imported(tmp_path):
    (tmp_path / "sklearn.py").write_text("open('shadowed', 'w')")
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(
        "from pathlib import Path\n"
        "from adaptkit.compare import executor\n"
        "if __name__ == '__main__':\n"
        "    executor.PRELOAD[:] = ['sklearn']\n"
        "    pool = executor.LocalPool(Path('study'), executor.execute, 1)\n"
        "    process = pool.context.Process(target=print, args=('ran',))\n"
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
from adaptkit.compare.stage import Stage
from adaptkit.study.stage_record import TOKENIZER

def sleep(study, stage, threads):
    (study / "begun").touch()
    time.sleep(600)

if __name__ == "__main__":
    pool = executor.LocalPool(Path(sys.argv[1]), sleep, 1)
    pool.start(Stage(TOKENIZER, "sleeps"))
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
