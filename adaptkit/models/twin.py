"""Try what a model can do on a small random twin of it: its own architecture, few blocks, narrow, few tokens.

What works in the twin works in the model, and what fails there would fail hours later: so questions that no
config answers (are documents of a packed row kept apart? does an adapter fit?) are asked here first.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from adaptkit import adapters
from adaptkit.adapters import AdapterConfig
from adaptkit.errors import AdaptkitError, ModelError, first_line
from adaptkit.models.count import flops_per_token
from adaptkit.models.folder import Kind
from adaptkit.models.head import split
from adaptkit.models.positions import fitting_length
from adaptkit.models.separation import kept_apart
from adaptkit.models.store import build, load

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS, TOKENS, LABELS = 2, 12, 2
VOCABULARY, HEADS, FEED_FORWARD, EXPERTS = 256, 2, 64, 4
MOST_PARAMS = 20e6
"""Of a twin: one that cannot be made as small is not tried."""
OTHER_BASE = "choose a base of another architecture (Llama, Qwen, BERT, ...)"
_ROUNDING = 1e-3


def small_twin(config: Any, kind: Kind) -> PreTrainedModel | None:
    """A small random model of this architecture that reads text; None where none can be made.

    The narrowest shape that the architecture accepts is taken: some tie their sizes to each other in ways of
    their own.
    """
    for make_shape in (
        partial(_smaller, config, True),
        partial(_smaller, config, False),
        partial(_copy, config),
    ):
        try:
            shape = make_shape()
            with torch.device("meta"):
                if sum(weight.numel() for weight in build(shape, kind, 0).parameters()) > MOST_PARAMS:
                    continue
            twin = build(shape, kind, 0, num_labels=LABELS if kind in ("classifier", "tagger") else None)
            _set_padding(twin)
            twin(input_ids=_tokens(twin)[:1])
        except Exception as error:  # sizes that do not fit show in a different way in each architecture
            logging.getLogger(__name__).debug("no twin of %s: %s", config.model_type, first_line(error))
            continue
        return twin.train()
    return None


def try_copy(config: Any, kind: Kind) -> None:
    """Have a random model of this very shape read a text, where it is small enough to be tried here."""
    shape = _copy(config)
    with torch.device("meta"):
        if sum(weight.numel() for weight in build(shape, kind, 0).parameters()) > MOST_PARAMS:
            return
    model = build(shape, kind, 0)
    model(input_ids=_tokens(model)[:1])


def _in_four_bits(twin: PreTrainedModel, kind: Kind) -> PreTrainedModel:
    """The twin as `qlora` loads a base: saved, and read back in NF4.

    Raises: ModelError where none of its layers can be stored so.
    """
    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        loaded = load(folder, kind, quantization="nf4")
    _set_padding(loaded)
    return loaded


def _set_padding(twin: PreTrainedModel) -> None:
    """A causal classifier reads the last token that is not padding, and finds it by this id."""
    for config in (twin.config, twin.config.get_text_config()):
        if config.pad_token_id is None:
            config.pad_token_id = 0


def failure(check: Callable[[], None], where: str, fix: str = OTHER_BASE) -> ModelError | None:
    """What stands in the way when `check` runs; None where nothing does.

    Any error is turned into a sentence: what a library raises inside an architecture that it does not know is
    of any type. `fix` mends what has no fix of its own.
    """
    try:
        check()
    except AdaptkitError as error:
        return ModelError(error.what, where=where, fix=error.fix or fix)
    except Exception as error:
        what = f"a small copy of it cannot do this: {type(error).__name__}: {first_line(error)}"
        return ModelError(what, where=where, fix=fix)
    return None


def try_language_model(twin: PreTrainedModel) -> None:
    """A loss through the output projection, as all trainings of language models take it.

    Raises: ModelError for logits that are scaled or capped after it.
    """
    backbone, weight_VD, bias_V = split(twin)
    hidden_BTD = backbone(input_ids=_tokens(twin))
    torch.nn.functional.linear(hidden_BTD, weight_VD, bias_V).logsumexp(-1).mean().backward()
    flops_per_token(twin, TOKENS)


def try_packing(twin: PreTrainedModel, row_length: int, where: str) -> None:
    """Two documents in one row of a causal model, or one document and padding.

    Raises: ModelError if both change what it makes of a document.
    """
    kept_apart(twin, "causal", fitting_length(row_length, twin.config), where)


def try_padded_rows(twin: PreTrainedModel) -> None:
    """Rows of two lengths through a head or to last hidden states, forward and backward."""
    ids = _tokens(twin)
    mask = torch.ones_like(ids)
    mask[1:, TOKENS // 2 :] = 0
    output = twin(input_ids=ids, attention_mask=mask)
    states = output.logits if hasattr(output, "logits") else output.last_hidden_state
    states.float().mean().backward()
    flops_per_token(twin, TOKENS)


def try_features(twin: PreTrainedModel) -> None:
    """Last hidden states of a model whose head is left out, as probes read them."""
    base = twin.base_model
    states = base(input_ids=_tokens(twin), attention_mask=torch.ones_like(_tokens(twin))).last_hidden_state
    if states.shape[:2] != (ROWS, TOKENS):
        raise ModelError("gives no hidden state for each token", fix="choose a base that reads text alone")
    flops_per_token(base, TOKENS)


def try_adapter(twin: PreTrainedModel, kind: Kind, config: AdapterConfig) -> None:
    """An adapter that is attached, trained and merged, over 4-bit weights for qlora.

    Raises: ModelError if the merged model gives other values, or no layer can be stored in 4 bits.
    """
    shapes = {name: weight.shape for name, weight in twin.state_dict().items()}
    if config.kind == "qlora":
        twin = _in_four_bits(twin, kind)
    adapted = adapters.attach(twin, config, 0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    adapted(input_ids=_tokens(twin))[0].float().mean().backward()
    adapted.eval()
    with torch.no_grad():
        before = adapted(input_ids=_tokens(twin))[0].float()
        merged = adapters.merge(adapted)
        after = merged(input_ids=_tokens(twin))[0].float()
    own = {name: weight.shape for name, weight in merged.state_dict().items()}
    if any(own.get(name, shape) != shape for name, shape in shapes.items()):
        raise ModelError("its weights change their shape when they are stored in 4 bits (Conv1D)")
    if (before - after).abs().max() > _ROUNDING * max(1.0, float(before.abs().max())):
        what = "an adapter does not merge into its weights: the merged model gives other values"
        raise ModelError(what)


def _tokens(twin: PreTrainedModel) -> torch.Tensor:
    size = twin.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(size // 2, size, (ROWS, TOKENS), generator=generator).to(twin.device)


def _copy(config: Any) -> Any:
    return type(config).from_dict(config.to_dict())


def _smaller(config: Any, narrow: bool) -> Any:
    """The config with one block of each kind and few tokens; `narrow` also shrinks heads and feed-forward."""
    inner = config.get_text_config()
    names = getattr(inner, "attribute_map", {})
    fields = inner.to_dict()

    def put(name: str, value: Any) -> None:
        fields[names.get(name, name)] = value

    blocks = _kinds_of_blocks(inner)
    put("num_hidden_layers", len(blocks))
    if getattr(inner, "layer_types", None) and "layer_types" in fields:
        fields["layer_types"] = [inner.layer_types[block] for block in blocks]
    put("vocab_size", min(VOCABULARY, inner.vocab_size))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        token = fields.get(name)
        if isinstance(token, int) and token >= VOCABULARY:
            fields[name] = VOCABULARY - 1 if name == "eos_token_id" else 0
    if narrow:
        for name, value in _narrow_fields(inner).items():
            put(name, value)
    small = type(inner).from_dict(fields)
    if inner is config:
        return small
    whole = _copy(config)
    whole.text_config = small
    return whole


def _kinds_of_blocks(config: Any) -> list[int]:
    """Numbers of blocks that stand for all: the first of each kind, and at least two."""
    types = list(getattr(config, "layer_types", None) or ["same"] * config.num_hidden_layers)
    blocks = sorted({types.index(kind) for kind in types} | {0, min(1, len(types) - 1)})
    return blocks


def _narrow_fields(config: Any) -> dict[str, Any]:
    """Two heads of their own size (rotations depend on it), a small feed-forward part, few experts."""
    fields: dict[str, Any] = {}
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):
        fields["hidden_size"] = min(FEED_FORWARD, config.hidden_size)
        fields["intermediate_size"] = None
        return {name: value for name, value in fields.items() if value is not None}
    few = min(HEADS, heads)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    fields["num_attention_heads"] = few
    fields["hidden_size"] = few * size
    keys = getattr(config, "num_key_value_heads", None)
    if isinstance(keys, int):
        fields["num_key_value_heads"] = max(1, keys * few // heads)
    for name in ("intermediate_size", "ffn_dim", "n_inner", "moe_intermediate_size"):
        if isinstance(getattr(config, name, None), int):
            fields[name] = FEED_FORWARD
    for name in ("embedding_size", "word_embed_proj_dim"):
        if getattr(config, name, None) == config.hidden_size:
            fields[name] = fields["hidden_size"]
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        experts = getattr(config, name, None)
        if isinstance(experts, int):
            active = getattr(config, "num_experts_per_tok", None) or 1
            fields[name] = min(experts, max(EXPERTS, active))
    return fields
