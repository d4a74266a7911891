"""A cluster of three nodes, one of which is lost in the middle of a stage. Home of compare.ray_pool."""

import os
import time
from pathlib import Path

import pytest

from adaptkit.compare import executor, ray_pool
from adaptkit.compare.executor import StageFailed
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import log_path, result_path
from adaptkit.errors import ConfigError
from adaptkit.study.stage_record import BASE, PREPARE, TOKENIZER

ray = pytest.importorskip("ray", reason="needs Ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")


@pytest.fixture(scope="module")
def nodes():
    """A head without a core and two nodes with one core each."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster, {node.node_id: node for node in workers}
    os.environ.pop("RAY_ADDRESS") if before is None else os.environ.update(RAY_ADDRESS=before)
    cluster.shutdown()


class Watcher:
    """A watcher that takes a node away as soon as a stage runs there."""

    def __init__(self, cluster, workers, study):
        self.cluster, self.workers, self.study = cluster, workers, study
        self.ends = []

    def started(self, stage):
        if stage.key != TOKENIZER:
            return
        place = self.study / "first-node"
        while not place.exists():
            time.sleep(0.05)
        self.cluster.remove_node(self.workers[place.read_text()], allow_graceful=False)

    def finished(self, stage, seconds):
        self.ends.append(stage.key)


def stages_of(study):
    """What each stage does: one ends at once, one waits on its first node for ever, one dies once."""

    def work(study, stage, threads):
        node, first = ray.get_runtime_context().get_node_id(), study / "first-node"
        print(f"{stage.name} on {node}", flush=True)
        if stage.key == TOKENIZER and not first.exists():
            first.with_suffix(".new").write_text(node)
            first.with_suffix(".new").rename(first)
            time.sleep(600)
        if stage.key == BASE and not (study / "died").exists():
            (study / "died").touch()
            os._exit(9)
        path = result_path(study, stage.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(node)

    return work


def test_stages_of_a_lost_node_and_of_a_killed_process_start_again(nodes, tmp_path, capfd):
    watcher = Watcher(*nodes, tmp_path)
    stages = [Stage(PREPARE, ""), Stage(TOKENIZER, "", (PREPARE,)), Stage(BASE, "", (TOKENIZER,))]
    executor.execute(tmp_path, stages, worker=stages_of(tmp_path), executor="ray", jobs=1, watcher=watcher)
    assert watcher.ends == [PREPARE, TOKENIZER, BASE]
    lost = (tmp_path / "first-node").read_text()
    assert result_path(tmp_path, TOKENIZER).read_text() != lost
    assert log_path(tmp_path, TOKENIZER).read_text().splitlines()[0] == f"tokenizer on {lost}"
    said = capfd.readouterr().err
    assert said.count("it starts again") == 2 and "base was lost" in said
    assert not (tmp_path / ".shared").exists()


def test_a_stage_that_is_lost_every_time_is_an_error_in_the_end(tmp_path):
    class AlwaysLost:
        """A cluster whose every task dies with its process."""

        exceptions, tries = ray.exceptions, 0

        def cluster_resources(self):
            return {"CPU": 1.0}

        def remote(self, *args, **settings):
            return object() if args else lambda work: self

        def wait(self, running, num_returns):
            return running[:1], running[1:]

        def get(self, reference):
            self.tries += 1
            raise ray.exceptions.WorkerCrashedError

    away = AlwaysLost()
    pool = ray_pool.RayPool(tmp_path, stages_of(tmp_path), away)
    pool.start(Stage(BASE, ""))
    assert pool.wait() == [BASE] and away.tries == ray_pool.TRIES
    with pytest.raises(StageFailed, match="'base' was killed"):
        executor.raise_failure(tmp_path, Stage(BASE, ""), pool.exit_code(BASE))


def test_a_node_without_the_studys_folder_is_named_before_anything_runs(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "_read", lambda path: "" if Path(path).name == ".shared" else "x")
    with pytest.raises(ConfigError, match="does not see this folder") as failure:
        executor.execute(
            tmp_path,
            [Stage(BASE, "")],
            worker=stages_of(tmp_path),
            executor="ray",
            jobs=1,
            watcher=Watcher(*nodes, tmp_path),
        )
    assert failure.value.where == str(tmp_path) and "share" in failure.value.fix
