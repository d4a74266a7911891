"""Export: a model folder that transformers, peft, sentence-transformers and vLLM load, measured before it
appears.

    exported = export(resolve("runs/study-1a2b3c4d"), "int8")
    exported.folder            # runs/<winner>/export/int8: weights, tokenizer, README.md, manifest.json,
    parity.json, sbom.cdx.json

The folder is written under another name, read back, compared with its source and renamed: it is there whole
    and within
the stated loss, or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.formats import Format, find_format
from adaptkit.export.papers import lineage
from adaptkit.export.parity.gate import Limits, compare, merge_checks, passed, refuse, token_checks
from adaptkit.export.parity.heldout import HeldOut, find_heldout
from adaptkit.export.source import EXPORTED, Source
from adaptkit.run import Run, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.export.parity.answers import Answers
    from adaptkit.export.quantise.model import Method
    from adaptkit.models import Kind

MODEL_KINDS: dict[str, Kind] = {
    "generate": "causal",
    "classify": "classifier",
    "rerank": "classifier",
    "embed": "encoder",
}
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        out: the folder to write; None takes the run's own `export/<format>`.
        method: of rounding; gptq needs text to calibrate on.
        evaluation, calibration: files of text, in place of the run's own.
        max_loss_bpb, max_loss_score: allowed losses; None takes the format's.
        sign_key: a private key (PEM) to sign the folder with; None leaves it unsigned.
    """

    out: Path | None = None
    method: Method = "rtn"
    evaluation: Path | None = None
    calibration: Path | None = None
    max_loss_bpb: float | None = None
    max_loss_score: float | None = None
    sign_key: Path | None = None


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    folder: Path
    format: str
    source: Source
    manifest: dict[str, Any]
    parity: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        return sum(file["num_bytes"] for file in self.manifest["files"].values())

    def summary(self) -> str:
        """For people: what was exported, where to, how large, and each figure of the parity gate."""
        lines = [
            f"{self.source.name}: {self.source.why}",
            f"{self.folder}  {self.format}, {self.num_bytes / 1e6:.1f} MB",
            "",
        ]
        lines.append(f"parity, on {self.parity['text']['origin']}:")
        for check in self.parity["checks"]:
            values = "" if check["before"] is None else f"{check['before']:.4f} -> {check['after']:.4f}, "
            allowed = "" if check["limit"] is None else f" of {check['limit']:.2g} allowed"
            lines.append(f"  {check['name']}: {values}loss {check['loss']:.2g}{allowed}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "name": self.source.name,
            "kind": self.source.kind,
            "why": self.source.why,
            "format": self.format,
            "num_bytes": self.num_bytes,
            "manifest": self.manifest[EXPORTED],
            "parity": self.parity,
        }


def export(
    source: Source, format: str, options: Options | None = None, tell: Tell = lambda text: None
) -> Exported:
    """Write `source` in a format.

    Args:
        tell: called with a sentence whenever something that takes time begins.
    Raises: ConfigError or ModelError for what cannot be exported, or is further from its source than stated;
        then nothing is left behind but the figures, in the run's parity.json or beside the folder.
    """
    options, chosen = options or Options(), find_format(format)
    folder = _destination(source, chosen, options)
    _check_request(source, chosen, options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        parity, described = _write(source, chosen, options, temporary, tell)
        refuse(parity, str(folder), str(_keep_report(source, chosen, folder, parity)))
        manifest = _describe(source, chosen, temporary, parity, described, options)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, chosen.name, source, manifest, parity)


def _destination(source: Source, format: Format, options: Options) -> Path:
    if options.out is not None:
        folder = options.out.expanduser()
        if folder.exists() and not (folder / "manifest.json").is_file() and any(folder.iterdir()):
            raise ConfigError(
                "is a folder with something else in it", where=str(folder), fix="give --out a new folder"
            )
        return folder
    if source.run is None:
        fix = f"add --out {source.name}-{format.name}"
        raise ConfigError(
            "a model folder has no run directory to write into", where=str(source.folder), fix=fix
        )
    return Run(source.run).export(format.name)


def _check_request(source: Source, format: Format, options: Options) -> None:
    if read_json(source.folder / "config.json").get("quantization_config"):
        what = "is quantised already; rounding it again would only lose more"
        raise ModelError(what, where=str(source.folder), fix="export the run or model that it was made from")
    if options.method == "gptq" and format.grid is None:
        raise ConfigError(
            f"gptq rounds weights, and {format.name} keeps them", where="--method", fix="use int4 or int8"
        )
    if format.name == "fp8" and options.method == "gptq":
        raise ConfigError("gptq is for int4 and int8", where="--method", fix="leave --method out for fp8")


