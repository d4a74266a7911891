"""Tasks whose examples are single rows: what all kinds but search have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from adaptkit.data.drawing import draw_labels
from adaptkit.data.label_names import check_labels
from adaptkit.data.message_fields import message_text
from adaptkit.data.readers import DataConfig, Dataset, Row, Want, read
from adaptkit.data.splitting import hold_out
from adaptkit.finetune.config import FinetuneConfig, Kind
from adaptkit.finetune.prompt_formats import num_examples
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.model_uses import Use
from adaptkit.run import Run, write_jsonl
from adaptkit.study.arms import Adaptation
from adaptkit.study.corpus_rows import read_corpus, train_and_test
from adaptkit.study.task import (
    TEST_SHARE,
    Assignment,
    CorpusConfig,
    CorpusRows,
    LearningRates,
    TaskConfig,
    TaskFiles,
    TaskKind,
)
from adaptkit.study.task_answers import Answers
from adaptkit.study.task_size import BYTES_PER_TOKEN, TaskSize
from adaptkit.study.tasks.looked_up_rows import LookedUpRows, look_up_rows
from adaptkit.trainer.config import with_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from adaptkit import models
    from adaptkit.data.json_fields import Schema
    from adaptkit.finetune.asked_answers import Asking
    from adaptkit.finetune.frozen_answers import FrozenAnswers
    from adaptkit.finetune.prompt_passages import Finder
    from adaptkit.finetune.prompted_values import Prompted
    from adaptkit.finetune.recipe import Complete

MAX_DEV_SHARE = 0.2
NUM_EVALUATIONS = 8
"""Looks at the development rows during a run, at most; a trial is looked at once."""


def task_words(task: TaskConfig) -> TaskWords:
    """What a task says to a model that is asked for it."""
    return TaskWords(task.instruction, task.labels)


def finder_of(work: Assignment) -> Finder | None:
    """What looks up passages for an arm; None for one that does not."""
    if not work.arm.looks_up:
        return None
    from adaptkit.study.tasks.passage_finder import PassageFinder

    assert work.library is not None
    return PassageFinder(work.library)


def asking_of(work: Assignment, schema: Schema | None = None) -> Asking:
    """How an API is asked for a task.

    Args:
        schema: what its answers are objects of; None for any text.
    """
    from adaptkit.finetune.asked_answers import Asking

    assert work.api is not None
    return Asking(
        model=work.api,
        words=task_words(work.task),
        examples=work.task.examples,
        trials=work.trials,
        seed=work.seed,
        metric=work.task.tuned_by,
        max_length=work.task.max_length,
        at_once=work.api.at_once,
        schema=schema,
        finder=finder_of(work),
    )


def prompted_of(work: Assignment) -> Prompted:
    """The arm's own model, and how it is prompted for what is more than one label."""
    from adaptkit import models
    from adaptkit.finetune.prompted_values import Prompted

    return Prompted(
        model=own_model(work),
        tokenizer=models.load_tokenizer(work.origin),
        words=task_words(work.task),
        examples=work.task.examples,
        trials=work.trials,
        seed=work.seed,
        metric=work.task.tuned_by,
        max_length=work.task.max_length,
    )


def answers_of(outcome: FrozenAnswers) -> Answers:
    """What a model that is not trained answered, as a study keeps it."""
    facts = {"chosen": outcome.chosen, "trials": outcome.trials}
    return Answers(outcome.rows, outcome.dev, outcome.cost, facts, outcome.dev_rows)


