"""Train a model: the loop of every recipe.

What differs between recipes is the objective, the labels, and which weights require a gradient.

    result = Trainer(model, CausalLM(), source, TrainerConfig(num_steps=100), run=run).fit()

Losses are sums; the items they are averaged over are counted over all microbatches and ranks, and divided by
once per step. What a step sees is a pure function of (seed, step), dropout included, so a resumed run equals
an uninterrupted one bit for bit on the same machine, thread count and versions.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from adaptkit import ops
from adaptkit.errors import AdaptkitError, DataError, NonFiniteError
from adaptkit.run import Run, digest, write_json
from adaptkit.trainer import device, grad_cache, optim, parallel, recorded, run_checks
from adaptkit.trainer.checkpoint import Checkpoint, Checkpoints
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.cost import Meter, step_cost
from adaptkit.trainer.evaluation import evaluate
from adaptkit.trainer.interruption import Interruption
from adaptkit.trainer.objective import Batch, Contrast, LossModule, Objective
from adaptkit.trainer.pending import Pending, Taken
from adaptkit.trainer.progress import Hooks, MetricsFile, announce, progress
from adaptkit.trainer.reporters import tracker
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.row_source import Order, Source, microbatches, mix
from adaptkit.trainer.state import State, trained_and_frozen
from adaptkit.trainer.steps import is_due

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Trainer:
    """Trains the weights of `model` that require a gradient; `fit` resumes by itself.

    Args:
        eval: examples to measure the same loss on, under no_grad.
        label: names this training in logs; a run that trains twice gives the second one another label.
        hooks: listeners beside the metrics file, the progress bar and `report_to`.

    Raises: ConfigError for settings that do not fit the machine, the data or the objective.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        train: Source,
        config: TrainerConfig,
        *,
        run: Run,
        eval: Source | None = None,
        label: str = "train",
        hooks: Sequence[Hooks] = (),
    ):
        self.model, self.config, self.run, self.label = model, config, run, label
        self.train, self.eval = train, eval
        self.ranks = parallel.join(config.parallel)
        self.device = self.ranks.device
        self.dtype = device.compute_dtype(config.precision, self.device)
        self.objective = run_checks.resolve(objective, config.implementation, self.device)
        self.order = Order(len(train), config.global_batch_size, config.seed)
        self.hooks = list(hooks)
        self.meter = Meter(model, self.objective)
        self.recorder: recorded.Recorder | None = None
        self.interruption = Interruption()
        run_checks.check(objective, train, eval, config, self.ranks)

    def fit(self) -> TrainResult:
        """Train to the last step and leave the selected weights in the model.

        Raises: NonFiniteError before the update, DiskFullError, CheckpointError, DataError.
        """
        result = None
        with torch.random.fork_rng([self.device] * (self.device.type == "cuda")), self.interruption:
            self._prepare()
            self._resume()
            self._listen()
            try:
                while self.state.progress.step < self.config.num_steps:
                    self._advance()
                self.interruption.raise_if_asked()  # while the last step was evaluated or saved
                result = self._finish()
            except NonFiniteError as error:
                error.spent = self.state.progress.cost()
                raise
            finally:
                self.fused.undo()
                self.recorder = None
                for hook in self.hooks:
                    hook.on_end(result)
        return result

    def _prepare(self) -> None:
        config, ranks = self.config, self.ranks
        device.reset_peak_memory(self.device)
        working = ranks.place(self.model)
        self.fused = ops.fuse(working, config.implementation)
        if config.gradient_checkpointing:
            transformer = cast("PreTrainedModel", working)
            transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        recording = recorded.wanted(config, self.objective, ranks, working)
        self.compiled = run_checks.compiles(config, self.objective, self.device, self._step_flops, recording)
        if self.compiled:
            for block in parallel.repeated_blocks(working):
                block.compile()
        self.working = working
        self.loss = LossModule(working, self.objective, self.dtype)
        self.module = ranks.wrap(self.loss, self.dtype).train()
        self.state = State(working, config, ranks)
        if recording:
            weights = list(self.state.weights.values())
            self.recorder = recorded.Recorder(self.module, weights, self.device)
        deferred = self.device.type == "cuda" and config.optimizer == "adamw" and config.parallel != "fsdp"
        self.pending = Pending(self.state.optimizer, deferred)
        checkpoints = self.run.checkpoints
        folder = checkpoints if self.label == "train" else checkpoints / self.label
        identity = {
            "label": self.label,
            "objective": type(self.objective).__name__,
            "number of examples": len(self.train),
            "trainer settings": digest(config.identity()),
            **trained_and_frozen(self.model),
        }
        self.checkpoints = Checkpoints(folder, keep=config.keep_checkpoints, identity=identity)

    def _step_flops(self) -> float:
        return step_cost(self.meter, self.train, self.order, 0, self.config)

    def _resume(self) -> None:
        """Take up the newest valid checkpoint, if there is one; every rank learns what rank 0 found."""
        newest: Checkpoint | AdaptkitError | None = None
        if self.ranks.rank == 0:
            try:
                newest = self.checkpoints.newest()
            except AdaptkitError as error:
                newest = error
        newest = self.ranks.share(newest)
        if isinstance(newest, AdaptkitError):
            raise newest
        threads_before = 0
        if newest:
            self.state.load(newest)
            threads_before = newest.state["threads"]
        self.threads = self.config.threads or threads_before or device.free_cores()
        if self.device.type == "cpu":
            torch.set_num_threads(self.threads)

    def _listen(self) -> None:
        """Say what will run, in the log and in the manifest; then only rank 0 has listeners."""
        if self.ranks.rank:
            self.hooks = []
            return
        facts = {
            "device": device.describe(self.device),
            "precision": str(self.dtype).removeprefix("torch."),
            "threads": self.threads,
            "ranks": self.ranks.world_size,
            "implementation": self.fused.implementation,
            "compiled": self.compiled,
            "cuda_graph": self.recorder is not None,
            "fused_layers": dict(Counter(self.fused.replaced.values())),
            "not_fused": self.fused.kept,
            "resumed_from_step": self.state.progress.step,
            "skipped_checkpoints": {path.name: why for path, why in self.checkpoints.rejected.items()},
        }
        announce(self.label, facts)
        self.run.keep_metrics_before(self.state.progress.step)
        self.run.update_manifest(training={**self.run.manifest().get("training", {}), self.label: facts})
        trackers = [tracker(name, self.run) for name in self.config.report_to]
        own_hooks = [MetricsFile(self.run), progress(self.label, self.config.num_steps)]
        self.hooks = [*own_hooks, *trackers, *self.hooks]

    def _advance(self) -> None:
        """One optimizer step, and whatever is due after it."""
        state, config, started = self.state, self.config, time.perf_counter()
        step = state.progress.step + len(self.pending)
        groups, batches = self._microbatches(step)
        items, tokens, flops = self._count(step, batches)
        rate = optim.learning_rate(config, step)
        optim.set_learning_rate(state.optimizer, rate)
        torch.manual_seed(mix(config.seed, step, self.ranks.rank))
        if at := getattr(self.objective, "at", None):
            self.loss.objective = at(step / config.num_steps)
        totals = self._accumulate(batches, self.ranks.world_size / items)
        norm = self._clip()
        outcome = torch.stack([self.ranks.sum(totals.sum()).double(), norm.double()])
        self.pending.add(Taken(step, groups, totals, outcome, items, tokens, flops, rate, started))
        if not self.pending.deferred:
            self._check(self.pending.steps[-1])
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average:
            state.average.update(state.weights, step)
        self.pending.updated()
        self._after_step(step + 1)

    def _after_step(self, step: int) -> None:
        config, last = self.config, step == self.config.num_steps
        log = last or step % config.log_every == 0
        evaluate_now = last or is_due(step, config.eval_every)
        overdue, stop = self._asked_to_save(log)
        save = last or overdue or stop or is_due(step, config.checkpoint_every)
        if log or (self.eval and evaluate_now) or save or not self.pending.deferred:
            taken = self._settle()
        if log:
            peak = device.peak_flops(self.device)
            row = self.state.progress.row(taken.learning_rate, taken.grad_norm, peak)
            for hook in self.hooks:
                hook.on_step_end(row)
        if self.eval and evaluate_now:
            self._evaluate(self.eval)
        if save:
            self._save()
        if stop:
            raise KeyboardInterrupt

    def _asked_to_save(self, log: bool) -> tuple[bool, bool]:
        """Whether a checkpoint is overdue, and whether a signal asks to stop; ranks agree where they log."""
        if self.ranks.world_size > 1 and not log:
            return False, False
        overdue = 0 < self.config.checkpoint_minutes <= self.checkpoints.minutes_since_save
        return self.ranks.share((overdue, self.interruption.asked))

    def _settle(self) -> Taken:
        """Look at all steps since the last look, count them, and return the newest."""
        steps = self.pending.take()
        for taken in steps:
            self._check(taken)
            self.state.progress.add(taken)
        return steps[-1]

    def _microbatches(self, step: int) -> tuple[list[list[int]], list[Batch]]:
        """This rank's share of the step: example indices and CPU tensors of each microbatch."""
        ranks = self.ranks
        groups, epoch = microbatches(
            self.train, self.order, step, self.config.microbatch_size, ranks.rank, ranks.world_size
        )
        batches = (self.train.collate(group, seed=self.config.seed, epoch=epoch) for group in groups)
        return groups, [self.objective.prepare(batch) for batch in batches]

    def _count(self, step: int, batches: list[Batch]) -> tuple[int, int, float]:
        """Items, tokens and FLOPs of the step, over all ranks."""
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            counts = [float(self.objective.items(batch)), *self.meter.count(batch)]
            sums += torch.tensor(counts, dtype=torch.float64)
        items, tokens, flops = self.ranks.sum(sums).tolist()
        if not items:
            where = self.train.where(self.order.step(step)[0][0])
            what = f"step {step + 1} has no label to learn from"
            raise DataError(what, where=where, fix="check the label masks of this data")
        return int(items), int(tokens), flops

    def _accumulate(self, batches: list[Batch], scale: float) -> Tensor:
        """Gradients of `scale` times the summed loss; returns the loss of each microbatch, detached."""
        if self.recorder:
            return self.recorder.accumulate(batches, scale)
        batches = [device.send(batch, self.device) for batch in batches]
        if not self.objective.separable and (len(batches) > 1 or self.ranks.world_size > 1):
            contrast = cast(Contrast, self.objective)
            return grad_cache.accumulate(self.module, contrast, batches, scale, self.ranks).reshape(1)
        totals = []
        for index, batch in enumerate(batches):
            with self.ranks.microbatch(self.module, last=index == len(batches) - 1):
                total, _ = self.module(batch)
                (total * scale).backward()
            totals.append(total.detach())
        return torch.stack(totals)

    def _clip(self) -> Tensor:
        weights = list(self.state.weights.values())
        norm = nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(weights, self.config.grad_clip, norm)
        return self.ranks.whole(norm)

    def _check(self, taken: Taken) -> None:
        """Refuse a step that would put NaN or infinity into the weights; crash.json lists its samples."""
        if taken.finite:
            return
        places = [self.train.where(index) for index in taken.suspects() or self.order.step(taken.step)[0]]
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.ranks.rank == 0:
            write_json(self.run.crash_path, taken.crash(places))
        fix = "look at these samples (crash.json) or lower trainer.learning_rate; checkpoints are good"
        raise NonFiniteError(taken.failure(places), where=str(self.run.crash_path), fix=fix)

    def _evaluate(self, source: Source) -> None:
        counters, config = self.state.progress, self.config
        size = config.microbatch_size or config.global_batch_size
        with self.state.averaged():
            means = evaluate(self.module, self.objective, source, self.ranks, size)
            if not math.isfinite(means["loss"]):
                what = f"the evaluation loss is {means['loss']} at step {counters.step}"
                raise NonFiniteError(what, where=source.where(0), fix="look at the evaluation data")
            if counters.best_loss is None or means["loss"] < counters.best_loss:
                counters.best_loss, counters.best_step = means["loss"], counters.step
                if config.select == "best":
                    self.state.remember_best()
        self.ranks.refresh(self.module)
        row = {
            "step": counters.step,
            **{f"eval_{name}": value for name, value in means.items()},
            "tokens_seen": counters.tokens_seen,
            "seconds": counters.seconds,
        }
        counters.history.append(row)
        for hook in self.hooks:
            hook.on_eval(row)

    def _save(self) -> None:
        counters = self.state.progress
        counters.peak_memory_bytes = max(counters.peak_memory_bytes, device.peak_memory(self.device))
        values, groups = self.state.dump()
        failed: AdaptkitError | None = None
        if self.ranks.rank == 0:
            try:
                path = self.checkpoints.save(counters.step, {**values, "threads": self.threads}, groups)
            except AdaptkitError as error:
                failed = error
        if failed := self.ranks.share(failed):
            raise failed
        for hook in self.hooks:
            hook.on_checkpoint(path)

    def _finish(self) -> TrainResult:
        if self.recorder:
            trainings = self.run.manifest()["training"]
            trainings[self.label] |= {
                "recorded_shapes": len(self.recorder.recordings),
                "not_recorded": self.recorder.refused,
            }
            self.run.update_manifest(training=trainings)
        self.state.select()
        self.ranks.give_back(self.working, self.model)
        self.model.eval()
        return TrainResult.of(self.state.progress, device.describe(self.device), self.threads)
