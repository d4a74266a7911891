"""The model exactly as it was trained: its base, in the precision of the training, with the adapter on top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.errors import ModelError
from adaptkit.export.papers.lineage import located_base
from adaptkit.export.source import Source, run_config
from adaptkit.run import Run

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.models import Kind


def adapted_model(source: Source, vocab_size: int) -> nn.Module | str:
    """Base and adapter of a run that trained one, or a sentence that says why they cannot be put together
    again.

    Args:
        vocab_size: entries of the run's tokenizer, which may have more than the base's.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    from adaptkit import models
    from adaptkit.adapters import AdapterConfig, attach

    assert source.run is not None and source.adapter is not None
    config = run_config(source.run)
    settings = AdapterConfig.model_validate(config["adapter"])
    base = located_base(source.run, source.base or _stood_on(source.run, config))
    if base is None:
        return "the base that the adapter was trained on is not here: the merge was checked when it was made, not again"
    kind: Kind = {"classify": "classifier", "rerank": "classifier", "embed": "encoder"}.get(
        source.kind, "causal"
    )
    try:
        model = models.load(
            base, kind, label_names=list(source.labels) or None, quantization=settings.quantization
        )
    except ModelError as error:
        return f"the base cannot be loaded ({error.what}): the merge was checked when it was made, not again"
    if kind == "classifier":
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = models.load_tokenizer(
            source.folder
        ).pad_token_id
    known = model.get_input_embeddings().num_embeddings
    if vocab_size > known:
        model.resize_token_embeddings(vocab_size)
    model = attach(model, settings, seed=0, new_tokens=list(range(known, vocab_size)))
    set_peft_model_state_dict(model, load_file(source.adapter / "adapter_model.safetensors"))
    return model.eval()


def _stood_on(run: Path, config: dict[str, Any]) -> str:
    """What the adapter of a distilled student stands on: kept in its run, unless the student started from a
    folder."""
    kept = Run(run).base
    return str(kept if kept.is_dir() else (config.get("student") or {}).get("start") or "")
