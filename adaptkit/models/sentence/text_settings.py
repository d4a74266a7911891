"""How a sentence-transformers folder wants texts turned into tokens: its sentence_bert_config.json.

What is not understood is refused by name: a setting passed over would give other vectors without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.run import read_json

FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where releases of sentence-transformers kept the settings of the first module."""
_WITHOUT_EFFECT = {"unpad_inputs", "cache_dir"}
_LOADING = {
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
}
_LOADING_WITHOUT_EFFECT = {
    "add_pooling_layer",
    "attn_implementation",
    "clean_up_tokenization_spaces",
    "dtype",
    "padding_side",
    "torch_dtype",
    "trust_remote_code",
    "use_fast",
}
_READ = {"max_seq_length", "do_lower_case", "modality_config", "processing_kwargs"}
_EXPECTED = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")


@dataclass(frozen=True)
class ChatText:
    """A text is the user's message in the tokenizer's chat template, a prompt the system's.

    Attributes:
        structured: contents are lists of parts, not strings.
        options: further arguments of the template.
        restores_end: whether what the template puts behind a text stays there when the text is cut.
    """

    structured: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    restores_end: bool = True


@dataclass(frozen=True)
class TextSettings:
    """What sentence_bert_config.json says; `max_length` is None where it says nothing."""

    max_length: int | None = None
    lower_case: bool = False
    chat: ChatText | None = None


def read_text_settings(folder: Path, tokenizer: Any) -> TextSettings:
    """The settings of the folder of a Transformer module.

    Raises: ModelError for a setting that is not supported, by its name.
    """
    path = _settings_file(folder)
    if path is None:
        return TextSettings()
    settings = read_json(path)
    _check(settings, path)
    processing = settings.get("processing_kwargs") or {}
    text = _text_options(processing, path)
    modalities = settings.get("modality_config") or {"text": {}}
    chat = None
    if "message" in modalities:
        _check_method(modalities["message"], path)
        chat = _chat(modalities["message"].get("format", "auto"), processing, tokenizer, path)
    elif "text" in modalities:
        _check_method(modalities["text"], path)
    else:
        _refuse(path, "modality_config", "without text")
    longest = text.get("max_length", settings.get("max_seq_length"))
    return TextSettings(longest, bool(settings.get("do_lower_case")), chat)


def sends_messages(folder: Path) -> bool:
    """Whether texts go through the tokenizer's chat template."""
    path = _settings_file(folder)
    return path is not None and "message" in (read_json(path).get("modality_config") or {})


def _settings_file(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).exists()), None)


def settings_of_chat(chat: ChatText) -> dict[str, Any]:
    """What makes sentence-transformers send texts through the chat template, as it writes it itself."""
    options = dict(chat.options)
    if not chat.restores_end:
        options["restore_suffix"] = False
    method = {"method": "forward", "method_output_name": "last_hidden_state"}
    message = {**method, "format": "structured" if chat.structured else "flat"}
    settings: dict[str, Any] = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": method, "message": message},
        "module_output_name": "token_embeddings",
    }
    if options:
        settings["processing_kwargs"] = {"chat_template": options}
    return settings


def _refuse(path: Path, key: str, value: Any) -> None:
    fix = "choose a model that turns texts into vectors without it"
    raise ModelError(f"has the setting {key} ({value}), which is not supported", where=str(path), fix=fix)


def _check(settings: dict[str, Any], path: Path) -> None:
    for key, value in settings.items():
        if key in _LOADING:
            for name, option in (value or {}).items():
                if name not in _LOADING_WITHOUT_EFFECT:
                    _refuse(path, f"{key}.{name}", option)
        elif key in _EXPECTED:
            if value not in (None, _EXPECTED[key]):
                _refuse(path, key, value)
        elif key not in _READ | _WITHOUT_EFFECT and value is not None:
            _refuse(path, key, value)


def _check_method(method: dict[str, Any], path: Path) -> None:
    if method.get("method", "forward") != "forward":
        _refuse(path, "modality_config method", method["method"])
    if method.get("method_output_name", "last_hidden_state") not in (
        "last_hidden_state",
        ["last_hidden_state"],
    ):
        _refuse(path, "modality_config method_output_name", method["method_output_name"])


def _text_options(processing: dict[str, Any], path: Path) -> dict[str, Any]:
    for key, options in processing.items():
        if key == "chat_template":
            continue
        for name, value in (options or {}).items():
            cuts = name == "truncation" and value in (True, "longest_first", "only_first")
            if key not in ("text", "common") or not (cuts or name in ("max_length", "padding")):
                _refuse(path, f"processing_kwargs.{key}.{name}", value)
    return {**(processing.get("common") or {}), **(processing.get("text") or {})}


def _chat(form: str, processing: dict[str, Any], tokenizer: Any, path: Path) -> ChatText:
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        what = "sends texts through a chat template, of which the tokenizer has none or several"
        raise ModelError(what, where=str(path), fix="copy or download the folder again")
    options = dict(processing.get("chat_template") or {})
    restores_end = bool(options.pop("restore_suffix", True))
    for name in ("truncation", "max_length", "padding", "return_tensors"):
        if name in options:
            _refuse(path, f"processing_kwargs.chat_template.{name}", options[name])
    structured = form == "structured" or (form == "auto" and any(sign in template for sign in _STRUCTURED))
    return ChatText(structured, options, restores_end)
