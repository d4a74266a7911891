"""Low-rank adapters on any transformers model: attach, save beside the base, merge back exactly.

    model = attach(model, AdapterConfig(kind="lora"), seed=0)  # a peft model: adapter and head train
    save_adapter(model, "run/adapter", base="path/or/hub-id")  # a folder that PeftModel.from_pretrained loads
    plain = merge(model)                                       # a transformers model with the same outputs

LoRA is arXiv 2106.09685, rsLoRA 2312.03732, DoRA 2402.09353, QLoRA 2305.14314; the layers are peft's and the
4-bit base is bitsandbytes'. What is ours is the choice of targets, the exact merge and a card without local
paths.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from adaptkit.config import Config, Share, in_unit
from adaptkit.disk import whole_folder
from adaptkit.errors import ModelError, nearest
from adaptkit.model_origin import hub_id
from adaptkit.run import read_json, weights_digest, write_json, write_text

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel
    from typing_extensions import TypeIs

ALL_LINEAR = "all-linear"
PEFT_HEADS = ("classifier", "score")  # peft trains and saves these by itself for classification
HEADED = ("classifier", "tagger")
"""Tasks whose head stands apart from the language model."""

STATE_SPACE = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
READ_BY_KERNELS = ("out_proj", "dt_proj")
"""Layers of a state-space block whose weights its kernels read themselves, past any adapter."""


class AdapterConfig(Config):
    """How a model is adapted: by training all weights (`none`) or a low-rank update of some matrices."""

    kind: Literal["none", "lora", "rslora", "dora", "qlora"] = "none"
    """`none` trains all weights; `qlora` is LoRA over a base stored in 4-bit NF4."""
    rank: Annotated[int, in_unit("rank")] = Field(default=16, ge=1, le=65_536)
    """Rank of each update."""
    alpha: Annotated[float, in_unit("none")] = Field(default=32.0, gt=0, le=1e6)
    """Scale of the update: alpha / rank (rsLoRA: alpha / sqrt(rank))."""
    dropout: Share = Field(default=0.0, lt=1)
    """Share of the adapter's inputs dropped in training."""
    targets: str | list[str] = ALL_LINEAR
    """`all-linear` (every matrix but the head) or module name endings, such as [q_proj, v_proj]."""

    @property
    def quantization(self) -> Literal["nf4"] | None:
        """What the base must be loaded with."""
        return "nf4" if self.kind == "qlora" else None

    def for_record(self) -> AdapterConfig | None:
        """What a run's record says: these settings, or None where all weights are trained."""
        if self.kind == "none":
            return None
        return self


def attach(
    model: PreTrainedModel, config: AdapterConfig, seed: int, new_tokens: list[int] | None = None
) -> PreTrainedModel | PeftModel:
    """Make `model` trainable as `config` says; the result is the model to train.

    A classification head (and a pooler, which masked-LM checkpoints lack) trains fully and is saved with the
    adapter.

    Args:
        model: causal LM, masked LM, sequence classifier or bare encoder; NF4 for `qlora`.
        seed: of the adapter's initial weights; the global random state is left alone.
        new_tokens: ids of rows added to the vocabulary; they train and are saved with the adapter, ties stay
            tied.
    Raises: ModelError if a target names no linear layer, or the base's precision does not fit the kind.
    """
    if config.kind == "none":
        return model.requires_grad_(True)
    _check_precision(model, config)
    if getattr(model, "is_quantized", False):
        keep_nf4_exact(model)  # `models.load` has done so; a base that was loaded otherwise needs it here
    if config.kind == "qlora" and _task(model) in HEADED:
        _dequantise(model, _head_names(model))

    import torch
    from peft import get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, _lora_config(model, config, new_tokens or []))


def has_adapter(model: nn.Module) -> TypeIs[PeftModel]:
    """Whether peft has attached an adapter; a process where nothing has need not import peft to know."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def merge(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Merge the adapter into its base; returns the transformers model, and uses the adapter model up.

    A quantised base is first dequantised to the fp32 values that the adapter was trained on. Merging into the
    4-bit weights would round them again; the original fp32 base is not the model that was trained.
    """
    if not has_adapter(model):
        return model
    if getattr(model.get_base_model(), "is_quantized", False):
        model = _dequantized(model)
    return model.merge_and_unload()


