"""Where a model stops writing, and which of its folder's settings may decide what it writes.

A folder's generation_config.json may bend answers (repetition penalties, beams, forced tokens). Answers that
are called greedy here come from the model's own distribution, and folders saved here keep no such setting.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.errors import ModelError, first_line
from adaptkit.models.head import unwrap

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

SAMPLING = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
"""Settings of sampling, which a greedy answer does not know; a saved folder keeps its base's."""
ENDS = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
"""What of settings that are invalid as a whole is kept; a padding id is filled in by whoever pads."""
HARMLESS = (
    *SAMPLING,
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "max_length",
    "max_new_tokens",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    "return_legacy_cache",
    "transformers_version",
    "_from_model_config",
    "_commit_hash",
    "_original_object_hash",
)
"""Settings that a greedy answer does not depend on, but for where it ends."""


def end_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
    """The tokens that a model stops at: all of its generation config's, and its tokenizer's EOS."""
    plain: Any = unwrap(model)
    settings = getattr(plain, "generation_config", None)
    ids = _listed(getattr(settings, "eos_token_id", None)) or _listed(plain.config.eos_token_id)
    if tokenizer is not None:
        ids += _listed(tokenizer.eos_token_id)
    return list(dict.fromkeys(ids))


def stop_at(model: nn.Module, taught: Iterable[int]) -> None:
    """Let a model stop at the tokens that its taught turns end with, and where it stopped before."""
    settings = getattr(unwrap(model), "generation_config", None)
    if settings is None:
        return
    ids = list(dict.fromkeys([*_listed(settings.eos_token_id), *taught]))
    settings.eos_token_id = ids if len(ids) > 1 else next(iter(ids), None)


def bending_settings(model: nn.Module) -> dict[str, Any]:
    """What a model's generation config holds that would change greedy answers."""
    settings = getattr(unwrap(model), "generation_config", None)
    if settings is None or getattr(unwrap(model).config, "is_encoder_decoder", False):
        return {}
    return {name: value for name, value in settings.to_diff_dict().items() if name not in HARMLESS}


def check_readable(folder: Path) -> None:
    """Raises: ModelError where a folder's generation_config.json is what transformers cannot read."""
    from transformers import GenerationConfig

    file = folder / "generation_config.json"
    try:
        if file.exists():
            GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of whatever type a setting fails in
        what = f"transformers cannot read it: {first_line(error)}"
        raise ModelError(what, where=str(file), fix="mend that setting, or remove the file") from None


@contextmanager
def own_distribution(model: nn.Module) -> Iterator[None]:
    """Inside, `generate` knows none of the settings of the model's folder (penalties, filters, beams): what
    it writes comes from the model's distribution."""
    from transformers import GenerationConfig

    plain: Any = unwrap(model)
    settings = plain.generation_config
    try:
        plain.generation_config = GenerationConfig()
        yield
    finally:
        plain.generation_config = settings


@contextmanager
def unbent(model: nn.Module) -> Iterator[None]:
    """Inside, the model's generation config is without what would change greedy answers, and can be saved.

    transformers reads settings that it refuses to write: a temperature without do_sample, which then has no
    effect, stands in the folders of many models.
    """
    plain: Any = unwrap(model)
    settings = getattr(plain, "generation_config", None)
    bending = bending_settings(plain)
    if settings is None or (not bending and _is_valid(settings)):
        yield
        return
    plain.generation_config = _savable(settings, bending)
    try:
        yield
    finally:
        plain.generation_config = settings


def _savable(settings: Any, bending: Iterable[str]) -> Any:
    """A copy without bending settings, and without those that make it invalid."""
    fresh = type(settings)()
    copied = copy.deepcopy(settings)
    for name in bending:
        setattr(copied, name, getattr(fresh, name, None))
    if _is_valid(copied):
        return copied
    if copied.do_sample is not True:
        for name in SAMPLING:
            setattr(copied, name, getattr(fresh, name, None))
    if _is_valid(copied):
        return copied
    for name in ENDS:
        setattr(fresh, name, getattr(settings, name))
    return fresh


def _is_valid(settings: Any) -> bool:
    """Whether transformers agrees to write these settings."""
    try:
        settings.validate(strict=True)
    except Exception:  # a value of another type fails in a type of its own
        return False
    return True


def _listed(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
