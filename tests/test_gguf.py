"""A .gguf file becomes a folder that computes what the file holds, and says what rounding lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from adaptkit import models
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import ModelError
from adaptkit.models.gguf import from_gguf, gguf_record, smallest_gaps

FORMATS = gguf.GGMLQuantizationType
CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Parts of transformers' names and what llama.cpp calls them."""


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a small pump and a large valve"] * 40, "bpe", 300)


def written(path: Path, tokenizer, format_: gguf.GGMLQuantizationType) -> Qwen2ForCausalLM:
    """Write a tiny model as a .gguf file; the model with the weights that the file holds."""
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(
        vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=True, **size, rope_theta=10000.0
    )
    model = Qwen2ForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("Tiny pump")
    writer.add_license("apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    _write_tokenizer(writer, tokenizer)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.from_numpy(_write_tensor(writer, name, weight.numpy(), format_)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer) -> None:
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.all_special_tokens)
    merges = tokenizer._tokenizer.to_str()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges(_merges(merges))
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(CHAT)


def _merges(tokenizer_json: str) -> list[str]:
    import json

    return [" ".join(pair) for pair in json.loads(tokenizer_json)["model"]["merges"]]


def _write_tensor(writer, name: str, values: np.ndarray, format_) -> np.ndarray:
    """Write one tensor; the values that a reader gets back."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return values
    packed = gguf.quants.quantize(values, format_)
    writer.add_tensor(name, packed, raw_dtype=format_)
    return gguf.quants.dequantize(packed, format_)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1", "F16"])
def test_the_folder_computes_what_the_file_holds(tmp_path, tokenizer, name):
    file = tmp_path / f"tiny.{name}.gguf"
    held = written(file, tokenizer, FORMATS[name])
    folder = models.find(file)
    assert folder == tmp_path / f"tiny.{name}" and models.model_kind(folder) == "causal"
    model, ids = models.load(folder, "causal").eval(), torch.arange(20)[None]
    with torch.no_grad():
        difference = (model(ids).logits - held(ids).logits).abs().max()
    assert difference < 0.02, "bfloat16 keeps three digits"
    read = models.load_tokenizer(folder)
    text = "a small valve"
    assert read(text).input_ids == tokenizer(text, add_special_tokens=False).input_ids
    assert "<|im_start|>user" in read.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)


def test_its_papers_name_file_licence_and_loss(tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    written(file, tokenizer, FORMATS.Q4_1)
    folder = from_gguf(file)
    record, card = gguf_record(folder), (folder / "README.md").read_text()
    assert record is not None and record.licence == "apache-2.0" and record.formats["Q4_1"] > 0.9
    assert card.startswith("---\nlicense: apache-2.0\n") and "# Tiny pump" in card
    assert record.sha256 in card and "rounding moved weights by about" in card


def test_it_is_made_once_and_again_when_the_file_changes(tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    written(file, tokenizer, FORMATS.Q8_0)
    made = (from_gguf(file) / "model.safetensors").stat().st_ino
    file.touch()
    assert (from_gguf(file) / "model.safetensors").stat().st_ino == made
    written(file, tokenizer, FORMATS.Q4_1)
    assert (from_gguf(file) / "model.safetensors").stat().st_ino != made


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    written(file, tokenizer, FORMATS.Q8_0)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(ModelError, match="which exists already"):
        from_gguf(file)


@pytest.mark.parametrize("damage", ["cut short", "other bytes", "empty"])
def test_a_damaged_file_ends_in_a_sentence(tmp_path, tokenizer, damage):
    file = tmp_path / "tiny.gguf"
    written(file, tokenizer, FORMATS.Q8_0)
    whole = file.read_bytes()
    file.write_bytes(
        {"cut short": whole[: len(whole) // 2], "other bytes": b"GGML" * 99, "empty": b""}[damage]
    )
    with pytest.raises(ModelError, match="gguf"):
        from_gguf(file)
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_the_estimate_of_rounding_is_near_the_true_error(tmp_path, tokenizer, name):
    values = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    packed = gguf.quants.quantize(values, FORMATS[name])
    blocks = gguf.quants.dequantize(packed, FORMATS[name])
    true = np.sqrt(np.mean((blocks - values) ** 2) / np.mean(values**2))
    steps = smallest_gaps(blocks.reshape(-1, 32).astype(np.float64))
    estimate = np.sqrt(np.mean(steps**2) / 12 / np.mean(blocks**2))
    assert estimate == pytest.approx(true, rel=0.15)


def test_equal_values_have_no_gap():
    assert smallest_gaps(np.zeros((2, 32))).tolist() == [0.0, 0.0]


def test_a_moved_folder_and_file_still_belong_together(tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    written(file, tokenizer, FORMATS.Q8_0)
    from_gguf(file)
    shutil.copytree(tmp_path / "tiny", tmp_path / "elsewhere" / "tiny")
    shutil.copyfile(file, tmp_path / "elsewhere" / "tiny.gguf")
    before = (tmp_path / "elsewhere" / "tiny" / "model.safetensors").stat().st_ino
    assert (from_gguf(tmp_path / "elsewhere" / "tiny.gguf") / "model.safetensors").stat().st_ino == before
