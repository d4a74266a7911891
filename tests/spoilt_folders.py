"""Ways in which model folders of real hands are broken, each applied at random to a copy of a sound one.

spoilt = spoil(random.Random(7), sound, tmp_path / "model")    # a copy with one to three of them
spoilt.folder, spoilt.faults                                   # where it lies, and what was done to it
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Fault = Callable[[random.Random, Path], None]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAIN = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", WEIGHTS)
NAMES = (
    "a b",
    "na\u00efve \u6a21\u578b",
    "v1.0, final: best",
    "model#2",
    "[new] {x}",
    "100%",
    'it\'s "it"',
    "-x",
    "a=b",
    "trailing ",
    "12",
    "null",
    "~old",
    "$HOME",
    "x" * 120,
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    "",
    "x",
    "64",
    "none",
    0,
    -1,
    1,
    3,
    1.5,
    1e30,
    True,
    False,
    [],
    [1, 2],
    ["a"],
    {},
    {"a": 1},
    2**40,
    10**400,
    float("nan"),
)
NOT_THE_FILE = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"<!DOCTYPE html><html><body>404</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
    b"\x89PNG\r\n\x1a\n" + b"\0" * 99,
    b"\xff\xfe{\0}\0",
)


@dataclass(frozen=True)
class Spoilt:
    """A copy of a sound folder, and what was done to it."""

    folder: Path
    faults: tuple[str, ...]


def spoil(rng: random.Random, sound: Path, target: Path, faults: tuple[Fault, ...]) -> Spoilt:
    """Copy a folder and break the copy in one to three ways."""
    shutil.copytree(sound, target)
    chosen = [rng.choice(faults) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    done = []
    for fault in chosen:
        try:
            fault(rng, target)
        except Exception:
            continue  # what an earlier fault took away cannot be broken again
        done.append(fault.__name__)
    if rng.random() < 0.1:
        target = target.rename(target.with_name(rng.choice(NAMES)))
        done.append(f"named {target.name!r}")
    return Spoilt(target, tuple(done))


def edit(folder: Path, name: str, **fields: Any) -> None:
    """Set fields of a JSON file; `...` takes one away."""
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    values |= fields
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def an_embedding(weights: dict[str, torch.Tensor]) -> str:
    return max((name for name in weights if "emb" in name), key=lambda name: len(weights[name]))


# --- files ---


def lose_a_file(rng: random.Random, folder: Path) -> None:
    (folder / rng.choice(sorted(os.listdir(folder)))).unlink()


def cut_a_file(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(MAIN)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def put_something_else(rng: random.Random, folder: Path) -> None:
    (folder / rng.choice(MAIN)).write_bytes(rng.choice(NOT_THE_FILE))


def encode_otherwise(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(MAIN[:4])
    path.write_bytes(path.read_text().encode(rng.choice(("utf-8-sig", "utf-16"))))


def comment_in_json(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(MAIN[:4])
    text = path.read_text()
    path.write_text(rng.choice((f"// edited\n{text}", text.rstrip()[:-1] + ",}", text + text)))


def link_a_file(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(MAIN)
    kind = rng.choice(("inside", "outside", "nowhere", "itself"))
    if kind == "inside":
        path.rename(folder / f"real-{path.name}")
        path.symlink_to(f"real-{path.name}")
        return
    if kind == "outside":
        outside = folder.parent / f"outside-{path.name}"
        path.rename(outside)
        path.symlink_to(outside)
        return
    path.unlink()
    path.symlink_to(path.name if kind == "itself" else "gone")


def a_folder_for_a_file(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(MAIN)
    path.unlink()
    path.mkdir()


def what_trainers_leave(rng: random.Random, folder: Path) -> None:
    """Harmless: optimizers, logs and caches stand beside many models."""
    for name in ("training_args.bin", "optimizer.pt", ".DS_Store", "._config.json", "trainer_state.json"):
        (folder / name).write_bytes(b"\x80\x04junk" if name != "trainer_state.json" else b"{}")
    (folder / "runs").mkdir()
    (folder / "checkpoint-500").mkdir()
    shutil.copy(folder / "config.json", folder / "checkpoint-500" / "config.json")
    (folder / "README.md").write_text(rng.choice(("---\nlicense: [\n---\n", "---\nlicense: mit\n---\n", "")))


def only_a_pickle(rng: random.Random, folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def remote_code(rng: random.Random, folder: Path) -> None:
    file = rng.choice(("config.json", "tokenizer_config.json"))
    fields: dict[str, Any] = {"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}
    if file == "tokenizer_config.json":
        fields = {"auto_map": {"AutoTokenizer": [None, "tokenization_x.XTokenizer"]}}
        fields["tokenizer_class"] = "XTokenizer"
    elif rng.random() < 0.5:
        fields["model_type"] = "x_model"
    edit(folder, file, **fields)
    (folder / "modeling_x.py").write_text("raise SystemExit('code of a folder was run')\n")


# --- weights ---


def shards(rng: random.Random, folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: weights[name] for name in names if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    kind = rng.choice(("sound", "sound", "missing", "stale", "unnamed", "elsewhere", "no metadata", "bin"))
    index: dict[str, Any] = {"metadata": {"total_size": 1}, "weight_map": dict(files)}
    if kind != "stale":
        (folder / WEIGHTS).unlink()
    if kind == "missing":
        (folder / files[names[0]]).unlink()
    if kind == "unnamed":
        index["weight_map"].pop(names[-1])
    if kind == "elsewhere":
        index["weight_map"][names[0]] = rng.choice(("../x.safetensors", "x/y.safetensors", 7))
    if kind == "no metadata":
        del index["metadata"]
    if kind == "bin":
        index["weight_map"] = {name: "pytorch_model-00001-of-00001.bin" for name in names}
    (folder / INDEX).write_text(json.dumps(index))


def a_value_that_is_no_number(rng: random.Random, folder: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[rng.choice(sorted(weights))].view(-1)[0] = rng.choice((float("nan"), float("inf")))

    edit_weights(folder, change)


def another_dtype(rng: random.Random, folder: Path) -> None:
    dtype = rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int8))
    one = rng.random() < 0.3

    def change(weights: dict[str, torch.Tensor]) -> None:
        names = sorted(weights)
        for name in [rng.choice(names)] if one else names:
            weights[name] = weights[name].to(dtype)

    edit_weights(folder, change)


def lose_a_tensor(rng: random.Random, folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop(rng.choice(sorted(weights))) is None)


def one_tensor_more(rng: random.Random, folder: Path) -> None:
    name = rng.choice(("model.layers.9.mlp.down_proj.weight", "extra", "score.weight", "lm_head.weight"))
    edit_weights(folder, lambda weights: weights.update({name: torch.ones(2, 32)}))


def another_prefix(rng: random.Random, folder: Path) -> None:
    prefix = rng.choice(("module.", "_orig_mod.", "base_model.model.", "model.", "transformer."))

    def change(weights: dict[str, torch.Tensor]) -> None:
        kept = {f"{prefix}{name}": weights.pop(name) for name in sorted(weights)}
        weights.update(kept)

    edit_weights(folder, change)


def other_rows(rng: random.Random, folder: Path) -> None:
    """More or fewer rows of the embedding than the config says."""
    rows = rng.choice((-1, -40, 1, 64))

    def change(weights: dict[str, torch.Tensor]) -> None:
        name = an_embedding(weights)
        table = weights[name]
        weights[name] = table[:rows].clone() if rows < 0 else torch.cat([table, table[:rows]])

    edit_weights(folder, change)
    if rng.random() < 0.5:
        vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        edit(folder, "config.json", vocab_size=vocabulary + rows)


def another_shape(rng: random.Random, folder: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        name = rng.choice([name for name in sorted(weights) if weights[name].dim() == 2])
        weights[name] = weights[name].T.contiguous()

    edit_weights(folder, change)


def a_head_of_its_own(rng: random.Random, folder: Path) -> None:
    """Tied by the config with a head in the weights, or untied without one."""
    tied = rng.random() < 0.5
    edit(folder, "config.json", tie_word_embeddings=tied)

    def change(weights: dict[str, torch.Tensor]) -> None:
        if rng.random() < 0.5:
            weights.pop("lm_head.weight", None)
        else:
            weights["lm_head.weight"] = torch.randn_like(weights[an_embedding(weights)])

    edit_weights(folder, change)


def an_adapter_beside(rng: random.Random, folder: Path) -> None:
    adapter = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "x", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    if rng.random() < 0.7:
        save_file(
            {"base_model.model.x.lora_A.weight": torch.ones(4, 32)}, folder / "adapter_model.safetensors"
        )
    if rng.random() < 0.4:
        (folder / WEIGHTS).unlink()


FILE_FAULTS: tuple[Fault, ...] = (
    lose_a_file,
    cut_a_file,
    put_something_else,
    encode_otherwise,
    comment_in_json,
    link_a_file,
    a_folder_for_a_file,
    what_trainers_leave,
    only_a_pickle,
    remote_code,
    shards,
    shards,
    a_value_that_is_no_number,
    another_dtype,
    lose_a_tensor,
    one_tensor_more,
    another_prefix,
    other_rows,
    another_shape,
    a_head_of_its_own,
    an_adapter_beside,
)
