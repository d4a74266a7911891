"""Models and tokenizers as Hugging Face folders: find, load, build, save, take apart, count.

    folder = find("path/to/folder")                 # or a hub id, when the hub can be reached
    model, tokenizer = load(folder, "causal"), load_tokenizer(folder)
    backbone, head_VD, bias_V = split(model)        # logits == backbone(**batch) @ head_VD.T + bias_V

Models are transformers' own classes with safetensors weights; nothing from a folder is ever executed and nothing is
unpickled. Shape letters: B rows, T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adaptkit.errors import DiskFullError, ModelError

Kind = Literal["causal", "masked", "classifier", "encoder"]
Quantization = Literal["nf4", "int8"]

_AUTO_CLASS = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "encoder": "AutoModel",
}
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_OFFLINE_FIX = (
    "give a local folder instead (on a machine with network: `hf download {name} --local-dir {short}`, then copy it), "
    "or unset HF_HUB_OFFLINE, or point HF_ENDPOINT at a mirror"
)


# ---- find ------------------------------------------------------------------------------------------------------------
def find(path: str | Path) -> Path:
    """The local folder of a model: `path` itself, or the snapshot of a hub id (weights, configs and tokenizer only).

    Raises: ModelError when there is no such folder, or the hub cannot be reached and the cache does not hold the id.
    """
    name, folder = str(path), Path(path).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or folder.exists() or name.startswith("."):
        raise ModelError(
            "no such model folder", where=name, fix="give a folder that holds config.json and model.safetensors, or a hub id"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises a dozen unrelated types for one fact: it is not there
        reason = (
            "HF_HUB_OFFLINE is set"
            if os.environ.get("HF_HUB_OFFLINE")
            else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        )
        fix = _OFFLINE_FIX.format(name=name, short=name.rpartition("/")[2])
        raise ModelError(f"no local folder and not in reach on the model hub ({reason})", where=name, fix=fix) from None


def model_kind(path: str | Path) -> Kind:
    """What a folder's weights were saved as: causal, masked, classifier or encoder, read from its config.json."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    folder = find(path)
    config = _read_json(folder, "config.json")
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
    raise ModelError(f"model_type '{kind}' is neither a causal nor a masked language model", where=str(folder / "config.json"))


def is_causal(path: str | Path) -> bool:
    """True for a folder that holds a left-to-right language model."""
    return model_kind(path) == "causal"


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{name} is missing (the folder holds: {held})", where=str(folder), fix="give the folder that `save_pretrained` wrote"
        ) from None
    except (ValueError, OSError) as error:
        raise ModelError(
            f"not readable as JSON: {error}", where=str(folder / name), fix="copy or download the folder again"
        ) from None
    if not isinstance(value, dict):
        raise ModelError("must hold one JSON object", where=str(folder / name), fix="copy or download the folder again")
    return value


def _check_weights(folder: Path) -> None:
    """Refuse a folder without complete safetensors weights."""
    if (folder / "model.safetensors").exists():
        return
    if (folder / "model.safetensors.index.json").exists():
        shards = set(_read_json(folder, "model.safetensors.index.json").get("weight_map", {}).values())
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        if missing:
            fix = "copy or download the folder again"
            raise ModelError(
                f"{len(missing)} of {len(shards)} weight files are missing, first {missing[0]}", where=str(folder), fix=fix
            )
        return
    if (folder / "adapter_config.json").exists():
        raise ModelError("this is an adapter, not a whole model", where=str(folder), fix="give its base model, or merge it first")
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if pickled:
        raise ModelError(
            f"weights only as pickle ({pickled[0]}), which can run code when read",
            where=str(folder),
            fix="convert once where you trust the file: `AutoModel*.from_pretrained(folder).save_pretrained(new_folder)`",
        )
    raise ModelError("model.safetensors is missing", where=str(folder), fix="give the folder that `save_pretrained` wrote")


