"""How a base reads two sets of passages: bits per byte, and where their mean states lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptkit import models
from adaptkit.data.text_shift import Distance, Passages, Sides, by_document
from adaptkit.models.batching import batches_by_length, pad_right
from adaptkit.models.bits_per_byte import score_documents
from adaptkit.models.positions import fitting_length
from adaptkit.notices import tell

READ_LENGTH = 512
"""Tokens that it reads of a passage at once."""
PASSAGE_BYTES = 384
"""A passage is cut here: what a base of 135M parameters reads a few hundred of in a minute on two cores."""
BATCH_ROWS = 16


@dataclass(frozen=True)
class Reading:
    """What a base makes of the passages of one side.

    Attributes:
        nats: to predict each passage; None for a base that does not predict the next token.
        num_bytes: of each passage as it was read.
        states: mean of the last hidden states of each, [passages, width].
    """

    nats: np.ndarray | None
    num_bytes: np.ndarray
    states: np.ndarray


class Base:
    """A base that reads passages, and says how far it is."""

    def __init__(self, path: str | Path, num_passages: int):
        self.folder = models.find(path)
        self.causal = models.model_kind(self.folder) == "causal"
        self.model: Any = models.load(self.folder, "causal" if self.causal else "encoder").eval()
        if torch.cuda.is_available():
            self.model.cuda()
        self.tokenizer = models.load_tokenizer(self.folder)
        self.num_passages, self.num_read = num_passages, 0

    def read(self, side: Passages) -> Reading:
        """Read all passages of a side."""
        texts = [cut_bytes(text) for text in side.texts]
        num_bytes = np.array([len(text.encode()) for text in texts], float)
        return self._predicted(texts, num_bytes) if self.causal else self._encoded(texts, num_bytes)

    def _predicted(self, texts: list[str], num_bytes: np.ndarray) -> Reading:
        width = self.model.config.get_text_config().hidden_size
        sums, counts = np.zeros((len(texts), width)), np.zeros(len(texts))

        def watch(documents: list[int], hidden_BTD: torch.Tensor, lengths: list[int]) -> None:
            for document, states_TD, length in zip(documents, hidden_BTD, lengths, strict=True):
                sums[document] += states_TD[:length].double().sum(0).cpu().numpy()
                counts[document] += length
            self._count(len(documents))

        rows = score_documents(
            self.model,
            self.tokenizer,
            [(str(number), text) for number, text in enumerate(texts)],
            seq_len=fitting_length(READ_LENGTH, self.model.config),
            batch_size=BATCH_ROWS,
            watch=watch,
        )
        nats = np.array([row["nats"] for row in rows])
        return Reading(nats, num_bytes, sums / np.maximum(counts, 1)[:, None])

    def _encoded(self, texts: list[str], num_bytes: np.ndarray) -> Reading:
        length = fitting_length(READ_LENGTH, self.model.config)
        encoded = self.tokenizer(texts, truncation=True, max_length=length, verbose=False)["input_ids"]
        states = np.zeros((len(texts), self.model.config.get_text_config().hidden_size))
        padding = self.model.config.pad_token_id or 0
        lengths = [len(ids) for ids in encoded]
        with torch.inference_mode():
            for items in batches_by_length(lengths, BATCH_ROWS * READ_LENGTH, BATCH_ROWS):
                batch = pad_right([encoded[i] for i in items], padding, self.model.device)
                hidden_BTD = self.model(**batch).last_hidden_state.double()
                mask_BT = batch["attention_mask"].double()
                mean_BD = (hidden_BTD * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
                states[items] = mean_BD.cpu().numpy()
                self._count(len(items))
        return Reading(None, num_bytes, states)

    def _count(self, number: int) -> None:
        before, self.num_read = self.num_read, self.num_read + number
        step = max(1, self.num_passages // 4)
        if before // step != self.num_read // step:
            tell(f"the base has read {self.num_read} of {self.num_passages} passages")


def cut_bytes(text: str) -> str:
    """The beginning of a passage."""
    return text.encode()[:PASSAGE_BYTES].decode(errors="ignore")


def bits(reading: Reading) -> np.ndarray:
    """Bits that each passage takes."""
    assert reading.nats is not None
    return reading.nats / math.log(2)


def halves_noise(reading: Reading, documents: np.ndarray, deals: int = 400) -> float:
    """How far apart two random halves of one side's documents are in bits per byte: the 95 % quantile."""
    parts = by_document(np.stack([bits(reading), reading.num_bytes], axis=1), documents)
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(deals):
        order = rng.permutation(len(parts))
        first, second = parts[order[: len(order) // 2]].sum(0), parts[order[len(order) // 2 :]].sum(0)
        gaps.append(abs(first[0] / first[1] - second[0] / second[1]))
    return float(np.quantile(gaps, 0.95))


def compare_states(domain: Reading, general: Reading, sides: tuple[Passages, Passages]) -> Distance:
    """How far apart the mean states of both sides are, in units of a passage's distance from its own mean."""
    both = np.concatenate([domain.states, general.states])
    means = [domain.states.mean(0), general.states.mean(0)]
    own = np.concatenate([domain.states - means[0], general.states - means[1]])
    spread = math.sqrt(float((own**2).sum(1).mean()))
    centre = both.mean(0)

    def with_count(reading: Reading, side: Passages) -> np.ndarray:
        centred = np.concatenate([reading.states - centre, np.ones((len(reading.states), 1))], axis=1)
        return by_document(centred, side.documents)

    def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        gap = first[..., :-1] / first[..., -1:] - second[..., :-1] / second[..., -1:]
        return np.linalg.norm(gap, axis=-1) / max(spread, 1e-12)

    return Sides(with_count(domain, sides[0]), with_count(general, sides[1]), apart).distance()
