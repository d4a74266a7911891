"""Attention for packed rows: whichever route it takes, each document comes out as if it were alone. Home of
models.packed and models.separation."""

from __future__ import annotations

import pytest
import torch
import transformers

from adaptkit import models
from adaptkit.models import packed
from adaptkit.models.separation import separation, takes_padding_as_documents
from adaptkit.trainer.device import send
from adaptkit.trainer.objective import BOUNDS, ROWS, WHOLE, CausalLM, Classification, MaskedLM, shifted

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
LONG, SHORT = [0, 150, 400, 512, 600, 1024], [0, 3, 4, 9, 14, 16, 20, 32]


def model_of(kind: str) -> torch.nn.Module:
    if kind == "llama":
        config = transformers.LlamaConfig(**SHAPE, num_key_value_heads=2)
    elif kind == "mistral":  # causal with a sliding window
        config = transformers.MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8)
    elif kind == "bert":
        config = transformers.BertConfig(**SHAPE, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    else:  # every second layer sees 4 tokens to each side
        special = {
            "pad_token_id": 0,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        config = transformers.ModernBertConfig(
            **SHAPE, **special, local_attention=8, global_attn_every_n_layers=2
        )
    model = models.build(config, "masked" if "bert" in kind else "causal", seed=0)
    for weight in model.parameters():
        weight.data.mul_(3.0)  # random models hardly attend: make leaks visible
    return model


def batch_of(bounds: list[int], rows: int) -> dict[str, torch.Tensor]:
    total = bounds[-1]
    ids = torch.randint(3, 96, (total,), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(b - a) for a, b in zip(bounds, bounds[1:], strict=False)])
    labels = ids.masked_fill(positions == 0, -100)
    return {
        name: x.view(rows, -1)
        for name, x in (("input_ids", ids), ("position_ids", positions), ("labels", labels))
    }


@pytest.mark.parametrize("bounds", [LONG, SHORT], ids=["by document", "under a mask"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "bert", "modernbert"])
def test_loss_and_gradients_equal_those_of_documents_alone(kind, bounds):
    model, batch = model_of(kind), batch_of(bounds, 2)
    objective = MaskedLM() if "bert" in kind else CausalLM()
    assert packed._calls_pay(torch.tensor(bounds), 2, bounds[-1] // 2) == (bounds is LONG)
    alone = torch.zeros(())
    for a, b in zip(bounds, bounds[1:], strict=False):
        document = {name: x.flatten()[None, a:b] for name, x in batch.items()}
        alone = (
            alone + objective.loss(model, {k: v for k, v in document.items() if k != "position_ids"}).total
        )
    expected = torch.autograd.grad(alone, list(model.parameters()), allow_unused=True)
    assert packed.use(model)
    together = objective.loss(model, objective.prepare(batch)).total
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(together, list(model.parameters()), allow_unused=True), expected, strict=True
    ):
        if theirs is not None:
            assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-4


def test_a_short_window_is_kept_and_without_our_attention_gives_rows_of_one_document(monkeypatch):
    assert separation(model_of("modernbert"), "masked", 32) == "positions"
    monkeypatch.setattr(packed, "use", lambda model: False)
    assert (
        separation(model_of("modernbert"), "masked", 32) == "rows"
    )  # transformers' 4-D mask switches the window off
    assert separation(model_of("bert"), "masked", 32) == "mask"


def test_empty_documents_change_no_mask():
    bounds = torch.tensor(SHORT, dtype=torch.int32)
    padded = torch.cat([bounds, bounds[-1:].expand(9)])
    for causal, window in ((True, None), (False, None), (True, 3), (False, 2)):
        masks = [packed.block_mask(b, 2, 16, causal=causal, window=window) for b in (bounds, padded)]
        assert torch.equal(*masks) and not masks[0].all() and masks[0].diagonal(dim1=2, dim2=3).all()


def test_padded_batches_and_saved_folders_know_nothing_of_it(tmp_path):
    model = model_of("llama").eval()
    ids, mask = torch.randint(3, 96, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, 6:] = 0
    before = model(input_ids=ids, attention_mask=mask).logits
    packed.use(model)
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)
    model.save_pretrained(tmp_path)
    assert packed.NAME not in (tmp_path / "config.json").read_text()
    packed.leave(model)
    assert not packed.in_use(model)


@pytest.mark.parametrize("objective", [CausalLM(), MaskedLM()])
def test_rows_put_in_another_order_keep_their_labels(objective, monkeypatch):
    """The head reads exactly the labelled tokens, wherever whole rows were moved to."""
    batch = batch_of([0, 50, 128, 256, 300, 384, 512], 4)
    drawn = torch.rand(batch["labels"].shape, generator=torch.Generator().manual_seed(2)) < 0.15
    batch["labels"] = batch["labels"].masked_fill(~drawn, -100)
    monkeypatch.setattr(packed, "cudnn_is_faster", lambda: True)
    there = objective.prepare(batch)
    assert there["input_ids"][0].equal(batch["input_ids"][1]) and there[WHOLE] == 2
    labels = there["labels"] if isinstance(objective, MaskedLM) else shifted(there["labels"])
    assert there[ROWS].equal((labels.flatten() != -100).nonzero().flatten())


