"""An encoder: any transformers or sentence-transformers folder as a function from texts to vectors.

    encoder = Encoder.load("models/minilm")
    vectors_ND = encoder.encode(["a question", "another"], prompt="query", dimensions=128)

Texts are sorted by their length in tokens and cut into batches of about as many tokens each, so that next to
none of the work is padding. Shape suffixes: N = texts, B = texts of a batch, T = tokens, D = size of a
vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import processors
from torch import Tensor, nn

from adaptkit import models
from adaptkit.data.cut_texts import CutTexts
from adaptkit.embed.reading_cost import ReadingCost
from adaptkit.errors import ModelError
from adaptkit.models.batching import batches_by_length, fast_batch_tokens, pad_right
from adaptkit.models.control_tokens import control_tokens, spell_everywhere
from adaptkit.models.sentence.dense import read_dense, width_of, write_dense
from adaptkit.models.sentence.layout import Layout, changed, dense_names, read_layout, write_layout
from adaptkit.models.sentence.pooling import cut, num_modes, pool
from adaptkit.models.sentence.text_tokens import check_token_types, lower_cased, prompt_length, token_ids
from adaptkit.run import model_digest
from adaptkit.trainer.device import default_device

UNCUT = 10**9
"""Tokens that no text has."""


class Encoder(ReadingCost):
    """A model with its tokenizer and layout, ready to encode; counts the tokens and FLOPs it has spent.

    Attributes:
        cut: texts that were longer than it reads.
        model: the transformers model, inside an adapter while one is trained.
        digest: sha256 over the folder that it was loaded from, or "" for a model in training.
        place: the folder or hub id that it was loaded from, or "".
        dense: what pooled vectors go through; nothing for most models.
        hidden: numbers of a token's state.
        width: numbers of a vector.
    """

    def __init__(
        self, model: Any, tokenizer: Any, layout: Layout, digest: str = "", dense: nn.Sequential | None = None
    ):
        self.model, self.tokenizer, self.layout, self.digest = model, tokenizer, layout, digest
        self.dense = dense or nn.Sequential()
        self.hidden = int(models.unwrap(model).config.get_text_config().hidden_size)
        self.width = width_of(self.dense, self.hidden * num_modes(layout.pooling))
        self.place = ""
        self.cut = CutTexts()

    @classmethod
    def load(cls, path: str | Path, *, dtype: str = "float32", device: torch.device | None = None) -> Encoder:
        """The encoder of a folder or hub id.

        Raises: ModelError if it is missing, incomplete, or needs modules that are not supported.
        """
        folder = models.find(path)
        model, tokenizer = models.load(folder, "encoder", dtype=dtype), models.load_tokenizer(folder)
        check_token_types(tokenizer, str(folder))
        layout = read_layout(folder, model.config, tokenizer)
        dense = read_dense(folder, layout.dense)
        parts: list[nn.Module] = [model, dense]
        for part in parts:
            part.to(device or default_device()).eval()
        if layout.lower_case:
            tokenizer = lower_cased(tokenizer)
        encoder = cls(model, tokenizer, layout, model_digest(folder), dense)
        encoder.place = str(Path(path).absolute()) if Path(path).exists() else str(path)
        return encoder

    def limit(self, max_length: int) -> None:
        """Cut texts after `max_length` tokens, or where the model's positions end."""
        self.layout = changed(self.layout, self.width, max_length=min(max_length, self.layout.longest))

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers, sentence-transformers and vLLM load.

        Raises: ModelError if the tokenizer that is read back would encode otherwise; DiskFullError.
        """
        folder = Path(folder)
        if self.layout.dimensions:
            models.unwrap(self.model).config.matryoshka_dimensions = list(self.layout.dimensions)
        self.tokenizer.model_max_length = self.layout.max_length
        if not self._obeys_control_tokens():
            spell_everywhere(self.tokenizer)
        models.save(self.model, self.tokenizer, folder)
        layout = changed(self.layout, self.width, dense=dense_names(len(self.dense)))
        write_layout(folder, layout, self.hidden)
        write_dense(folder, layout.dense, self.dense)
        probe = "A text, read back."
        if models.load_tokenizer(folder)(probe)["input_ids"] != self.tokenizer(probe)["input_ids"]:
            what = "the saved tokenizer encodes otherwise than the trained one"
            raise ModelError(
                what, where=str(folder), fix="use a base whose tokenizer is a plain tokenizer.json"
            )

    def _obeys_control_tokens(self) -> bool:
        """Whether a template or a prompt of the folder's own writes control tokens, which count."""
        spans = control_tokens(self.tokenizer).spans
        return self.layout.chat is not None or any(map(spans, self.layout.prompts.values()))

    def tokens(self, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
        """Token ids of each text with `prompt` before it, special tokens included, cut to
        `layout.max_length`."""
        encoded = self.tokens_up_to(texts, self.layout.max_length, prompt)
        self.cut = self.cut.plus(self._count_cuts(encoded, texts, prompt))
        return encoded

    def tokens_up_to(self, texts: Sequence[str], longest: int, prompt: str = "") -> list[list[int]]:
        """As `tokens`, cut to another length, and not counted as cut."""
        substitutes = (self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, 0)
        for_empty = [next(token for token in substitutes if token is not None)]
        layout = dataclasses.replace(self.layout, max_length=longest)
        return [ids or for_empty for ids in token_ids(self.tokenizer, layout, texts, prompt)]

    def _count_cuts(self, encoded: list[list[int]], texts: Sequence[str], prompt: str) -> CutTexts:
        """What was cut: texts that fill the limit are tokenised once more, whole."""
        limit, whole = self.layout.max_length, dataclasses.replace(self.layout, max_length=UNCUT)
        full = [text for text, ids in zip(texts, encoded, strict=True) if len(ids) >= limit]
        lengths = [len(ids) for ids in encoded if len(ids) < limit]
        lengths += [len(ids) for ids in token_ids(self.tokenizer, whole, full, prompt)]
        return CutTexts.of(lengths, limit)

    def encode(self, texts: Sequence[str], *, prompt: str | None = None, dimensions: int = 0) -> np.ndarray:
        """Vectors of `texts`, float32 [N, D], in their order.

        Args:
            prompt: name of the prompt to put before each text; None is the model's default, "" none at all.
            dimensions: Matryoshka size to cut to; 0 is what the folder says, else all.
        Raises: ModelError for a prompt that the model lacks, or a size it cannot give.
        """
        words = self.layout.prompt(prompt)
        skip = prompt_length(self.tokenizer, self.layout, words)
        return self.encode_tokens(self.tokens(texts, words), skip=skip, dimensions=dimensions)

    def encode_tokens(
        self, encoded: Sequence[Sequence[int]], *, skip: int = 0, dimensions: int = 0
    ) -> np.ndarray:
        """Vectors of texts that are token ids already, as `tokens` gives them, float32 [N, D].

        Args:
            skip: first tokens of each text that are not pooled.
            dimensions: as in `encode`.
        Raises: ModelError for a size that the model cannot give.
        """
        dimensions = dimensions or self.layout.truncated
        if dimensions:
            changed(self.layout, self.width, dimensions=(dimensions,))
        vectors_ND = np.empty((len(encoded), dimensions or self.width), np.float32)
        device = next(self.model.parameters()).device
        padding = models.unwrap(self.model).config.pad_token_id or 0
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            for items in batches_by_length([len(ids) for ids in encoded], fast_batch_tokens(device.type)):
                batch = pad_right([encoded[i] for i in items], padding)
                self.count_reading(batch["attention_mask"])
                pooled_BD = self._pooled({name: value.to(device) for name, value in batch.items()}, skip)
                normalised = self.layout.normalised
                vectors_ND[items] = cut(pooled_BD, dimensions, normalised=normalised).cpu().numpy()
        self.model.train(training)
        return vectors_ND

    def encode_queries(self, texts: Sequence[str], dimensions: int = 0) -> np.ndarray:
        """Vectors of queries, with the model's prompt for these."""
        return self.encode(texts, prompt=self.layout.prompt_if_any("query"), dimensions=dimensions)

    def encode_to_rank(
        self, texts: Sequence[str], *, prompt: str | None = None, dimensions: int = 0
    ) -> np.ndarray:
        """As `encode`, for vectors whose products rank texts as the folder's similarity does.

        Raises: ModelError for a similarity that no product gives.
        """
        by_cosine = self.layout.similarity == "cosine" and not self.layout.normalised
        if not by_cosine:
            self.check_products()
        vectors_ND = self.encode(texts, prompt=prompt, dimensions=dimensions)
        if by_cosine:
            return cut(torch.from_numpy(vectors_ND), 0).numpy()
        return vectors_ND

    def check_products(self) -> None:
        """Raises: ModelError where the product of two vectors of `encode` is not how the folder compares
        them."""
        similarity, unit = self.layout.similarity, self.layout.normalised
        if similarity == "dot" or (unit and similarity in ("cosine", "euclidean")):
            return
        length = "of unit length" if unit else "of any length"
        what = f"its vectors are {length} and compared by {similarity}, searching multiplies them"
        fix = "train it once with `adaptkit embed train`, which gives unit vectors compared by cosine"
        raise ModelError(what, where="similarity_fn_name", fix=fix)

    @property
    def name(self) -> str:
        """For messages."""
        return self.place or "this model"

    @property
    def precision(self) -> str:
        """What it computes in."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def size(self) -> int:
        """Numbers of a vector where no size is asked for."""
        return self.layout.truncated or self.width

    def _pooled(self, batch: dict[str, Tensor], skip: int) -> Tensor:
        states_BTD = self.model(**batch).last_hidden_state
        return self.dense(pool(states_BTD, batch["attention_mask"], self.layout.pooling, skip))


def closed_by_eos(tokenizer: Any) -> Any:
    """A tokenizer that ends every text with a token of its own, for last-token pooling: the one state that
    always means "the end". That is the token its files put there, else EOS.

    Servers tokenise by themselves, so the token must come from the tokenizer's own files.
    Raises: ModelError for a tokenizer that puts none there and has no EOS.
    """
    whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    if len(whole) > start + len(bare):
        return tokenizer
    if tokenizer.eos_token_id is None:
        fix = "choose pooling: mean, or a tokenizer with eos_token"
        raise ModelError("last-token pooling needs an EOS token", where=tokenizer.name_or_path, fix=fix)
    before, end = tokenizer.convert_ids_to_tokens(whole[:start]), tokenizer.eos_token
    # One template in place of what there was: behind a second one, texts would be cut without counting the
    # first's tokens.
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", end],
        pair=[*before, "$A", end, "$B:1", f"{end}:1"],
        special_tokens=[*zip(before, whole[:start], strict=True), (end, tokenizer.eos_token_id)],
    )
    return tokenizer
