"""What a kind of fine-tuning is: the class that a new kind implements, and the plain classification head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from torch import nn

from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.labels import classify_rows, label_scores
from adaptkit.data.readers import Dataset, Want
from adaptkit.data.score_table import ItemRow
from adaptkit.data.supervised import LabelledRows
from adaptkit.finetune.soft_labels import SoftLabelledRows, has_soft_labels
from adaptkit.model_uses import Use
from adaptkit.trainer.objective import Classification, Objective
from adaptkit.trainer.row_source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


HeadKind = Literal["causal", "classifier", "tagger"]
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What transformers and vLLM call what a classifier's outputs mean."""


class Examples(Source, Protocol):
    """Training examples, and how many of their texts are cut."""

    cut: CutTexts


class Task(Protocol):
    """One kind of fine-tuning on one tokenizer.

    Attributes:
        want: the rows it reads, as `adaptkit.data.read` names them.
        use: what it needs a base for.
        model_kind: the head it trains.
        problem_type: what transformers and servers call the head's task; None where there is nothing to say.
        max_length: tokens after which an example is cut.
        label_names: the labels; empty for free text and for numbers.
        scale: the unit of the head's outputs, in which the merge of an adapter is checked.
    """

    want: ClassVar[Want]
    use: ClassVar[Use]
    model_kind: ClassVar[HeadKind]
    problem_type: ClassVar[Problem | None] = None
    label_names: list[str]
    max_length: int
    scale: float = 1.0

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ) -> None: ...

    @property
    def output_names(self) -> list[str]:
        """What the outputs of the head are called, in their order."""
        return self.label_names

    def look_at(self, train: Dataset) -> None:
        """See the training rows before anything else is asked.

        Raises: DataError for rows that nothing can be learnt from.
        """
        return None

    def start_head(self, model: nn.Module) -> None:
        """Change a new head before it is trained; its adapter, if any, is attached."""
        return None

    def finish_head(self, model: nn.Module) -> None:
        """Change a trained head, still with its adapter."""
        return None

    def settle(self, model: PreTrainedModel, dev: Dataset) -> None:
        """Choose on development rows what is no weight; called before the model is saved."""
        return None

    def facts(self) -> dict[str, Any]:
        """What `settle` chose, for the run's record."""
        return {}

    def recall(self, facts: dict[str, Any]) -> None:
        """Take it from a run's record again."""
        return None

    def objective(self) -> Objective:
        """The loss that it is trained by."""

    def source(self, dataset: Dataset) -> Examples:
        """A data set as training examples."""

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        """An item row with the model's answer for each row."""

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        """Metrics of item rows, unless a caller brings its own."""


class Classify(Task):
    """A head on the pooled state: the last token of a causal model, the encoder's own pooling otherwise."""

    want: ClassVar[Want] = "labelled"
    use: ClassVar[Use] = Use.CLASSIFY
    model_kind: ClassVar[HeadKind] = "classifier"
    problem_type: ClassVar[Problem | None] = "single_label_classification"

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ) -> None:
        self.tokenizer, self.label_names, self.max_length = tokenizer, list(labels), max_length

    def objective(self) -> Objective:
        return Classification()

    def source(self, dataset: Dataset) -> Examples:
        rows = SoftLabelledRows if has_soft_labels(dataset) else LabelledRows
        return rows(dataset, self.tokenizer, self.max_length, self.label_names)

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        return classify_rows(model, self.tokenizer, dataset, self.label_names, self.max_length)

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        return label_scores(rows)