def _write(
    source: Source, format: Format, options: Options, folder: Path, tell: Tell
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's files in `folder`; what parity.json and the manifest say of them."""
    import torch

    from adaptkit import models
    from adaptkit.export import model_folder
    from adaptkit.export.parity import reference
    from adaptkit.export.parity.answers import ask
    from adaptkit.export.quantise.compressed_tensors import compress, restore
    from adaptkit.export.quantise.model import quantise

    tokenizer = models.load_tokenizer(source.folder)
    heldout = find_heldout(source, evaluation=options.evaluation, calibration=options.calibration)
    tell(f"asking the trained model, on {heldout.origin}")
    model = _load(source)
    before = ask(source, model, tokenizer, heldout)
    if format.grid is None:
        described = {"method": None, "group_size": None, "calibration": None}
        model_folder.write(source, model.to(getattr(torch, format.dtype)), tokenizer, folder)
        written = _load(source, folder)
    else:
        done = quantise(model, tokenizer, format, options.method, heldout, str(source.folder), tell)
        described = done.described
        model_folder.write(source, model.to(torch.bfloat16), tokenizer, folder)
        compress(folder, done.scheme, done.layers)
        written = restore(model, folder, done.scheme)
    tell("asking the exported model")
    after = ask(source, written, models.load_tokenizer(folder), heldout)
    write_json(folder / reference.FILE, reference.make(source, written, models.load_tokenizer(folder)))
    num_items = len(heldout.items.rows) if heldout.items is not None else 0
    limits = Limits.of(format, options.max_loss_bpb, options.max_loss_score)
    checks = compare(before, after, format, limits, num_items)
    checks += token_checks(tokenizer, models.load_tokenizer(folder), [text for _, text in heldout.texts])
    merge = _merge_report(source, tokenizer, heldout, before, tell)
    parity = {
        "format": format.name,
        "method": described["method"],
        "passed": passed([*checks, *merge["checks"]]),
        "text": {
            "origin": heldout.origin,
            "texts": len(heldout.texts),
            "digest": heldout.digest or None,
            "tokens_per_window": heldout.seq_len,
        },
        "items": {
            "origin": heldout.items_origin or "no task: only the text was compared",
            "items": num_items,
        },
        "merge": merge["told"],
        "checks": [*checks, *merge["checks"]],
    }
    return parity, described


def _load(source: Source, folder: Path | None = None) -> nn.Module:
    from adaptkit import models

    return models.load(folder or source.folder, MODEL_KINDS[source.kind]).eval()


def _merge_report(
    source: Source, tokenizer: Any, heldout: HeldOut, merged: Answers, tell: Tell
) -> dict[str, Any]:
    """The merged model against base and adapter as trained, or why that could not be done again."""
    from adaptkit.export.parity.answers import ask
    from adaptkit.export.parity.unmerged import adapted_model

    if source.adapter is None:
        return {"told": "no adapter: the exported weights are the trained ones", "checks": []}
    model = adapted_model(source, len(tokenizer))
    if isinstance(model, str):
        return {"told": model, "checks": []}
    tell("asking base and adapter as trained")
    return {
        "told": "base and adapter as trained against the merged model",
        "checks": merge_checks(ask(source, model, tokenizer, heldout), merged),
    }


def _keep_report(source: Source, format: Format, folder: Path, parity: dict[str, Any]) -> Path:
    """The figures outlive a refused export: in the run's parity.json by format, or beside the folder; where
    they are."""
    if source.run is not None and folder == Run(source.run).export(format.name):
        path = Run(source.run).parity_path
        write_json(path, {**(read_json(path) if path.is_file() else {}), format.name: parity})
        return path
    path = folder.with_name(f"{folder.name}.parity.json")
    if not parity["passed"]:
        write_json(path, parity)
    return path


def _describe(
    source: Source,
    format: Format,
    folder: Path,
    parity: dict[str, Any],
    described: dict[str, Any],
    options: Options,
) -> dict[str, Any]:
    """parity.json, card, bill of materials, licence texts, and last the manifest over all of them (and its
    signature)."""
    from adaptkit.export.papers.card import write_card
    from adaptkit.export.papers.sbom import write_bill

    write_json(folder / "parity.json", parity)
    ancestors = lineage.lineage(source)
    for path in lineage.licence_files(ancestors):
        shutil.copyfile(path, folder / path.name)
    licence, licence_words = lineage.licence_of(ancestors)
    told = {
        "name": source.name,
        "kind": source.kind,
        "format": format.name,
        "stores": format.describe,
        "needs": format.needs,
        "serving_dtype": _serving_dtype(source, format),
        **described,
        "study": source.study.resolve().name if source.study else None,
        "arm": source.arm,
        "task": source.task,
        "seed": source.seed,
        "base": next((ancestor.name for ancestor in ancestors if "base" in ancestor.facts), None),
        "licence": licence_words,
        "labels": list(source.labels),
    }
    record = {
        EXPORTED: told,
        "source": lineage.weights_digests(source.folder),
        "lineage": [ancestor.facts for ancestor in ancestors],
        "code": lineage.code(),
    }
    write_bill(folder, record, licence)
    write_card(folder, source, record, parity, licence, licence_words)
    manifest = {**record, "files": lineage.file_digests(folder)}
    write_json(folder / lineage.MANIFEST, manifest)
    if options.sign_key is not None:
        from adaptkit.export.papers.signature import sign

        sign(folder, options.sign_key)
    return manifest


def _serving_dtype(source: Source, format: Format) -> dict[str, str]:
    """What a server should compute in: CPUs without bf16 units are fastest in float32, vLLM's int4 kernel
    knows bfloat16 only."""
    if format.grid == "int4":
        return {"gpu": "bfloat16", "cpu": "bfloat16"}
    if source.kind != "generate" or format.dtype == "float32":
        return {"gpu": format.dtype, "cpu": "float32"}
    return {"gpu": "bfloat16", "cpu with bf16 units": "bfloat16", "cpu": "float32"}


def _publish(temporary: Path, folder: Path) -> None:
    """Onto the disk, then to its place in one step; an older export goes only when the new one is there."""
    for path in [*temporary.rglob("*"), temporary]:
        path.chmod(
            0o755 if path.is_dir() else 0o644
        )  # safetensors writes files that only their owner can read
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        os.rename(folder, old)
        os.rename(temporary, folder)
        shutil.rmtree(old)
    else:
        os.rename(temporary, folder)
    folder.with_name(f"{folder.name}.parity.json").unlink(missing_ok=True)
