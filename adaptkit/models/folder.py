"""Find a model's folder, local or on the hub, and tell from its files what it is; nothing is loaded here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from adaptkit.errors import ModelError, first_line
from adaptkit.seal import check

Kind = Literal["causal", "masked", "classifier", "encoder"]

# The base's card and licence come along: what is made from it carries them over.
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md", "LICENSE*", "NOTICE*"]
_OFFLINE_FIX = (
    "give a local folder instead (on a machine with network: `hf download {name} --local-dir {short}`, then "
    "copy it), or unset HF_HUB_OFFLINE, or point HF_ENDPOINT at a mirror"
)


def find(path: str | Path) -> Path:
    """The local folder of a model: `path`, what a .gguf file was turned into, or the snapshot of a hub id.

    Of a hub id only weights, configs, tokenizer, card and licence are fetched. What a run made is held
    against the digests that the run recorded.
    Raises: DataError for a damaged file of a run; ModelError when there is no such folder, or neither hub nor
        cache gives the id.
    """
    name, folder = str(path), Path(path).expanduser()
    if folder.is_dir():
        check(folder)
        return folder
    if folder.suffix == ".gguf" and folder.is_file():
        from adaptkit.models.gguf import from_gguf

        return from_gguf(folder)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or folder.exists() or name.startswith("."):
        raise ModelError(
            "no such model folder",
            where=name,
            fix="give a folder that holds config.json and model.safetensors, or a hub id",
        )
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises a dozen unrelated types for one fact: it is not there
        reason = f"{type(error).__name__}: {first_line(error)}"
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set"
        fix = _OFFLINE_FIX.format(name=name, short=name.rpartition("/")[2])
        raise ModelError(
            f"no local folder and not in reach on the model hub ({reason})", where=name, fix=fix
        ) from None


def model_kind(path: str | Path) -> Kind:
    """What a folder's weights were saved as, read from its config.json."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    folder = find(path)
    config = read_json_object(folder, "config.json")
    name = (config.get("architectures") or [""])[0]
    if "MaskedLM" in name or name.endswith("ForPreTraining"):
        return "masked"
    if name.endswith(("CausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "causal"
    if "Classification" in name:
        return "classifier"
    if name:
        return "encoder"
    kind = config.get("model_type", "")
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        return "masked"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal"
    raise ModelError(
        f"model_type '{kind}' is neither a causal nor a masked language model",
        where=str(folder / "config.json"),
    )


def is_causal(path: str | Path) -> bool:
    """True for a folder that holds a left-to-right language model."""
    return model_kind(path) == "causal"


def read_json_object(folder: Path, name: str) -> dict[str, Any]:
    """The object that a JSON file of a model's folder holds. Raises: ModelError if there is none."""
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{name} is missing (the folder holds: {held})",
            where=str(folder),
            fix="give the folder that `save_pretrained` wrote",
        ) from None
    except (ValueError, OSError) as error:
        raise ModelError(
            f"not readable as JSON: {error}",
            where=str(folder / name),
            fix="copy or download the folder again",
        ) from None
    if not isinstance(value, dict):
        fix = "copy or download the folder again"
        raise ModelError("must hold one JSON object", where=str(folder / name), fix=fix)
    return value


def check_weights(folder: Path) -> None:
    """Refuse a folder without complete safetensors weights."""
    if (folder / "model.safetensors").exists():
        return
    if (folder / "model.safetensors.index.json").exists():
        shards = set(read_json_object(folder, "model.safetensors.index.json").get("weight_map", {}).values())
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        if missing:
            fix = "copy or download the folder again"
            raise ModelError(
                f"{len(missing)} of {len(shards)} weight files are missing, first {missing[0]}",
                where=str(folder),
                fix=fix,
            )
        return
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "this is an adapter, not a whole model",
            where=str(folder),
            fix="give its base model, or merge it first",
        )
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if pickled:
        what = f"weights only as pickle ({pickled[0]}), which can run code when read"
        conversion = "`AutoModel*.from_pretrained(folder).save_pretrained(new_folder)`"
        raise ModelError(what, where=str(folder), fix=f"convert once where you trust the file: {conversion}")
    raise ModelError(
        "model.safetensors is missing", where=str(folder), fix="give the folder that `save_pretrained` wrote"
    )


def saved_shape(path: str | Path) -> Any:
    """The transformers config of a folder or hub id, which says how its model is built."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(find(path), local_files_only=True)
