"""How many GPUs the training of a stage needs to fit, by the memory of its model.

Sharded weights, gradients and moments are divided among the GPUs (FSDP2); what layers keep for the backward
pass is not, as each GPU reads rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from adaptkit.compare.costs import Costs
from adaptkit.compare.speed import Machine
from adaptkit.compare.stage import Stage
from adaptkit.notices import tell
from adaptkit.study.arms import Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.stage_record import StageKind
from adaptkit.study.tasks.rows import RowKind
from adaptkit.trainer.memory import STATE_BYTES, activation_bytes

FROZEN_BYTES = 4
"""Of a weight that an adapter leaves as it is."""
USABLE = 0.9
"""Of a GPU's memory: the rest goes to its context, and to weights that are gathered for a moment."""


@dataclass(frozen=True)
class Needs:
    """Bytes of GPU memory that a training takes.

    Attributes:
        divided: among all GPUs.
        each: on every GPU.
    """

    divided: float
    each: float

    def gpus(self, memory: float, most: int) -> int:
        """How many GPUs of so much memory it needs: a power of two, or all where that is not enough."""
        number = 1
        while number < most and self.divided / number + self.each > USABLE * memory:
            number *= 2
        return min(number, most)

    def fits(self, memory: float, number: int) -> bool:
        return self.divided / number + self.each <= USABLE * memory


def with_gpus(stages: Iterable[Stage], config: StudyConfig, costs: Costs, machine: Machine) -> list[Stage]:
    """The stages with as many GPUs as each needs; says which fit none of them together."""
    if not machine.gpus:
        return list(stages)
    shared = []
    for stage in stages:
        needs = _needs(stage, config, costs)
        if needs is None:
            shared.append(stage)
            continue
        number = needs.gpus(machine.gpu_bytes, machine.gpus)
        if not needs.fits(machine.gpu_bytes, number) and stage.key.seed == 0 and stage.key.trial is None:
            whole = (needs.divided / number + needs.each) / 2**30
            what = f"{stage.describe}: about {whole:.0f} GiB on each of {number} GPUs of"
            tell(f"{what} {machine.gpu_bytes / 2**30:.0f} GiB; a smaller trainer.microbatch_size takes less")
        shared.append(replace(stage, gpus=number))
    return shared


def _needs(stage: Stage, config: StudyConfig, costs: Costs) -> Needs | None:
    """What the training of a stage takes; None for one that runs on a single GPU in any case."""
    key = stage.key
    rows = config.trainer.microbatch_size or config.trainer.global_batch_size
    if key.kind is StageKind.LANGUAGE and key.origin not in (None, Origin.DISTILLED):
        costs = costs.at_size(key.size) if key.size else costs
        adapted = config.adapter_on_text(key.origin).kind != "none"
        return _of_model(costs, key.origin, adapted, rows * config.size.seq_len)
    if key.kind is not StageKind.TASK or key.arm is None or key.task is None or not key.arm.trains_on_task:
        return None
    task = config.task(key.task)
    if key.arm.adaptation is None or not isinstance(task.task_kind, RowKind):
        return None
    adapted = config.adapter_of(key.arm.adaptation).kind != "none"
    return _of_model(costs, key.arm.origin, adapted, rows * task.max_length)


def _of_model(costs: Costs, origin: Origin, adapted: bool, tokens: float) -> Needs:
    layers, width = costs.layers_and_width(origin)
    state = FROZEN_BYTES if adapted else STATE_BYTES
    kept = activation_bytes(tokens, layers, width, dtype="bfloat16")
    return Needs(costs.params(origin) * state, kept)
