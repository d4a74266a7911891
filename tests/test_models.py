"""Model folders of five architectures: found, checked, loaded, taken apart, counted and saved. Home of
models.count, models.folder, models.head and models.store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as token_models

from adaptkit import models
from adaptkit.errors import ModelError

VOCAB = 384
SIZE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZE, **IDS, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(
        **SIZE, **IDS, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZE, **IDS),
    "bert": lambda: transformers.BertConfig(**SIZE, pad_token_id=2, hidden_dropout_prob=0.0),
    "modernbert": lambda: transformers.ModernBertConfig(**SIZE, **IDS, cls_token_id=0, sep_token_id=1),
}
KINDS = {"llama": "causal", "qwen3": "causal", "gpt_neox": "causal", "bert": "masked", "modernbert": "masked"}
ARCHITECTURES = list(CONFIGS)


@pytest.fixture(scope="module")
def tokenizer(tiny_text: list[str]) -> transformers.PreTrainedTokenizerFast:
    core = Tokenizer(token_models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(tiny_text, trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", mask_token="<mask>"
    )


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: transformers.PreTrainedTokenizerFast
) -> dict[str, Path]:
    """One saved folder per architecture."""
    root, saved = tmp_path_factory.mktemp("folders"), {}
    for name, config in CONFIGS.items():
        saved[name] = root / name
        models.save(models.build(config(), KINDS[name], seed=1), tokenizer, saved[name])
    return saved


def inputs(rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(4, VOCAB, (rows, length), generator=torch.Generator().manual_seed(5))


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


# ---- folders
# -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_save_then_load_gives_the_same_model_and_plain_transformers_reads_it(name, folders, tokenizer):
    built, folder = models.build(CONFIGS[name](), KINDS[name], seed=1).eval(), folders[name]
    loaded = models.load(folder, KINDS[name]).eval()
    auto = getattr(
        transformers, {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}[KINDS[name]]
    )
    plain = auto.from_pretrained(folder).eval()
    expected = built(input_ids=inputs()).logits
    assert torch.equal(loaded(input_ids=inputs()).logits, expected)
    assert torch.equal(plain(input_ids=inputs()).logits, expected)
    assert models.model_kind(folder) == KINDS[name] and models.is_causal(folder) == (KINDS[name] == "causal")
    assert loaded.config._attn_implementation == "sdpa"
    text = "the engine reads the dose, caf\u00e9 12"
    again = models.load_tokenizer(folder)
    assert (
        again(text).input_ids == tokenizer(text).input_ids and again.decode(again(text).input_ids[1:]) == text
    )


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox"])
def test_causal_folder_has_generation_ids_and_cache_on_but_training_has_it_off(name, folders):
    generation = json.loads((folders[name] / "generation_config.json").read_text())
    assert {key: generation[key] for key in IDS} == IDS
    assert json.loads((folders[name] / "config.json").read_text()).get("use_cache", True) is True
    assert models.load(folders[name], "causal").config.use_cache is False


def test_tied_weights_stay_tied_and_untied_stay_untied(folders):
    tied, untied = models.load(folders["llama"], "causal"), models.load(folders["qwen3"], "causal")
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


def test_save_replaces_an_older_folder_and_leaves_nothing_beside_it(tmp_path, tokenizer):
    target = tmp_path / "model"
    models.save(models.build(CONFIGS["llama"](), "causal", seed=1), tokenizer, target)
    (target / "stale.txt").write_text("old")
    newer = models.build(CONFIGS["llama"](), "causal", seed=2)
    models.save(newer, tokenizer, target)
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and not (target / "stale.txt").exists()
    assert torch.equal(models.load(target, "causal").lm_head.weight, newer.lm_head.weight)


def test_build_depends_on_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two, other = (models.build(CONFIGS["llama"](), "causal", seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.lm_head.weight, two.lm_head.weight) and not torch.equal(
        one.lm_head.weight, other.lm_head.weight
    )


def test_missing_pad_becomes_eos(tmp_path, tokenizer, folders):
    folder = copy_of(folders["llama"], tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert models.load_tokenizer(folder).pad_token == "</s>"


# ---- classifiers and encoders
# ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_classifier_head_is_new_seeded_and_named(name, folders):
    one, two, other = (
        models.load(folders[name], "classifier", label_names=["no", "maybe", "yes"], seed=s)
        for s in (0, 0, 1)
    )
    assert one.config.id2label == {0: "no", 1: "maybe", 2: "yes"} and one.config.label2id["yes"] == 2
    one, two, other = one.eval(), two.eval(), other.eval()
    ids = inputs()
    assert one(input_ids=ids).logits.shape == (2, 3)
    assert torch.equal(one(input_ids=ids).logits, two(input_ids=ids).logits)
    assert not torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_encoder_gives_hidden_states(name, folders):
    assert models.load(folders[name], "encoder")(input_ids=inputs()).last_hidden_state.shape == (2, 12, 64)


# ---- split -------------------------------------------------------------------------------------------------
# ------------
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_split_reproduces_logits_and_gradients(name, folders):
    model = models.load(folders[name], KINDS[name]).eval()
    backbone, weight, bias = models.split(model)
    hidden = backbone(input_ids=inputs())
    expected = model(input_ids=inputs()).logits
    assert torch.equal(F.linear(hidden, weight, bias), expected)
    assert (
        hidden.shape == (2, 12, 64)
        and weight.shape == (VOCAB, 64)
        and (bias is not None) == (KINDS[name] == "masked")
    )

    expected.square().sum().backward()
    want = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    F.linear(hidden, weight, bias).square().sum().backward()
    for n, p in model.named_parameters():
        torch.testing.assert_close(p.grad, want[n], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_split_through_peft_keeps_the_adapter(name, folders):
    from peft import LoraConfig, get_peft_model

    base = models.load(folders[name], KINDS[name])
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    backbone, weight, bias = models.split(model)
    hidden = backbone(input_ids=inputs())
    assert torch.equal(F.linear(hidden, weight, bias), model(input_ids=inputs()).logits)
    with model.disable_adapter():
        assert not torch.allclose(hidden, backbone(input_ids=inputs()), atol=1e-3)
    hidden.sum().backward()
    assert all(
        p.grad is not None
        for n, p in model.named_parameters()
        if "lora_A" in n and "cls.predictions" not in n
    )


def test_split_with_trained_tokens_uses_their_rows(folders):
    from peft import LoraConfig, get_peft_model

    base = models.load(folders["llama"], "causal")
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[7, 9])
    ).eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "trainable_tokens_delta" in n:
                p.add_(1.0)
    backbone, weight, bias = models.split(model)
    torch.testing.assert_close(
        F.linear(backbone(input_ids=inputs()), weight, bias), model(input_ids=inputs()).logits
    )


def test_split_refuses_an_adapter_on_the_head(folders):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        models.load(folders["qwen3"], "causal"), LoraConfig(r=4, target_modules=["q_proj", "lm_head"])
    )
    with pytest.raises(ModelError, match="output head"):
        models.split(model)


def test_split_through_ddp_synchronises(folders, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        model = torch.nn.parallel.DistributedDataParallel(models.load(folders["llama"], "causal"))
        backbone, weight, bias = models.split(model)
        hidden = backbone(input_ids=inputs())
        assert torch.equal(F.linear(hidden, weight, bias), model.module(input_ids=inputs()).logits)
        F.linear(hidden, weight).sum().backward()
        assert weight.grad is not None
        del (
            model,
            backbone,
            weight,
            bias,
            hidden,
        )  # the last one to hold a process group waits for its threads
    finally:
        torch.distributed.destroy_process_group()


def test_split_under_torch_compile(folders):
    model = models.load(folders["llama"], "causal").eval()
    backbone, weight, _ = models.split(torch.compile(model, backend="eager"))
    hidden = backbone(input_ids=inputs())
    torch.testing.assert_close(F.linear(hidden, weight), model(input_ids=inputs()).logits)


@pytest.mark.parametrize(
    "config",
    [
        transformers.Gemma2Config(
            **SIZE, **IDS, num_key_value_heads=2, head_dim=16, final_logit_softcapping=30.0
        ),
        transformers.GraniteConfig(**SIZE, **IDS, logits_scaling=4.0),
        transformers.CohereConfig(**SIZE, **IDS, logit_scale=0.1),
    ],
    ids=lambda config: config.model_type,
)
def test_logits_changed_after_the_projection_are_refused(config):
    backbone, *_ = models.split(models.build(config, "causal", seed=0))
    with pytest.raises(ModelError, match="scales or caps its logits"):
        backbone(input_ids=inputs())


def test_caps_on_attention_are_kept_though_sdpa_leaves_them_out(tokenizer, tmp_path):
    config = transformers.Gemma2Config(
        **SIZE, **IDS, num_key_value_heads=2, head_dim=16, attn_logit_softcapping=0.02, initializer_range=0.5
    )
    models.save(models.build(config, "causal", seed=0), tokenizer, tmp_path / "capped")

    def logits(attention: str) -> torch.Tensor:
        model = transformers.Gemma2ForCausalLM.from_pretrained(
            tmp_path / "capped", attn_implementation=attention
        )
        return model.eval()(input_ids=inputs()).logits

    ours = models.load(tmp_path / "capped", "causal").eval()(input_ids=inputs()).logits
    torch.testing.assert_close(ours, logits("eager"))
    assert not torch.allclose(ours, logits("sdpa")), "else the caps make no difference here"


def test_a_failing_call_leaves_the_head_as_it_was(folders):
    model = models.load(folders["llama"], "causal").eval()
    before = model(input_ids=inputs()).logits
    with pytest.raises(IndexError):
        models.split(model)[0](input_ids=torch.full((1, 3), VOCAB + 5))
    assert torch.equal(model(input_ids=inputs()).logits, before)


def test_split_of_a_classifier_is_refused(folders):
    with pytest.raises(ModelError, match="no vocabulary projection"):
        models.split(models.load(folders["llama"], "classifier", num_labels=2))


# ---- quantised bases
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_base_is_close_counts_whole_and_is_no_export(quantization, folders, tokenizer, tmp_path):
    plain = models.load(folders["llama"], "causal").eval()
    small = models.load(folders["llama"], "causal", quantization=quantization).eval()
    error = (small(input_ids=inputs()).logits - plain(input_ids=inputs()).logits).std() / plain(
        input_ids=inputs()
    ).logits.std()
    assert 0 < error < 0.3
    assert models.param_count(small).total == models.param_count(plain).total
    assert models.flops_per_token(small, 64).forward == models.flops_per_token(plain, 64).forward
    backbone, weight, _ = models.split(small)
    assert torch.equal(F.linear(backbone(input_ids=inputs()), weight), small(input_ids=inputs()).logits)
    with pytest.raises(ModelError, match="no export format"):
        models.save(small, tokenizer, tmp_path / "no")


# ---- counts
# ------------------------------------------------------------------------------------------------------------
def test_counts_of_a_llama_by_hand():
    model = models.build(CONFIGS["llama"](), "causal", seed=0)
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96
    count = models.param_count(model)
    assert count.total == 2 * (layer + 2 * 64) + 64 + VOCAB * 64 == count.trainable
    assert count.non_embedding == count.total - VOCAB * 64
    flops = models.flops_per_token(model, 128)
    forward = 2 * (2 * layer + VOCAB * 64) + 4 * 2 * 64 * 128
    assert flops.forward == forward and flops.train == 3 * forward


def test_frozen_base_costs_two_forwards_plus_adapters(folders):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        models.load(folders["qwen3"], "causal"), LoraConfig(r=4, target_modules="all-linear")
    )
    flops, trained = models.flops_per_token(model, 128), models.param_count(model).trainable
    attention = 4 * 2 * 64 * 128  # both of its factors need gradients, so its backward costs two forwards
    first = 2 * 64 * 64  # nothing below the first adapter trains, so its projection passes no gradient down
    assert flops.train / (2 * flops.forward + attention + 2 * trained - first) == pytest.approx(1, abs=0.01)


def test_probe_on_a_frozen_body_costs_one_forward(folders):
    model = models.load(folders["llama"], "classifier", num_labels=2)
    model.model.requires_grad_(False)
    flops = models.flops_per_token(model, 128)
    assert flops.forward < flops.train < 1.01 * flops.forward


# ---- refusals
# ----------------------------------------------------------------------------------------------------------
def refusal(call) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    assert caught.value.fix
    return str(caught.value)


def test_hub_id_out_of_reach_says_what_to_do():
    message = refusal(lambda: models.load("some-org/some-model", "causal"))
    assert all(
        word in message for word in ("some-org/some-model", "hf download", "HF_HUB_OFFLINE", "HF_ENDPOINT")
    )


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_missing_folder(path):
    assert "no such model folder" in refusal(lambda: models.load(path, "causal"))


def test_incomplete_and_unsafe_folders(tmp_path, folders):
    folder = copy_of(folders["llama"], tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in refusal(lambda: models.load(folder, "causal"))
    (folder / "pytorch_model.bin").unlink()
    assert "model.safetensors is missing" in refusal(lambda: models.load(folder, "causal"))
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "2 of 2 weight files" in refusal(lambda: models.load(folder, "causal"))
    (folder / "model.safetensors.index.json").unlink()
    shutil.copy(folders["llama"] / "model.safetensors", folder)
    (folder / "config.json").write_text("{")
    assert "not readable as JSON" in refusal(lambda: models.load(folder, "causal"))
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(lambda: models.load(folder, "causal"))


def test_cut_weights_wrong_shapes_and_unknown_architectures(tmp_path, folders):
    folder = copy_of(folders["llama"], tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "it was cut" in refusal(lambda: models.load(folder, "causal"))
    (folder / "model.safetensors").write_bytes(whole)
    edit_config(folder, vocab_size=VOCAB + 1)
    assert "disagree" in refusal(lambda: models.load(folder, "causal"))
    edit_config(folder, vocab_size=VOCAB, num_hidden_layers=3)
    assert "not in the weights" in refusal(lambda: models.load(folder, "causal"))
    edit_config(folder, model_type="home_made", auto_map={"AutoConfig": "code.Config"})
    assert "own Python code" in refusal(lambda: models.load(folder, "causal"))
    edit_config(folder, model_type="home_made", auto_map=None)
    assert "home_made" in refusal(lambda: models.load(folder, "causal"))


def test_wrong_kind_and_missing_head(tmp_path, folders, tokenizer):
    assert "asked for a causal" in refusal(lambda: models.load(folders["bert"], "causal"))
    assert "asked for a masked" in refusal(lambda: models.load(folders["llama"], "masked"))
    headless = models.load(folders["bert"], "encoder")
    models.save(headless, tokenizer, tmp_path / "headless")
    assert models.model_kind(tmp_path / "headless") == "encoder"
    assert "not in the weights" in refusal(lambda: models.load(tmp_path / "headless", "masked"))


def test_adapter_models_and_broken_tokenizers_are_refused(tmp_path, folders, tokenizer):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        models.load(folders["llama"], "causal"), LoraConfig(r=2, target_modules=["q_proj"])
    )
    assert "adapter" in refusal(lambda: models.save(model, tokenizer, tmp_path / "x"))
    model.save_pretrained(tmp_path / "adapter")
    assert "this is an adapter" in refusal(lambda: models.load(tmp_path / "adapter", "causal"))
    folder = copy_of(folders["llama"], tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refusal(lambda: models.load_tokenizer(folder))
