"""One rank and two: the same samples in the same order, the same losses, and each other's checkpoints. Home
of trainer.parallel.

torchrun with gloo on two CPU processes, launched once for DDP, FSDP2 and both resumes from a checkpoint of
one rank.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import train_ranks
from tiny_training import losses, settings
from tiny_training import train as train_here

from adaptkit.errors import ConfigError
from adaptkit.run import Run, read_json
from adaptkit.trainer import parallel, run_checks
from adaptkit.trainer.objective import CausalLM

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders: one (this process), ddp and fsdp (two ranks), resumed-ddp and resumed-fsdp (two ranks
    after one)."""
    root = tmp_path_factory.mktemp("ranks")
    train_ranks.train(root / "one", "none")
    for name in ("resumed-ddp", "resumed-fsdp"):
        shutil.copytree(root / "one/checkpoints/step-000004", root / name / "checkpoints/step-000004")
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests", ROOT / "kernels/torch-ext"))
    on_cpu = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **on_cpu, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, train_ranks.__file__, root], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_ranks_have_the_losses_weights_and_counts_of_one(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / "one"), rel=1e-6)
    one, two = (read_json(runs / run / "rank0.json") for run in ("one", name))
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-4)
    assert all(one[count] == two[count] for count in ("items", "tokens", "flops"))
    evaluations = [
        [row["eval_loss"] for row in Run(runs / run).metrics() if "eval_loss" in row] for run in ("one", name)
    ]
    assert evaluations[1] == pytest.approx(evaluations[0], rel=1e-6) and len(evaluations[0]) == 2


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_ranks_see_the_samples_of_one_in_its_order(runs, name):
    one = read_json(runs / "one/rank0.json")["asked"]
    first, second = (read_json(runs / name / f"rank{rank}.json")["asked"] for rank in (0, 1))
    joined = [
        group for pair in zip(first, second, strict=True) for group in pair
    ]  # in each round the ranks take neighbours
    assert joined == one and len(one) == 24


@pytest.mark.parametrize("name", ["resumed-ddp", "resumed-fsdp"])
def test_two_ranks_take_up_a_checkpoint_of_one(runs, name):
    assert Run(runs / name).manifest()["training"]["train"]["resumed_from_step"] == 4
    assert losses(runs / name) == pytest.approx(losses(runs / "one")[4:], rel=1e-6)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_one_rank_takes_up_a_checkpoint_of_two(runs, name, tmp_path):
    shutil.copytree(runs / name / "checkpoints/step-000004", tmp_path / "checkpoints/step-000004")
    train_ranks.train(tmp_path, "none")
    assert Run(tmp_path).manifest()["training"]["train"]["resumed_from_step"] == 4
    assert losses(tmp_path) == pytest.approx(losses(runs / "one")[4:], rel=1e-6)


def test_auto_means_ddp_under_torchrun(runs, tmp_path):
    train_here(tmp_path, "classify")
    assert losses(runs / "classify") == pytest.approx(losses(tmp_path), rel=1e-6)
    assert Run(runs / "classify").manifest()["training"]["train"]["ranks"] == 2


def test_several_processes_without_ranks_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes but trainer.parallel is none"):
        parallel.join("none")


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"global_batch_size": 7}, "cannot be split over 2 ranks"),
        ({"optimizer": "adamw8bit"}, "sharded weights"),
    ],
)
def test_settings_that_two_ranks_cannot_share_are_refused(changes, match):
    ranks = parallel.Ranks()
    ranks.world_size = 2
    config = settings(parallel="fsdp", **changes)
    with pytest.raises(ConfigError, match=match):
        run_checks.check(CausalLM(), train_ranks.Rows("causal"), None, config, ranks)
