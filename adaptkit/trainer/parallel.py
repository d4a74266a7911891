"""Train in one process, with DDP or with FSDP2: three classes with the same methods.

Started by torchrun (gloo on CPUs, nccl on GPUs). Ranks split each global batch, losses are sums over all of
them, and checkpoints hold whole tensors, so one rank and many see the same samples, the same losses (to
rounding) and each other's checkpoints.
"""

from __future__ import annotations

import atexit
import copy
import gc
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from adaptkit.errors import ConfigError
from adaptkit.trainer.device import default_device

WAIT = timedelta(hours=6)
"""How long a rank waits for the others: the first scores and saves while they wait. Who starts the ranks ends
them all when one is lost."""
_sharded = threading.Event()


def shard_models() -> None:
    """Have `auto` mean FSDP2 from here on: this process holds a part of a model that does not fit one GPU."""
    _sharded.set()


class Ranks:
    """One process, and the interface of the others.

    `place` puts the model where it trains, `wrap` prepares the module whose forward gives the loss,
    `microbatch` surrounds one forward and backward, `whole` and `part` translate between a rank's tensors and
    complete ones, `give_back` brings trained weights to the caller's model.
    """

    rank, world_size = 0, 1

    def __init__(self) -> None:
        self.device = default_device()

    def place(self, model: nn.Module) -> nn.Module:
        if any(tensor.device != self.device for tensor in model.parameters()):
            model.to(self.device)
        return model

    def wrap(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        return module

    def microbatch(self, module: nn.Module, last: bool) -> AbstractContextManager:
        return nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """Sum over ranks of a detached scalar."""
        return value

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor

    def part(self, whole: Tensor | None, like: Tensor) -> Tensor:
        """This rank's share of a whole tensor that only rank 0 needs to hold."""
        assert whole is not None
        return whole.to(like.device)

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return value

    def refresh(self, module: nn.Module) -> None:
        """Make the next forward pass see weights that were changed behind the module's back."""

    def give_back(self, working: nn.Module, model: nn.Module) -> None:
        """Make `model` hold the trained weights of `working`."""


class ReplicatedRanks(Ranks):
    """DistributedDataParallel: every rank holds the model; gradients are averaged."""

    def __init__(self) -> None:
        super().__init__()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if not dist.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=WAIT)
            # Left to the interpreter's teardown, gloo's threads now and then abort a process whose work is
            # done.
            atexit.register(_leave)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def wrap(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def microbatch(self, module: nn.Module, last: bool) -> AbstractContextManager:
        if last:
            return nullcontext()
        return cast(nn.parallel.DistributedDataParallel, module).no_sync()

    def sum(self, value: Tensor) -> Tensor:
        value = value.detach().to(self.device, copy=True)
        dist.all_reduce(value)
        return value

    def part(self, whole: Tensor | None, like: Tensor) -> Tensor:
        received = torch.empty_like(like) if whole is None else whole.to(self.device)
        dist.broadcast(received, 0)
        return received

    def share(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, 0, device=self.device)
        return box[0]


class ShardedRanks(ReplicatedRanks):
    """FSDP2: each rank holds a part of every weight, gradient and optimizer state.

    A copy of the model is sharded; the caller's own stays whole, on the CPU, and gets the weights back at the
    end.
    """

    def place(self, model: nn.Module) -> nn.Module:
        return copy.deepcopy(model).to(self.device)

    def wrap(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        computed_in = None if dtype == torch.float32 else dtype
        policy = MixedPrecisionPolicy(computed_in, torch.float32, cast_forward_inputs=False)
        mesh = dist.init_device_mesh(self.device.type, (self.world_size,))
        for block in repeated_blocks(module):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        return cast(nn.Module, fully_shard(module, mesh=mesh, mp_policy=policy))

    def microbatch(self, module: nn.Module, last: bool) -> AbstractContextManager:
        cast(FSDPModule, module).set_requires_gradient_sync(last)
        return nullcontext()

    def whole(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, DTensor):
            return tensor.full_tensor()
        return tensor

    def part(self, whole: Tensor | None, like: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return super().part(whole, like)
        if whole is None:
            received = torch.empty(like.shape, dtype=like.dtype, device=self.device)
        else:
            received = whole.to(self.device)
        return distribute_tensor(received, like.device_mesh, like.placements)

    def refresh(self, module: nn.Module) -> None:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # after a forward pass without backward, the outermost weights stay gathered

    def give_back(self, working: nn.Module, model: nn.Module) -> None:
        targets = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in working.named_parameters():
                if weight.requires_grad:
                    targets[name].copy_(self.whole(weight))


def _leave() -> None:
    """Free what still holds the process group, then the group."""
    gc.collect()
    dist.destroy_process_group()


def join(parallel: str) -> Ranks:
    """This process's place among the ranks.

    Raises: ConfigError if ranks are asked for without torchrun, or torchrun started several and "none" was
        asked for.
    """
    by_torchrun, started = "RANK" in os.environ, 1
    if by_torchrun:
        started = int(os.environ.get("WORLD_SIZE", 1))
    if parallel == "none" and started > 1:
        what = (
            f"torchrun started {started} processes but trainer.parallel is none: "
            "each would write the same run"
        )
        raise ConfigError(
            what, where="trainer.parallel", fix="set trainer.parallel=ddp or fsdp, or run without torchrun"
        )
    if parallel in ("ddp", "fsdp") and not by_torchrun:
        fix = "start it with `torchrun --nproc-per-node N -m adaptkit ...`, or set trainer.parallel=none"
        raise ConfigError(f"trainer.parallel={parallel} needs torchrun", where="trainer.parallel", fix=fix)
    if parallel == "fsdp" or (parallel == "auto" and started > 1 and _sharded.is_set()):
        return ShardedRanks()
    if parallel == "ddp" or started > 1:
        return ReplicatedRanks()
    return Ranks()


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The model's stack of like layers: the module list that holds the most parameters."""
    stacks = [child for child in module.modules() if isinstance(child, nn.ModuleList) and len(child)]
    return list(max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()), default=[]))
