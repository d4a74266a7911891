"""What a model can be used for is answered from its files and a small twin, alike in all commands.

Home of models.capabilities, models.load_checks, models.own_tokens, models.positions, models.twin and
compare.usable_base.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tiny_architectures import ARCHITECTURES, POSITIONS, make_folder, make_tokenizers

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.errors import ConfigError, ModelError
from adaptkit.model_uses import Use
from adaptkit.models import twin
from adaptkit.models.capabilities import capabilities
from adaptkit.models.load_checks import check_finite
from adaptkit.models.positions import usable_positions
from adaptkit.weight_files import check_weight_files, weight_files

ENDLESS = {"bloom", "mamba", "t5"}
RELATIVE = {"deberta-v3"}


@pytest.fixture(scope="module")
def tokenizers(tiny_text: list[str]) -> dict[str, Any]:
    return make_tokenizers(tiny_text)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Any]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("architectures")
    return {name: make_folder(name, tokenizers, root) for name in ARCHITECTURES}


@pytest.fixture
def llama(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["llama"], tmp_path / "llama"))


def edit(folder: Path, name: str, **fields: object) -> None:
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, **fields}))


def test_mpt_reads_as_many_tokens_as_its_distances_are_made_for() -> None:
    config = hf.MptConfig(vocab_size=99, d_model=32, n_heads=2, n_layers=1, max_seq_len=16)
    model = hf.AutoModelForCausalLM.from_config(config)
    positions = usable_positions(config)
    assert positions == 16
    model(torch.ones(1, positions, dtype=torch.long))
    with pytest.raises(RuntimeError, match="must match the size"):
        model(torch.ones(1, positions + 1, dtype=torch.long))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_positions_are_as_many_as_the_model_really_reads(folders: dict[str, Path], name: str) -> None:
    config = hf.AutoConfig.from_pretrained(folders[name])
    positions = usable_positions(config)
    assert positions == (None if name in ENDLESS else POSITIONS)
    model = ARCHITECTURES[name].head.from_pretrained(folders[name]).eval()
    reading = model.get_encoder() if config.is_encoder_decoder else model
    longest = positions or 4 * POSITIONS
    with torch.no_grad():
        reading(input_ids=torch.full((1, longest), 30))
    learned = any("position" in key for key, _ in model.named_parameters()) and name not in RELATIVE | ENDLESS
    if learned:
        with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            reading(input_ids=torch.full((1, longest + 1), 30))


@pytest.mark.parametrize("name", ["llama", "roberta"])
def test_a_length_is_cut_where_it_is_a_default_and_refused_where_it_was_chosen(
    folders: dict[str, Path], name: str
) -> None:
    base = capabilities(folders[name])
    assert base.fitting(40, "max_length", chosen=True) == 40
    assert base.fitting(256, "max_length", chosen=False) == POSITIONS
    with pytest.raises(ConfigError, match=r"256 tokens, and \S+ has 64 positions"):
        base.fitting(256, "max_length", chosen=True)


def test_weights_that_are_quantised_already_can_only_be_served(llama: Path) -> None:
    edit(llama, "config.json", quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"})
    base = capabilities(llama)
    for use in Use:
        refusal = base.why_not(use)
        if use is Use.SERVE:
            assert refusal is None
        else:
            assert refusal is not None and "quantised already, by bitsandbytes" in refusal.what
    with pytest.raises(ModelError, match="quantised already"):
        models.load(llama, "causal")


def test_an_adapter_beside_whole_weights_is_refused(llama: Path) -> None:
    (llama / "adapter_config.json").write_text("{}")
    (llama / "adapter_model.safetensors").write_bytes(b"")
    for use in Use:
        with pytest.raises(ModelError, match="holds whole weights and an adapter"):
            capabilities(llama).check(use)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_named_by_their_tensor(llama: Path, value: float) -> None:
    weights = load_file(llama / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    pattern = r"holds (nan|inf) in model.layers.1.mlp.down_proj.weight"
    with pytest.raises(ModelError, match=pattern):
        capabilities(llama, read_weights=True).check(Use.CONTINUE)
    with pytest.raises(ModelError, match=pattern):
        models.load(llama, "causal")


def test_large_values_whose_sum_overflows_are_no_fault() -> None:
    large = torch.full((4,), torch.finfo(torch.float32).max)
    assert not large.sum().isfinite()
    check_finite([("weight", large)], "here")


def test_tokens_without_a_row_are_named(llama: Path) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["<tool_a>", "<tool_b>"])
    tokenizer.save_pretrained(llama)
    base = capabilities(llama)
    assert base.without_row == ("<tool_a>", "<tool_b>")
    for use in Use:
        with pytest.raises(ModelError, match="no row for 2 tokens of its tokenizer: <tool_a>, <tool_b>"):
            base.check(use)


def test_a_tokenizer_without_pad_and_end_pads_with_any_token_and_teaches_no_answers(llama: Path) -> None:
    edit(llama, "tokenizer_config.json", pad_token=None, eos_token=None)
    tokenizer = models.load_tokenizer(llama)
    assert tokenizer.eos_token is None and tokenizer.pad_token_id is not None
    base = capabilities(llama)
    with pytest.raises(ModelError, match="names no token that ends a text"):
        base.check(Use.SFT)
    base.check(Use.CLASSIFY)


def test_a_whole_file_beside_the_shards_of_another_model_is_refused(llama: Path) -> None:
    whole = load_file(llama / "model.safetensors")
    models.load(llama, "causal").save_pretrained(llama / "shards", max_shard_size="20KB")
    shards = sorted((llama / "shards").glob("model-*"))
    assert len(shards) > 1
    for path in [*shards, llama / "shards" / "model.safetensors.index.json"]:
        shutil.move(path, llama / path.name)
    with pytest.raises(ModelError, match="which does not name it: the weights of two models"):
        check_weight_files(llama)
    (llama / "model.safetensors").unlink()
    assert [path.name for path in weight_files(llama)] == [path.name for path in shards]
    loaded = models.load(llama, "causal").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in whole.items())
    (llama / "model.safetensors.index.json").unlink()
    save_file(whole, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="the weights of two models"):
        check_weight_files(llama)


def test_encoder_decoders_are_refused_but_for_the_encoder_of_t5(folders: dict[str, Path]) -> None:
    for name in ("t5", "bart"):
        base = capabilities(folders[name])
        for use in Use:
            allowed = (name, use) == ("t5", Use.EMBED)
            assert (base.why_not(use) is None) == allowed
        for kind in ("causal", "masked", "classifier"):
            with pytest.raises(ModelError, match="encoder-decoder"):
                models.load(folders[name], kind)
    assert type(models.load(folders["t5"], "encoder")).__name__ == "T5EncoderModel"


@pytest.mark.parametrize(
    ("name", "use", "adapter", "words"),
    [
        ("gemma2", Use.CONTINUE, "none", "scales or caps its logits"),
        ("mamba", Use.CLASSIFY, "none", "no classifier form"),
        ("bert", Use.SFT, "none", "holds a masked model, and sft needs a causal one"),
        ("gpt2", Use.SFT, "qlora", "change their shape"),
        ("falcon", Use.SFT, "qlora", "no linear layer that can be stored in 4 bits"),
        ("phi3", Use.DISTILL, "none", "'phi3' is not served"),
    ],
)
def test_what_no_config_says_is_tried(
    folders: dict[str, Path], name: str, use: Use, adapter: Any, words: str
) -> None:
    refusal = capabilities(folders[name]).why_not(use, AdapterConfig(kind=adapter))
    assert refusal is not None and words in refusal.what and refusal.fix


@pytest.mark.parametrize(
    ("name", "use", "adapter"),
    [
        ("llama", Use.CONTINUE, "qlora"),
        ("gpt2", Use.CONTINUE, "lora"),
        ("mamba", Use.SFT, "lora"),
        ("mamba", Use.CONTINUE, "none"),
        ("roberta", Use.CONTINUE, "none"),
        ("bert", Use.DISTILL, "none"),
        ("modernbert", Use.CLASSIFY, "qlora"),
    ],
)
def test_what_works_is_not_refused(folders: dict[str, Path], name: str, use: Use, adapter: Any) -> None:
    capabilities(folders[name]).check(use, AdapterConfig(kind=adapter))


@pytest.mark.parametrize(
    "config",
    [
        hf.LlamaConfig(num_hidden_layers=32, num_key_value_heads=8, vocab_size=128_256),
        hf.GPT2Config(),
        hf.MixtralConfig(),
        hf.Gemma3TextConfig(),
        hf.BertConfig(),
        hf.RobertaConfig(),
        hf.DebertaV2Config(),
    ],
    ids=lambda config: config.model_type,
)
def test_the_twin_of_a_large_model_is_small(config: Any) -> None:
    kind = "masked" if config.model_type in ("bert", "roberta", "deberta-v2") else "causal"
    small = twin.small_twin(config, kind)
    assert small is not None
    assert sum(weight.numel() for weight in small.parameters()) < 5e6
    assert type(small.config) is type(config)


def test_any_error_of_a_library_becomes_a_sentence() -> None:
    def breaks() -> None:
        raise KeyError("q_proj")

    refusal = twin.failure(breaks, "models/base")
    assert refusal is not None and "KeyError: 'q_proj'" in refusal.what and refusal.where == "models/base"


def test_weights_that_a_use_lacks_are_named_before_anything_is_loaded(llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    whole = dict(weights)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    assert capabilities(llama).why_not(Use.CLASSIFY) is None, "asked of a plan alone"
    for use in (Use.CLASSIFY, Use.SFT, Use.EMBED, Use.EXPORT, Use.PROBE):
        with pytest.raises(ModelError, match=r"not in the weights, first (model\.)?layers.1.mlp.down_proj"):
            capabilities(llama, read_weights=True).check(use)
    whole["model.layers.1.mlp.down_proj.weight"] = torch.zeros(3, 4)
    save_file(whole, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="disagree about the shape of 1 tensors"):
        capabilities(llama, read_weights=True).check(Use.SFT)


def test_an_index_that_transformers_cannot_read_is_refused(llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").rename(llama / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="has no 'metadata'") as refused:
        models.load(llama, "causal")
    assert refused.value.fix == 'add "metadata": {} to it'
    (llama / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, **index}))
    models.load(llama, "causal")


def test_a_folder_in_the_place_of_the_weights_is_named(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"model\.safetensors: is a folder, not a file"):
        capabilities(llama)


@pytest.mark.parametrize("length", ["512", 0, -1])
def test_a_length_that_is_no_number_is_named(llama: Path, length: object) -> None:
    edit(llama, "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ModelError, match=r"tokenizer_config.json: model_max_length is .*, and must be"):
        models.load_tokenizer(llama)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_without_a_token_is_refused(llama: Path, window: int) -> None:
    edit(llama, "config.json", sliding_window=window)
    with pytest.raises(ModelError, match="sliding_window is"):
        capabilities(llama)


def test_a_config_that_is_refused_names_the_field(llama: Path) -> None:
    edit(llama, "config.json", tie_word_embeddings="yes")
    with pytest.raises(ModelError, match="tie_word_embeddings") as refused:
        capabilities(llama).check(Use.SFT)
    assert "that field" in str(refused.value.fix)


def test_a_model_gives_its_states_whatever_its_folder_asks_for(llama: Path) -> None:
    plain = models.load(llama, "causal")
    edit(llama, "config.json", return_dict=False, output_hidden_states=True)
    output = models.load(llama, "causal")(input_ids=torch.tensor([[20, 21]]))
    torch.testing.assert_close(output.logits, plain(input_ids=torch.tensor([[20, 21]])).logits)
    assert output.hidden_states is None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            "assistant",
        ),
        ("{% for m in messages %}{{ m.content | unheard_of }}{% endfor %}", "unheard_of"),
    ],
)
def test_a_template_that_writes_no_answer_teaches_none(llama: Path, template: str, words: str) -> None:
    (llama / "chat_template.jinja").write_text(template)
    for use in (Use.LABEL_WORDS, Use.SFT):
        with pytest.raises(ModelError, match=f"its chat template .*{words}"):
            capabilities(llama).check(use)
    capabilities(llama).check(Use.CLASSIFY)


def test_text_without_a_token_to_begin_with_is_refused_before_training(llama: Path) -> None:
    edit(llama, "tokenizer_config.json", bos_token=None, eos_token=None)
    for use in (Use.CONTINUE, Use.SCORE, Use.EXPORT):
        with pytest.raises(ModelError, match="no BOS, CLS or EOS token to begin a document"):
            capabilities(llama).check(use)


@pytest.mark.parametrize("modules", [[], [{"type": "sentence_transformers.models.Pooling", "path": ""}]])
def test_an_encoder_whose_modules_cannot_be_followed_is_refused(llama: Path, modules: list[Any]) -> None:
    (llama / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="has its modules in the order"):
        capabilities(llama).check(Use.EMBED)
    capabilities(llama).check(Use.SFT)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("llama", "model.layers.0.mlp.up_proj.weight"),
        ("xlm-roberta", "lm_head.bias"),
        ("mamba", "backbone.layers.0.mixer.A_log"),
    ],
)
def test_weights_in_whole_numbers_that_nothing_explains_are_refused(
    folders: dict[str, Path], tmp_path: Path, base: str, name: str
) -> None:
    folder = Path(shutil.copytree(folders[base], tmp_path / base))
    weights = load_file(folder / "model.safetensors")
    changed = {**weights, name: weights[name].to(torch.int8)}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"holds {name} in I8, and config.json has no"):
        models.load(folder, models.model_kind(folder))
    with pytest.raises(ModelError, match="in I8"):
        capabilities(folder, read_weights=True).check(Use.CONTINUE)


MARK = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": False}


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("added_tokens.json", {"<tool_a>": 320}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<tool_a>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"tool_token": "<tool_a>"}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<tool_a>"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"320": {"content": "<tool_a>", **MARK}}}),
    ],
)
def test_tokens_that_other_files_than_tokenizer_json_list_need_a_row_too(
    llama: Path, file: str, fields: dict[str, Any]
) -> None:
    path = llama / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields}))
    assert models.load_tokenizer(llama).convert_tokens_to_ids("<tool_a>") == 320
    for use in (Use.CONTINUE, Use.PROMPT, Use.EMBED, Use.EXPORT):
        with pytest.raises(ModelError, match="no row for 1 token of its tokenizer: <tool_a>"):
            capabilities(llama).check(use)


def test_an_architecture_that_its_own_shape_keeps_from_running_is_refused(
    tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    """CodeGen's attention is made for heads in fours, so no smaller shape runs either."""
    config = hf.CodeGenConfig(vocab_size=600, n_positions=64, n_embd=16, n_layer=2, n_head=2, rotary_dim=4)
    folder = tmp_path / "codegen"
    models.build(config, "causal", 0).save_pretrained(folder)
    next(iter(tokenizers.values())).save_pretrained(folder)
    for use in (Use.CONTINUE, Use.PROMPT):
        with pytest.raises(ModelError, match="a small copy of it cannot do this"):
            capabilities(folder).check(use)
