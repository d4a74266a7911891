"""Learning from plain text by restoring it: TSDAE (Wang et al. 2021, arXiv 2104.06979).

Most tokens of a text are deleted, the encoder makes one vector of the rest, and a decoder that sees nothing
else has to write the whole text. So the vector must hold what the text says. The decoder is thrown away at
the end.

The decoder is the encoder's own class with cross-attention to that one vector, sharing every weight that both
have, as in the paper. Architectures that have no such form (ModernBERT, Llama, Qwen3) get a small BERT
decoder of their width that shares the token embeddings alone: the gradient that matters comes through the
vector, and another code path for each architecture would buy nothing.

Shape suffixes: B = texts, T = tokens, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BertConfig

from adaptkit import models, ops
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.objective import PooledModel
from adaptkit.embed.rows import Example, like_lengths
from adaptkit.models.batching import pad_right
from adaptkit.models.sentence.pooling import Pooling, pool
from adaptkit.trainer.objective import Batch, LossOutput, label_rows, shifted
from adaptkit.trainer.row_source import mix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DELETED = 0.6
"""Share of the tokens that the encoder does not see: the paper's best."""
SMALL_LAYERS = 2
HEAD_SIZE = 64


@dataclass(frozen=True)
class Denoising:
    """Cross-entropy of every token of a text, given those before it and the vector of what was left of the
    text.

    `model` is a PooledModel whose `after_pooling` is the decoder. A batch holds `NN.input_ids` and
    `NN.attention_mask`, what is left, and `NN.labels`, the whole texts.
    """

    pooling: Pooling = "mean"
    implementation: str = "auto"
    separable = True

    def prepare(self, batch: Batch) -> Batch:
        rows = {name.replace("labels", "rows"): label_rows(shifted(batch[name])) for name in _labels(batch)}
        return {**batch, **rows}

    def items(self, batch: Batch) -> Tensor:
        labels = [batch[name][:, 1:] != ops.IGNORE_INDEX for name in _labels(batch)]
        return torch.stack([labelled.sum() for labelled in labels]).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        pooled_model = cast(PooledModel, model)
        return LossOutput(
            torch.stack([self._part(pooled_model, batch, name) for name in _labels(batch)]).sum()
        )

    def _part(self, model: PooledModel, batch: Batch, name: str) -> Tensor:
        ids_BT, mask_BT = (batch[name.replace("labels", part)] for part in ("input_ids", "attention_mask"))
        states_BTD = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        rows_R = batch.get(name.replace("labels", "rows"))
        vectors_BD = pool(states_BTD, mask_BT, self.pooling)
        return self.restore(model.after_pooling, vectors_BD, batch[name], rows_R)

    def restore(
        self, decoder: nn.Module, vectors_BD: Tensor, labels_BT: Tensor, rows_R: Tensor | None = None
    ) -> Tensor:
        """Summed loss of writing the texts `labels_BT` (padded on the right) from their vectors."""
        backbone, weight_VD, bias_V = models.split(decoder)
        hidden_BTD = backbone(input_ids=labels_BT.clamp(min=0), encoder_hidden_states=vectors_BD[:, None])
        return ops.linear_cross_entropy(
            hidden_BTD.flatten(0, 1),
            weight_VD,
            shifted(labels_BT).flatten(),
            bias_V=bias_V,
            rows_R=rows_R,
            implementation=self.implementation,
        )

    def extra_flops_per_token(self, model: PooledModel, seq_len: int) -> float:
        """The trainer counts tokens that the encoder reads; the decoder reads the deleted ones too."""
        return (1 / (1 - DELETED) - 1) * models.flops_per_token(model.after_pooling, seq_len).train


class NoisyTexts:
    """A trainer's source of texts, each with what is left of it; which tokens go is a function of (seed,
    epoch, index)."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder, prompt: str):
        tokenizer = encoder.tokenizer
        self.examples, self._padding = examples, tokenizer.pad_token_id or 0
        self._ids = encoder.tokens([example.texts[0] for example in examples], prompt)
        self._frame = {
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
        }

    def __len__(self) -> int:
        return len(self.examples)

    def where(self, index: int) -> str:
        return self.examples[index].where

    def length(self, index: int) -> int:
        """Tokens of a text."""
        return len(self._ids[index])

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """Texts of like lengths in tensors of their own: what is left, its mask, and the whole texts, int64
        [B, T]."""
        batch: dict[str, Tensor] = {}
        for number, part in enumerate(like_lengths([self.length(i) for i in indices])):
            chosen = [indices[place] for place in part]
            left = pad_right([self.left_of(i, seed, epoch) for i in chosen], self._padding)
            whole = pad_right([self._ids[i] for i in chosen], ops.IGNORE_INDEX)
            batch |= {f"{number:02d}.{name}": value for name, value in left.items()}
            batch[f"{number:02d}.labels"] = whole["input_ids"]
        return batch

    def left_of(self, index: int, seed: int, epoch: int) -> list[int]:
        """A text's tokens without the deleted ones; the frame around it stays, and at least one token in
        it."""
        rng, ids = random.Random(mix(seed, epoch, index)), self._ids[index]
        inside = [place for place, token in enumerate(ids) if token not in self._frame]
        left = {place for place in inside if rng.random() >= DELETED}
        if inside and not left:
            left = {rng.choice(inside)}
        return [token for place, token in enumerate(ids) if place in left or token in self._frame]


def decoder_of(encoder: Encoder, seed: int) -> PreTrainedModel:
    """A causal language model with cross-attention, new where it does not share weights with the encoder.

    Call it before adapters are attached: what they freeze is then frozen in both.
    """
    inner: Any = models.unwrap(encoder.model)
    same_class = _decoder_config(inner.config)
    decoder: Any = models.build(same_class or _small_config(encoder), "causal", seed)
    weight = next(inner.parameters())
    decoder.to(weight.device, weight.dtype)
    backbone, embeddings = decoder.base_model, inner.get_input_embeddings()
    if same_class is not None:
        of_encoder, of_decoder = dict(inner.named_parameters()), dict(backbone.named_parameters())
        for name in of_decoder.keys() & of_encoder.keys():
            _share(backbone, name, of_encoder[name])
    elif embeddings.weight.shape[1] == decoder.config.hidden_size:
        decoder.get_input_embeddings().weight = embeddings.weight
    decoder.tie_weights()
    return decoder


def _decoder_config(config: Any) -> Any | None:
    """The encoder's config as that of a decoder with cross-attention; None where its class has no such
    form."""
    if not hasattr(config, "add_cross_attention") or type(config) not in AutoModelForCausalLM._model_mapping:
        return None
    config = copy.deepcopy(config)
    config.is_decoder = config.add_cross_attention = config.tie_word_embeddings = True
    return config


def _small_config(encoder: Encoder) -> Any:
    inner: Any = models.unwrap(encoder.model)
    width = inner.config.get_text_config().hidden_size
    return BertConfig(
        vocab_size=len(inner.get_input_embeddings().weight),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=SMALL_LAYERS,
        num_attention_heads=math.gcd(width, max(1, width // HEAD_SIZE)),
        max_position_embeddings=encoder.layout.max_length,
        pad_token_id=None,
        is_decoder=True,
        add_cross_attention=True,
    )


def _share(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, weight)


def _labels(batch: Batch) -> list[str]:
    return sorted(name for name in batch if name.endswith("labels"))