def save_adapter(model: PeftModel, folder: str | Path, *, base: str) -> None:
    """Write the adapter as a peft folder with a filled card.

    `base` is recorded by name and digest, never as a local path.
    """
    folder = Path(folder)
    name = base_name(base)
    four_bit = getattr(model.get_base_model(), "is_loaded_in_4bit", False)
    precision = "as stored"
    if four_bit:
        precision = "4-bit NF4 while training: dequantise it before merging"
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    with whole_folder(folder) as temporary:
        model.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False)
        settings_path = temporary / "adapter_config.json"
        settings = {**read_json(settings_path), "base_model_name_or_path": name}
        write_json(settings_path, settings)
        write_text(temporary / "README.md", _card(settings, name, hub_id(base), precision, num_trained))


def keep_nf4_exact(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking NF4 weights at the first evaluation pass; call it right after loading.

    On CPUs with AVX512-BF16 that pass rounds the scales to bf16 in place (3e-3 off per layer, measured with
    0.50.2), so that later training runs on other weights, dequantising them gives noise, and layers of 32n+k
    rows fail.
    Raises: ModelError if a pass has already repacked the weights.
    """
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            # quant_state is None in a new head, made without a checkpoint's weights
            state = getattr(module.weight, "quant_state", None)
            if getattr(state, "packing_format_for_cpu", False):
                what = "an evaluation pass has rounded its 4-bit weights"
                raise ModelError(what, where=name, fix="load the base again")
            module.support_avx512bf16_for_cpu = False


def base_name(base: str) -> str:
    """A hub id as it is; a local folder as `<folder name>@sha256:<12 hex of its weights>`."""
    path = Path(base)
    if not path.is_dir():
        return base
    name, digest = path.resolve().name, weights_digest(path)
    if not digest:
        return name
    return f"{name}@sha256:{digest[:12]}"


def _check_precision(model: PreTrainedModel, config: AdapterConfig) -> None:
    four_bit = getattr(model, "is_loaded_in_4bit", False)
    if config.kind == "qlora" and not four_bit:
        raise ModelError(
            "qlora needs a base in 4-bit NF4", fix='load the base with quantization="nf4", or use kind: lora'
        )
    if config.kind != "qlora" and getattr(model, "is_quantized", False):
        raise ModelError(
            f"{config.kind} needs a plain base, this one is quantised",
            fix="use kind: qlora, or load it unquantised",
        )


def _lora_config(model: PreTrainedModel, config: AdapterConfig, new_tokens: list[int]) -> LoraConfig:
    from peft import LoraConfig, TaskType

    heads = _head_names(model)
    tasks = {"causal": TaskType.CAUSAL_LM, "classifier": TaskType.SEQ_CLS, "tagger": TaskType.TOKEN_CLS}
    task = tasks.get(_task(model))
    whole, rows_of_new_tokens = None, None
    if _task(model) in HEADED:
        whole = [name for name in heads if name not in PEFT_HEADS] or None
    if new_tokens:
        rows_of_new_tokens = _token_rows(model, new_tokens)
    return LoraConfig(
        task_type=task,
        r=config.rank,
        lora_alpha=cast(int, config.alpha),  # peft divides by the rank: a fraction is as good
        lora_dropout=config.dropout,
        use_rslora=config.kind == "rslora",
        use_dora=config.kind == "dora",
        target_modules=_targets(model, config.targets, heads),
        modules_to_save=whole,
        trainable_token_indices=rows_of_new_tokens,
    )


def _task(model: PreTrainedModel) -> Literal["causal", "classifier", "tagger", "other"]:
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "classifier"
    if type(model).__name__.endswith("ForTokenClassification"):
        return "tagger"
    return "causal" if model.can_generate() else "other"


def _head_names(model: PreTrainedModel) -> list[str]:
    """Modules that turn the last hidden states into the task's output: they get no low-rank update."""
    if _task(model) in HEADED:
        children = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
        heads = [name for name in children if name != model.base_model_prefix]
        if getattr(model.base_model, "pooler", None) is not None:
            heads.append(f"{model.base_model_prefix}.pooler")
        return heads
    output = model.get_output_embeddings()
    if output is None:
        return []
    return [name for name, module in model.named_modules() if module is output]


def _targets(model: PreTrainedModel, targets: str | list[str], heads: list[str]) -> list[str]:
    """Names for peft: a shared ending (`q_proj`) where it matches only targets, the full name elsewhere."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    linear = [name for name, module in model.named_modules() if isinstance(module, (Linear, Conv1D))]
    if model.config.model_type in STATE_SPACE:
        linear = [name for name in linear if _ending(name) not in READ_BY_KERNELS]
    outside = {name for name in linear if any(name == head or name.startswith(f"{head}.") for head in heads)}
    inside = [name for name in linear if name not in outside]
    if targets != ALL_LINEAR:
        if isinstance(targets, str):
            targets = [targets]
        return _checked_endings(targets, inside)
    blocked = {_ending(name) for name in outside}
    whole_names = {name for name in inside if _ending(name) in blocked}
    endings = {_ending(name) for name in inside if _ending(name) not in blocked}
    return sorted(whole_names | endings)


def _ending(name: str) -> str:
    """`q_proj` of `model.layers.0.self_attn.q_proj`."""
    return name.rpartition(".")[2]


def _checked_endings(endings: list[str], linear: list[str]) -> list[str]:
    """`endings`. Raises: ModelError for one that no linear layer has."""
    for ending in endings:
        if not any(f".{name}".endswith(f".{ending}") for name in linear):
            choices = sorted({_ending(name) for name in linear})
            problem = f"no linear layer is named '{ending}'{nearest(ending, choices)}"
            raise ModelError(problem, where="adapter.targets", fix=f"choose from {', '.join(choices)}")
    return endings


def _dequantise(model: PreTrainedModel, heads: list[str]) -> None:
    """Give the heads floating-point weights: all train, but loading in 4 bits spares only the last one."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit
    from torch.nn import Linear, Parameter

    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit) and any(
            name == head or name.startswith(f"{head}.") for head in heads
        ):
            plain = Linear(module.in_features, module.out_features, bias=module.bias is not None)
            weight, state = module.weight.data, getattr(module.weight, "quant_state", None)
            if state is not None:
                weight = dequantize_4bit(weight, state)
            plain.weight = Parameter(weight.float())
            plain.bias = module.bias
            model.set_submodule(name, plain)


