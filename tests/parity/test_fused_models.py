"""Whole models of transformers after `fuse`: logits and every gradient equal the plain model's, and undo
gives it back."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from adaptkit_kernels import fuse
from torch import Tensor, nn

pytestmark = pytest.mark.interpreted

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SHARED = {"num_key_value_heads": 1, "head_dim": 12}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, **SHARED))


def qwen3() -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **SHARED))


def gpt_neox() -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))


def bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**SIZES))


def modernbert() -> nn.Module:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    return ModernBertForMaskedLM(ModernBertConfig(**SIZES, **TOKENS, global_attn_every_n_layers=2))


def gemma2() -> nn.Module:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**SIZES, **SHARED))


FOUND = {
    llama: {"rms_norm": 5, "add_norm": 2, "gated": 2, "rope": 2},
    qwen3: {"rms_norm": 9, "add_norm": 2, "gated": 2, "rope": 2},
    gpt_neox: {"layer_norm": 5, "rope": 2},
    bert: {"layer_norm": 6, "add_norm": 4},
    modernbert: {"layer_norm": 6, "add_norm": 1, "gated": 2, "rope": 2},
    gemma2: {"rms_norm": 9, "gated": 2, "rope": 2},
}
"""What `fuse` finds: queries and keys of Qwen3 have norms; Gemma adds one to the weights and normalises
branches, not sums."""

models = pytest.mark.parametrize("build", FOUND, ids=lambda build: build.__name__)


def randomised(build, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model whose scales and biases are no ones and zeros."""
    torch.manual_seed(0)
    model = build().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def run(model: nn.Module, autocast: bool = False) -> dict[str, Tensor]:
    """Logits of two rows of seven tokens, and the gradient of every parameter."""
    tokens = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        logits = model(input_ids=tokens).logits
    logits.float().square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients}


def assert_as_close(
    plain: dict[str, Tensor],
    ours: dict[str, Tensor],
    truth: dict[str, Tensor],
    eps: float = 1e-5,
    times: int = 2,
) -> None:
    assert plain.keys() == ours.keys()
    for name, value in ours.items():
        error, allowed = ((x[name].double() - truth[name].double()).norm() for x in (ours, plain))
        assert value.dtype == plain[name].dtype
        assert error <= times * allowed + eps * truth[name].double().norm() + 1e-7, (
            f"{name}: {error} against {allowed}"
        )


@models
def test_logits_and_gradients(build):
    model = randomised(build)
    plain, truth = run(model), run(copy.deepcopy(model).double())
    fused = fuse(model, implementation="fused")
    assert {kind: len(names) for kind, names in fused.record()["replaced"].items()} == FOUND[
        build
    ] and not fused.kept
    assert_as_close(plain, run(model), truth)


@models
@pytest.mark.parametrize("autocast", [False, True], ids=["bf16", "autocast"])
def test_in_bfloat16(build, autocast):
    """Pure bf16 weights, and float32 weights under autocast; the truth is the same weights in float64. Three
    times the plain error: that of a norm of 12 elements is few roundings (2.7 times on an H200)."""
    model = randomised(build, torch.float32 if autocast else torch.bfloat16)
    plain, truth = run(model, autocast), run(copy.deepcopy(model).double())
    fuse(model, implementation="fused")
    assert_as_close(plain, run(model, autocast), truth, eps=4e-3, times=3)


@models
def test_undo_gives_the_same_bits_and_no_trace(build):
    model = randomised(build)
    before, keys = run(model), list(model.state_dict())
    names = {name: set(module.__dict__) for name, module in model.named_modules()}
    fused = fuse(model, implementation="fused")
    assert list(model.state_dict()) == keys
    fused.undo()
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == names
    after = run(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("build", [llama, bert], ids=["llama", "bert"])
def test_gradient_checkpointing(build):
    model = randomised(build)
    plain = run(model)
    fuse(model, implementation="fused")
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, value in run(model).items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [llama, bert], ids=["llama", "bert"])
def test_a_compiled_model(build):
    model = randomised(build)
    plain = run(model)
    fuse(model, implementation="fused")
    compiled = torch.compile(model, backend="aot_eager")
    for name, value in run(compiled).items():
        torch.testing.assert_close(value, plain[name.removeprefix("_orig_mod.")], rtol=1e-4, atol=1e-5)


def test_one_layer_compiles_as_one_graph():
    model = randomised(llama)
    fuse(model, implementation="fused")
    layer, x = model.model.layers[0], torch.randn(1, 5, 24)
    angles = model.model.rotary_emb(x, torch.arange(5).unsqueeze(0))
    compiled = torch.compile(partial(layer, position_embeddings=angles), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x, position_embeddings=angles))


def test_hooks_on_a_norm_still_fire():
    model = randomised(llama)
    plain = run(model)["logits"]
    fuse(model, implementation="fused")
    seen = []
    for layer in model.model.layers:
        layer.post_attention_layernorm.register_forward_hook(lambda module, args, out: seen.append(out))
    torch.testing.assert_close(run(model)["logits"], plain, rtol=1e-4, atol=1e-5)
    assert len(seen) == 2


def test_generation_with_a_cache():
    model = randomised(llama)
    prompt = torch.randint(3, 50, (1, 5), generator=torch.Generator().manual_seed(0))
    greedy = {"max_new_tokens": 4, "do_sample": False}
    plain = model.generate(prompt, **greedy)
    fuse(model, implementation="fused")
    assert torch.equal(model.generate(prompt, **greedy), plain)


def test_hidden_states_can_still_be_asked_for():
    model = randomised(llama)
    tokens = torch.randint(3, 50, (1, 5), generator=torch.Generator().manual_seed(0))
    plain = model(input_ids=tokens, output_hidden_states=True).hidden_states
    fuse(model, implementation="fused")
    for ours, before in zip(
        model(input_ids=tokens, output_hidden_states=True).hidden_states, plain, strict=True
    ):
        torch.testing.assert_close(ours, before, rtol=1e-4, atol=1e-5)


def test_an_odd_model_keeps_its_own_forwards():
    class Doubled(nn.Module):
        """An RMSNorm's parts, twice its result."""

        def __init__(self):
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x):
            return 2 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    class Halved(nn.Module):
        def __init__(self, act_fn):
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj, self.act_fn = (
                nn.Linear(8, 8),
                nn.Linear(8, 8),
                nn.Linear(8, 8),
                act_fn,
            )

        def forward(self, x):
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) / 2)

    class Replaced(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) + 1

    model = nn.ModuleDict(
        {
            "doubled": Doubled(),
            "halved": Halved(nn.SiLU()),
            "relu": Halved(nn.ReLU()),
            "own": Replaced(8),
            "plane": nn.LayerNorm((4, 8)),
            "wide": nn.LayerNorm(9000),
            "taken": nn.LayerNorm(8),
            "good": nn.LayerNorm(8),
        }
    )
    model["taken"].forward = lambda x: x
    fused = fuse(model, implementation="fused")
    assert fused.replaced == {"good": "layer_norm"}
    assert fused.kept.keys() == {"doubled", "halved", "relu", "own", "plane", "wide", "taken"}
    assert (
        "no RMSNorm" in fused.kept["doubled"]
        and "another way" in fused.kept["halved"]
        and "8192" in fused.kept["wide"]
    )


def test_probing_leaves_the_random_state_and_the_weights_alone():
    model = randomised(qwen3)
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    fuse(model, implementation="fused")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
