"""Serve LoRA adapters behind their base: find the base, and merge the adapters that vLLM cannot serve.

vLLM 0.32 refuses DoRA, modules saved whole and ranks over 256, and it stops where the base stops, whatever
turns an adapter was taught. Such an adapter is served merged instead: as
the merged model of its own run where it lies in one (a QLoRA adapter always: it belongs to the 4-bit values
of its base, and over the full-precision base it is another model), else merged here once, into a folder
beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptkit.client.identity import ModelIdentity
from adaptkit.errors import ModelError
from adaptkit.export.source import Source, of_model, of_run, role_of
from adaptkit.run import Run, read_json, weights_digest
from adaptkit.run_record import RunRecord, read_record
from adaptkit.serve.engine import adapter_check
from adaptkit.serve.engine.failures import last_line
from adaptkit.serve.engine.lora_flags import RANKS, Adapter

SETTINGS = "adapter_config.json"
_DIGEST = re.compile(r"@sha256:([0-9a-f]{12})$")


def is_adapter(folder: Path) -> bool:
    """Say whether a folder is peft's and holds no whole weights."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def cannot_be_served(folder: Path) -> str | None:
    """Explain in a clause why vLLM cannot serve this adapter over its base; None if it can.

    Raises: ModelError for a folder that is no LoRA adapter.
    """
    settings = read_json(folder / SETTINGS)
    if str(settings.get("peft_type", "LORA")).upper() != "LORA" or not isinstance(settings.get("r"), int):
        fix = "merge it into its base with peft, then serve the result"
        raise ModelError("is no LoRA adapter", where=str(folder), fix=fix)
    if settings.get("use_dora"):
        return "vLLM does not serve DoRA"
    if whole := settings.get("modules_to_save"):
        return f"vLLM does not serve modules saved whole ({', '.join(whole)})"
    if settings.get("trainable_token_indices"):
        return "vLLM does not serve token rows trained beside the adapter"
    if settings.get("target_parameters"):
        return "vLLM does not serve adapters over parameters outside of modules"
    if whole_names := adapter_check.whole_tensors(folder):
        return f"vLLM serves low-rank pairs only, and it also holds {whole_names[0]}"
    if (rank := _rank(folder, settings)) > RANKS[-1]:
        return f"its rank {rank} is over vLLM's limit {RANKS[-1]}"
    record = _record_of(folder)
    if record is not None and record.adapter is not None and record.adapter.kind == "qlora":
        return "it belongs to the 4-bit values of its base (QLoRA)"
    if record is not None and (ends := record.facts.get("new_ends")):
        return f"its turns end with {', '.join(ends)}, at which its base does not stop"
    return None


def adapter_over(base: Source, name: str, folder: Path) -> Adapter:
    """Describe the adapter as vLLM is to load it over `base`."""
    record, task = _record_of(folder), None
    if record is not None and record.task:
        task = record.task
    adaptation = "rag-lora" if record is not None and record.expects_passages else "lora"
    identity = ModelIdentity(
        origin=base.origin,
        adaptation=adaptation,
        task=task,
        role=role_of(base.origin, adaptation).value,
        kind=base.kind,
    )
    return Adapter(name, folder, _rank(folder, read_json(folder / SETTINGS)), identity)


def check_fit(folder: Path, base: Source) -> str | None:
    """Check that an adapter changes the base that it is served over.

    Returns: a clause for people where it records another base; None where it records this one.
    Raises: ModelError for names, shapes or ranks that do not fit.
    """
    settings = read_json(folder / SETTINGS)
    adapter_check.check_fit(folder, base.folder, settings)
    if _DIGEST.search(str(settings.get("base_model_name_or_path") or "")):
        return None  # found by the digest of its weights
    return adapter_check.other_base(base.folder, settings)


def base_of(folder: Path, candidates: Sequence[Source]) -> Source:
    """Find the model that this adapter was trained on, by the digest of its base's weights that it records.

    Raises: ModelError if none is, or an adapter without a digest could belong to several.
    """
    recorded = str(read_json(folder / SETTINGS).get("base_model_name_or_path") or "")
    generators = [source for source in candidates if source.kind == "generate"]
    if digest := _DIGEST.search(recorded):
        fitting = [source for source in generators if _base_digest(source.folder).startswith(digest[1])]
    else:
        same_name = [source for source in generators if source.folder.resolve().name == Path(recorded).name]
        fitting = same_name or generators
    if len(fitting) != 1:
        what = f"its base ({recorded or 'not recorded'}) is not among the models given"
        fix = "give the base model's folder too: adaptkit serve BASE NAME=ADAPTER"
        raise ModelError(what, where=str(folder), fix=fix)
    return fitting[0]


def _base_digest(folder: Path) -> str:
    """Digest a base's weights, once while they stay as they are: adapters may come every minute."""
    state = tuple((path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors")))
    return _digest_of_state(folder, state)


@functools.lru_cache(maxsize=64)
def _digest_of_state(folder: Path, state: tuple[tuple[Path, int], ...]) -> str:
    return weights_digest(folder)


def merged(name: str, folder: Path, candidates: Sequence[Source]) -> Source:
    """Find or make the model that base and adapter are together: the run's own, or merged here once.

    Raises: ModelError if the base is not given, or merging fails.
    """
    run = _run_of(folder)
    if run is not None and (run.model / "config.json").is_file():
        return dataclasses.replace(of_run(run.path), name=name)
    base = base_of(folder, candidates)
    digest = weights_digest(folder)
    if not digest:
        what = "holds no adapter weights (*.safetensors)"
        raise ModelError(what, where=str(folder), fix="copy the folder again")
    check_fit(folder, base)  # peft too passes over what names no module
    target = folder.with_name(f"{folder.name}-merged-{digest[:8]}")
    if not (target / "config.json").is_file():
        _merge_elsewhere(base.folder, folder, target)
    return dataclasses.replace(of_model(target), name=name, origin=base.origin, adaptation="lora")


def _merge_elsewhere(base: Path, folder: Path, target: Path) -> None:
    """Merge in another process, so that this one stays small.

    Raises: ModelError.
    """
    folders = [str(base), str(folder), str(target)]
    command = [sys.executable, "-m", "adaptkit.serve.engine.lora", *folders]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = last_line(done.stderr)
        fix = "merge it with peft's `merge_and_unload`"
        raise ModelError(f"cannot be merged: {last}", where=str(folder), fix=fix)


def merge(base: Path, folder: Path, target: Path) -> None:
    """Write base and adapter as one whole model."""
    from peft import PeftModel

    from adaptkit import adapters, models

    model: Any = models.load(base, "causal")
    plain = adapters.merge(PeftModel.from_pretrained(model, str(folder)))
    models.save(plain, models.load_tokenizer(base), target)


def _rank(folder: Path, settings: dict[str, Any]) -> int:
    """Find the largest rank of any matrix."""
    recorded = [settings["r"], *(settings.get("rank_pattern") or {}).values()]
    return max([adapter_check.stored_rank(folder), *recorded])


def _run_of(folder: Path) -> Run | None:
    """Find the run whose adapter this folder is; None for any other folder."""
    run = Run(folder.parent)
    if folder.name == run.adapter.name and run.manifest_path.is_file():
        return run
    return None


def _record_of(folder: Path) -> RunRecord | None:
    """Read what the run is that trained this adapter; None for an adapter from elsewhere."""
    run = _run_of(folder)
    if run is None:
        return None
    return read_record(run)


if __name__ == "__main__":
    merge(*map(Path, sys.argv[1:4]))
