"""Ways in which the settings of a model folder are broken: its configs, special tokens, templates."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from spoilt_folders import FILE_FAULTS, ODD_VALUES, Fault, edit

QUANTISED: tuple[Any, ...] = (
    {"load_in_4bit": True, "quant_method": "bitsandbytes"},
    {"load_in_8bit": True},
    {"quant_method": "gptq", "bits": 4, "group_size": 128},
    {"quant_method": "awq", "bits": 4},
    {"quant_method": "fp8", "weight_block_size": [128, 128]},
    {"quant_method": "mxfp4"},
    {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
    {"quant_method": "torchao", "quant_type": "int4"},
    {"quant_method": "hqq"},
    {"quant_method": "quanto", "weights": "int8"},
    {"quant_method": 7},
    {"bits": 4},
    {},
    [],
    "bitsandbytes",
    None,
)
ROPES: tuple[Any, ...] = (
    {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0},
    {"rope_type": "longrope", "factor": 2.0},
    {"rope_type": "unheard_of"},
    {"factor": "two"},
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 0},
    None,
    "linear",
)
TEMPLATES = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}",
    "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}",
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
    "{% for m in messages %}{{ m['role'] }}{% endfor %}",
    "{{ raise_exception('no system message') }}",
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
    "{% for m in messages %}{{ m['content'] | nofilter }}{% endfor %}",
    "{% for m in messages %}{{ m['content'] }}",
    "{{ messages[0]['content'] + 1 }}",
    "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    "{% for m in messages %}{{ m['content'] | trim | upper }}{{ eos_token }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}{% endfor %}",
    "{% for m in messages|reverse %}{{ m['content'] }}{% endfor %}",
    "{{ messages[-1]['content'] }}{{ eos_token }}",
    "{{ messages }}",
    "{{ undefined_thing.x.y }}",
    "",
    "   \n",
    "constant",
    [{"name": "default", "template": "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"}],
    [{"name": "tool_use", "template": "{{ tools }}"}],
    [],
    {"default": "x"},
    7,
)
TOKENIZER_FIELDS: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": (
        ...,
        None,
        "Unheard",
        "LlamaTokenizer",
        "PreTrainedTokenizerFast",
        "BertTokenizer",
        7,
    ),
    "model_max_length": (..., None, 0, -1, 8, "512", 1e30, 10**30),
    "padding_side": ("left", "right", "middle", None, 7),
    "truncation_side": ("left", "middle"),
    "add_bos_token": (True, False, "yes"),
    "add_eos_token": (True, False),
    "add_prefix_space": (True, False),
    "clean_up_tokenization_spaces": (True, False, None),
    "split_special_tokens": (True, False),
    "do_lower_case": (True, False),
    "extra_special_tokens": (["<x>"], {"image_token": "<image>"}, [], "x"),
    "additional_special_tokens": (["<x>"], "x", [{"content": "<y>"}]),
    "legacy": (True, None),
    "added_tokens_decoder": (..., {}, {"0": {"content": "<zero>", "special": True}}, {"9999": "x"}),
    "bos_token": (None, "", "<nowhere>", {"content": "<s>", "__type": "AddedToken"}, 1, ["<s>"]),
    "eos_token": (None, "", "<nowhere>", {"content": "</s>", "__type": "AddedToken"}, 1, ["</s>"]),
    "pad_token": (None, "", "<nowhere>", "</s>", {"content": "<pad>"}, 0, False),
    "unk_token": (None, "<nowhere>", "a"),
    "mask_token": (None, "<nowhere>", "[MASK]"),
    "cls_token": (None, "<nowhere>"),
    "sep_token": (None, "<nowhere>"),
}
CONFIG_FIELDS: dict[str, tuple[Any, ...]] = {
    "architectures": (..., None, [], [""], ["Unheard"], "LlamaForCausalLM", [None], ["LlamaModel"]),
    "model_type": (..., None, "", "unheard", "LLAMA", "llama", "bert", 7),
    "torch_dtype": ("bfloat16", "float16", "auto", "torch.float16", "float8", "int8", 5, {}, None, "half"),
    "dtype": ("bfloat16", "float16", "auto", "torch.float16", "int8", 5, [], None),
    "max_position_embeddings": (..., None, 0, -1, 1, 8, 32, 4096, "64", 64.5, 10**12),
    "pad_token_id": (None, -1, 0, 9999, "0", [0], 1.0),
    "eos_token_id": (None, -1, [1, 2], ["</s>"], 9999, "</s>", []),
    "bos_token_id": (None, -1, 9999, [1]),
    "vocab_size": (..., None, 0, -1, 1, "320", 100, 5000, 320.0),
    "num_hidden_layers": (..., 0, 1, 3, "2", 99, 2.0),
    "num_attention_heads": (..., 0, 3, 7, "2", 64, None),
    "num_key_value_heads": (..., 0, 2, 3, None, "1"),
    "hidden_size": (..., 0, 33, 64, "32", None),
    "intermediate_size": (..., 0, 65, None),
    "hidden_act": ("unheard", None, 7, "relu"),
    "rms_norm_eps": ("1e-6", None, 0, -1),
    "layer_norm_eps": ("1e-6", None),
    "initializer_range": (0, None, "x", -1),
    "hidden_dropout_prob": (1.0, -1, "x", 2, None),
    "attention_dropout": (1.0, 2, "x", None),
    "sliding_window": (0, 1, None, -1, "8"),
    "layer_types": ([], ["full_attention"], ["unheard"] * 2, "full_attention", None),
    "is_decoder": (True, None),
    "is_encoder_decoder": (True, None, "no"),
    "use_cache": (None, "yes", 0),
    "tie_word_embeddings": (True, False, None, "true"),
    "attn_implementation": ("flash_attention_2", "unheard"),
    "_attn_implementation": ("flash_attention_2",),
    "rope_scaling": ROPES,
    "rope_parameters": ROPES,
    "rope_theta": ("10000", 0, None, 500000),
    "id2label": ({"0": "a"}, {"a": 0}, None, [], {"0": "a", "1": "b", "2": "c"}),
    "num_labels": (0, 1, "2", 5),
    "problem_type": ("regression", "multi_label_classification", "unheard"),
    "output_hidden_states": (True,),
    "return_dict": (False,),
    "quantization_config": QUANTISED,
    "head_dim": (0, 3, 16, "16", None),
    "type_vocab_size": (0, 1),
}
GENERATION_FIELDS: dict[str, tuple[Any, ...]] = {
    "eos_token_id": ([1, 2], [], "</s>", 9999, -1, None, ["</s>"], {"a": 1}),
    "pad_token_id": (-1, 9999, None, "x", [0]),
    "bos_token_id": (9999, None, [1]),
    "temperature": (0.0, 0.6, -1, "hot"),
    "do_sample": (True, "yes", None),
    "top_k": (0, 20, "x"),
    "top_p": (0.9, 2),
    "num_beams": (4, 0, "x"),
    "repetition_penalty": (1.3, 0, -1, "x"),
    "max_length": (1, 20, None, "x"),
    "max_new_tokens": (1, 0, "x"),
    "forced_bos_token_id": (3, 9999),
    "suppress_tokens": ([1, 2], "x"),
    "bad_words_ids": ([[3]], [3], []),
    "cache_implementation": ("static", "hybrid", "unheard"),
    "transformers_version": (7,),
    "no_repeat_ngram_size": (2, "x"),
    "unheard_of": (1,),
}


def _one_of(folder: Path, rng: random.Random, file: str, fields: dict[str, tuple[Any, ...]]) -> None:
    name = rng.choice(sorted(fields))
    edit(folder, file, **{name: rng.choice(fields[name])})


def config_field(rng: random.Random, folder: Path) -> None:
    _one_of(folder, rng, "config.json", CONFIG_FIELDS)


def tokenizer_field(rng: random.Random, folder: Path) -> None:
    _one_of(folder, rng, "tokenizer_config.json", TOKENIZER_FIELDS)


def generation_field(rng: random.Random, folder: Path) -> None:
    _one_of(folder, rng, "generation_config.json", GENERATION_FIELDS)


def any_field(rng: random.Random, folder: Path) -> None:
    """Any field that stands there gets any odd value."""
    file = rng.choice(("config.json", "tokenizer_config.json", "generation_config.json"))
    name = rng.choice(sorted(json.loads((folder / file).read_text())))
    edit(folder, file, **{name: rng.choice(ODD_VALUES)})


def special_tokens_map(rng: random.Random, folder: Path) -> None:
    entry = {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    written = rng.choice(
        (
            {"eos_token": "</s>"},
            {"eos_token": entry},
            {"eos_token": "<nowhere>"},
            {"pad_token": None},
            {"additional_special_tokens": [entry]},
            [],
            {},
        )
    )
    (folder / "special_tokens_map.json").write_text(json.dumps(written))


def tokenizer_part(rng: random.Random, folder: Path) -> None:
    """A part of tokenizer.json goes, or is another one's."""
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text())
    name = rng.choice(
        ("post_processor", "normalizer", "pre_tokenizer", "decoder", "merges", "added", "rank", "vocab")
    )
    if name == "merges":
        state["model"]["merges"] = rng.choice(([], None, [["zz", "qq"]], ...))
    elif name == "added":
        token = {"id": rng.choice((0, 400, 99999)), "content": rng.choice(("<new>", "the", " ", "</s>"))}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        state["added_tokens"].append({**token, **flags})
    elif name == "rank":
        state["added_tokens"] = []
    elif name == "vocab":
        entries = dict(state["model"]["vocab"])
        entries["brandnew"] = rng.choice((5, 10_000, len(entries)))
        state["model"]["vocab"] = entries
    else:
        state[name] = rng.choice((None, {"type": "Unheard"}, {"type": "Lowercase"}, {"type": "ByteLevel"}))
    if state["model"].get("merges") is ...:
        del state["model"]["merges"]
    path.write_text(json.dumps(state))