# ---- load, build, save -------------------------------------------------------------------------------------------------
def load(
    path: str | Path,
    kind: Kind,
    *,
    dtype: str = "float32",
    num_labels: int | None = None,
    label_names: list[str] | None = None,
    quantization: Quantization | None = None,
    seed: int = 0,
) -> nn.Module:
    """The model of a folder or hub id, ready to train: SDPA attention, no key/value cache, no code from the folder.

    Args:
        kind: causal and masked need their whole head in the weights; a classifier gets a fresh head drawn from `seed`
            if the folder has none; encoder gives last hidden states.
        dtype: float32, bfloat16 or float16 (of the compute, if quantised).
        quantization: nf4 or int8 through bitsandbytes: frozen weights for QLoRA and teachers, never an export.

    Raises: ModelError if the folder is missing, incomplete, pickled, needs its own code, or is no such kind of model.
    """
    folder = find(path)
    config = _read_config(folder)
    _check_weights(folder)
    if label_names is not None:
        num_labels = len(label_names)
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
    elif num_labels is not None:
        config.num_labels = num_labels
    if kind in ("causal", "masked") and (found := model_kind(folder)) not in (kind, "encoder"):
        raise ModelError(
            f"holds a {found} model, asked for a {kind} one",
            where=str(folder),
            fix=f"choose a base that is a {kind} language model",
        )
    config.use_cache = False  # with a cache, packed documents see each other; see data packing
    auto = _auto_class(kind, config, str(folder))
    # A head for another number of classes is replaced; any other mismatch is an error.
    arguments = {"ignore_mismatched_sizes": kind == "classifier", **_quantization_arguments(quantization, dtype)}
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        try:
            model, info = auto.from_pretrained(
                folder, config=config, dtype=getattr(torch, dtype), attn_implementation=_attention(auto, config), use_safetensors=True,
                trust_remote_code=False, output_loading_info=True, **arguments,
            )  # fmt: skip
        except (RuntimeError, ValueError, OSError) as error:
            raise _load_error(error, folder) from None
    _check_loaded(model, kind, info, folder)
    return model


def build(config: Any, kind: Kind, seed: int, num_labels: int | None = None) -> nn.Module:
    """A model of this transformers config with random float32 weights drawn from `seed`; global RNG untouched."""
    if num_labels is not None:
        config.num_labels = num_labels
    config.use_cache = False
    auto = _auto_class(kind, config, type(config).__name__)
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        return auto.from_config(config, dtype=torch.float32, attn_implementation=_attention(auto, config))


def load_tokenizer(path: str | Path) -> Any:
    """The fast tokenizer of a folder or hub id; EOS stands in for a missing pad token.

    Raises: ModelError if there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    folder = find(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a broken file surfaces as whatever the tokenizers library met first
        fix = "the folder needs tokenizer.json and tokenizer_config.json, as `tokenizer.save_pretrained` writes them"
        raise ModelError(f"no usable tokenizer: {str(error).strip().splitlines()[0]}", where=str(folder), fix=fix) from None
    if not tokenizer.is_fast:
        raise ModelError(
            "the tokenizer has no tokenizer.json (fast form)",
            where=str(folder),
            fix="save it once with transformers as a fast tokenizer",
        )
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save(model: nn.Module, tokenizer: Any, folder: str | Path) -> None:
    """Write an HF folder: config.json, generation_config.json, model.safetensors, tokenizer files, chat_template.jinja.

    The folder appears whole or not at all, and replaces an older one. Special ids that the model's own configs lack are
    taken from the tokenizer.

    Raises: ModelError for a model with adapters or quantised weights (merge first); DiskFullError.
    """
    model, folder = unwrap(model, keep_peft=True), Path(folder)
    if getattr(model, "peft_config", None):
        raise ModelError("has an adapter attached", where=str(folder), fix="merge it, or save the adapter with `save_adapter`")
    if getattr(model, "is_quantized", False):
        raise ModelError("bitsandbytes weights are no export format", where=str(folder), fix="dequantise and merge first")
    if not hasattr(model, "save_pretrained"):
        raise ModelError(f"{type(model).__name__} is not a transformers model", where=str(folder))
    _fill_special_ids(model, tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    cached, model.config.use_cache = model.config.use_cache if hasattr(model.config, "use_cache") else None, True
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _sync(temporary)
        _replace(temporary, folder)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            need = sum(p.numel() * p.element_size() for p in model.parameters())
            free = shutil.disk_usage(folder.parent).free
            fix = "free some space and run the same command again"
            raise DiskFullError(f"disk full: the model needs {need} bytes, {free} are free", where=str(folder), fix=fix) from None
        raise
    finally:
        model.config.use_cache = cached


def _fill_special_ids(model: nn.Module, tokenizer: Any) -> None:
    generation = getattr(model, "generation_config", None)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(tokenizer, key)
        value = tokenizer.eos_token_id if value is None and key == "pad_token_id" else value
        for config in (model.config, generation):
            if config is not None and value is not None and getattr(config, key, None) is None:
                setattr(config, key, value)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _replace(temporary: Path, folder: Path) -> None:
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        os.rename(folder, old)
        os.rename(temporary, folder)
        shutil.rmtree(old)
    else:
        os.rename(temporary, folder)


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    raw = _read_json(folder, "config.json")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        if raw.get("auto_map") or "trust_remote_code" in str(error):
            what, fix = "needs its own Python code to load", "use a model whose architecture is part of transformers"
        else:
            what = f"config.json does not describe a model that transformers knows: {str(error).strip().splitlines()[0]}"
            fix = f"check 'model_type' ('{raw.get('model_type', 'missing')}') and the installed transformers version"
        raise ModelError(what, where=str(folder / "config.json"), fix=fix) from None


def _auto_class(kind: Kind, config: Any, where: str) -> Any:
    import transformers

    auto = getattr(transformers, _AUTO_CLASS[kind])
    if type(config) not in auto._model_mapping:
        raise ModelError(
            f"model_type '{config.model_type}' has no {kind} form in transformers",
            where=where,
            fix=f"choose a base that is a {kind} model",
        )
    return auto


def _attention(auto: Any, config: Any) -> str:
    model_class = auto._model_mapping[type(config)]
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    return "sdpa" if model_class._supports_sdpa else "eager"


def _quantization_arguments(quantization: Quantization | None, dtype: str) -> dict[str, Any]:
    if quantization is None:
        return {}
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype))
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
        # bitsandbytes warns of the cast once per matmul
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def _load_error(error: Exception, folder: Path) -> ModelError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "size mismatch" in str(error) or "shape" in str(error):
        return ModelError(
            "weights and config.json disagree about shapes", where=str(folder), fix="copy or download the folder again"
        )
    return ModelError(f"cannot be loaded: {line}", where=str(folder), fix="copy or download the folder again")


def _check_loaded(model: nn.Module, kind: Kind, info: dict[str, Any], folder: Path) -> None:
    """Refuse weights that transformers silently replaced by random numbers, except a classifier's head and unused poolers."""
    prefix = f"{model.base_model_prefix}."
    heads_are_new = kind == "classifier"
    mismatched = {item[0] if isinstance(item, tuple) else item for item in info.get("mismatched_keys", ())}
    missing = sorted(
        key
        for key in {*info.get("missing_keys", ()), *mismatched}
        if "pooler" not in key and not (heads_are_new and not key.startswith(prefix))
    )
    if missing:
        fix = "the folder was saved without them: use a checkpoint that holds the whole model" + (
            ", or ask for another kind (an embedding model has no language-model head)" if kind in ("causal", "masked") else ""
        )
        raise ModelError(
            f"{len(missing)} tensors of the {kind} model are not in the weights, first {missing[0]}", where=str(folder), fix=fix
        )