def classifier_of(kind: str) -> torch.nn.Module:
    """A tiny random classifier of an architecture."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind)
    small = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"vocab_size": 96, "pad_token_id": 0, "num_labels": 3, "num_key_value_heads": 4}
    small |= {"sliding_window": 6, "classifier_dropout": 0.0, "state_size": 4, "local_attention": 6}
    for name, value in small.items():
        if hasattr(config, name):
            setattr(config, name, value)
    config.num_labels = 3
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():
        weight.data.mul_(3.0)
    return model.eval()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gpt2", "bert", "roberta", "distilbert"])
def test_padding_may_be_a_document_of_its_own(kind):
    """Loss and gradients are those under a mask, in architectures of both directions."""
    model = classifier_of(kind)
    rows = torch.randint(3, 96, (4, 20), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(20) < torch.tensor([[20], [7], [1], [13]])).long()
    batch = {"input_ids": rows * mask, "attention_mask": mask, "labels": torch.tensor([0, 2, 1, 1])}
    results = []
    assert takes_padding_as_documents(model, 20) and packed.in_use(model)
    for by_bounds in (False, True):
        objective = Classification(by_bounds=by_bounds)
        assert objective.repeatable is by_bounds
        prepared = objective.prepare(batch)
        assert (BOUNDS in prepared) is by_bounds
        loss = objective.loss(model, prepared).total
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        results.append([loss, *torch.autograd.grad(loss, weights, allow_unused=True)])
    for masked, bounded in zip(*results, strict=True):
        if masked is not None:
            torch.testing.assert_close(bounded, masked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert"])
def test_models_that_need_the_mask_keep_it(kind):
    """An attention of its own, and a head that averages what the mask lets through."""
    model = classifier_of(kind)
    if kind == "modernbert":
        model.config.classifier_pooling = "mean"
    before = getattr(model.config, "_attn_implementation", None)
    assert not takes_padding_as_documents(model, 20)
    assert getattr(model.config, "_attn_implementation", None) == before


def test_padding_on_the_left_has_no_bounds():
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert packed.padding_bounds(mask) is None
    assert packed.padding_bounds(mask.flip(1)).tolist() == [0, 2, 3, 6]
    assert BOUNDS not in Classification(by_bounds=True).prepare({"input_ids": mask, "attention_mask": mask})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["llama", "mistral", "bert", "modernbert"])
def test_flash_attention_agrees_with_the_mask(kind):
    model, batch = model_of(kind).cuda(), {name: x.cuda() for name, x in batch_of(LONG, 2).items()}
    objective = MaskedLM() if "bert" in kind else CausalLM()
    packed.use(model)
    exact = objective.loss(model, batch).total
    half = objective.loss(model.bfloat16(), batch).total
    assert half.item() == pytest.approx(exact.item(), rel=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_rows_of_one_document_are_as_right_as_the_way_over_bounds(kind, monkeypatch):
    """Four whole rows of 128 go to cuDNN, the other four over their bounds; llama has fewer key heads. In
    bf16 the gradients are no further from those of float32 than the way over bounds leaves them."""
    bounds = [0, 128, 256, 300, 384, 512, 640, 700, 701, 768, 800, 896, 960, 1024]
    model, batch = model_of(kind).cuda(), batch_of(bounds, 8)
    objective = MaskedLM() if "bert" in kind else CausalLM()
    packed.use(model)
    results, seen = [], []
    cudnn = packed._cudnn
    monkeypatch.setattr(packed, "_cudnn", lambda *args: (seen.append(len(args[0])), cudnn(*args))[1])
    for dtype, whole in ((torch.float32, 0), (torch.bfloat16, 4), (torch.bfloat16, 0)):
        monkeypatch.setattr(packed, "cudnn_is_faster", lambda whole=whole: whole > 0)
        model.to(dtype)  # bf16 weights are rounded once, from the float32 ones
        there = send(objective.prepare(batch), torch.device("cuda"))
        assert there[WHOLE] == whole
        loss = objective.loss(model, there).total
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        results.append([loss, *gradients])
    assert seen == [4, 4]
    for exact, ours, usual in zip(*results, strict=True):
        if exact is not None:
            error, allowed = ((other.float() - exact).norm() for other in (ours, usual))
            assert error <= 1.5 * allowed + 1e-3 * exact.norm() + 2e-3
