"""The commands that train one language model.

adaptkit pretrain pretrain.yaml            from scratch, or further
adaptkit finetune finetune.yaml            on labels or on instructions
adaptkit distill distill.yaml --plan       the student's size, speed and memory; nothing trains
adaptkit distill distill.yaml              a small student of a large teacher
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Resume, Root, Words
from adaptkit.config import Config, load
from adaptkit.distill.config import DistillConfig
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run
from adaptkit.run_record import ModelKind, read_record

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

app = typer.Typer()
C = TypeVar("C", bound=Config)


@command(
    app,
    "pretrain",
    [
        "adaptkit pretrain configs/pretrain.yaml",
        "adaptkit pretrain configs/pretrain.yaml size.params=30M trainer.num_steps=5k",
        "adaptkit pretrain configs/pretrain.yaml base=models/general adapter.kind=lora",
        "torchrun --nproc-per-node 8 -m adaptkit pretrain configs/pretrain.yaml",
    ],
)
def pretrain(words: Words = None, resume: Resume = True, root: Root = Path("runs")) -> Outcome:
    """Train a language model, from scratch or further.

    From scratch it gets a tokenizer of its own; with `base` a model is trained further, fully or by LoRA.
    """
    from adaptkit.pretrain import recipe

    return run_config(PretrainConfig, recipe.pretrain, words, resume, root)


@command(
    app,
    "finetune",
    [
        "adaptkit finetune configs/finetune.yaml",
        "adaptkit finetune configs/finetune.yaml adapter.kind=qlora adapter.rank=32",
        "adaptkit finetune configs/finetune.yaml base=runs/pretrain-1a2b3c4d/model kind=classify",
    ],
)
def finetune(words: Words = None, resume: Resume = True, root: Root = Path("runs")) -> Outcome:
    """Teach a model a task.

    On instructions or on labels; all weights, LoRA, rsLoRA, DoRA or QLoRA.
    """
    from adaptkit.finetune import recipe

    return run_config(FinetuneConfig, recipe.finetune, words, resume, root, beside=_baseline)


@command(
    app,
    "distill",
    [
        "adaptkit distill configs/distill.yaml --plan",
        "adaptkit distill configs/distill.yaml student.layers=4 losses.hidden=1",
        "adaptkit distill configs/distill.yaml student.width=384 student.vocab_size=16k",
        "adaptkit distill configs/distill.yaml signal=offline temperature=2",
        "adaptkit distill configs/distill.yaml student.start=models/small adapter.kind=lora",
        "adaptkit distill configs/distill.yaml teacher=http://127.0.0.1:8000 student.start=models/small "
        "signal=text",
        "torchrun --nproc-per-node 8 -m adaptkit distill configs/distill.yaml",
    ],
)
def distill(
    words: Words = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print size, expected speed-up and memory; train nothing.")
    ] = False,
    resume: Resume = True,
    root: Root = Path("runs"),
) -> Outcome:
    """Make a small student of a large teacher.

    Fewer blocks, less width or fewer tokens: of a language model, a classifier or an encoder.
    """
    from adaptkit.distill import estimate, recipe

    if not plan:
        return run_config(DistillConfig, recipe.distill, words, resume, root)
    path, overrides = arguments.divide(words, needed=True, example=arguments.STARTS["distill"])
    estimated = estimate.plan(load(DistillConfig, path, overrides).config)
    return Outcome(render.student(estimated), estimated)


def _baseline(config: FinetuneConfig, run: Run) -> dict[str, object]:
    """What word counts reach on the rows that the model was scored on."""
    from adaptkit.study.finetune_baseline import finetune_baseline

    baseline = finetune_baseline(config, run)
    if baseline is None:
        return {}
    found: dict[str, object] = {f"{baseline.name}, no language model": baseline.scores}
    if baseline.most_frequent is not None:
        found["always the most frequent label"] = {"accuracy": baseline.most_frequent}
    return found


def run_config(
    schema: type[C],
    recipe: Callable[[C, Run], DataclassInstance],
    words: list[str] | None,
    resume: bool,
    root: Path,
    *,
    beside: Callable[[C, Run], dict[str, object]] | None = None,
    next_step: str = "",
) -> Outcome:
    """Read a recipe's config, open its run directory, train, and show what was left behind.

    Args:
        beside: what else is shown of the finished run, such as what a simpler way reaches.
        next_step: the commands that can follow; chosen by the kind of the model where nothing is named.
    """
    from adaptkit.trainer.improvement import improvement

    kind = next(kind for kind, of_kind in arguments.CONFIGS.items() if of_kind is schema)
    path, overrides = arguments.divide(words, needed=True, example=arguments.STARTS[kind])
    config = load(schema, path, overrides).config
    run = arguments.open_run(config, root, resume=resume)
    result = render.result_json(run, recipe(config, run))
    if os.environ.get("RANK", "0") != "0":
        return Outcome((), result)
    result["baseline"] = {} if beside is None else beside(config, run)
    result["training"] = improvement(run.metrics())
    result["next"] = (next_step or _next_step(run)).format(run=run.path)
    return Outcome(render.result(result), result)


def _next_step(run: Run) -> str:
    """The commands that ask and serve a trained model; one that gives vectors is asked about documents."""
    if read_record(run).model_kind in (ModelKind.MASKED, ModelKind.ENCODER):
        return 'adaptkit try {run} "a text" --in DOCUMENTS.jsonl; adaptkit serve {run}'
    return 'adaptkit try {run} "a text"; adaptkit serve {run}'