class _quiet:
    """Silence transformers' load reports: what matters in them is checked and raised by `_check_loaded`."""

    def __enter__(self) -> None:
        from transformers.utils import logging as hf_logging

        self.level, self.bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging as hf_logging

        hf_logging.set_verbosity(self.level)
        if self.bars:
            hf_logging.enable_progress_bar()


# ---- split -------------------------------------------------------------------------------------------------------------
_plain_logits: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def unwrap(model: nn.Module, *, keep_peft: bool = False) -> nn.Module:
    """The transformers model inside DDP, torch.compile and (unless `keep_peft`) peft wrappers."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif not keep_peft and hasattr(model, "get_base_model") and hasattr(model, "base_model"):
            model = model.get_base_model()
        else:
            return model


class Backbone:
    """Calls a language model without its vocabulary projection.

    The model runs as it is, wrappers, adapters and prediction-head transform included; only the output projection is
    replaced by the identity for the time of the call. So nothing here depends on the architecture.
    """

    def __init__(self, model: nn.Module, head: nn.Module):
        self.model, self.head, self.inner = model, head, unwrap(model)

    def __call__(self, **batch: Tensor) -> Tensor:
        """Inputs as the model takes them (no labels); returns what the projection would be given, [B, T, D].

        Raises: ModelError if the model scales or caps its logits after the projection.
        """
        seen: list[Tensor] = []

        def keep(hidden_BTD: Tensor) -> Tensor:
            seen.append(hidden_BTD)
            return hidden_BTD

        if hasattr(self.inner.config, "use_cache"):
            batch = {**batch, "use_cache": False}
        before = self.head.__dict__.get("forward")
        self.head.forward = keep
        try:
            hidden_BTD = self.model(**batch).logits
        finally:
            if before is None:
                del self.head.forward
            else:
                self.head.forward = before
        self._check(hidden_BTD, seen)
        return hidden_BTD.to(seen[0].dtype)

    def _check(self, hidden_BTD: Tensor, seen: list[Tensor]) -> None:
        """Whatever the model does to logits it now did to hidden states: they must come back unchanged (looked at once)."""
        if self.inner in _plain_logits or torch.compiler.is_compiling():
            return
        if len(seen) != 1 or not torch.equal(hidden_BTD.detach().to(seen[0].dtype), seen[0].detach()):
            raise ModelError(
                "the model scales or caps its logits after the output projection, which the fused loss would leave out",
                where=type(self.inner).__name__,
                fix="choose a base without logit scaling or soft-capping (Llama, Qwen, Mistral, GPT-NeoX, BERT, ...)",
            )
        _plain_logits.add(self.inner)


def split(model: nn.Module) -> tuple[Backbone, Tensor, Tensor | None]:
    """Take a language model apart: `F.linear(backbone(**batch), weight_VD, bias_V)` equals `model(**batch).logits`.

    Works for causal and masked heads, tied or not, through peft, DDP and torch.compile. Call it for each loss: the
    weight of a head with trained tokens is computed on the call, and under FSDP the weight is whole only after the
    backbone ran (take it from a second `split` then).

    Returns: the backbone, the projection [V, D] with its autograd history, its bias [V] or None.

    Raises: ModelError if there is no vocabulary projection, or an adapter sits on it.
    """
    inner = unwrap(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    name = type(inner).__name__
    if head is None:
        raise ModelError("has no vocabulary projection", where=name, fix="load it as a causal or masked language model")
    if "base_layer" in head._modules:
        fix = "leave the output head out of `targets` (all-linear does), or train the head as a whole"
        raise ModelError("an adapter sits on the output head", where=name, fix=fix)
    weight_VD = head.weight
    if not weight_VD.is_floating_point():
        raise ModelError("the output head is quantised", where=name, fix="load the model again: nf4 and int8 leave the head alone")
    if inner.config.get_text_config().vocab_size != weight_VD.shape[0]:
        raise ModelError(
            f"the output head has {weight_VD.shape[0]} rows, config.vocab_size is {inner.config.vocab_size}", where=name
        )
    return Backbone(model, head), weight_VD, getattr(head, "bias", None)


# ---- count -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ParamCount:
    """Numbers of parameters; `non_embedding` leaves out token and position tables and the output projection (Kaplan's N)."""

    total: int
    trainable: int
    non_embedding: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations per token (a multiply-add is two)."""

    forward: float
    train: float


def param_count(model: nn.Module) -> ParamCount:
    """Count weights once each (tied ones too), 4-bit ones at their unpacked size."""
    inner = unwrap(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    vocabulary = {id(p) for m in inner.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    vocabulary |= {id(p) for p in head.parameters()} if head is not None else set()
    sizes = {id(p): (_size(p), p.requires_grad) for p in model.parameters()}
    return ParamCount(
        total=sum(size for size, _ in sizes.values()),
        trainable=sum(size for size, trains in sizes.values() if trains),
        non_embedding=sum(size for key, (size, _) in sizes.items() if key not in vocabulary),
    )


def flops_per_token(model: nn.Module, seq_len: int) -> Flops:
    """Matrix-product FLOPs per token at `seq_len`, forward and for one training step.

    Forward: 2 per matmul weight (output projection included, tied or not) + 4 * layers * width * seq_len for attention,
    not halved for causality. Backward: the same again for activations above the lowest trained weight, and 2 per
    trained matmul weight. So full training costs 3x forward and a frozen base about 2x plus the adapters.
    Source: Kaplan et al. 2020 (arXiv 2001.08361) section 2.1; PaLM (arXiv 2204.02311) appendix B.
    """
    forward = through = trained = 0.0
    below = False  # is there a trained weight at or below this place?
    for weight, module, share in _weights(model):
        below = below or weight.requires_grad
        if isinstance(module, nn.Embedding) or share == 0:
            continue
        size = _size(weight) * share
        forward += size
        through += size * below
        trained += size * weight.requires_grad
    config = unwrap(model).config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4.0 * config.num_hidden_layers * config.num_attention_heads * width * seq_len
    backward = 2.0 * through + 2.0 * trained + 2.0 * attention * (through / forward if forward else 0.0)
    return Flops(forward=2.0 * forward + attention, train=2.0 * forward + attention + backward)


def _weights(model: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Module, float]]:
    """(parameter, its module, share of tokens that pass it) in order; the share is 0 for what takes no part in a matrix product."""
    config = unwrap(model).config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
    active = (getattr(config, "num_experts_per_tok", None) or 1) / experts if experts > 1 else 1.0
    for module in model.modules():
        for weight in module._parameters.values():
            if weight is None:
                continue
            dims = len(_shape(weight))
            yield weight, module, {2: 1.0, 3: active}.get(dims, 0.0)


def _shape(weight: Tensor) -> tuple[int, ...]:
    state = getattr(weight, "quant_state", None)  # bitsandbytes packs two 4-bit weights into a byte
    return tuple(state.shape) if state is not None else tuple(weight.shape)


def _size(weight: Tensor) -> int:
    size = 1
    for dim in _shape(weight):
        size *= dim
    return size
