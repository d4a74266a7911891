"""The rows that student and teacher read, as their kind of model takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adaptkit import data, models
from adaptkit.data.cut_texts import tell_cuts
from adaptkit.data.drawing import draw_from
from adaptkit.data.readers import Dataset
from adaptkit.data.supervised import LabelledRows, TextRows
from adaptkit.data.tokenizers import tokenizer_digest
from adaptkit.distill.answer_store import Scorer, StoreLayout, WithTeacher, write_store
from adaptkit.distill.config import DistillConfig
from adaptkit.errors import ConfigError
from adaptkit.models.separation import UNPACKED, Separation, kept_apart
from adaptkit.run import Run, digest
from adaptkit.trainer.distillation import Kind
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.progress import announce
from adaptkit.trainer.row_source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STRICTNESS: tuple[Separation, ...] = ("positions", "mask", "rows")
"""Ways to keep packed documents apart, the one that most models understand last."""
PROBE_ROWS = 16
"""Rows that blocks are searched by and units are chosen by."""


@dataclass(frozen=True)
class Rows:
    """Makes sources of rows out of data sets, as the kind of model takes them."""

    config: DistillConfig
    run: Run
    kind: Kind
    tokenizer: PreTrainedTokenizerFast
    labels: list[str] | None
    ranks: Ranks = field(default_factory=Ranks)
    """Who else asks the teacher."""

    def of(self, text: dict[str, Dataset], read_by: list[nn.Module]) -> dict[str, Source]:
        """A source per data set, in rows that every model in `read_by` reads exactly."""
        seq_len = self.config.size.seq_len
        if self.kind in ("classifier", "encoder"):
            sources = {name: self._whole_texts(part) for name, part in text.items()}
            if "train" in sources:
                tell_cuts({name: source.cut for name, source in sources.items()}, "size.seq_len")
            return dict(sources)
        separate = self._separation(read_by)
        if separate == "rows" and "train" in text and self.kind == "causal" and self.ranks.rank == 0:
            announce(self.config.name, {"note": UNPACKED})
        return {
            name: data.packed_rows(self._shards(part), seq_len, self.kind, separate)
            for name, part in text.items()
        }

    def _whole_texts(self, part: Dataset) -> TextRows:
        seq_len = self.config.size.seq_len
        if self.labels is None:
            return TextRows(part, self.tokenizer, seq_len)
        return LabelledRows(part, self.tokenizer, seq_len, self.labels)

    def probe(self, dataset: Dataset, read_by: list[nn.Module]) -> dict[str, torch.Tensor]:
        """One batch of rows drawn by hash; packed rows stand in the order of their hash already."""
        if self.kind in ("classifier", "encoder"):
            dataset = draw_from(dataset, PROBE_ROWS)
        source = self.of({"probe": dataset}, read_by)["probe"]
        return source.collate(list(range(min(PROBE_ROWS, len(source)))), seed=0, epoch=0)

    def stored(
        self, sources: dict[str, Source], text: dict[str, Dataset], score: Scorer, teacher: str, top_k: int
    ) -> dict[str, Source]:
        """The same rows with the teacher's answers, which are asked for once."""
        vocab_size, seq_len = len(self.tokenizer), self.config.size.seq_len
        with_answers: dict[str, Source] = {}
        for name, source in sources.items():
            layout = StoreLayout(len(source), seq_len, min(top_k, vocab_size - 1), vocab_size)
            made_from = {
                "teacher": teacher,
                "text": text[name].digest,
                "tokenizer": tokenizer_digest(self.tokenizer),
                "temperature": self.config.temperature,
                **vars(layout),
            }
            folder = self.run.shards(digest(made_from))
            store = write_store(source, score, folder, layout, made_from, self.ranks)
            with_answers[name] = WithTeacher(source, store)
        return with_answers

    def _separation(self, read_by: list[nn.Module]) -> Separation:
        """What keeps documents apart in all of these models."""
        seq_len = self.config.size.seq_len
        for model in read_by:
            shape = models.unwrap(model).config.get_text_config()
            longest = getattr(shape, "max_position_embeddings", None)
            if longest and seq_len > longest:
                what = f"rows of {seq_len} tokens, but a model reads at most {longest}"
                raise ConfigError(what, where="size.seq_len", fix=f"set size.seq_len={longest} or less")
        ways = [kept_apart(model, self.kind, seq_len, self.config.model_name) for model in read_by]
        return max(ways, key=STRICTNESS.index)

    def _shards(self, part: Dataset) -> Any:
        folder = self.run.shards(digest([part.digest, tokenizer_digest(self.tokenizer)]))
        return data.write_shards(part, self.tokenizer, folder)
