"""Adapters: what trains, exact merge, reload, ties, and no local path in what is saved."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BitsAndBytesConfig,
    GPTNeoXConfig,
    LlamaConfig,
    ModernBertConfig,
    Qwen3Config,
)

from adaptkit import adapters
from adaptkit.adapters import AdapterConfig, attach, keep_nf4_exact, merge, save_adapter
from adaptkit.errors import ModelError

VOCAB, IDS = 97, torch.arange(3, 27).reshape(2, 12)
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
KINDS = ["lora", "rslora", "dora", "qlora"]
FAMILIES = {
    "llama": (
        AutoModelForCausalLM,
        lambda: LlamaConfig(**SIZES, **TOKENS, num_key_value_heads=2, tie_word_embeddings=True),
    ),
    "llama-untied": (AutoModelForCausalLM, lambda: LlamaConfig(**SIZES, **TOKENS, tie_word_embeddings=False)),
    "qwen3": (
        AutoModelForCausalLM,
        lambda: Qwen3Config(**SIZES, **TOKENS, head_dim=16, num_key_value_heads=2),
    ),
    "neox": (AutoModelForCausalLM, lambda: GPTNeoXConfig(**SIZES, **TOKENS)),
    "bert": (AutoModelForMaskedLM, lambda: BertConfig(**SIZES, pad_token_id=0)),
    "modernbert": (
        AutoModelForMaskedLM,
        lambda: ModernBertConfig(**SIZES, **TOKENS, cls_token_id=1, sep_token_id=2),
    ),
    "llama-classes": (
        AutoModelForSequenceClassification,
        lambda: LlamaConfig(**SIZES, **TOKENS, num_labels=3),
    ),
    "bert-classes": (
        AutoModelForSequenceClassification,
        lambda: BertConfig(**SIZES, pad_token_id=0, num_labels=3),
    ),
    "modernbert-classes": (
        AutoModelForSequenceClassification,
        lambda: ModernBertConfig(**SIZES, **TOKENS, cls_token_id=1, sep_token_id=2, num_labels=3),
    ),
}


@pytest.fixture
def make(tmp_path):
    """make(family, kind) -> (a base loaded from a folder as `kind` needs it, that folder, its auto class)."""

    def build(family: str, kind: str):
        auto, config = FAMILIES[family]
        torch.manual_seed(0)
        folder = tmp_path / family
        auto.from_config(config()).save_pretrained(folder)
        return _load(auto, folder, kind), folder, auto

    return build


def _load(auto, folder, kind):
    if kind != "qlora":
        return auto.from_pretrained(folder, dtype=torch.float32).eval()
    skip = ["lm_head", "embed_out", "score", "classifier", "head", "bert.pooler", "decoder"]
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=skip,
    )
    model = auto.from_pretrained(
        folder, dtype=torch.float32, quantization_config=four_bit, device_map="cpu"
    ).eval()
    keep_nf4_exact(model)
    return model


def _logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def _step(model) -> None:
    """Move every trainable weight, so that an adapter that were left out would show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_merged_and_reloaded_equal_the_adapter_model(make, tmp_path, family, kind):
    base, folder, auto = make(family, kind)
    untrained = _logits(base)
    model = attach(base, AdapterConfig(kind=kind, rank=4, alpha=8.0), seed=0)
    _step(model)
    expected = _logits(model)
    assert (expected - untrained).abs().max() > 1e-2
    save_adapter(model, tmp_path / "adapter", base=str(folder))
    reloaded = PeftModel.from_pretrained(_load(auto, folder, kind), tmp_path / "adapter")
    assert torch.equal(_logits(reloaded), expected)

    merged = merge(model)
    assert not isinstance(merged, PeftModel) and not any(
        "lora" in name for name, _ in merged.named_parameters()
    )
    assert (_logits(merged) - expected).abs().max() <= 1e-5
    merged.save_pretrained(tmp_path / "merged")
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    again = auto.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert (_logits(again) - expected).abs().max() <= 1e-5
    assert torch.equal(_logits(again).argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_all_matrices_but_the_head_get_an_update_and_a_class_head_trains_whole(make, family, kind):
    base, _, _ = make(family, kind)
    heads = {"score", "classifier", "lm_head", "embed_out", "decoder", "pooler", "head"}
    linear = {
        name
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear)
        and (family == "modernbert" or not heads & set(name.split(".")))
    } - {"decoder"}
    model = attach(base, AdapterConfig(kind=kind, rank=4), seed=0)
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in model.named_modules()
        if name.endswith("lora_A.default")
    }
    assert adapted == linear
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    others = {name for name in trained if "lora_" not in name}
    assert all("modules_to_save.default" in name for name in others)
    if family.endswith("classes"):
        assert any(".score." in n or ".classifier." in n for n in others)
        assert any(".pooler." in n for n in others) == (family == "bert-classes")
    else:
        assert not others