def added_tokens(rng: random.Random, folder: Path) -> None:
    """added_tokens.json of older libraries, or tokens that the model has no row for."""
    if rng.random() < 0.5:
        (folder / "added_tokens.json").write_text(json.dumps({"<old>": rng.choice((320, 3, "x", 9999))}))
        return
    state = json.loads((folder / "tokenizer.json").read_text())
    first = max(state["model"]["vocab"].values()) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    for number in range(rng.choice((1, 3, 40))):
        state["added_tokens"].append({"id": first + number, "content": f"<tool_{number}>", **flags})
    (folder / "tokenizer.json").write_text(json.dumps(state))


def chat_template(rng: random.Random, folder: Path) -> None:
    template = rng.choice(TEMPLATES)
    if isinstance(template, str) and rng.random() < 0.6:
        name = rng.choice(("chat_template.jinja", "chat_template.jinja", "chat_template.json"))
        text = template if name.endswith("jinja") else json.dumps({"chat_template": template})
        (folder / name).write_text(text, encoding=rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))
        return
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder, "tokenizer_config.json", chat_template=template)


def sentence_files(rng: random.Random, folder: Path) -> None:
    """Files of sentence-transformers, sound and otherwise."""
    pooling = "sentence_transformers.models.Pooling"
    modules: Any = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": pooling},
    ]
    odd = rng.choice(("sound", "type", "path", "empty", "object", "pooling", "prompts", "length"))
    if odd == "type":
        modules[1]["type"] = rng.choice(("torch.nn.Linear", "x.Y", 7, "sentence_transformers.models.CNN"))
    if odd == "path":
        modules[1]["path"] = rng.choice(("gone", "../x", None))
    settings: Any = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    if odd == "pooling":
        settings = rng.choice(({}, {"pooling_mode": "unheard"}, {"pooling_mode_max_tokens": True}, [], None))
    written = {"empty": [], "object": {}}.get(odd, modules)
    (folder / "modules.json").write_text(json.dumps(written))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    if odd == "prompts":
        prompts = rng.choice(
            ({"prompts": {"query": "q: ", "document": ""}}, {"prompts": []}, {"prompts": {"q": 1}})
        )
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    if odd == "length":
        length = rng.choice((0, -1, 32, "32", None, 10**9))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))


FAULTS: tuple[Fault, ...] = (
    *FILE_FAULTS,
    *(config_field,) * 8,
    *(tokenizer_field,) * 5,
    *(generation_field,) * 3,
    *(any_field,) * 4,
    special_tokens_map,
    *(tokenizer_part,) * 2,
    added_tokens,
    *(chat_template,) * 4,
    *(sentence_files,) * 2,
)