class RowKind(TaskKind):
    """A task that one fine-tuning learns from rows of train.jsonl, dev.jsonl and test.jsonl."""

    want: ClassVar[Want]
    """The rows that the readers are asked for."""
    finetune_kind: ClassVar[Kind]
    trained_use: ClassVar[Use | None] = None
    """What a trained model is needed for; None where it is called as the fine-tuning is."""
    head: ClassVar[models.Kind | None] = None
    """The kind of model that is trained; None for the kind that the base is of."""
    prompted_use: ClassVar[Use] = Use.PROMPT
    """What a prompted model is asked for: the likelihood of labels, or text."""
    longest_answer: ClassVar[int] = 0
    """Tokens that a model may write; 0 for a kind that scores answers or has a head."""
    has_own_text = True
    takes_own_metric = True
    rates = LearningRates(full=0.3, adapters=0.6)
    batch_rows = FinetuneConfig.model_fields["trainer"].default.global_batch_size

    def read(self, corpus: CorpusConfig) -> CorpusRows:
        return read_corpus(corpus, self.want)

    def prepare(self, files: TaskFiles, corpus: CorpusConfig, rows: CorpusRows) -> None:
        check_labels(rows.test, rows.train.labels, f"the test of '{files.folder.name}'")
        train, dev = hold_out(rows.train, corpus.dev_items, MAX_DEV_SHARE)
        for path, part in ((files.train, train), (files.dev, dev), (files.test, rows.test)):
            write_jsonl(path, ({**row.values, "from": Path(row.where).name} for row in part.rows))

    def use(self, adaptation: Adaptation) -> Use:
        if adaptation is Adaptation.PROBE:
            return Use.PROBE
        if adaptation is Adaptation.RAG:
            return Use.WRITE  # masked models read too little beside a text
        if adaptation is Adaptation.PROMPT:
            return self.prompted_use
        return self.trained_use or Use(self.finetune_kind)

    def clusters(self, files: TaskFiles, rows: CorpusRows) -> dict[str, str]:
        """As the rows are read again: a kind may have changed them since they got their ids."""
        prepared = read(DataConfig(files=[str(files.test)]), self.want)
        return {row.id: row.cluster for row in prepared.rows}

    def size(self, task: TaskConfig) -> TaskSize:
        train = read(task.train, self.want)
        learnt, tested, _ = train_and_test(task, train, self.want)
        check_labels(tested, learnt.labels, f"the test of '{task.name}'")
        task_words(task).check(learnt.labels, f"labels of the task '{task.name}'")
        num_rows, num_labels = len(train.rows), len(train.labels)
        sizes = [len(row.text.encode()) for row in train.rows]
        tokens = sum(min(size / BYTES_PER_TOKEN, task.max_length) for size in sizes) / num_rows
        held_out = TEST_SHARE * num_rows if task.test is None else len(tested.rows)
        num_test = min(task.test_items or held_out, held_out)
        num_dev = min(task.dev_items or num_rows, MAX_DEV_SHARE * num_rows)
        per_item = tokens + self.answer_tokens(num_labels)
        return TaskSize(
            num_rows=num_rows,
            row_tokens=tokens,
            text_tokens=tokens,
            batch_rows=self.batch_rows,
            dev_tokens=num_dev * per_item,
            test_tokens=num_test * per_item,
            num_items=round(num_test),
            num_bytes=float(sum(sizes)),
            num_labels=num_labels,
            prompt_factor=1.0 + num_examples(task.examples, num_labels) / 2,
        )

    def instruction(self, task: TaskConfig) -> str:
        """The instruction with its labels, as it is described most fully."""
        return task_words(task).block(read(task.train, self.want).labels, described=True)

    def why_no_label_curve(self, task: TaskConfig) -> str:
        """Why it cannot be trained on fewer of its labels; empty where it can."""
        return ""

    def fewer_labels(self, files: TaskFiles, share: float, seed: int) -> list[Row]:
        """A share of its labelled training rows."""
        return draw_labels(self.parts(files)["train"].rows, share, seed)

    def own_texts(self, files: TaskFiles) -> dict[str, list[str]]:
        parts = self.parts(files)
        return {name: [question_of(row) for row in parts[name].rows] for name in ("train", "dev")}

    def texts(self, task: TaskConfig) -> list[str]:
        return [row.text for row in read(task.train, self.want).rows]

    def answer_tokens(self, num_labels: int) -> float:
        """Tokens that answering an item reads or writes beside its text."""
        return 0.0

    def prompted_row(self, row: Row, label: str) -> Row:
        """A row as a language model is taught it, with some label in place of its own if it has one."""
        return row

    def written_tokens(self, work: Assignment, num_labels: int) -> float:
        """The same for one arm, in tokens of its own model."""
        return self.answer_tokens(num_labels)

    def scoring_passes(self, tuning: bool) -> int:
        """The looks during training, and one at the model that is kept."""
        return 2 if tuning else NUM_EVALUATIONS + 1

    def train(self, work: Assignment) -> Run:
        from adaptkit.finetune.recipe import finetune, steps_for_budget
        from adaptkit.study.spend import after_scoring, charge_scoring

        looked_up: LookedUpRows | None = None
        if work.arm.looks_up:
            looked_up = look_up_rows(self, work)
            work = looked_up.work
        settings = self.settings(work)
        one_pass, looking = self.pass_flops(work), looked_up.flops if looked_up else 0.0
        beside = self.scoring_passes(work.tuning) * one_pass + looking
        spare = after_scoring(work.flops, beside, work.name)
        steps = steps_for_budget(settings, spare, work.task.max_epochs)
        every = math.ceil(steps / (1 if work.tuning else NUM_EVALUATIONS))
        settings = with_trainer(
            settings, num_steps=steps, eval_every=every, learning_rate=work.rate_for(steps)
        )
        run = work.open(settings.name, settings)
        facts = looked_up.facts if looked_up else None
        finetune(settings, run, score=self.scores, complete=self.completing(work, looked_up), facts=facts)
        charge_scoring(run, (math.ceil(steps / every) + 1) * one_pass + looking)
        return run

    def completing(self, work: Assignment, looked_up: LookedUpRows | None) -> Complete | None:
        """What adds to item rows: what was looked up, and the number of the user's metric."""
        own = work.task.own_metric
        if own is None:
            return looked_up.complete if looked_up else None
        parts = looked_up.original if looked_up else self.parts(work.files)

        def complete(split: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            if looked_up is not None:
                rows = looked_up.complete(split, rows)
            return own.complete(parts[split].rows, rows)

        return complete

    def pass_flops(self, work: Assignment) -> float:
        """What reading the development rows once takes."""
        from adaptkit import models
        from adaptkit.models.folder import saved_shape
        from adaptkit.study.spend import forward_flops, meta_model, token_lengths

        dev = self.parts(work.files)["dev"]
        num_labels = len(dev.labels)
        kind = self.head or models.model_kind(work.origin)
        model = meta_model(saved_shape(work.origin), kind, num_labels or None)
        texts, written = [row.text for row in dev.rows], self.written_tokens(work, num_labels)
        lengths = token_lengths(models.load_tokenizer(work.origin), texts, work.task.max_length)
        return forward_flops(model, [round(length + written) for length in lengths])

    def settings(self, work: Assignment) -> FinetuneConfig:
        """The fine-tuning, but for its number of steps and what follows from that.

        A trial is judged on dev rows at its end; a run also keeps its best weights on the way and is tested.
        """
        own = work.task.own_metric
        settings = FinetuneConfig(
            name=work.name if own is None else f"{work.name}-{own.digest[:8]}",
            task=work.task.name,
            base=str(work.origin),
            kind=self.finetune_kind,
            adapter=work.adapter,
            max_length=work.task.max_length,
            train=DataConfig(files=[str(work.files.train)]),
            dev=DataConfig(files=[str(work.files.dev)]),
            test=None if work.tuning else DataConfig(files=[str(work.files.test)]),
        )
        return with_trainer(
            settings, select="last" if work.tuning else "best", seed=work.seed, threads=work.threads
        )

    def tuning_score(self, dev: dict[str, float], metric: str) -> float:
        """The dev loss: after so few steps accuracies are chance, losses tell rates apart already."""
        return dev["loss"]

    def parts(self, files: TaskFiles) -> dict[str, Dataset]:
        """The prepared rows by split."""
        paths = {"train": files.train, "dev": files.dev, "test": files.test}
        return {name: read(DataConfig(files=[str(path)]), self.want) for name, path in paths.items()}


Probe = Callable[..., "FrozenAnswers"]


def probed(kind: RowKind, work: Assignment, probe: Probe) -> Answers:
    """Answer by a probe of the arm's own model.

    Args:
        probe: takes model, tokenizer and the rows by split, and `trials`, `max_length` and `metric`.
    """
    from adaptkit import models

    outcome = probe(
        own_model(work),
        models.load_tokenizer(work.origin),
        kind.parts(work.files),
        trials=work.trials,
        max_length=work.task.max_length,
        metric=work.task.tuned_by,
    )
    facts = {"chosen": outcome.chosen, "trials": outcome.trials}
    return Answers(outcome.rows, outcome.dev, outcome.cost, facts)


def own_model(work: Assignment) -> PreTrainedModel:
    """The arm's own model, on the GPU if there is one."""
    from adaptkit import models
    from adaptkit.trainer.device import placed

    return placed(models.load(work.origin, models.model_kind(work.origin)))


def question_of(row: Row) -> str:
    """The text of a row without what is to be answered: no label, no completion, no turn of an assistant."""
    values = row.values
    if "messages" in values:
        asked = [message for message in values["messages"] if message["role"] != "assistant"]
        return "\n".join(map(message_text, asked))
    unanswered = {role: value for role, value in values.items() if role != "completion"}
    return replace(row, values=unanswered).text