def _token_rows(model: PreTrainedModel, new_tokens: list[int]) -> list[int] | dict[str, list[int]]:
    """One list trains the input rows and whatever is tied to them; an untied head is named too."""
    output = model.get_output_embeddings()
    if output is None or output.weight is model.get_input_embeddings().weight:
        return new_tokens
    both = (model.get_input_embeddings(), output)
    return {
        _ending(name): new_tokens for name, module in model.named_modules() if any(module is m for m in both)
    }


def set_weights(model: PeftModel, weights: dict[str, Tensor]) -> None:
    """Give the adapter that is attached to a model the tensors of `adapter_model.safetensors`."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, weights)


def _dequantized(model: PeftModel) -> PeftModel:
    """The same adapter over the fp32 values of its quantised base."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    settings = model.peft_config["default"]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    base = model.unload().dequantize(dtype=torch.float32)
    model = get_peft_model(base, settings)
    set_weights(model, state)
    return model.eval()


def _card(settings: dict[str, Any], base: str, on_hub: str, precision: str, num_trained: int) -> str:
    method = "LoRA"
    if settings["use_rslora"]:
        method = "rsLoRA"
    if settings["use_dora"]:
        method = "DoRA"
    update = f"rank {settings['r']}, alpha {settings['lora_alpha']:g}, dropout {settings['lora_dropout']:g}"
    whole = ", ".join(settings["modules_to_save"] or []) or "none"
    base_line = f"base_model: {on_hub}\n" if on_hub else ""
    return f"""---
library_name: peft
{base_line}tags: [{method.lower()}, adaptkit]
---
# {method} adapter

| | |
| --- | --- |
| base model | `{base}` |
| base precision | {precision} |
| method | {method}, {update} |
| adapted layers | {", ".join(sorted(settings["target_modules"]))} |
| modules trained whole | {whole} |
| trained parameters | {num_trained:,} |
| peft | {settings["peft_version"]} |

Load the base model, then `peft.PeftModel.from_pretrained(base, "this folder")`. The run directory beside this
folder holds the merged model, the training data's digests, the scores per item and the cost.
"""
