"""What this machine does with the study's model: FLOPs per token, speed, memory, stages at once. Measured
before planning."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from typing import Any

import torch

from adaptkit import models
from adaptkit.data.files import find_files, records
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.study.base_model import TextKind
from adaptkit.study.config import StudyConfig
from adaptkit.trainer.device import allowed_cores, compute_dtype, free_cores, gpu_bytes, visible_gpus
from adaptkit.trainer.memory import STATE_BYTES, activation_bytes, process_bytes

PROBE_S = 1.5
PROBE_PARAMS = {"cpu": 20e6, "cuda": 500e6}
"""A larger model's speed is measured on its first layers."""
ONE_THREAD_PARAMS = 10e6
SAMPLE_LINES, SAMPLE_BYTES = 500, 400_000


@dataclass(frozen=True)
class Machine:
    """What was measured before planning.

    Attributes:
        flops_per_token: training FLOPs per token of the base model.
        flops_per_second: training speed of one stage.
        bytes_per_second: tokenising speed of one stage.
        memory_bytes: predicted peak memory of one training stage; on a CPU with the process itself, on a GPU
            what torch allocates there.
        process_bytes: the part of it that the process takes before any model: Python, torch, libraries.
        jobs: stages at once.
        gpus: that this process may use.
        gpu_bytes: memory of one of them.
    """

    flops_per_token: float
    flops_per_second: float
    bytes_per_second: float
    memory_bytes: float
    jobs: int
    process_bytes: float = 0.0
    gpus: int = 0
    gpu_bytes: float = 0.0


def measure(config: StudyConfig, shape: Any, kind: TextKind) -> Machine:
    """Time a few training steps of the base's shape on random tokens, and a tokenizer on some text."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    process = process_bytes() if device == "cpu" else 0.0
    with torch.device("meta"):
        model = models.build(shape, kind, seed=0)
    seq_len, rows = config.size.seq_len, config.trainer.microbatch_size or config.trainer.global_batch_size
    flops = models.flops_per_token(model, seq_len).train
    count = models.param_count(model).total
    tokens = rows * seq_len
    activations = activation_bytes(tokens, shape.num_hidden_layers, shape.hidden_size)
    # A model this small gains nothing from a second thread, and loses tenfold where another process wants the
    # core. Stages of one thread share cores without harm: a machine that is busy now is no reason for fewer.
    gpus = len(visible_gpus())
    jobs = config.jobs or gpus or (allowed_cores() if count < ONE_THREAD_PARAMS else 1)
    threads = config.trainer.threads or max(1, free_cores() // jobs)
    return Machine(
        flops_per_token=flops,
        flops_per_second=_speed(shape, kind, seq_len, device, threads),
        bytes_per_second=_tokenising_speed(config),
        memory_bytes=process + count * STATE_BYTES + activations,
        jobs=jobs,
        process_bytes=process,
        gpus=gpus,
        gpu_bytes=gpu_bytes(),
    )


def _tokenising_speed(config: StudyConfig) -> float:
    """Bytes per second of the base's tokenizer, or of one made on the spot, on one thread."""
    files, _ = find_files(config.general.train.files)
    lines = [str(record) for _, record in itertools.islice(records(files[0]), SAMPLE_LINES)]
    texts = ["".join(lines)[i : i + 1000] for i in range(0, min(SAMPLE_BYTES, sum(map(len, lines))), 1000)]
    if config.base:
        tokenizer = models.load_tokenizer(models.find(config.base))
    else:
        tokenizer = train_tokenizer(texts[:100], config.tokenizer.kind, 512)
    parallel = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        begun = _work_seconds("cpu", 1)
        tokenizer(texts)
        return sum(map(len, texts)) / max(_work_seconds("cpu", 1) - begun, 1e-6)
    finally:
        if parallel is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel


def _speed(shape: Any, kind: TextKind, seq_len: int, device: str, num_threads: int) -> float:
    """Training FLOPs per second of a model of this width on so many threads, or on the GPU, in the dtype that
    stages train in."""
    dtype = compute_dtype("auto", torch.device(device))
    probe = type(shape).from_dict(shape.to_dict())
    with torch.device("meta"):
        while (
            probe.num_hidden_layers > 1
            and models.param_count(models.build(probe, kind, seed=0)).total > PROBE_PARAMS[device]
        ):
            probe.num_hidden_layers //= 2
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        model = models.build(probe, kind, seed=0).train()
        torch.nn.Module.to(model, device)
        tokens = torch.randint(0, probe.vocab_size, (8, seq_len), device=device)
        step_flops = models.flops_per_token(model, seq_len).train * tokens.numel()
        steps, begun = -1, _work_seconds(device, num_threads)
        while _work_seconds(device, num_threads) - begun < PROBE_S or steps < 1:
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            loss.backward()
            steps += 1
            if steps == 0:  # the first step pays for set-up
                begun = _work_seconds(device, num_threads)
        return step_flops * steps / (_work_seconds(device, num_threads) - begun)
    finally:
        torch.set_num_threads(threads)


def _work_seconds(device: str, num_threads: int) -> float:
    """A clock of this process's own work: one that other processes crowd out for a moment is not slow.

    On a CPU it counts what each thread ran, so that a plan made on a busy machine holds when it is quiet.
    """
    if device != "cpu":
        torch.cuda.synchronize()  # what was launched is done
        return time.monotonic()
    return time.process_time() / num_threads
