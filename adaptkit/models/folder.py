"""Find a model's folder, local or on the hub, and tell from its files what it is; nothing is loaded here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from adaptkit.errors import ModelError, first_line
from adaptkit.model_gate import check_folder
from adaptkit.seal import check
from adaptkit.weight_files import read_json_object

Kind = Literal["causal", "masked", "classifier", "tagger", "encoder"]

# The base's card and licence come along: what is made from it carries them over.
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md", "LICENSE*", "NOTICE*"]
ENCODER_DECODER = (
    "is an encoder-decoder, and adaptkit trains decoders (Llama, Qwen, ...) and encoders (BERT, ...)"
)
ENCODER_DECODER_FIX = "choose a base of one of these kinds; of T5 and its kin, `embed` uses the encoder"
QUANTISED_FIX = "give the unquantised base: training and export start from whole weights"
_OFFLINE_FIX = (
    "give a local folder instead (on a machine with network: `hf download {name} --local-dir {short}`, then "
    "copy it), or unset HF_HUB_OFFLINE, or point HF_ENDPOINT at a mirror"
)


def find(path: str | Path) -> Path:
    """The local folder of a model: `path`, what a .gguf file was turned into, or the snapshot of a hub id.

    Of a hub id only weights, configs, tokenizer, card and licence are fetched. What a run made is held to the
    digests that the run recorded, and every folder is judged by the gatekeeper (`model_gate`).
    Raises: DataError for a damaged file of a run; ModelError when there is no such folder, it is refused, or
        neither hub nor cache gives the id.
    """
    name, folder = str(path), Path(path).expanduser()
    if folder.is_dir():
        check(folder)
        check_folder(folder)
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
        snapshot = Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises a dozen unrelated types for one fact: it is not there
        reason = f"{type(error).__name__}: {first_line(error)}"
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set"
        fix = _OFFLINE_FIX.format(name=name, short=name.rpartition("/")[2])
        raise ModelError(
            f"no local folder and not in reach on the model hub ({reason})", where=name, fix=fix
        ) from None
    check_folder(snapshot)
    return snapshot


def model_kind(path: str | Path) -> Kind:
    """What a folder's weights were saved as, read from its config.json.

    Raises: ModelError for an encoder-decoder.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    folder = find(path)
    config = read_json_object(folder, "config.json")
    if is_encoder_decoder(config):
        raise ModelError(ENCODER_DECODER, where=str(folder), fix=ENCODER_DECODER_FIX)
    name = (config.get("architectures") or [""])[0]
    if "MaskedLM" in name or name.endswith("ForPreTraining"):
        return "masked"
    if name.endswith(("CausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "causal"
    if "TokenClassification" in name:
        return "tagger"
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


def is_encoder_decoder(config: dict[str, Any]) -> bool:
    """Whether a config.json describes a model whose decoder reads what its encoder has read (T5, BART)."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    name = (config.get("architectures") or [""])[0]
    if name.endswith(("EncoderModel", "CausalLM", "LMHeadModel")):
        return False
    writes_text = config.get("model_type") in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    listens = "audio_config" in config
    return bool(config.get("is_encoder_decoder", writes_text and not listens))


def has_own_encoder(config: dict[str, Any]) -> bool:
    """Whether an encoder-decoder's encoder is a model of its own, as sentence-transformers takes T5's."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    return (
        kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and kind in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    )


def quantised_by(config: dict[str, Any]) -> str:
    """What the weights of a folder are quantised by, as its config.json names it; empty for whole weights."""
    settings = config.get("quantization_config") or {}
    if not settings:
        return ""
    method = str(settings.get("quant_method") or "")
    if not method and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        method = "bitsandbytes"
    return method or "a method that it does not name"


def quantised_already(method: str) -> str:
    """The refusal of quantised weights, without its fix."""
    return f"is quantised already, by {method}"


def is_causal(path: str | Path) -> bool:
    """True for a folder that holds a left-to-right language model."""
    return model_kind(path) == "causal"


def saved_shape(path: str | Path) -> Any:
    """The transformers config of a folder or hub id, which says how its model is built."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(find(path), local_files_only=True)
