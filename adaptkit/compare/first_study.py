"""A study for files that nobody has described yet: what `adaptkit init` writes.

    study = first_study(["tickets.csv"], root=Path("runs"), seconds=480)
    study.yaml, study.baselines

What can be seen is not asked: which columns hold the text and the label, which file is for the test, how long
texts are, how fast this machine is. Each guess stands in the YAML with a comment that says what else there
was. The models are as small as the quickstart's unless a base is named.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.architecture import SizeConfig
from adaptkit.compare.driver import answer_without_models
from adaptkit.compare.fitting_budget import FittingBudget, Room, fitting_budget, room_for_more
from adaptkit.compare.plan import measure_study
from adaptkit.data.beir import is_set, retrieval_folder
from adaptkit.data.check import is_held_out
from adaptkit.data.column_suggestions import Suggestion, suggest
from adaptkit.data.files import find_files
from adaptkit.data.offline_corpus import offline_corpus
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import ConfigError
from adaptkit.notices import silent
from adaptkit.pretrain.config import TokenizerConfig
from adaptkit.run import write_text
from adaptkit.study.budget import BudgetConfig
from adaptkit.study.config import CorpusConfig, StudyConfig, TaskConfig
from adaptkit.study.stage_record import BaselineResult
from adaptkit.study.task_size import BYTES_PER_TOKEN
from adaptkit.trainer.config import TrainerConfig

GENERAL_BYTES = 3_000_000
TEST_PASSAGES, DEV_PASSAGES = 200, 30
"""Fewer than usual: every one of the models reads them."""
BASE_BUDGETS = 5.0
"""What making a base on the spot may cost, in budgets of an arm."""
PARAMS, SEQ_LEN, VOCAB_SIZE, BATCH_ROWS = 600_000, 128, 2048, 16
UNCUT_SHARE = 0.95
"""Of the texts, that the length of a task should not cut."""
SHORTEST = 32
"""Tokens."""
TASK_KINDS = {
    "labelled": "classify",
    "multi_label": "multi_label",
    "spans": "spans",
    "scored": "regression",
    "extract": "extract",
    "sft": "generate",
    "messages": "generate",
}


@dataclass(frozen=True)
class FirstStudy:
    """A study for files that nobody has described yet.

    Attributes:
        path: its config, with comments.
        suggestion: what the columns were taken for.
        fit: the budget, and what it was fitted to.
        baselines: what answers without a language model reach.
        left_out: arms that do not run, for want of budget or for another reason.
        room: the budget that has room for more of them; None where none has.
    """

    path: Path
    config: StudyConfig
    suggestion: Suggestion
    fit: FittingBudget
    baselines: tuple[BaselineResult, ...]
    left_out: tuple[str, ...]
    room: Room | None = None


def first_study(
    files: Sequence[str],
    *,
    out: Path,
    root: Path,
    seconds: float,
    base: str = "",
    general: Sequence[str] = (),
) -> FirstStudy:
    """Write a study's config to `out`, prepare its data, and answer its tasks without a language model.

    Args:
        files: the first is what is to be learnt; one with `test` or `dev` in its name is held out; any others
            are more text of the domain.
        seconds: how long the study may take.
        base: a model's folder; empty makes a small one on the spot.
        general: files of general text; none takes the documentation of the installed packages.
    Raises: ConfigError where `out` exists; DataError for files that hold no text.
    """
    if out.exists():
        raise ConfigError("exists already", where=str(out), fix="name another file: --out other.yaml")
    learnt, held_out, more = _parts(files)
    suggestion = _suggestion(learnt)
    described = _describe(learnt, held_out, more, suggestion, base, _general(general, root))
    measured = dataclasses.replace(measure_study(described), base_budgets=0.0 if base else BASE_BUDGETS)
    fit = fitting_budget(measured, seconds)
    fitted = measured.under(fit.amount)
    text = _yaml(described.model_copy(update=_budget_of(fitted.config)), suggestion, fit, not general)
    write_text(out, text)
    baselines, left_out = answer_without_models(out, fitted, root)
    room = room_for_more(measured, fit.amount)
    return FirstStudy(out, fitted.config, suggestion, fit, baselines, left_out, room)


def _parts(files: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The file to learn, those that are held out, and more text."""
    find_files(list(files))
    named = list(dict.fromkeys(map(_whole_set, files)))
    held_out = [file for file in named if is_held_out(file) and not is_set(file)]
    others = [file for file in named if file not in held_out]
    if not others:
        raise ConfigError("only held-out files are named", where=files[0], fix="name the training file too")
    return others[0], held_out, others[1:]


