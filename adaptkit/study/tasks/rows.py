"""Tasks whose examples are single rows: what classification, label words and free text have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from adaptkit.data.drawing import hold_out
from adaptkit.data.readers import DataConfig, Dataset, Want, read
from adaptkit.errors import DataError
from adaptkit.finetune.config import FinetuneConfig, Kind
from adaptkit.run import Run, write_jsonl
from adaptkit.study.task import (
    Assignment,
    CorpusConfig,
    CorpusRows,
    LearningRates,
    TaskConfig,
    TaskFiles,
    TaskKind,
    read_corpus,
)
from adaptkit.trainer.config import with_trainer

MAX_DEV_SHARE = 0.2
SAMPLE_ROWS, BYTES_PER_TOKEN = 200, 3.0


class RowKind(TaskKind):
    """A task that one fine-tuning learns from rows of train.jsonl, dev.jsonl and test.jsonl."""

    want: ClassVar[Want]
    """The rows that the readers are asked for."""
    finetune_kind: ClassVar[Kind]
    rates = LearningRates(full=0.3, adapters=0.6)

    def read(self, corpus: CorpusConfig) -> CorpusRows:
        return read_corpus(corpus, self.want)

    def prepare(self, files: TaskFiles, corpus: CorpusConfig, rows: CorpusRows) -> None:
        if unknown := sorted(set(rows.test.labels) - set(rows.train.labels)):
            raise DataError(
                f"labels {unknown} stand in the test rows of '{files.folder.name}' and in no training row",
                where=rows.test.rows[0].where,
                fix="train on every label, or drop those rows",
            )
        train, dev = hold_out(rows.train, corpus.dev_items, MAX_DEV_SHARE)
        for path, part in ((files.train, train), (files.dev, dev), (files.test, rows.test)):
            write_jsonl(path, ({**row.values, "from": row.where} for row in part.rows))

    def clusters(self, files: TaskFiles, rows: CorpusRows) -> dict[str, str]:
        """As the rows are read again: a kind may have changed them since they got their ids."""
        prepared = read(DataConfig(files=[str(files.test)]), self.want)
        return {row.id: row.cluster for row in prepared.rows}

    def step_flops(self, task: TaskConfig, shape: Any, flops_per_token: float) -> float:
        rows = read(task.train).rows[:SAMPLE_ROWS]
        length = sum(len(row.text.encode()) for row in rows) / len(rows) / BYTES_PER_TOKEN
        rows_per_step = FinetuneConfig.model_fields["trainer"].default.global_batch_size
        return flops_per_token * min(length, task.max_length) * rows_per_step

    def train(self, work: Assignment) -> Run:
        from adaptkit.finetune.recipe import finetune, steps_for_budget

        settings = self.settings(work)
        steps = steps_for_budget(settings, work.flops, work.task.max_epochs)
        settings = with_trainer(settings, num_steps=steps)
        run = work.open(settings.name, settings)
        finetune(settings, run, score=self.scores)
        return run

    def settings(self, work: Assignment) -> FinetuneConfig:
        """The fine-tuning, but for its number of steps.

        A trial is judged on dev rows at its end; a run also keeps its best weights on the way and is tested.
        """
        settings = FinetuneConfig(
            name=f"{work.task.name}-{work.arm.name}",
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
            settings,
            select="last" if work.tuning else "best",
            learning_rate=work.learning_rate,
            seed=work.seed,
            threads=work.threads,
        )

    def tuning_score(self, dev: dict[str, float], metric: str) -> float:
        """The dev loss: after so few steps accuracies are chance, losses tell rates apart already."""
        return dev["loss"]

    def parts(self, files: TaskFiles) -> dict[str, Dataset]:
        """The prepared rows by split."""
        paths = {"train": files.train, "dev": files.dev, "test": files.test}
        return {name: read(DataConfig(files=[str(path)]), self.want) for name, path in paths.items()}
