"""Embeddings end to end: two ranks train what one trains, and three programs give the same vectors for one
folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_embed
import train_embed_ranks
from tiny_training import losses

from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.recipe import embed
from adaptkit.run import Run, read_json

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests", ROOT / "kernels/torch-ext"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders: one (this process, whole batches), and those of two ranks, with microbatches and
    without."""
    root = tmp_path_factory.mktemp("ranks")
    tiny_embed.bert(root / "bert")
    tiny_embed.write_set(root / "set")
    train_embed_ranks.train(root, "one", "none", 0)
    train_embed_ranks.recipe(root, "recipe-one")
    on_cpu = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, **on_cpu, "PYTHONPATH": PATHS}
    done = subprocess.run(
        [*command, train_embed_ranks.__file__, root],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", ["ddp", "ddp-whole", "fsdp", "fsdp-whole"])
def test_two_ranks_have_the_losses_and_weights_of_one(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / "one"), rel=1e-5)
    one = read_json(runs / "one/rank0.json")
    for rank in (0, 1):
        assert read_json(runs / name / f"rank{rank}.json") == pytest.approx(one, abs=2e-4)


@pytest.mark.parametrize("suffix", ["", "-tsdae"])
def test_the_recipe_ends_the_same_on_two_ranks(runs, suffix):
    one, two = (Run(runs / f"{name}{suffix}") for name in ("recipe-one", "recipe-two"))
    assert two.finished and losses(two.path) == pytest.approx(losses(one.path), rel=1e-5)
    texts = tiny_embed.texts(20)
    cosines = (Encoder.load(one.model).encode(texts) * Encoder.load(two.model).encode(texts)).sum(1)
    assert cosines.min() > 0.9999


def trained(root: Path, base: Path) -> Path:
    config = EmbedConfig.model_validate(
        {
            "base": str(base),
            "train": {"files": [str(tiny_embed.write_set(root / "set"))]},
            "dimensions": [16],
            "prompts": {"query": "find: "},
            "trainer": {"num_steps": 4, "global_batch_size": 8, "threads": 1},
        }
    )
    return embed(config, Run.open(root / "runs", config.name, config.model_dump(mode="json"))).model_folder


@pytest.fixture
def served(tmp_path):
    """Starts vLLM on a folder; gives an OpenAI client of it."""
    pytest.importorskip("vllm")
    openai = pytest.importorskip("openai")
    started = []

    def serve(folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = [
            "--model",
            str(folder),
            "--served-model-name",
            "vectors",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        words += ["--runner", "pooling", "--dtype", "float32", "-O0", "--distributed-executor-backend", "uni"]
        told = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
        }
        told |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words]
        with (tmp_path / "vllm.log").open("w") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **told},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        for _ in range(600):
            try:
                client.models.list()
                return client
            except openai.APIConnectionError:
                assert process.poll() is None, (tmp_path / "vllm.log").read_text()[-3000:]
                time.sleep(0.5)
        raise AssertionError("vLLM did not start: " + (tmp_path / "vllm.log").read_text()[-3000:])

    yield serve
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["bert", "qwen", "dense"])
def test_ours_sentence_transformers_and_vllm_give_the_same_vectors(tmp_path, served, base):
    from sentence_transformers import SentenceTransformer

    # vLLM's CPU attention wants heads of 32 at least
    make = tiny_embed.qwen if base == "qwen" else tiny_embed.bert
    made = make(tmp_path / base, hidden=64)
    folder = trained(tmp_path, tiny_embed.add_dense(made, 48) if base == "dense" else made)
    encoder, theirs = Encoder.load(folder), SentenceTransformer(str(folder), device="cpu")
    client, texts = served(folder), tiny_embed.texts(8)
    for dimensions in (0, 16):
        mine = encoder.encode(texts, dimensions=dimensions)
        cut_to = {"truncate_dim": dimensions, "normalize_embeddings": True} if dimensions else {}
        found = theirs.encode(texts, show_progress_bar=False, **cut_to)
        asked = {"dimensions": dimensions} if dimensions else {}
        rows = client.embeddings.create(model="vectors", input=texts, encoding_format="float", **asked).data
        over_http = np.array([row.embedding for row in sorted(rows, key=lambda row: row.index)])
        for other in (found, over_http):
            assert other.shape == mine.shape and (mine * other).sum(1).min() >= 0.999
            assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=1e-4)
