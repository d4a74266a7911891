"""A reranker: a sequence classifier with one output, which reads a question and a document together.

    reranker = CrossEncoder.load("runs/rerank-1a2b3c4d/model")
    scores_N = reranker.scores([("is aspirin safe?", document) for document in documents])

Scores are the head's output before any activation: higher answers better. Shape suffixes: N = pairs, B = rows
of a batch, T = tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptkit import models
from adaptkit.embed.pair_tokens import PairRow, PairTokens, with_boundary
from adaptkit.embed.reading_cost import ReadingCost
from adaptkit.errors import ModelError
from adaptkit.models.batching import batches_by_length, fast_batch_tokens, pad_right
from adaptkit.models.control_tokens import spell_everywhere
from adaptkit.models.positions import fitting_length
from adaptkit.trainer.device import default_device

OUTPUT = "score"
"""What the one output is called."""


class CrossEncoder(ReadingCost):
    """A reranker with its tokenizer, ready to score; counts the tokens and FLOPs it has spent.

    Attributes:
        model: the transformers model, inside an adapter while one is trained.
        pairs: makes its rows of tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, max_length: int):
        self.model, self.tokenizer = model, tokenizer
        self.pairs = PairTokens(tokenizer, max_length)
        self.padding = tokenizer.pad_token_id or 0
        self.has_types = has_token_types(model, tokenizer)

    @classmethod
    def start(cls, base: str | Path, max_length: int, seed: int) -> CrossEncoder:
        """A base with a new head, drawn from `seed`."""
        tokenizer = with_boundary(models.load_tokenizer(base))
        model = models.load(base, "classifier", label_names=[OUTPUT], seed=seed)
        # a causal classifier reads the last token that is not padding, and finds it by this id
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
        return cls(model, tokenizer, max_length)

    @classmethod
    def load(cls, path: str | Path, max_length: int = 0) -> CrossEncoder:
        """The reranker of a folder or hub id.

        Args:
            max_length: tokens of a row at most; 0 is what the folder says.
        Raises: ModelError if it is missing, incomplete, or has more outputs than one.
        """
        model: Any = models.load(path, "classifier")
        tokenizer = models.load_tokenizer(path)
        if model.config.num_labels != 1:
            what = f"has {model.config.num_labels} outputs, and a reranker has one"
            raise ModelError(what, where=str(path), fix="train one with `adaptkit embed rerank`")
        length = fitting_length(max_length or int(min(tokenizer.model_max_length, 10**9)), model.config)
        return cls(model.to(default_device()).eval(), tokenizer, length)

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers, sentence-transformers and vLLM load.

        Raises: ModelError if the tokenizer that is read back would make other rows; DiskFullError.
        """
        self.tokenizer.model_max_length = self.pairs.max_length
        spell_everywhere(self.tokenizer)  # all that it reads is a user's text
        models.save(self.model, self.tokenizer, folder)
        probe = ("A question, read back?", "A text, read back.")
        read_back = models.load_tokenizer(folder)(*probe, truncation=True)["input_ids"]
        if read_back != self.pairs.row(*probe).ids:
            what = "the saved tokenizer makes other rows of pairs than the trained one"
            fix = "use a base whose tokenizer is a plain tokenizer.json"
            raise ModelError(what, where=str(folder), fix=fix)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """How well the second text of each pair answers the first, float64 [N], in their order."""
        self.pairs.read(text for pair in pairs for text in pair)
        rows = [self.pairs.row(*pair) for pair in pairs]
        scores_N = np.empty(len(rows))
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            lengths = [len(row.ids) for row in rows]
            for items in batches_by_length(lengths, fast_batch_tokens(device.type)):
                batch = self.batch([rows[i] for i in items])
                self.count_reading(batch["attention_mask"])
                inputs = {name: value.to(device) for name, value in batch.items()}
                scores_N[items] = self.model(**inputs).logits[:, 0].double().cpu().numpy()
        self.model.train(training)
        return scores_N

    def batch(self, rows: Sequence[PairRow]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and, where the model has them, `token_type_ids`, int64 [B, T]."""
        batch = pad_right([row.ids for row in rows], self.padding)
        if self.has_types:
            batch["token_type_ids"] = pad_right([row.types for row in rows], 0)["input_ids"]
        return batch


def has_token_types(model: Any, tokenizer: Any) -> bool:
    """Whether a model tells the two texts of a row apart by token types."""
    several = getattr(models.unwrap(model).config, "type_vocab_size", 0) > 1
    return several and "token_type_ids" in tokenizer.model_input_names
