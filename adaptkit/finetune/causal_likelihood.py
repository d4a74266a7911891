"""Ask a causal model for the likelihood of each of a few continuations of many texts.

The cheap way reads the prefix (the shots) once for all items, and all choices of an item in one pass: after
the query stand the choices' tokens side by side, and a mask lets each choice see the prefix, its query and
itself only. Not every architecture can be read like that: a recurrent state runs on from one choice into the
next, and biases by distance (ALiBi) count places in the row. So the cheap way is first tried on two of the
items themselves against plain forward passes, and where it gives anything else, all items are read plainly.

Shape letters: B items of a batch, C choices, V tokens of the vocabulary, T query and choice tokens, P prefix
tokens, K tokens that can be seen (P + T), S choice tokens read.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from adaptkit import models
from adaptkit.models.attention_masks import as_attention_takes_it, masks_of_layers
from adaptkit.models.batching import BATCH_TOKENS, batches_by_length, batches_of_one_length
from adaptkit.models.head import logits_at, text_config
from adaptkit.models.separation import rotations_follow_longest, state_runs_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

TokenRows = Sequence[Sequence[int]]
Part = tuple[list[int], list[int], Tensor, int]
"""Items, choices, nats [B, C] of these, and tokens read."""
Way = Callable[["PreTrainedModel", list[int], TokenRows, TokenRows], Iterator[Part]]

COMPARED_CHOICES = 4
"""Choices of the two items that are also read plainly."""
FULL_TOLERANCE, HALF_TOLERANCE = 2e-5, 1e-2
"""How far two ways may differ, relative to the nats where these are above 1, by the precision of weights."""
_said: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def causal_parts(
    model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """Nats of all choices after all queries, a batch at a time, in the cheapest way that is exact."""
    return _exact_way(model, prefix, queries, choices)(model, prefix, queries, choices)


def _exact_way(model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows) -> Way:
    """The first way that gives what single rows give: side by side, padded rows, rows of one length.

    Tried on the longest and the shortest query, so that windows show where they bind.
    """
    by_length = sorted(queries, key=len)
    if not by_length:
        return _side_by_side
    probe = [by_length[-1], by_length[0]]
    longest = len(prefix) + len(by_length[-1]) + max(map(len, choices))
    if rotations_follow_longest(model, longest):
        _say(model, "in rows of one length")
        return _rows_of_one_length
    some = _few(choices)
    expected = _nats(_single_rows, model, prefix, probe, [choices[c] for c in some])
    ways = [_side_by_side, _padded_rows]
    if state_runs_on(model):
        ways = [_padded_rows]
    for way in ways:
        try:
            found = _nats(way, model, prefix, probe, choices)[:, some]
        except torch.OutOfMemoryError:
            raise
        except Exception:  # an architecture may fail anywhere on a mask or cache that it does not expect
            continue
        if _agree(model, found, expected):
            if way is not _side_by_side:
                _say(model, "row by row")
            return way
    _say(model, "in rows of one length")
    return _rows_of_one_length


def _few(choices: TokenRows) -> list[int]:
    """The longest choices, and the last one, which stands farthest from the query."""
    longest = sorted(range(len(choices)), key=lambda c: -len(choices[c]))
    return sorted({*longest[: COMPARED_CHOICES - 1], len(choices) - 1})


def _agree(model: PreTrainedModel, found: Tensor, expected: Tensor) -> bool:
    tolerance = HALF_TOLERANCE
    if next(model.parameters()).dtype in (torch.float32, torch.float64):
        tolerance = FULL_TOLERANCE
    return bool(((found - expected).abs() <= tolerance * expected.abs().clamp(min=1)).all())


def _say(model: PreTrainedModel, how: str) -> None:
    """Once for each model: what its architecture costs."""
    if model in _said:
        return
    _said.add(model)
    name = type(models.unwrap(model)).__name__
    log.warning("%s: choices are scored %s, as this architecture cannot share a prefix exactly", name, how)


def _nats(
    way: Way, model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Tensor:
    """Nats of every choice after every query, float64 [N, C]."""
    nats = torch.empty(len(queries), len(choices), dtype=torch.float64)
    for items, columns, nats_BC, _ in way(model, prefix, queries, choices):
        nats[torch.tensor(items)[:, None], torch.tensor(columns)] = nats_BC.double().cpu()
    return nats


def _single_rows(
    model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """Each row in a pass of its own: what the other ways are measured by."""
    return _rows(
        model, prefix, queries, choices, lambda lengths: [[i] for i in range(len(lengths))], whole=True
    )


def _padded_rows(
    model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """Rows of similar length together; what stands behind a token changes nothing for a causal model."""
    return _rows(model, prefix, queries, choices, lambda lengths: batches_by_length(lengths, BATCH_TOKENS))


def _rows_of_one_length(
    model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """Rows of the same length together, the shortest first.

    Rotations that grew with a long row stay as they are until a short one comes: one token sets them back.
    """

    def batches(lengths: list[int]) -> list[list[int]]:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
        return batches_of_one_length(lengths, BATCH_TOKENS)

    return _rows(model, prefix, queries, choices, batches, whole=True)


def _rows(
    model: PreTrainedModel,
    prefix: list[int],
    queries: TokenRows,
    choices: TokenRows,
    batches: Callable[[list[int]], Iterable[list[int]]],
    *,
    whole: bool = False,
) -> Iterator[Part]:
    """Plain forward passes over prefix, query and choice.

    Choices that only differ in their last token share a pass, unless `whole`: then that token is read too,
    as an architecture may look at a row's length.
    """
    stems: dict[tuple[int, ...], list[int]] = {}
    for c, choice in enumerate(choices):
        stems.setdefault(tuple(choice if whole else choice[:-1]), []).append(c)
    for stem, columns in stems.items():
        rows = [[*prefix, *query, *stem] for query in queries]
        targets_CS = torch.tensor([list(choices[c]) for c in columns], device=model.device)
        steps_S = torch.arange(targets_CS.shape[1], device=model.device) - 1 - len(stem)
        for items in batches([len(row) for row in rows]):
            longest = max(len(rows[i]) for i in items)
            ids_BT = torch.tensor(
                [rows[i] + [0] * (longest - len(rows[i])) for i in items], device=model.device
            )
            lengths_B = torch.tensor([len(rows[i]) for i in items], device=model.device)
            chances_BSV = logits_at(model, {"input_ids": ids_BT}, lengths_B[:, None] + steps_S).log_softmax(
                -1
            )
            nats_BC = chances_BSV[:, torch.arange(len(steps_S)), targets_CS].sum(-1)
            yield items, columns, nats_BC, ids_BT.numel()


def _side_by_side(
    model: PreTrainedModel, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """The prefix once, then all choices of an item behind its query."""
    shared = _prefix_states(model, prefix)
    layout = _Layout(choices, model)
    columns = list(range(len(choices)))
    read = len(prefix)
    for items in batches_by_length([len(query) + layout.num_read for query in queries], BATCH_TOKENS):
        inputs = layout.inputs([queries[i] for i in items], len(prefix))
        if prefix:
            inputs["past_key_values"] = _expanded(shared, len(items))
        rows, length = inputs["input_ids"].shape
        places = torch.arange(length - layout.num_read - 1, length, device=model.device)
        logits_BSV = logits_at(model, inputs, places.expand(rows, -1))
        yield items, columns, layout.nats(logits_BSV), read + rows * length
        read = 0


class _Layout:
    """Where the tokens of all choices stand behind a query, who may see whom, and which logits are read."""

    def __init__(self, choices: TokenRows, model: PreTrainedModel):
        self.model, self.device = model, model.device
        # the last token of a choice is only predicted
        self.read = [token for choice in choices for token in choice[:-1]]
        self.num_read = len(self.read)
        owner = [c for c, choice in enumerate(choices) for _ in choice[:-1]]
        depth = [j for choice in choices for j in range(len(choice) - 1)]
        self.depth_S = torch.tensor(depth, dtype=torch.long, device=self.device)
        owner_S = torch.tensor(owner, dtype=torch.long, device=self.device)
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
            torch.tensor(x, dtype=torch.long, device=self.device) for x in (rows, targets, owners)
        )
        self.num_choices = len(choices)

    def inputs(self, queries: list[Sequence[int]], num_prefix: int) -> dict[str, Any]:
        """Left-padded queries with all choices behind: input_ids and position_ids [B, T], and the masks
        [B, 1, T, K] of the model's layers."""
        longest = max(map(len, queries))
        ids_BT = torch.tensor(
            [[0] * (longest - len(q)) + [*q] + self.read for q in queries],
            dtype=torch.long,
            device=self.device,
        )
        length_B = torch.tensor([len(q) for q in queries], device=self.device)
        pads_B = longest - length_B
        place = torch.arange(longest, device=self.device)
        position_BT = num_prefix + torch.cat(
            [(place[None] - pads_B[:, None]).clamp(min=0), length_B[:, None] + self.depth_S[None]], dim=1
        )
        visible_BTK = self._visible(place[None] >= pads_B[:, None], num_prefix)
        prefix_BP = torch.arange(num_prefix, device=self.device).expand(len(queries), -1)
        position_BK = torch.cat([prefix_BP, position_BT], dim=1)
        masks = masks_of_layers(text_config(self.model), visible_BTK, position_BT, position_BK)
        mask = as_attention_takes_it(self.model, masks)
        return {"input_ids": ids_BT, "position_ids": position_BT, "attention_mask": mask}

    def _visible(self, real_BQ: Tensor, num_prefix: int) -> Tensor:
        """Who may see whom in a layer without a window, bool [B, T, K]; `real_BQ` are the query's tokens."""
        rows, longest = real_BQ.shape
        total = longest + self.num_read
        place = torch.arange(longest, device=self.device)
        mask = torch.zeros(rows, total, num_prefix + total, dtype=torch.bool, device=self.device)
        mask[:, :, :num_prefix] = True
        before_QQ = place[:, None] >= place[None]
        mask[:, :longest, num_prefix : num_prefix + longest] = before_QQ[None] & real_BQ[:, None]
        mask[:, longest:, num_prefix : num_prefix + longest] = real_BQ[:, None]
        mask[:, longest:, num_prefix + longest :] = self.mask_SS
        # a padded row that saw nothing would be NaN in some attention kernels
        mask[:, torch.arange(total), num_prefix + torch.arange(total)] = True
        return mask

    def nats(self, logits_BSV: Tensor) -> Tensor:
        """Logits [B, 1 + S, V] -> [B, C]."""
        chosen = logits_BSV[:, self.rows, self.targets] - logits_BSV.logsumexp(-1)[:, self.rows]
        nats_BC = torch.zeros(len(logits_BSV), self.num_choices, device=logits_BSV.device)
        return nats_BC.index_add_(1, self.owners, chosen)


def _prefix_states(model: PreTrainedModel, prefix: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [1, heads, P, width] of each layer after reading the prefix, windows or not."""
    if not prefix:
        return []
    cache = DynamicCache()  # not of the model's config: its windowed layers would forget what masks count on
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
