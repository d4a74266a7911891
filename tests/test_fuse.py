"""`fuse` on models with peft adapters, and its handle: what it says, undoes and survives. Kernels:
tests/parity/."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from adaptkit_kernels import fuse, launch
from torch import nn

from adaptkit import ops
from adaptkit.errors import ConfigError

peft = pytest.importorskip("peft")

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def base_model() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1))


def adapted(**settings) -> nn.Module:
    """A Llama with adapters on all linear layers, their second factors not zero."""
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": "all-linear", **settings})
    model = peft.get_peft_model(base_model(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.train()


def run(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    tokens = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    torch.manual_seed(seed)
    logits = model(input_ids=tokens).logits
    logits.square().mean().backward()
    return {
        "logits": logits.detach(),
        **{name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
    }


def assert_same(
    ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    assert ours.keys() == plain.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, plain[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_dropout": 0.3}, {"r": 3}], ids=str)
def test_adapters_equal_peft(settings):
    """Dropout draws the same numbers in both, as it is peft's own module that draws them."""
    model = adapted(**settings)
    plain = run(model)
    fused = fuse(model, implementation="chunked")
    assert len(fused.replaced) == 14 and set(fused.replaced.values()) == {"lora_linear"} and not fused.kept
    assert_same(run(model), plain)


def test_merging_after_undo_is_exact():
    model, twin = adapted(), adapted()
    fuse(model, implementation="chunked").undo()
    for ours, plain in zip(
        model.merge_and_unload().parameters(), twin.merge_and_unload().parameters(), strict=True
    ):
        assert torch.equal(ours, plain)


def test_a_merged_or_disabled_adapter_takes_peft_s_own_path():
    model = adapted()
    fuse(model, implementation="chunked")
    adapter = run(model)["logits"]
    tokens = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    with model.disable_adapter(), torch.no_grad():
        plain = model(input_ids=tokens).logits
    assert not torch.allclose(adapter, plain, atol=1e-3)
    torch.testing.assert_close(plain, base_model()(input_ids=tokens).logits)
    model.merge_adapter()
    torch.testing.assert_close(model(input_ids=tokens).logits, adapter, rtol=1e-4, atol=1e-5)


def test_a_new_value_of_the_adapter_is_seen_at_once():
    """Also one that is written past autograd's version counter: nothing is remembered between calls."""
    model = adapted()
    fuse(model, implementation="chunked")
    run(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(2)
    ours = run(model)
    fuse(model, implementation="reference")
    assert_same(ours, run(model))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "variant"),
        ({"lora_bias": True}, "bias"),
        ({"target_modules": ["embed_tokens"]}, "not linear"),
    ],
    ids=["dora", "bias", "embedding"],
)
def test_what_is_no_plain_adapter_is_kept_and_said(settings, reason):
    model = adapted(**settings)
    fused = fuse(model, implementation="chunked")
    assert not fused.replaced and fused.kept and all(reason in why for why in fused.kept.values())


def test_two_active_adapters_are_kept():
    model = adapted()
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "second"])
    plain = run(model)
    fused = fuse(model, implementation="chunked")
    assert not fused.replaced and all("single active" in why for why in fused.kept.values())
    model.base_model.set_adapter("default")
    fuse(model, implementation="chunked")
    model.base_model.set_adapter(["default", "second"])
    assert_same(run(model), plain)


def test_four_bit_base():
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit

    model = base_model_in_four_bits(Linear4bit)
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    ).train()
    plain = run(model)
    fused = fuse(model, implementation="chunked")
    assert len(fused.replaced) == 4
    assert_same(run(model), plain)


def base_model_in_four_bits(linear: type) -> nn.Module:
    """Projections of 64 and 128 inputs in NF4 with scales that are quantised too."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "hidden_size": 64, "intermediate_size": 128}))
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and "lm_head" not in name:
            packed = linear(
                module.in_features,
                module.out_features,
                bias=False,
                quant_type="nf4",
                compress_statistics=True,
                compute_dtype=torch.float32,
            )
            packed.load_state_dict({"weight": module.weight.data})
            packed.support_avx512bf16_for_cpu = False
            model.set_submodule(name, packed.to("cpu"))
    return model


def test_a_second_fuse_changes_nothing_and_a_copy_is_its_own():
    model = adapted()
    first, second = (fuse(model, implementation="chunked").record() for _ in range(2))
    assert first == second
    double = copy.deepcopy(model)
    plain = run(model)
    for module in double.modules():
        if "forward" in module.__dict__:
            assert module.forward.__self__ is module
    with torch.no_grad():
        for parameter in double.parameters():
            parameter.zero_()
    assert_same(run(model), plain)
    fuse(double, implementation="reference")
    assert not any("forward" in module.__dict__ for module in double.modules())
    assert any("forward" in module.__dict__ for module in model.modules())


def test_saving_and_loading(tmp_path):
    model = adapted()
    keys = list(model.state_dict())
    fuse(model, implementation="chunked")
    assert list(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(base_model(), tmp_path)
    tokens = torch.arange(6).unsqueeze(0)
    torch.testing.assert_close(
        model.eval()(input_ids=tokens).logits, again.eval()(input_ids=tokens).logits, rtol=1e-4, atol=1e-5
    )


def test_the_record_is_plain_data():
    fused = fuse(adapted(use_dora=True, target_modules=["q_proj"]), implementation="chunked")
    record = json.loads(json.dumps(fused.record()))
    assert record["implementation"] == "chunked" and record["replaced"] == {} and len(record["kept"]) == 2


def test_implementations():
    model = adapted()
    assert fuse(model).implementation == "chunked"
    assert not fuse(model, implementation="reference").replaced
    with pytest.raises(ValueError, match="choose one of"):
        fuse(model, implementation="fsued")


@pytest.mark.skipif(launch.fused_available("cpu"), reason="the interpreter runs kernels on a CPU")
def test_kernels_that_cannot_run_are_refused():
    with pytest.raises(ValueError, match="Triton and a GPU"):
        fuse(base_model(), implementation="fused")
    with pytest.raises(ConfigError, match="fused"):
        ops.fuse(base_model(), "fused")


def test_the_door_resolves_the_name_first():
    model = adapted()
    assert ops.fuse(model).record()["replaced"].keys() == {"lora_linear"}
    assert not ops.fuse(model, "reference").replaced


def apply_rotary_halves(q, k, cos, sin):
    return q * cos.unsqueeze(1), k * sin.unsqueeze(1)


class OddAttention(nn.Module):
    """Calls a function that is named like a rotation and is none."""

    def forward(self, q, k, cos, sin):
        return apply_rotary_halves(q, k, cos, sin)


def test_a_rotation_is_tried_before_it_is_replaced_and_only_for_the_instance():
    from adaptkit_kernels.rotary import rotating_forward
    from adaptkit_kernels.structure import Kept
    from transformers.models.llama import modeling_llama

    with pytest.raises(Kept, match="rotates in another way"):
        rotating_forward(OddAttention())
    assert rotating_forward(nn.Linear(2, 2)) is None
    attention = base_model().model.layers[0].self_attn
    before = modeling_llama.apply_rotary_pos_emb
    found = rotating_forward(attention)
    assert found is not None and modeling_llama.apply_rotary_pos_emb is before
    assert (
        "forward" not in attention.__dict__
        and type(attention).forward is modeling_llama.LlamaAttention.forward
    )
