"""Measure how likely a language model finds each of a few short continuations of many texts.

All choices of an item are read in one pass: after the query stand the choices' tokens side by side, and a
mask lets each choice see the shared prefix, its query and itself only. The prefix (the shots) is computed
once for all items.

Shape letters: N items, B items of a batch, C choices, P prefix tokens, T query and choice tokens, S choice
tokens read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.models.batching import BATCH_TOKENS, batches_by_length, pad_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Likelihoods:
    """Log-probabilities of choices.

    Attributes:
        nats: float64 [N, C], log p(choice | prefix, query), summed over the choice's tokens.
        num_tokens: int [C], tokens of each choice.
        tokens_read: input tokens the model processed.
    """

    nats: np.ndarray
    num_tokens: np.ndarray
    tokens_read: int

    def scores(self, normalised: bool) -> np.ndarray:
        """[N, C] nats, per token if `normalised`: a long label is not less likely for being long."""
        if normalised:
            return self.nats / self.num_tokens
        return self.nats


def score_choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefix: Sequence[int],
    queries: Sequence[Sequence[int]],
    choices: Sequence[Sequence[int]],
) -> Likelihoods:
    """Score every choice after every query.

    Args:
        prefix: token ids that stand before every query (BOS or [CLS], shots); may be empty for a causal
            model.
        queries: token ids, at least one each.
        choices: token ids, at least one each. A masked LM is asked for them at as many mask positions.
    Raises: ModelError for a masked LM whose tokenizer has no mask token.
    """
    num_tokens = np.array([len(choice) for choice in choices])
    nats = np.empty((len(queries), len(choices)))
    tokens_read = 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        if models.unwrap(model).can_generate():
            parts = _causal(model, list(prefix), queries, choices)
        else:
            parts = _masked(model, tokenizer, list(prefix), queries, choices)
        for items, columns, batch_nats, read in parts:
            nats[np.ix_(items, columns)] = batch_nats.double().cpu().numpy()
            tokens_read += read
    model.train(was_training)
    return Likelihoods(nats, num_tokens, tokens_read)


Part = tuple[list[int], list[int], Tensor, int]
"""Items, choices, nats [B, C] of these, and tokens read."""
TokenRows = Sequence[Sequence[int]]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _causal(
    model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """Yields (items, choices, nats [B, C], tokens read)."""
    backbone, weight_VD, bias_V = models.split(model)
    shared = _prefix_states(model, prefix)
    layout = _Layout(choices, weight_VD.device)
    columns = list(range(len(choices)))
    read = len(prefix)
    for items in batches_by_length([len(query) + layout.num_read for query in queries], BATCH_TOKENS):
        inputs = layout.inputs([queries[i] for i in items], len(prefix))
        if prefix:
            inputs["past_key_values"] = _expanded(shared, len(items))
        hidden_BTD = backbone(**inputs)[:, -layout.num_read - 1 :]
        yield (
            items,
            columns,
            layout.nats(_logits(hidden_BTD, weight_VD, bias_V)),
            read + inputs["input_ids"].numel(),
        )
        read = 0


class _Layout:
    """Where the tokens of all choices stand behind a query, who may see whom, and which logits are read."""

    def __init__(self, choices: Sequence[Sequence[int]], device: torch.device):
        self.device = device
        # the last token of a choice is only predicted
        self.read = [token for choice in choices for token in choice[:-1]]
        self.num_read = len(self.read)
        owner = [c for c, choice in enumerate(choices) for _ in choice[:-1]]
        depth = [j for choice in choices for j in range(len(choice) - 1)]
        self.depth_S = torch.tensor(depth, dtype=torch.long, device=device)
        owner_S = torch.tensor(owner, dtype=torch.long, device=device)
        same_SS = owner_S[:, None] == owner_S[None, :]
        self.mask_SS = same_SS & (self.depth_S[:, None] >= self.depth_S[None, :])
        # logits row 0 belongs to the query's last token, row 1 + s to choice token s
        rows: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        first = 1
        for c, choice in enumerate(choices):
            rows += [0, *range(first, first + len(choice) - 1)]
            targets += choice
            owners += [c] * len(choice)
            first += len(choice) - 1
        self.rows, self.targets, self.owners = (
            torch.tensor(x, dtype=torch.long, device=device) for x in (rows, targets, owners)
        )
        self.num_choices = len(choices)

    def inputs(self, queries: list[Sequence[int]], num_prefix: int) -> dict[str, Any]:
        """Left-padded queries with all choices behind: input_ids and position_ids [B, T], mask [B, 1, T, P +
        T]."""
        longest = max(map(len, queries))
        ids = torch.tensor(
            [[0] * (longest - len(q)) + [*q] + self.read for q in queries],
            dtype=torch.long,
            device=self.device,
        )
        length_B = torch.tensor([len(q) for q in queries], device=self.device)
        pads_B = longest - length_B
        place = torch.arange(longest, device=self.device)
        position = torch.cat(
            [(place[None] - pads_B[:, None]).clamp(min=0), length_B[:, None] + self.depth_S[None]], dim=1
        )
        real_BQ = place[None] >= pads_B[:, None]
        num_items, total = ids.shape
        mask = torch.zeros(num_items, total, num_prefix + total, dtype=torch.bool, device=self.device)
        mask[:, :, :num_prefix] = True
        mask[:, :longest, num_prefix : num_prefix + longest] = (place[:, None] >= place[None])[
            None
        ] & real_BQ[:, None]
        mask[:, longest:, num_prefix : num_prefix + longest] = real_BQ[:, None]
        mask[:, longest:, num_prefix + longest :] = self.mask_SS
        # a padded row that saw nothing would be NaN in some attention kernels
        mask[:, torch.arange(total), num_prefix + torch.arange(total)] = True
        return {"input_ids": ids, "position_ids": position + num_prefix, "attention_mask": mask[:, None]}

    def nats(self, logits: Tensor) -> Tensor:
        """Logits [B, 1 + S, V] -> [B, C]."""
        chosen = logits[:, self.rows, self.targets] - logits.logsumexp(-1)[:, self.rows]
        return torch.zeros(len(logits), self.num_choices, device=logits.device).index_add_(
            1, self.owners, chosen
        )


def _logits(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """The output projection in float32."""
    if bias_V is not None:
        bias_V = bias_V.float()
    return functional.linear(hidden.float(), weight_VD.float(), bias_V)


def _prefix_states(model: PreTrainedModel, prefix: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [1, heads, P, width] of each layer after reading the prefix."""
    if not prefix:
        return []
    cache = DynamicCache()
    model(
        input_ids=torch.tensor([prefix], device=model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    layers: Any = cache.layers  # plain attention layers: these have keys and values
    return [(layer.keys, layer.values) for layer in layers]


def _expanded(states: list[tuple[Tensor, Tensor]], num_items: int) -> Any:
    return DynamicCache([tuple(x.expand(num_items, -1, -1, -1) for x in pair) for pair in states])


def _masked(
    model: PreTrainedModel, tokenizer: Any, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """As `_causal`: choices of equal length share one pass with that many mask tokens."""
    if tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token to score labels at",
            fix="choose a base with [MASK], or a causal LM",
        )
    backbone, weight_VD, bias_V = models.split(model)
    end = []
    if tokenizer.sep_token_id is not None:
        end = [tokenizer.sep_token_id]
    for length in sorted({len(choice) for choice in choices}):
        columns = [c for c, choice in enumerate(choices) if len(choice) == length]
        wanted = torch.tensor([choices[c] for c in columns], device=weight_VD.device)
        rows = [[*prefix, *query, *[tokenizer.mask_token_id] * length, *end] for query in queries]
        for items in batches_by_length([len(row) for row in rows], BATCH_TOKENS):
            batch = pad_right([rows[i] for i in items], tokenizer.pad_token_id or 0, weight_VD.device)
            hidden_BTD = backbone(**batch)
            last_B = batch["attention_mask"].sum(1) - len(end) - length
            place = last_B[:, None] + torch.arange(length, device=last_B.device)
            hidden_BSD = hidden_BTD.gather(1, place[..., None].expand(-1, -1, hidden_BTD.shape[-1]))
            chances = _logits(hidden_BSD, weight_VD, bias_V).log_softmax(-1)
            nats = chances[:, torch.arange(length)[None], wanted].sum(-1)
            yield items, columns, nats, batch["input_ids"].numel()
