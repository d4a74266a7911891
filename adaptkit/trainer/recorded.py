"""Record forward and backward of a batch once as a CUDA graph, and replay it for later batches of its shapes.

A step of a small model is over on a GPU before the host has launched its thousand kernels. A replay is one
launch, and runs the same kernels on the same numbers. It needs the same shapes each time: the number of
labelled rows and of documents is rounded up, with rows that have no label and documents that have no token.

Shapes are recorded when they come for the third time, so what kernels and caches do once is done by then;
shapes that come seldom, and those past the first few, run as ever.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.models import packed
from adaptkit.models.head import unwrap
from adaptkit.trainer import device
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.objective import BOUNDS, ROWS, Batch, Objective
from adaptkit.trainer.parallel import Ranks

TIMES_SEEN, MOST, FEWEST_STEPS = 3, 6, 50
"""How often shapes come before they are recorded, how many different ones are, and how many steps a run has
that earns the fraction of a second back which each recording takes."""
MOST_MEMORY = 0.4
"""A recorded step keeps its memory for itself: it is recorded where a step takes at most this share of the
GPU's."""
ROW_STEPS = 16
"""The number of labelled rows is rounded up to a multiple of this share of a batch's tokens."""

Signature = tuple[tuple[str, object], ...]


@dataclass
class Recorded:
    """One recording: what it reads, what it leaves, and the graph between."""

    graph: torch.cuda.CUDAGraph
    inputs: Mapping[str, Tensor]
    scale: Tensor
    total: Tensor
    gradients: list[Tensor | None]

    def replay(self, batch: Batch, scale: float) -> Tensor:
        """The loss of the batch; `gradients` then hold those of `scale` times it, until the next replay."""
        for name, place in self.inputs.items():
            place.copy_(batch[name].pin_memory(), non_blocking=True)
        self.scale.fill_(scale)
        self.graph.replay()
        return self.total.clone()


class Recorder:
    """Runs microbatches forward and backward, from recordings where there are some.

    Args:
        module: called with a batch, gives (summed loss, metrics); a pure function of batch, weights and
            torch's RNG.
        weights: those whose gradients are wanted; they stay where they are in memory.
    """

    def __init__(self, module: nn.Module, weights: Sequence[nn.Parameter], where: torch.device):
        self.module, self.weights, self.device = module, list(weights), where
        self.recordings: dict[Signature, Recorded] = {}
        self.refused = ""
        self._seen: Counter[Signature] = Counter()
        self._pool: Any = None
        self._failed: torch.cuda.CUDAGraph | None = None

    def accumulate(self, batches: Sequence[Batch], scale: float) -> Tensor:
        """Leave the gradients of `scale` times the summed loss in the weights; returns the loss of each
        batch."""
        totals = []
        for batch in batches:
            batch = fixed_shapes(batch)
            recorded = self._recorded(batch, scale)
            if recorded is None:
                totals.append(self._run(device.send(batch, self.device), scale))
            else:
                totals.append(recorded.replay(batch, scale))
                self._add(recorded.gradients, alone=len(batches) == 1)
        return torch.stack(totals)

    def _recorded(self, batch: Batch, scale: float) -> Recorded | None:
        """The recording for a batch's shapes, made now if it is time; None to run the batch as ever."""
        signature = signature_of(batch)
        if recording := self.recordings.get(signature):
            return recording
        self._seen[signature] += 1
        if self.refused or self._seen[signature] < TIMES_SEEN or len(self.recordings) == MOST:
            return None
        whole_memory = torch.cuda.mem_get_info(self.device)[1]
        if torch.cuda.max_memory_allocated(self.device) > MOST_MEMORY * whole_memory:
            self.refused = f"a step takes more than {MOST_MEMORY:.0%} of the GPU's memory"
            return None
        before = torch.cuda.current_stream(self.device), _generator(self.device).clone_state()
        try:
            self.recordings[signature] = self._record(batch, scale)
        except RuntimeError as error:
            # an operation that cannot be recorded: the step computes the same without
            self.refused = _first_cause(error)
            self._recover(*before)
            return None
        return self.recordings[signature]

    def _recover(self, stream: torch.cuda.Stream, state: torch.Generator) -> None:
        """A recording that failed leaves its own stream current and the generator waiting for its end."""
        torch.cuda.set_stream(stream)
        _generator(self.device).graphsafe_set_state(state)

    def _record(self, batch: Batch, scale: float) -> Recorded:
        gc.collect()  # a dead graph of an earlier step would tie its gradients to another stream
        own = {name: value.contiguous() for name, value in batch.items() if isinstance(value, Tensor)}
        inputs = device.send({**batch, **own}, self.device)  # memory of its own for each element
        factor = torch.full((), scale, dtype=torch.float32, device=self.device)
        gradients_before = [weight.grad for weight in self.weights]
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # the allocator still looks at a graph that failed, so it must not be freed
        graph = self._failed = torch.cuda.CUDAGraph()
        try:
            self._put([None] * len(self.weights))
            with torch.cuda.graph(graph, pool=self._pool):
                total = self._run(inputs, factor)
            gradients = [weight.grad for weight in self.weights]
        finally:
            self._put(gradients_before)
        self._failed = None
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        return Recorded(graph, tensors, factor, total, gradients)

    def _run(self, batch: Batch, scale: float | Tensor) -> Tensor:
        total, _ = self.module(batch)
        (total * scale).backward()
        return total.detach()

    def _add(self, gradients: list[Tensor | None], *, alone: bool) -> None:
        """Into the weights' gradients: a recording's own tensors if nothing else is added, for they are
        overwritten."""
        if alone:
            self._put(gradients)
            return
        pairs = [
            (weight, new) for weight, new in zip(self.weights, gradients, strict=True) if new is not None
        ]
        old = [(weight.grad, new) for weight, new in pairs if weight.grad is not None]
        if old:
            torch._foreach_add_(*(list(side) for side in zip(*old, strict=True)))
        for weight, new in pairs:
            if weight.grad is None:
                weight.grad = new.clone()

    def _put(self, gradients: Sequence[Tensor | None]) -> None:
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient


