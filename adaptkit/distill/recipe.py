"""The distillation recipe: a student from a teacher, into one run directory.

    config = load(DistillConfig, "distill.yaml").config
    result = distill(config, Run.open("runs", config.name, config.model_dump(mode="json")))

    model/  the student, merged and servable      eval/<suite>.jsonl, .json  its scores, the teacher's beside
    them adapter/  base/  the student's adapter, if it has one, and what it stands on      cost.json

A finished run is returned as it is; a killed one goes on from its newest checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.distill.config import DistillConfig
from adaptkit.errors import AdaptkitError
from adaptkit.run import Run, read_json, write_json, write_jsonl

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.data.readers import Dataset
    from adaptkit.distill.start import Start
    from adaptkit.trainer.result import TrainResult


@dataclass(frozen=True)
class DistillResult:
    """What a distillation left behind: the student's scores, and its teacher's on the same rows where it was
    here."""

    model_folder: Path
    suite: str
    scores: dict[str, float]
    teacher: dict[str, float]
    cost: dict[str, Any]
    params: int

    @classmethod
    def of(cls, run: Run) -> DistillResult:
        """Read from a finished run."""
        manifest = run.manifest()
        suite = manifest["suite"]
        told = read_json(run.scores(suite))
        scores = told["metrics"] or told["dev"]
        return cls(
            run.model, suite, scores, told["teacher"], read_json(run.cost_path), manifest["model"]["params"]
        )


def distill(config: DistillConfig, run: Run) -> DistillResult:
    """Run a distillation to its end in `run`: model folder, scores, cost.

    Under torchrun every rank calls this; rank 0 writes.
    Raises: AdaptkitError for anything the user can mend; the run's manifest then says `failed` and why.
    """
    if run.finished:
        return DistillResult.of(run)
    from adaptkit.trainer.parallel import join

    ranks = join(config.trainer.parallel)
    if ranks.rank == 0:
        run.start()
    try:
        _distill(config, run, ranks)
    except AdaptkitError as error:
        if ranks.rank == 0:
            run.fail(str(error))
        raise
    ranks.share(None)
    return DistillResult.of(run)


def _distill(config: DistillConfig, run: Run, ranks: Any) -> None:
    from adaptkit.distill.start import prepare, read_data, teacher_kind
    from adaptkit.trainer.trainer import Trainer

    kind = teacher_kind(config)
    text = read_data(config, kind)
    start = prepare(config, run, text, kind, ranks)
    result = Trainer(start.model, start.objective, start.train, config.trainer, run=run, eval=start.dev).fit()
    if ranks.rank == 0:
        _write_results(config, run, start, text, result)


def step_flops(config: DistillConfig, start: Start) -> tuple[float, float]:
    """FLOPs per token of a training step, and how much of them the student's own pass does not need."""
    from adaptkit import models

    length = _row_length(config, start)
    extra = getattr(start.objective, "extra_flops_per_token", lambda model, seq_len: 0.0)(start.model, length)
    return models.flops_per_token(start.model, length).train + extra, extra


def _row_length(config: DistillConfig, start: Start) -> int:
    """Tokens of a typical row."""
    length = getattr(start.train, "length", None)
    if length is None:
        return config.size.seq_len
    sample = range(min(200, len(start.train)))
    return max(1, round(sum(map(length, sample)) / len(sample)))


def _write_results(
    config: DistillConfig, run: Run, start: Start, text: dict[str, Dataset], result: TrainResult
) -> None:
    from adaptkit import models
    from adaptkit.data.tokenizers import bytes_per_token, tokenizer_digest
    from adaptkit.distill.pooling_files import carry
    from adaptkit.distill.student_model import delivered

    per_token, extra = step_flops(config, start)
    trained = models.param_count(start.model).trainable
    model, difference = delivered(start, run)
    if start.kind == "encoder":
        carry(models.find(config.teacher), run.model, model.config.hidden_size)
    params = models.param_count(model)
    cost, before = result.cost(), start.spent_flops
    asked = {"flops": cost["flops"] + before, "teacher_flops": before + result.flops * extra / per_token}
    write_json(run.cost_path, {**cost, **asked})
    suite = write_scores(config, run, start, model, text, result)
    run.finish(
        suite=suite,
        num_steps=result.num_steps,
        data={name: part.manifest() for name, part in text.items()},
        student=start.facts,
        teacher={
            "name": config.model_name,
            **({"params": models.param_count(start.reference).total} if start.reference else {}),
        },
        tokenizer={
            "vocab_size": len(start.tokenizer),
            "bytes_per_token": bytes_per_token(start.tokenizer, [row.text for row in text["dev"].rows]),
            "digest": tokenizer_digest(start.tokenizer),
        },
        model={"params": params.total, "trained": trained, "non_embedding": params.non_embedding},
        merge_difference=difference,
    )


def write_scores(
    config: DistillConfig,
    run: Run,
    start: Start,
    model: nn.Module,
    text: dict[str, Dataset],
    result: TrainResult,
) -> str:
    """Score student and teacher on the same rows; the suite's name."""
    from adaptkit.distill.scores import suite_of

    suite = suite_of(start, model)
    judged = "test" if "test" in text else "dev"
    rows = {part: suite.rows(model, start, text[part], config.size.seq_len) for part in {"dev", judged}}
    dev = {**suite.score(rows["dev"]), "loss": result.eval_loss}
    teacher: dict[str, float] = {}
    if start.reference:
        reference = start.reference.to(next(model.parameters()).device)
        teacher = suite.score(suite.rows(reference, start, text[judged], config.size.seq_len))
    write_jsonl(run.items(suite.name), rows[judged])
    metrics = suite.score(rows[judged])
    write_json(
        run.scores(suite.name),
        {
            "suite": suite.name,
            "metrics": metrics,
            "num_items": len(rows[judged]),
            "dev": dev,
            "teacher": teacher,
        },
    )
    return suite.name
