"""What a study's trainings, scorings and answers cost, known before anything runs.

Models are built without weights and their FLOPs counted; texts are counted in tokens of BYTES_PER_TOKEN
bytes. What a
training really spends is counted on its real batches; this is for plans, and to see what a budget is too
small for.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from adaptkit import models
from adaptkit.adapters import AdapterConfig, attach
from adaptkit.architecture import architecture
from adaptkit.data.drawing import PASSAGE_BYTES
from adaptkit.data.readers import read
from adaptkit.finetune.prompt_passages import NUM_PASSAGES
from adaptkit.finetune.prompt_template import LONGEST_CONTEXT
from adaptkit.models.folder import saved_shape
from adaptkit.models.positions import fitting_length
from adaptkit.study.arms import Adaptation, Arm, Origin
from adaptkit.study.base_model import TextKind, with_vocabulary
from adaptkit.study.config import StudyConfig
from adaptkit.study.spend import meta_model
from adaptkit.study.task import TEST_SHARE, CorpusConfig, TaskConfig
from adaptkit.study.task_size import BYTES_PER_TOKEN, TaskSize

DEV_SHARE = 0.05
EVAL_PASSES_ON_TEXT = 2
"""A model that was trained on text is scored on development text by its loss on packed rows, and by
passage."""


LEARNT_SHARE = 0.7
"""Of a task's rows: a tenth is tested on, a fifth tuned on."""


@dataclass(frozen=True)
class TextSizes:
    """Bytes of a study's text.

    Attributes:
        domain, general: to train on.
        dev, test: held-out passages that a model is scored on.
        num_test: test passages of the domain.
        collection: what passages are looked up in.
    """

    domain: float
    general: float
    dev: float
    test: float
    num_test: int
    collection: float = 0.0


def text_sizes(config: StudyConfig) -> TextSizes:
    """The sizes of a study's text, from its files."""
    domain, general = (_sizes(corpus) for corpus in (config.domain, config.general))
    num_test = round(domain[2] / domain[3])
    collection = domain[0]
    if config.rag is not None and config.rag.collection is not None:
        collection = float(read(config.rag.collection, "text").num_bytes)
    return TextSizes(domain[0], general[0], domain[1], domain[2] + general[2], num_test, collection)


def _sizes(corpus: CorpusConfig) -> tuple[float, float, float, float]:
    """Bytes to train on, of development passages, of test passages, and of one passage."""
    rows = read(corpus.train, "text")
    num_bytes = float(rows.num_bytes)
    passage = min(PASSAGE_BYTES, num_bytes / len(rows.rows))
    held_out = num_bytes * TEST_SHARE
    if corpus.test is not None:
        held_out = float(read(corpus.test, "text").num_bytes)
    dev, test = ((items or math.inf) * passage for items in (corpus.dev_items, corpus.test_items))
    return num_bytes, min(dev, DEV_SHARE * num_bytes), min(test, held_out), passage