def test_none_trains_everything_and_merges_to_itself(make):
    base, _, _ = make("llama", "none")
    base.requires_grad_(False)
    model = attach(base, AdapterConfig(), seed=0)
    assert all(p.requires_grad for p in model.parameters()) and merge(model) is base


def test_seed_decides_the_initial_weights_and_leaves_the_global_state(make):
    def first(seed):
        base, _, _ = make("llama", "lora")
        before = torch.get_rng_state()
        model = attach(base, AdapterConfig(kind="lora", rank=4), seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))


@pytest.mark.parametrize("family", ["llama", "llama-untied", "neox"])
def test_new_tokens_train_are_saved_and_keep_ties(make, tmp_path, family):
    base, _, auto = make(family, "lora")
    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    base.resize_token_embeddings(VOCAB + 3, mean_resizing=False)
    base.save_pretrained(tmp_path / "grown")
    model = attach(base, AdapterConfig(kind="lora", rank=4), seed=0, new_tokens=[VOCAB, VOCAB + 1, VOCAB + 2])
    before = model.get_input_embeddings()(torch.tensor([5, VOCAB])).detach().clone()
    _step(model)
    after = model.get_input_embeddings()(torch.tensor([5, VOCAB])).detach()
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    expected = _logits(model)
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "grown"))
    again = PeftModel.from_pretrained(
        auto.from_pretrained(tmp_path / "grown", dtype=torch.float32), tmp_path / "adapter"
    )
    assert torch.equal(_logits(again), expected)
    merged = merge(model)
    assert (_logits(merged) - expected).abs().max() <= 1e-5
    merged.save_pretrained(tmp_path / "merged")
    loaded = auto.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert (_logits(loaded) - expected).abs().max() <= 1e-5
    assert (loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight) == tied


def test_what_is_saved_names_the_base_but_no_local_path(make, tmp_path):
    base, folder, _ = make("llama", "lora")
    model = attach(base, AdapterConfig(kind="lora", rank=4), seed=0)
    save_adapter(model, tmp_path / "adapter", base=str(folder))
    texts = [p.read_text() for p in (tmp_path / "adapter").iterdir() if p.suffix in (".json", ".md")]
    assert len(texts) == 2 and not any(
        str(tmp_path) in text or "More Information Needed" in text for text in texts
    )
    assert all("llama@sha256:" in text for text in texts)
    save_adapter(
        attach(make("llama", "qlora")[0], AdapterConfig(kind="qlora"), seed=0),
        tmp_path / "q",
        base=str(folder),
    )
    assert "4-bit NF4" in (tmp_path / "q" / "README.md").read_text()
    assert adapters.base_name("org/model") == "org/model"


@pytest.mark.parametrize("family", ["bert-classes", "modernbert-classes"])
def test_a_head_that_was_quantised_with_its_base_trains_whole_and_merges(make, family):
    _, folder, auto = make(family, "lora")
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    base = auto.from_pretrained(folder, dtype=torch.float32, quantization_config=four_bit, device_map="cpu")
    model = attach(base, AdapterConfig(kind="qlora", rank=4), seed=0)
    _step(model)
    expected = _logits(model)
    assert any(
        "dense.weight" in name
        for name, p in model.named_parameters()
        if p.requires_grad and "lora" not in name
    )
    assert (_logits(merge(model)) - expected).abs().max() <= 1e-5


def test_lora_on_a_plain_base_needs_no_bitsandbytes(make, monkeypatch):
    base, _, _ = make("llama", "lora")
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)  # importing it fails
    attached = attach(base, AdapterConfig(kind="lora", rank=2), seed=0)
    assert any(weight.requires_grad for weight in attached.parameters())


def test_refusals_say_what_to_do(make):
    base, _, _ = make("llama", "lora")
    with pytest.raises(ModelError, match="did you mean 'q_proj'"):
        attach(base, AdapterConfig(kind="lora", targets=["q_prj"]), seed=0)
    with pytest.raises(ModelError, match="NF4"):
        attach(base, AdapterConfig(kind="qlora"), seed=0)
    with pytest.raises(ModelError, match="quantised"):
        attach(make("llama", "qlora")[0], AdapterConfig(kind="lora"), seed=0)
    model = attach(base, AdapterConfig(kind="lora", targets=["q_proj"]), seed=0)
    assert {n.split(".")[-4] for n, _ in model.named_parameters() if "lora_A" in n and "default" in n} == {
        "q_proj"
    }
