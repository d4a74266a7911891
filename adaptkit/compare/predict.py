"""How long the stages of a study will take on this machine.

A stage takes its FLOPs, at the speed that was measured, and what is beside them: start, reading and
tokenising its text, scoring held-out text and items, searching.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adaptkit.compare.costs import Costs
from adaptkit.compare.outgoing import SECONDS_PER_REQUEST, num_requests
from adaptkit.compare.speed import Machine
from adaptkit.compare.stage import Stage
from adaptkit.study.arms import Origin
from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import WHOLE
from adaptkit.study.stage_record import StageKey, StageKind

START_S = 1.5
"""From the order to a model in memory, and files written at the end."""
PREPARE_BYTES_PER_S = 1.5e6
"""Reading, deduplicating, looking for overlap and writing."""
VOCABULARY_BYTES_PER_S = 4e6
"""Training a tokenizer."""
BASELINE_BYTES_PER_S = 4e5
SEARCH_S_PER_SCORE = 4e-7
"""Ranking one document for one question."""


@dataclass(frozen=True)
class Predictor:
    """Seconds of each stage of a study."""

    config: StudyConfig
    machine: Machine
    budget: Budget
    costs: Costs

    def seconds(self, stage: Stage) -> float:
        """Predicted wall time of one stage."""
        key, texts = stage.key, self.costs.texts
        if key.kind is StageKind.PREPARE:
            return START_S + (texts.domain + texts.general + self._task_bytes()) / PREPARE_BYTES_PER_S
        if key.kind is StageKind.TOKENIZER:
            return START_S + texts.domain / VOCABULARY_BYTES_PER_S
        if key.kind is StageKind.BASELINE:
            return START_S + self._baseline(key)
        if key.kind is StageKind.BASE:
            made = (
                texts.general / VOCABULARY_BYTES_PER_S + self._tokenising(texts.general)
                if stage.flops
                else 0.0
            )
            return START_S + made + self._computing(stage.flops + self.costs.text_answers(Origin.GENERIC))
        if key.kind is StageKind.FORECAST:
            return START_S
        if key.kind is StageKind.LANGUAGE:
            return START_S + self._language(stage)
        return START_S + self._task(stage)

    def _computing(self, flops: float) -> float:
        return flops / self.machine.flops_per_second

    def _tokenising(self, num_bytes: float) -> float:
        return num_bytes / self.machine.bytes_per_second

    def _task_bytes(self) -> float:
        return sum(size.num_bytes for size in self.costs.tasks.values())

    def _baseline(self, key: StageKey) -> float:
        assert key.task is not None
        size = self.costs.tasks[key.task]
        searching = size.num_items * size.num_documents * SEARCH_S_PER_SCORE
        return size.num_bytes / BASELINE_BYTES_PER_S + searching

    def _language(self, stage: Stage) -> float:
        key, texts = stage.key, self.costs.texts
        assert key.origin is not None
        general = key.origin is Origin.PLACEBO
        num_bytes = texts.general if general else texts.domain * key.portion.text
        replays = key.origin.replays and self.config.replay_share
        if replays or key.origin is Origin.MIXED:
            num_bytes += texts.general
        flops = stage.flops
        if key.task is not None:
            num_bytes, most = self.costs.tasks[key.task].num_bytes, self.costs.text_most(key.origin, key.task)
            flops = min(flops, most + self.costs.text_scoring(key.origin, key.task))
        costs = self.costs.at_size(key.size) if key.size else self.costs
        answers = 0.0 if key.trial is not None else costs.text_answers(key.origin)
        return self._tokenising(num_bytes) + self._computing(flops + answers)

    def _task(self, stage: Stage) -> float:
        key = stage.key
        assert key.arm is not None and key.task is not None
        task, size = self.config.task(key.task), self.costs.tasks[key.task]
        tuning = key.trial is not None
        searching = 0.0 if tuning else size.num_items * size.num_documents * SEARCH_S_PER_SCORE
        if not key.arm.trains_on_task:
            if key.seed and key.arm.is_fixed and key.portion == WHOLE:
                return 0.0  # finds the run of the first seed
            if key.arm.origin is Origin.API:
                requests = num_requests(task, size, self.budget.settings_tried)
                at_once = self.config.api.at_once if self.config.api else 1
                asking = requests * SECONDS_PER_REQUEST / at_once
                return asking + self._computing(self.costs.encoding(task, key.arm))
            flops = self.costs.frozen(task, key.arm, self.budget.settings_tried)
        else:
            most = self.costs.task_steps_at_most(task, key.arm) * key.portion.labels
            steps = most * self.costs.task_step(task, key.arm)
            scoring = self.costs.task_scoring(task, key.arm, tuning=tuning)
            flops = min(stage.flops, steps + scoring)
            flops += 0.0 if tuning else self.costs.task_answers(task, key.arm)
        return self._tokenising(size.num_bytes) + self._computing(flops) + searching


def wall_seconds(stages: Sequence[Stage], seconds: Callable[[Stage], float], jobs: int) -> float:
    """How long stages take together: each starts as soon as what it needs is done and as many of `jobs` are
    free as it takes GPUs; several share its work."""
    ended: dict[StageKey, float] = {}
    free = [0.0] * jobs
    planned = {stage.key for stage in stages}
    for stage in stages:
        ready = max((ended[need] for need in stage.needs if need in planned), default=0.0)
        places = [heapq.heappop(free) for _ in range(min(stage.gpus, jobs))]
        ended[stage.key] = max(ready, *places) + seconds(stage) / len(places)
        for _ in places:
            heapq.heappush(free, ended[stage.key])
    return max(ended.values(), default=0.0)
