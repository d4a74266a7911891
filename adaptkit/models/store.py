"""Load, build and save models and tokenizers in the Hugging Face layout."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from adaptkit.adapters import keep_nf4_exact
from adaptkit.disk import whole_folder
from adaptkit.errors import ModelError, first_line
from adaptkit.models.folder import Kind, find, has_own_encoder, model_kind
from adaptkit.models.generation_settings import check_readable, stop_at, unbent
from adaptkit.models.head import unwrap
from adaptkit.models.load_checks import check_form, check_four_bits, check_loaded, check_size
from adaptkit.models.stretching import Stretch
from adaptkit.weight_files import check_metadata, check_weight_files, read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Quantization = Literal["nf4", "int8"]

_AUTO_CLASS = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "tagger": "AutoModelForTokenClassification",
    "encoder": "AutoModel",
}


def load(
    path: str | Path,
    kind: Kind,
    *,
    dtype: str = "float32",
    num_labels: int | None = None,
    label_names: list[str] | None = None,
    quantization: Quantization | None = None,
    new_head: bool = False,
    seed: int = 0,
    names_only: bool = False,
    stretch: Stretch | None = None,
) -> PreTrainedModel:
    """Load the model of a folder or hub id, ready to train: SDPA attention, no key/value cache.

    No code from the folder runs.

    Args:
        kind: causal and masked need their whole head in the weights; a classifier or tagger gets a fresh head
            drawn from `seed` if the folder has none; encoder gives last hidden states.
        dtype: float32, bfloat16 or float16 (of the compute, if quantised).
        quantization: nf4 or int8 through bitsandbytes: frozen weights for QLoRA and teachers, never an
            export.
        new_head: masked only: an encoder saved without its head (embedding models are) gets one: the
            projection is the input embeddings, the rest of it is drawn from `seed`.
        names_only: take no memory: a model without values, of which names and shapes are held to the files.
        stretch: read longer texts than the folder says.

    Raises: ModelError if the folder is missing, incomplete, pickled, needs its own code, or is no such kind
        of model.
    """
    folder = find(path)
    check_weight_files(folder)
    check_metadata(folder)
    check_form(folder, kind)
    config = read_config(folder)
    if stretch is not None:
        stretch.apply(config)
    _set_labels(config, num_labels, label_names)
    headless = _lacks_head(folder, kind) and new_head
    config.tie_word_embeddings = headless or config.tie_word_embeddings
    _switch_cache_off(config)
    auto = _auto_class(kind, config, str(folder))
    check_size(auto, config, folder)
    arguments = {
        "config": config,
        "dtype": getattr(torch, dtype),
        "attn_implementation": _attention(auto, config),
        **_quantization_arguments(quantization, dtype),
    }
    if names_only:
        arguments["device_map"] = "meta"
    model, info = _from_pretrained(auto, folder, arguments, seed)
    check_loaded(model, info, folder, new_head=headless or kind in ("classifier", "tagger"))
    if quantization == "nf4":
        check_four_bits(model, folder)
        keep_nf4_exact(model)
    return model


def _from_pretrained(
    auto: Any, folder: Path, arguments: dict[str, Any], seed: int
) -> tuple[Any, dict[str, Any]]:
    """(model, transformers' account of its weights); weights that the folder lacks are drawn from `seed`."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        try:
            return auto.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # judged by check_loaded
                **arguments,
            )
        except MemoryError:
            raise
        except Exception as error:  # a config's odd value fails in whatever type its architecture raises
            check_readable(folder)
            reason = first_line(error)
            if "CONVERSION" in reason:  # transformers points at a report of many lines
                reason = "weights are missing, or have other shapes than config.json says"
            fix = "copy or download the folder again"
            raise ModelError(f"cannot be loaded: {reason}", where=str(folder), fix=fix) from None


def _lacks_head(folder: Path, kind: Kind) -> bool:
    """Whether a masked model is wanted of an encoder that was saved without its head.

    Raises: ModelError for a language model of another kind than the wanted one.
    """
    if kind not in ("causal", "masked"):
        return False
    saved = model_kind(folder)
    if saved not in (kind, "encoder"):
        what = f"holds a {saved} model, asked for a {kind} one"
        raise ModelError(what, where=str(folder), fix=f"choose a base that is a {kind} language model")
    return (kind, saved) == ("masked", "encoder")


def build(config: Any, kind: Kind, seed: int, num_labels: int | None = None) -> PreTrainedModel:
    """Make a model of this transformers config with float32 weights drawn from `seed`.

    The global random state is left alone.
    """
    if num_labels is not None:
        config.num_labels = num_labels
    _switch_cache_off(config)
    auto = _auto_class(kind, config, type(config).__name__)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        return auto.from_config(config, dtype=torch.float32, attn_implementation=_attention(auto, config))