@dataclass
class Costs:
    """FLOPs of everything that a study may do, by origin, task and arm.

    Attributes:
        shape: the base's transformers config.
        kind: what it predicts.
        texts, tasks: sizes of what is read.
    """

    config: StudyConfig
    shape: Any
    kind: TextKind
    texts: TextSizes
    tasks: dict[str, TaskSize]
    _models: dict[tuple[Origin, str], nn.Module] = field(default_factory=dict)

    def under(self, config: StudyConfig) -> Costs:
        """The same study under another budget; models whose size follows from the budget are built anew."""
        known = self._models if config.size.params else {}
        return dataclasses.replace(self, config=config, _models=known)

    def at_size(self, params: int) -> Costs:
        """The same study with models from scratch of another size."""
        size = self.config.size.model_copy(update={"params": params})
        config = self.config.model_copy(update={"size": size})
        kept = {key: model for key, model in self._models.items() if not key[0].starts_random}
        return dataclasses.replace(self, config=config, _models=kept)

    def params(self, origin: Origin) -> int:
        """Parameters of the model that arms of an origin have."""
        return models.param_count(self._model(origin)).total

    def layers_and_width(self, origin: Origin) -> tuple[int, int]:
        """Of the model that arms of an origin have."""
        shape: Any = self._model(origin).config
        return shape.num_hidden_layers, shape.hidden_size

    def text_tokens(self, origin: Origin, flops: float) -> float:
        """Tokens of text that FLOPs pay for."""
        return flops / self.text_step(origin) * self._tokens_per_step

    @property
    def _tokens_per_step(self) -> int:
        return self.config.size.seq_len * self.config.trainer.global_batch_size

    @property
    def bytes_per_step(self) -> float:
        """Bytes of text that one optimizer step of a training on text reads."""
        return self._tokens_per_step * BYTES_PER_TOKEN

    def text_step(self, origin: Origin) -> float:
        """One optimizer step of a training on text."""
        length = self.config.size.seq_len
        adapter = self.config.adapter_on_text(origin)
        per_token = models.flops_per_token(self._model(origin, adapter), length).train
        if origin is Origin.DISTILLED:
            per_token += self._forward(Origin.GENERIC, length)  # the teacher's answers
        return self._tokens_per_step * per_token

    def text_most(self, origin: Origin, task: str | None) -> float:
        """What a training on a task's own text may take at most: its passes are limited."""
        if task is None:
            return math.inf
        size = self.tasks[task]
        num_tokens = self.config.tapt.repetitions * LEARNT_SHARE * size.num_rows * size.row_tokens
        return num_tokens / self._tokens_per_step * self.text_step(origin)

    def text_scoring(self, origin: Origin, task: str | None = None) -> float:
        """Scoring one candidate of a training on text on development passages, or on a task's rows."""
        length = self.config.size.seq_len
        if task is not None:
            return EVAL_PASSES_ON_TEXT * self.tasks[task].dev_tokens * self._forward(origin, length)
        passes = EVAL_PASSES_ON_TEXT - 1 + _overlap(length)
        return passes * self.texts.dev / BYTES_PER_TOKEN * self._forward(origin, length)

    def text_answers(self, origin: Origin) -> float:
        """Scoring a model on all held-out test passages, of the domain and of general text."""
        length = self.config.size.seq_len
        return _overlap(length) * self.texts.test / BYTES_PER_TOKEN * self._forward(origin, length)

    def size(self, task: TaskConfig, arm: Arm) -> TaskSize:
        """How much an arm of a task reads."""
        assert arm.adaptation is not None
        return task.task_kind.size_for(task, self.tasks[task.name], arm.adaptation)

    def task_step(self, task: TaskConfig, arm: Arm) -> float:
        """One optimizer step of a training on a task."""
        size, beside = self.size(task, arm), self._passages(arm)
        assert arm.adaptation is not None
        model = self._model(arm.origin, self.config.adapter_of(arm.adaptation))
        per_token = models.flops_per_token(model, max(1, round(size.text_tokens + beside))).train
        return per_token * (size.row_tokens + beside) * size.batch_rows

    def task_steps_at_most(self, task: TaskConfig, arm: Arm) -> float:
        """Optimizer steps of `max_epochs` passes over the rows."""
        size = self.size(task, arm)
        return task.max_epochs * size.num_rows / size.batch_rows

    def task_scoring(self, task: TaskConfig, arm: Arm, *, tuning: bool) -> float:
        """Scoring one candidate on development rows, as often as that is done, and what has to be encoded
        before."""
        size, beside = self.size(task, arm), self._passages(arm)
        passes = task.task_kind.scoring_passes(tuning)
        tokens = size.dev_tokens + beside * _num_dev(size)
        flops = passes * tokens * self._forward(arm.origin, size.text_tokens + beside)
        if arm.looks_up:
            flops += self._encoding(size, size.num_rows + size.num_items)
        return flops

    def task_answers(self, task: TaskConfig, arm: Arm) -> float:
        """Answering all test items."""
        size, beside = self.size(task, arm), self._passages(arm)
        tokens = size.test_tokens + beside * size.num_items
        return tokens * self._forward(arm.origin, size.text_tokens + beside)

    def frozen(self, task: TaskConfig, arm: Arm, settings_tried: int) -> float:
        """What an arm without training takes, its trials and answers included."""
        size = self.tasks[task.name]
        tokens = size.test_tokens + size.dev_tokens
        if arm.adaptation is Adaptation.RAG:
            return self._looking_up(task, arm, settings_tried)
        if arm.adaptation is Adaptation.PROMPT:
            tokens = size.prompt_factor * (size.test_tokens + settings_tried * size.dev_tokens)
        elif size.num_documents == 0:
            tokens += size.num_rows * size.row_tokens
        return tokens * self._forward(arm.origin, size.text_tokens)

    def _looking_up(self, task: TaskConfig, arm: Arm, settings_tried: int) -> float:
        """Prompts with passages in them, as long as the model reads, and encoding what is searched."""
        size, beside = self.tasks[task.name], self._passages(arm)
        num_dev = _num_dev(size)
        tokens = size.prompt_factor * (size.test_tokens + settings_tried * size.dev_tokens)
        tokens += beside * (size.num_items + settings_tried * num_dev)
        flops = tokens * self._forward(arm.origin, size.text_tokens + beside)
        return flops + self.encoding(task, arm)

    def _passages(self, arm: Arm) -> float:
        """Tokens of the passages beside a text, for an arm that looks them up."""
        if not arm.looks_up:
            return 0.0
        tokens = PASSAGE_BYTES / BYTES_PER_TOKEN * sum(NUM_PASSAGES) / len(NUM_PASSAGES)
        return min(tokens, fitting_length(LONGEST_CONTEXT, self._shape(arm.origin)))

    def encoding(self, task: TaskConfig, arm: Arm) -> float:
        """Encoding what an arm without training searches, and its test and development questions."""
        size = self.tasks[task.name]
        return self._encoding(size, size.num_items + _num_dev(size)) if arm.looks_up else 0.0

    def _encoding(self, size: TaskSize, num_questions: float) -> float:
        """Encoding what is searched, and so many questions; nothing where words are counted."""
        rag = self.config.rag
        if rag is None or not rag.encoder:
            return 0.0
        encoder = meta_model(saved_shape(rag.encoder), "encoder")
        encoded = self.texts.collection / BYTES_PER_TOKEN + num_questions * size.text_tokens
        return encoded * models.flops_per_token(encoder, round(PASSAGE_BYTES / BYTES_PER_TOKEN)).forward

    def _forward(self, origin: Origin, length: float) -> float:
        return models.flops_per_token(self._model(origin), max(1, round(length))).forward

    def _model(self, origin: Origin, adapter: AdapterConfig | None = None) -> nn.Module:
        """The model of an origin, without weights, as an adapter trains it."""
        kind = "none" if adapter is None else adapter.kind
        if (origin, kind) not in self._models:
            with torch.device("meta"):
                model: Any = models.build(self._shape(origin), self.kind, seed=0)
                if adapter is not None and kind != "none":
                    model = attach(model, adapter.model_copy(update={"kind": "lora"}), 0)
            self._models[origin, kind] = model
        return self._models[origin, kind]

    def _shape(self, origin: Origin) -> Any:
        shape = self.shape
        if origin.starts_random and (self.config.base or self.config.size.params):
            size, vocabulary = self.config.size, self.config.tokenizer.vocab_size
            return architecture(size, vocabulary, kind=self.kind, flops=self.config.budget.amount)
        if origin is Origin.CONTINUED_VOCABULARY:
            return with_vocabulary(shape, self.config.extend_vocabulary)
        if origin is Origin.DISTILLED:
            shape = type(shape).from_dict(shape.to_dict())
            shape.num_hidden_layers = max(1, shape.num_hidden_layers // 2)
        return shape


def _num_dev(size: TaskSize) -> float:
    """Development rows."""
    return size.num_items * size.dev_tokens / size.test_tokens if size.test_tokens else 0.0


def _overlap(seq_len: int) -> float:
    """How often a token of a passage is read: windows of longer passages overlap by half."""
    return 2.0 if seq_len < PASSAGE_BYTES / BYTES_PER_TOKEN else 1.0
