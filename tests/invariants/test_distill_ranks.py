"""A distillation on one rank and on two: the same losses and weights, and a teacher that is asked once.

torchrun with gloo on two CPU processes, launched once for DDP and FSDP2 beside an online teacher, and for
whole recipes whose teacher speaks online, through a store that both ranks write, and through its text.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_teachers
import train_distill_ranks
from tiny_training import losses

from adaptkit import models
from adaptkit.run import Run, read_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of one rank's runs and of two ranks'."""
    root = tmp_path_factory.mktemp("distill-ranks")
    one, two, world = root / "one", root / "two", root / "world"
    world.mkdir()
    tiny_teachers.write_files(world)
    teacher = tiny_teachers.causal_teacher(world)
    for name in train_distill_ranks.LOSSES:
        train_distill_ranks.train(one / name, name, "none")
    for signal in train_distill_ranks.SIGNALS:
        train_distill_ranks.recipe(one, teacher, signal)
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests", ROOT / "kernels/torch-ext"))
    on_cpu = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **on_cpu, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*command, train_distill_ranks.__file__, two, teacher]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return one, two


@pytest.mark.parametrize("name", train_distill_ranks.LOSSES)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_have_the_losses_weights_and_flops_of_one(runs, parallel, name):
    alone, shared = runs[0] / name, runs[1] / f"{parallel}-{name}"
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-5) and len(losses(alone)) == 6
    one, two = read_json(alone / "rank0.json"), read_json(shared / "rank0.json")
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-4) and two["flops"] == one["flops"]
    evaluated = [
        [row["eval_loss"] for row in Run(folder).metrics() if "eval_loss" in row]
        for folder in (alone, shared)
    ]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-5)


@pytest.mark.parametrize("signal", train_distill_ranks.SIGNALS)
def test_a_recipe_of_two_ranks_makes_the_student_of_one(runs, signal):
    alone, shared = (next((folder / signal).glob("distill-*")) for folder in runs)
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-4) and len(losses(alone)) == 6
    assert Run(shared).manifest()["training"]["train"]["ranks"] == 2
    one, two = (models.load(Run(folder).model, "causal").state_dict() for folder in (alone, shared))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3


def test_both_ranks_ask_the_teacher_and_write_what_one_would(runs):
    stores = [sorted((folder / "offline/shards").glob("*/part-*.bin")) for folder in runs]
    assert [path.parent.name for path in stores[0]] == [path.parent.name for path in stores[1]] and stores[0]
    assert [path.read_bytes() for path in stores[0]] == [path.read_bytes() for path in stores[1]]
    texts = [next((folder / "text").glob("distill-*/teacher.jsonl")).read_text() for folder in runs]
    assert texts[0] == texts[1] and texts[0]
