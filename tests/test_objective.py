"""Objectives: k microbatches of b equal one batch of k * b, sums are sums, and the head's shortcut is the
model's own loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_training import Rows, bert, llama, losses, settings, task, train

from adaptkit.errors import ConfigError
from adaptkit.run import Run
from adaptkit.trainer.objective import CausalLM, LossOutput, MaskedLM
from adaptkit.trainer.row_source import deal
from adaptkit.trainer.trainer import Trainer

TASKS = ["pretrain", "lora", "masked", "classify"]


def gradients(name: str, microbatch_size: int) -> dict[str, torch.Tensor]:
    """Mean-loss gradients of one batch of 8 ragged rows, the way the trainer accumulates them."""
    model, objective, rows = task(name)
    groups = [list(range(8))[i : i + microbatch_size] for i in range(0, 8, microbatch_size)]
    batches = [rows.collate(group, seed=0, epoch=0) for group in groups]
    items = sum(float(objective.items(batch)) for batch in batches)
    for batch in batches:
        (objective.loss(model, batch).total / items).backward()
    return {key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", TASKS)
def test_eight_microbatches_equal_one_batch(name):
    whole, split = gradients(name, 8), gradients(name, 1)
    assert whole.keys() == split.keys()
    error = sum((whole[key] - split[key]).square().sum() for key in whole).sqrt()
    assert error / sum(whole[key].square().sum() for key in whole).sqrt() < 1e-6


@pytest.mark.parametrize("name", TASKS)
def test_training_with_microbatches_equals_training_without(name, tmp_path):
    train(tmp_path / "whole", name, num_steps=3)
    train(tmp_path / "split", name, num_steps=3, microbatch_size=1)
    assert losses(tmp_path / "split") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)


def test_microbatches_hold_like_lengths(tmp_path):
    class Recorded(Rows):
        def collate(self, indices, *, seed, epoch):
            seen.append([self.length(i) for i in indices])
            return super().collate(indices, seed=seed, epoch=epoch)

    seen: list[list[int]] = []
    model, objective, _ = task("classify")
    config = settings(num_steps=3, global_batch_size=8, microbatch_size=2)
    Trainer(model, objective, Recorded("classify"), config, run=Run.open(tmp_path, "r", {})).fit()
    for step in (seen[0:4], seen[4:8], seen[8:12]):
        assert sum(step, []) == sorted(sum(step, []))
    assert len({length for row in seen for length in row}) > 3


@pytest.mark.parametrize("tied", [True, False])
def test_causal_loss_is_the_models_own(tied):
    model, batch = llama(tied=tied), Rows("causal").collate([0, 1, 2], seed=0, epoch=0)
    expected = model(**batch).loss
    objective = CausalLM()
    assert (objective.loss(model, batch).total / objective.items(batch)).item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_masked_loss_is_the_models_own_with_its_bias():
    model, batch = bert(), Rows("masked").collate([0, 1, 2], seed=0, epoch=0)
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    objective = MaskedLM()
    expected = model(**batch).loss
    assert (objective.loss(model, batch).total / objective.items(batch)).item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_every_implementation_gives_the_same_loss():
    model, batch = llama(), Rows("causal").collate([0, 1, 2], seed=0, epoch=0)
    by_name = [CausalLM(name).loss(model, batch).total.item() for name in ("chunked", "reference")]
    assert by_name[0] == pytest.approx(by_name[1], rel=1e-6)


def test_packed_documents_have_the_loss_and_gradients_of_separate_ones():
    """Positions restart, no attention mask: nothing crosses a document's border."""
    rows, model, objective = Rows("causal").rows[:4], llama(), CausalLM()
    total = sum(
        objective.loss(model, {"input_ids": (x := torch.tensor([row])), "labels": x}).total for row in rows
    )
    total.backward()
    separate = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    packed = torch.tensor([[token for row in rows for token in row]])
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    labels = packed.masked_fill(positions == 0, -100)
    together = objective.loss(model, {"input_ids": packed, "labels": labels, "position_ids": positions})
    together.total.backward()
    assert together.total.item() == pytest.approx(total.item(), rel=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, separate[name], rtol=1e-5, atol=1e-5)


class Contrast:
    """In-batch negatives in two lines: rows against each other, so a batch is more than its parts."""

    separable = False

    def prepare(self, batch):
        return batch

    def items(self, batch):
        return torch.tensor(len(batch["input_ids"]))

    def loss(self, model, batch):
        pooled = model.model(batch["input_ids"]).last_hidden_state.mean(1)
        return LossOutput(F.cross_entropy(pooled @ pooled.T, torch.arange(len(pooled)), reduction="sum"))


class CachedContrast(Contrast):
    def features(self, model, batch):
        pooled = model.model(batch["input_ids"]).last_hidden_state.mean(1)
        return pooled, torch.zeros(len(pooled), dtype=torch.int64)

    def contrast(self, features, about, own):
        return LossOutput(
            F.cross_entropy((features @ features.T)[own], torch.arange(len(features))[own], reduction="sum")
        )


def contrast(objective, folder, **changes):
    rows = Rows("causal")
    rows.rows = [row[:5] for row in rows.rows]
    Trainer(llama(), objective, rows, settings(num_steps=2, **changes), run=Run(folder)).fit()
    return losses(folder)


def test_an_objective_that_is_not_separable_is_never_split_silently(tmp_path):
    contrast(Contrast(), tmp_path / "one")
    with pytest.raises(ConfigError, match="cannot be split into microbatches"):
        contrast(Contrast(), tmp_path / "split", microbatch_size=2)


def test_a_loss_that_is_a_function_of_features_may_be_split(tmp_path):
    whole = contrast(Contrast(), tmp_path / "one")
    split = contrast(CachedContrast(), tmp_path / "split", microbatch_size=2)
    assert split == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("total", "size", "world_size"), [(8, 2, 2), (8, 3, 2), (12, 4, 3), (6, 6, 1), (6, 1, 2)]
)
def test_ranks_are_dealt_every_example_once_in_rounds_of_equal_size(total, size, world_size):
    shares = [deal(list(range(total)), size, rank, world_size) for rank in range(world_size)]
    assert sorted(index for share in shares for group in share for index in group) == list(range(total))
    assert len({tuple(len(group) for group in share) for share in shares}) == 1
    assert all(
        max(a[-1] for a in groups) - min(a[0] for a in groups) < world_size * size
        for groups in zip(*shares, strict=True)
    )
