"""Model folders, adapters and runs without weights, for tests of what is served and how."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from adaptkit.adapters import AdapterConfig
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import ServedKind, Source
from adaptkit.run import Run, weights_digest
from adaptkit.run_record import RecipeKind, RunRecord

SMALL = Hardware(flags=frozenset({"avx2"}), cores=2)
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
}
MODULE = "model.layers.0.self_attn.q_proj"
ARCHITECTURES = {
    "generate": "LlamaForCausalLM",
    "classify": "BertForSequenceClassification",
    "embed": "BertModel",
}


def write_model(folder: Path, kind: ServedKind = "generate", **config: object) -> Source:
    """A folder with a config and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {"architectures": [ARCHITECTURES[kind]], "model_type": "llama", **SHAPE, **config}
    (folder / "config.json").write_text(json.dumps(written))
    return Source(folder, kind, folder.name, "", origin="generic")


def write_adapter(folder: Path, base: Path | None = None, **settings: object) -> Path:
    """A peft folder that records the digest of its base, or a base from elsewhere; it fits `write_bases`."""
    folder.mkdir(parents=True)
    recorded = f"base@sha256:{weights_digest(base)[:12]}" if base else "somewhere/else"
    written = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": recorded, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    rank = (settings.get("rank_pattern") or {}).get("q_proj", written["r"])
    write_shapes(folder / "adapter_model.safetensors", pair(MODULE, rank))
    return folder


def pair(module: str, rank: int, outputs: int = 4, inputs: int = 6) -> dict[str, list[int]]:
    """The shapes of an adapter's two matrices over one module."""
    stem = f"base_model.model.{module}"
    return {f"{stem}.lora_A.weight": [rank, inputs], f"{stem}.lora_B.weight": [outputs, rank]}


def write_shapes(path: Path, shapes: dict[str, list[int]], fill: bytes = b"\1") -> None:
    """A safetensors file of bytes in these shapes."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + fill * at)


def write_bases(root: Path) -> tuple[Source, Source]:
    """Two models that differ in their weights."""
    bases = write_model(root / "one"), write_model(root / "two")
    for place, base in enumerate(bases):
        shapes = {f"{MODULE}.weight": [4, 6], "model.embed_tokens.weight": [9, 4]}
        write_shapes(base.folder / "model.safetensors", shapes, fill=b"%d" % place)
    return bases


def write_run(folder: Path, **record: object) -> Run:
    """A finished run with a record, as a recipe leaves it."""
    run = Run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.config_path.write_text(f"name: {folder.name}\n")
    fields = {"recipe": RecipeKind.FINETUNE, **record}
    run.update_manifest(name=folder.name)
    run.finish(record=RunRecord(**fields).model_dump(mode="json"))
    return run


QLORA = AdapterConfig(kind="qlora", rank=8)


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
}


def write_weights(path: Path, sizes: dict[str, int] | None = None) -> None:
    """A safetensors file of rows of bytes."""
    write_shapes(path, {name: [size] for name, size in (sizes or {"w": 4}).items()})


def write_complete(folder: Path) -> Path:
    """A model folder that passes every check that loads nothing."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "tokenizer.json").write_text("{}")
    write_weights(folder / "model.safetensors")
    return folder


def quantised(bits: int, format: str, kind: str = "int") -> dict:
    weights = {"num_bits": bits, "type": kind}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"group_0": {"weights": weights}},
    }