def _whole_set(file: str) -> str:
    """The folder of a retrieval set that a file belongs to: its documents alone hold no queries."""
    folder = Path(file).parent
    return str(folder) if Path(file).is_file() and is_set(folder) else file


def _suggestion(learnt: str) -> Suggestion:
    if retrieval_folder(DataConfig(files=[learnt])) is not None:
        return Suggestion("retrieval")
    return suggest(find_files([learnt])[0][0])


def _general(files: Sequence[str], root: Path) -> DataConfig:
    if files:
        return DataConfig(files=list(files))
    corpus = offline_corpus(root / "corpus", GENERAL_BYTES, GENERAL_BYTES // 10, 400)
    return DataConfig(files=[str(corpus.general)], columns={"source": "source"})  # said, so never a guess


def _describe(
    learnt: str, held_out: list[str], more: list[str], suggestion: Suggestion, base: str, general: DataConfig
) -> StudyConfig:
    """The study before its budget is known."""
    tasks = _tasks(learnt, held_out, suggestion)
    fields: dict[str, Any] = {
        "name": _slug(Path(learnt).name.split(".")[0]),
        "domain": _corpus(_domain(learnt, more, suggestion)),
        "general": _corpus(general),
        "tasks": tasks,
        "budget": BudgetConfig(amount=1.0, task_share=0.4 if tasks else 0.2, trials=2, trial_share=0.3),
        "size": SizeConfig(params=PARAMS, seq_len=SEQ_LEN),
        "tokenizer": TokenizerConfig(vocab_size=VOCAB_SIZE),
        "trainer": TrainerConfig(global_batch_size=BATCH_ROWS),
    }
    fields |= {"base": base} if base else {"base_flops": BASE_BUDGETS}
    return StudyConfig(**fields)


def _corpus(train: DataConfig) -> CorpusConfig:
    return CorpusConfig(train=train, test_items=TEST_PASSAGES, dev_items=DEV_PASSAGES)


def _domain(learnt: str, more: list[str], suggestion: Suggestion) -> DataConfig:
    """The company's own text: what was named beside the rows to learn, else the text of these rows."""
    if more:
        return DataConfig(files=more)
    if suggestion.kind == "retrieval":
        corpus = next(path for path in Path(learnt).iterdir() if path.name.startswith("corpus"))
        return DataConfig(files=[str(corpus)])
    columns = suggestion.columns
    if suggestion.kind == "sft" and columns:
        return DataConfig(files=[learnt], columns={"text": f"{columns['prompt']}+{columns['completion']}"})
    text = {role: column for role, column in columns.items() if role == "text"}
    return DataConfig(files=[learnt], columns=text)


def _tasks(learnt: str, held_out: list[str], suggestion: Suggestion) -> list[TaskConfig]:
    if suggestion.kind == "retrieval":
        return [TaskConfig(name="search", kind="retrieve", train=DataConfig(files=[learnt]))]
    if suggestion.kind not in TASK_KINDS:
        return []
    train = DataConfig(files=[learnt], columns=suggestion.columns)
    test = DataConfig(files=held_out, columns=suggestion.columns) if held_out else None
    name = _slug(suggestion.label or "answer")
    length = _length(train) if suggestion.label else 0
    return [
        TaskConfig(name=name, kind=TASK_KINDS[suggestion.kind], train=train, test=test, max_length=length)
    ]


def _length(rows: DataConfig) -> int:
    """Tokens that hold most of the texts: a power of two, at most what the models have."""
    sizes = [len(row.text.encode()) for row in read(rows, tell=silent).rows]
    tokens = float(np.quantile(sizes, UNCUT_SHARE)) / BYTES_PER_TOKEN
    return min(SEQ_LEN, max(SHORTEST, 2 ** math.ceil(math.log2(max(tokens, 1)))))


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return slug if slug and slug not in ("language", "general") else f"task_{slug}".rstrip("_")


def _budget_of(config: StudyConfig) -> dict[str, Any]:
    return {"budget": config.budget, "base_flops": config.base_flops}


def _yaml(config: StudyConfig, suggestion: Suggestion, fit: FittingBudget, offline: bool) -> str:
    """The config with a comment on each guess."""
    lines = [
        "# Written by adaptkit init; change what you like. `adaptkit compare FILE --dry-run` says its cost.",
        f"name: {config.name}",
        *_base_lines(config),
        "domain:  # your own text",
        *_corpus_lines(config.domain),
        f"general:  # {_general_comment(offline)}",
        *_corpus_lines(config.general),
    ]
    if config.tasks:
        lines += ["tasks:", *_task_lines(config.tasks[0], suggestion)]
    budget = config.budget
    shares = (
        f"task_share: {budget.task_share:g}, trials: {budget.trials}, trial_share: {budget.trial_share:g}"
    )
    lines += [
        f"# FLOPs per arm, task and seed, tuning included: {_fitted_to(fit)}",
        f"budget: {{amount: {budget.amount:g}, {shares}}}",
        "seeds: 3",
        f"size: {{params: {PARAMS}, seq_len: {SEQ_LEN}}}  # of models from scratch",
        f"tokenizer: {{vocab_size: {VOCAB_SIZE}}}",
        f"trainer: {{global_batch_size: {BATCH_ROWS}}}",
    ]
    return "\n".join(lines) + "\n"


def _base_lines(config: StudyConfig) -> list[str]:
    if config.base:
        return [f"base: {json.dumps(config.base)}"]
    return [
        "# A small generic model is made on the spot. A real one says more and takes longer:",
        "# adaptkit models get smollm2, then `base: models/smollm2` in place of the next line.",
        f"base_flops: {config.base_flops:g}",
    ]


def _general_comment(offline: bool) -> str:
    if offline:
        return "the installed packages' documentation, in English; general text in your language says more"
    return "for replay, the placebo arm, and to measure what is forgotten"


def _corpus_lines(corpus: CorpusConfig) -> list[str]:
    return [
        f"  train: {_files(corpus.train)}",
        f"  test_items: {corpus.test_items}  # passages of a tenth that is held out",
        f"  dev_items: {corpus.dev_items}",
    ]


def _task_lines(task: TaskConfig, suggestion: Suggestion) -> list[str]:
    others = (
        f"  # other columns that could be learnt: {', '.join(suggestion.others)}" if suggestion.others else ""
    )
    lines = [f"  - name: {task.name}{others}", f"    kind: {task.kind}", f"    train: {_files(task.train)}"]
    if task.test is not None:
        lines.append(f"    test: {_files(task.test)}")
    if task.max_length:
        lines.append(f"    max_length: {task.max_length}  # tokens")
    return lines


def _files(data: DataConfig) -> str:
    """In YAML's flow style, which JSON's strings are part of."""
    files = ", ".join(json.dumps(file, ensure_ascii=False) for file in data.files)
    columns = ", ".join(
        f"{role}: {json.dumps(column, ensure_ascii=False)}" for role, column in data.columns.items()
    )
    return f"{{files: [{files}]{f', columns: {{{columns}}}' if columns else ''}}}"


def _fitted_to(fit: FittingBudget) -> str:
    minutes = f"about {max(1, round(fit.seconds / 60))} minutes on this machine"
    passes = f"{fit.epochs:.2g} passes over the text"
    if fit.bound == "text":
        return f"{minutes}; more than {passes} buy next to nothing"
    if fit.bound == "least":
        return f"{minutes}, {passes}; less trains nothing"
    return f"{minutes}, {passes}"
