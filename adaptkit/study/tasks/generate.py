"""Free text: the model writes an answer to each prompt."""

from __future__ import annotations

from adaptkit.finetune.config import FinetuneConfig
from adaptkit.model_uses import Use
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import Assignment, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.tasks.rows import RowKind, answers_of, asking_of, finder_of, own_model, task_words


class Generate(RowKind):
    """Answers in free text, compared with a reference."""

    name = "generate"
    family = "generate"
    want = "sft"
    finetune_kind = "sft"
    prompted_use = Use.WRITE
    metrics = ("rouge_l", "exact_match")
    asks = frozenset({"instruction", "examples"})
    cannot = frozenset({Adaptation.PROBE})  # a probe gives labels or vectors, not text

    longest_answer = FinetuneConfig.model_fields["max_new_tokens"].default

    def answer_tokens(self, num_labels: int) -> float:
        return self.longest_answer

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit import models
        from adaptkit.finetune.prompted_answers import answer_rows

        if work.api is not None:
            return self.asked(work)
        parts = self.parts(work.files)
        outcome = answer_rows(
            own_model(work),
            models.load_tokenizer(work.origin),
            parts["train"],
            parts["dev"],
            parts["test"],
            score=self.scores,
            metric=work.task.tuned_by,
            words=task_words(work.task),
            examples=work.task.examples,
            trials=work.trials,
            seed=work.seed,
            finder=finder_of(work),
        )
        return answers_of(outcome)

    def asked(self, work: Assignment) -> Answers:
        """Answer by asking a model over an API."""
        from adaptkit.finetune.asked_answers import ask_for_answers

        parts = self.parts(work.files)
        asking = asking_of(work)
        return answers_of(
            ask_for_answers(asking, parts["train"], parts["dev"], parts["test"], score=self.scores)
        )

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        return None
