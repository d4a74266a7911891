"""LoRA adapters behind the server of their base: which vLLM can serve, and what is done with the others.

vLLM 0.32 refuses DoRA, modules saved whole and ranks over 256. Such an adapter is served merged instead: as
the merged model of its own run where it lies in one (a QLoRA adapter always: it belongs to the 4-bit values
of its base, and over the full-precision base it is another model), else merged here once, into a folder
beside it.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.export.source import Source, of_model
from adaptkit.run import Run, file_digest, read_json
from adaptkit.run_record import read_record
from adaptkit.serve.engine.command import RANKS, Adapter

SETTINGS = "adapter_config.json"
_DIGEST = re.compile(r"@sha256:([0-9a-f]{12})$")


def is_adapter(folder: Path) -> bool:
    """True for a peft folder without whole weights."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def cannot_be_served(folder: Path) -> str | None:
    """Why vLLM cannot serve this adapter over its base, a clause; None if it can.

    Raises: ModelError for a folder that is no LoRA adapter.
    """
    settings = read_json(folder / SETTINGS)
    if str(settings.get("peft_type", "LORA")).upper() != "LORA" or not isinstance(settings.get("r"), int):
        raise ModelError(
            "is no LoRA adapter",
            where=str(folder),
            fix="merge it into its base with peft, then serve the result",
        )
    rank = max([settings["r"], *(settings.get("rank_pattern") or {}).values()])
    if settings.get("use_dora"):
        return "vLLM does not serve DoRA"
    if saved := settings.get("modules_to_save"):
        return f"vLLM does not serve modules saved whole ({', '.join(saved)})"
    if settings.get("trainable_token_indices"):
        return "vLLM does not serve token rows trained beside the adapter"
    if rank > RANKS[-1]:
        return f"its rank {rank} is over vLLM's limit {RANKS[-1]}"
    run = Run(folder.parent)
    trained = read_record(run).adapter if run.config_path.is_file() else None
    if trained is not None and trained.kind == "qlora":
        return "it belongs to the 4-bit values of its base (QLoRA)"
    return None


def as_adapter(name: str, folder: Path) -> Adapter:
    """The adapter as vLLM is to load it."""
    settings = read_json(folder / SETTINGS)
    return Adapter(name, folder, max([settings["r"], *(settings.get("rank_pattern") or {}).values()]))


def base_of(folder: Path, candidates: Sequence[Source]) -> Source:
    """Which of the given models this adapter was trained on: told by the digest of the base's weights that it
    records.

    Raises: ModelError if none is, or an adapter without a digest could belong to several.
    """
    recorded = str(read_json(folder / SETTINGS).get("base_model_name_or_path") or "")
    generators = [source for source in candidates if source.kind == "generate"]
    if found := _DIGEST.search(recorded):
        fitting = [source for source in generators if _weights_digest(source.folder).startswith(found[1])]
    else:
        fitting = [
            source for source in generators if Path(recorded).name == source.folder.resolve().name
        ] or generators
    if len(fitting) != 1:
        what = f"its base ({recorded or 'not recorded'}) is not among the models given"
        fix = "give the base model's folder too: adaptkit serve BASE NAME=ADAPTER"
        raise ModelError(what, where=str(folder), fix=fix)
    return fitting[0]


def merged(name: str, folder: Path, candidates: Sequence[Source]) -> Source:
    """The model that base and adapter are together: the run's own, or merged here once in another process.

    Raises: ModelError if the base is not given, or merging fails.
    """
    if (folder.parent / "model" / "config.json").is_file() and (folder.parent / "config.yaml").is_file():
        return dataclasses.replace(of_model(folder.parent / "model"), name=name)
    base = base_of(folder, candidates)
    weights = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if weights is None:
        raise ModelError(
            "holds no adapter weights (*.safetensors)", where=str(folder), fix="copy the folder again"
        )
    target = folder.with_name(f"{folder.name}-merged-{file_digest(weights)[:8]}")
    if not (target / "config.json").is_file():
        command = [
            sys.executable,
            "-m",
            "adaptkit.serve.engine.lora",
            str(base.folder),
            str(folder),
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(
                f"cannot be merged: {last}", where=str(folder), fix="merge it with peft's `merge_and_unload`"
            )
    return dataclasses.replace(of_model(target), name=name)


def merge(base: Path, folder: Path, target: Path) -> None:
    """Write base and adapter as one whole model."""
    from peft import PeftModel

    from adaptkit import adapters, models

    model: Any = models.load(base, "causal")
    plain = adapters.merge(PeftModel.from_pretrained(model, str(folder)))
    models.save(plain, models.load_tokenizer(base), target)


def _weights_digest(folder: Path) -> str:
    weights = sorted(folder.glob("*.safetensors"))
    return file_digest(weights[0]) if weights else ""


if __name__ == "__main__":
    merge(*map(Path, sys.argv[1:4]))