def wanted(config: TrainerConfig, objective: Objective, ranks: Ranks, model: nn.Module) -> bool:
    """Whether steps are to be recorded: one GPU, an objective that says so, a model that does the same each
    time."""
    alone = ranks.device.type == "cuda" and type(ranks) is Ranks
    fits = (
        getattr(objective, "repeatable", False) and getattr(objective, "implementation", "fused") == "fused"
    )
    pays = config.cuda_graph == "auto" and config.num_steps >= FEWEST_STEPS
    return pays and alone and fits and not config.gradient_checkpointing and not _drops_layers(model)


def signature_of(batch: Batch) -> Signature:
    """What a recording is for: the names, shapes and dtypes of its tensors, and its numbers."""
    parts: dict[str, object] = dict(batch)
    for name, value in batch.items():
        if isinstance(value, Tensor):
            parts[name] = (value.shape, value.dtype)
    return tuple(sorted(parts.items()))


def fixed_shapes(batch: Batch) -> Batch:
    """The batch with numbers of rows and documents rounded up: rows without a label and documents without a
    token."""
    if ROWS in batch:
        batch = {**batch, ROWS: padded_rows(batch[ROWS], batch["labels"].numel())}
    if BOUNDS in batch:
        batch = {**batch, BOUNDS: packed.padded_bounds(batch[BOUNDS], batch["input_ids"].numel())}
    return batch


def padded_rows(rows_R: Tensor, num_tokens: int) -> Tensor:
    """Labelled rows, then as many of the others as make the number a multiple of a share of all."""
    share = max(1, num_tokens // ROW_STEPS)
    number = min(num_tokens, -(-len(rows_R) // share) * share)
    unlabelled = torch.ones(num_tokens, dtype=torch.bool)
    unlabelled[rows_R] = False
    return torch.cat([rows_R, unlabelled.nonzero().flatten()[: number - len(rows_R)]])


def _drops_layers(model: nn.Module) -> bool:
    """Which layers are left out is drawn on the host, so a recording would leave out the same ones for
    ever."""
    config = getattr(unwrap(model), "config", None)
    return config is not None and any("layerdrop" in name and value for name, value in vars(config).items())


def _generator(where: torch.device) -> torch.Generator:
    index = where.index
    if index is None:
        index = torch.cuda.current_device()
    return torch.cuda.default_generators[index]


def _first_cause(error: BaseException) -> str:
    """What went wrong first: the end of a failed recording fails too."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"