def load_tokenizer(path: str | Path) -> Any:
    """Load the fast tokenizer of a folder or hub id; a missing pad token gets a stand-in.

    Padding is masked by position, so any token will do: EOS, else another special one, else the first.

    Raises: ModelError if there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    folder = find(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a broken file surfaces as whatever the tokenizers library met first
        files = "tokenizer.json and tokenizer_config.json"
        fix = f"the folder needs {files}, as `tokenizer.save_pretrained` writes them"
        raise ModelError(f"no usable tokenizer: {first_line(error)}", where=str(folder), fix=fix) from None
    if not tokenizer.is_fast:
        raise ModelError(
            "the tokenizer has no tokenizer.json (fast form)",
            where=str(folder),
            fix="save it once with transformers as a fast tokenizer",
        )
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or not longest >= 1:
        fix = "write it as the number of tokens that the model can read, or take the line out"
        where = str(folder / "tokenizer_config.json")
        raise ModelError(f"model_max_length is {longest!r}, and must be a number", where=where, fix=fix)
    if tokenizer.pad_token is None:
        others = (tokenizer.eos_token, tokenizer.sep_token, tokenizer.unk_token, tokenizer.bos_token)
        tokenizer.pad_token = next(filter(None, others), tokenizer.convert_ids_to_tokens(0))
    return tokenizer


def save(model: nn.Module, tokenizer: Any, folder: str | Path) -> None:
    """Write a Hugging Face folder: configs, model.safetensors, tokenizer files and chat template.

    The folder appears whole or not at all, and replaces an older one. Special ids that the model's configs
    lack come from the tokenizer. Of its generation config stays where it ends and how it samples; what would
    change greedy answers does not (`generation_settings.bending_settings` names it).

    Raises: ModelError for a model with adapters or quantised weights (merge first); DiskFullError.
    """
    plain, folder = unwrap(model, keep_peft=True), Path(folder)
    if getattr(plain, "peft_config", None):
        fix = "merge it, or save the adapter with `save_adapter`"
        raise ModelError("has an adapter attached", where=str(folder), fix=fix)
    if getattr(plain, "is_quantized", False):
        fix = "dequantise and merge first"
        raise ModelError("bitsandbytes weights are no export format", where=str(folder), fix=fix)
    if not hasattr(plain, "save_pretrained"):
        raise ModelError(f"{type(plain).__name__} is not a transformers model", where=str(folder))
    _fill_special_ids(plain, tokenizer)
    num_bytes = sum(p.numel() * p.element_size() for p in plain.parameters())
    with whole_folder(folder, num_bytes=num_bytes) as temporary:
        with _serving_config(plain.config), unbent(plain), quiet():
            plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _switch_cache_off(config: Any) -> None:
    """With a key/value cache, packed documents see each other and positions do not restart.

    Settings of a folder that would have the model return other things than its last states are taken back.
    """
    if hasattr(config, "use_cache"):
        config.use_cache = False
    config.return_dict, config.output_hidden_states = True, False
    if getattr(config, "output_attentions", False):
        config.output_attentions = False


@contextmanager
def _serving_config(config: Any) -> Iterator[None]:
    """Training switches the key/value cache off; a saved model is for use, with the cache on."""
    trained_without_cache = getattr(config, "use_cache", None) is False
    if trained_without_cache:
        config.use_cache = True
    try:
        yield
    finally:
        if trained_without_cache:
            config.use_cache = False


def _fill_special_ids(model: Any, tokenizer: Any) -> None:
    """Copy the tokenizer's BOS, EOS and PAD into the model's configs where these have none."""
    generation = getattr(model, "generation_config", None)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(tokenizer, key)
        if value is None and key == "pad_token_id":
            value = tokenizer.eos_token_id
        for config in (model.config, generation):
            if config is not None and value is not None and getattr(config, key, None) is None:
                setattr(config, key, value)
    if tokenizer.eos_token_id is not None:
        stop_at(model, [tokenizer.eos_token_id])


def read_config(folder: Path) -> Any:
    """The transformers config of a folder.

    Raises: ModelError for a model that transformers does not know, or that needs code of its own.
    """
    from transformers import AutoConfig

    raw = read_json_object(folder, "config.json")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        if raw.get("auto_map") or "trust_remote_code" in str(error):
            what = "needs its own Python code to load"
            fix = "use a model whose architecture is part of transformers"
        elif type(error).__name__.startswith("StrictDataclass"):  # huggingface_hub's, which names the field
            what = f"transformers cannot read it: {' '.join(str(error).split())}"
            fix = "give that field the value that the model was published with"
        else:
            what = f"config.json does not describe a model that transformers knows: {first_line(error)}"
            model_type = raw.get("model_type", "missing")
            fix = f"check 'model_type' ('{model_type}') and the installed transformers version"
        raise ModelError(what, where=str(folder / "config.json"), fix=fix) from None


def _set_labels(config: Any, num_labels: int | None, label_names: list[str] | None) -> None:
    if label_names is not None:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
    elif num_labels is not None:
        config.num_labels = num_labels


def has_form(kind: Kind, config: Any) -> bool:
    """Whether transformers can make a model of this kind of such a config."""
    return type(config) in _auto_of(kind, config)._model_mapping


def _auto_of(kind: Kind, config: Any) -> Any:
    import transformers

    if kind == "encoder" and has_own_encoder({"model_type": config.model_type}):
        return transformers.AutoModelForTextEncoding
    return getattr(transformers, _AUTO_CLASS[kind])


def _auto_class(kind: Kind, config: Any, where: str) -> Any:
    auto = _auto_of(kind, config)
    if type(config) not in auto._model_mapping:
        what = f"model_type '{config.model_type}' has no {kind} form in transformers"
        raise ModelError(what, where=where, fix=f"choose a base that is a {kind} model")
    return auto


def _attention(auto: Any, config: Any) -> str:
    model_class = auto._model_mapping[type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    # SDPA leaves a cap on the scores out without a word (Gemma 2).
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return "sdpa" if model_class._supports_sdpa and not capped else "eager"


def _quantization_arguments(quantization: Quantization | None, dtype: str) -> dict[str, Any]:
    if quantization is None:
        return {}
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
        # bitsandbytes warns of the cast once per matmul
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return {"quantization_config": config, "device_map": {"": device}}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' reports and bars; `check_loaded` raises what matters in them."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
