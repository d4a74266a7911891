"""Export a model: write a folder that transformers and vLLM load, and measure what it lost.

    exported = export(resolve("runs/study-1a2b3c4d"), "int8")
    exported.folder     # runs/<recommended>/export/int8: weights, tokenizer, README.md, manifest.json,
                        # parity.json, reference.json, answers.json, sbom.cdx.json

The folder is written under another name, read back, compared with its source and renamed: it is there whole
and within the allowed loss, or not at all.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import models
from adaptkit.disk import whole_folder
from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.abstention import confidence_note, confidence_of
from adaptkit.export.formats import Format, find_format
from adaptkit.export.papers.lineage import Lineage, trace, weights_digests
from adaptkit.export.papers.model_card import write_card
from adaptkit.export.papers.provenance import Provenance, write_manifest
from adaptkit.export.papers.sbom import write_bill
from adaptkit.export.papers.signature import sign
from adaptkit.export.parity.answers import ask
from adaptkit.export.parity.evaluation_data import find_evaluation_data
from adaptkit.export.parity.gate import Limits, compare, refuse, token_checks
from adaptkit.export.parity.measure import ParityReport, Tell, compare_merge
from adaptkit.export.parity.reference import make_reference
from adaptkit.export.parity.unchanged import recorded_checks, refuse_changed
from adaptkit.export.quantise.compressed_tensors import compress, restore
from adaptkit.export.quantise.model import Quantised, quantise
from adaptkit.export.record import (
    MANIFEST_FILE,
    PARITY_FILE,
    REFERENCE_FILE,
    CalibrationRecord,
    ConfidenceRecord,
    ExportRecord,
    Method,
)
from adaptkit.export.source import Source
from adaptkit.export.verify.record import write_answers
from adaptkit.export.verify.upgrade import make_record
from adaptkit.export.weights import load_trained, write_model
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import capabilities
from adaptkit.run import Run, read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        out: the folder to write; None takes the run's own `export/<format>`.
        method: of rounding; gptq needs text to calibrate on.
        evaluation, calibration: files of text, in place of the run's own.
        max_loss_bpb, max_loss_score: allowed losses; None takes the format's.
        sign_key: a private key (PEM) to sign the folder with; None leaves it unsigned.
        accuracy: of a classifier, wanted of what it answers; None wants half as many errors as on all.
    """

    out: Path | None = None
    method: Method = "rtn"
    evaluation: Path | None = None
    calibration: Path | None = None
    max_loss_bpb: float | None = None
    max_loss_score: float | None = None
    sign_key: Path | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Exported:
    """A finished export; `num_bytes` is the size of its files."""

    folder: Path
    source: Source
    record: ExportRecord
    parity: ParityReport
    num_bytes: int

    def summary(self) -> str:
        """Say for people what was exported, where to, how large, and each figure of the parity gate."""
        lines = [
            f"{self.source.name}: {self.source.why}",
            f"{self.folder}  {self.record.format}, {self.num_bytes / 1e6:.1f} MB",
            "",
            f"parity, on {self.parity.data.origin}:",
        ]
        notes = confidence_note(self.record.confidence)
        return "\n".join([*lines, *(f"  {check}" for check in self.parity.checks), *notes])

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "name": self.source.name,
            "kind": self.source.kind,
            "why": self.source.why,
            "format": self.record.format,
            "num_bytes": self.num_bytes,
            "manifest": self.record.model_dump(mode="json"),
            "parity": self.parity.as_json(),
        }


def export(
    source: Source, format: str, options: Options | None = None, tell: Tell = lambda text: None
) -> Exported:
    """Write `source` in a format.

    Args:
        tell: called with a sentence whenever something that takes time begins.
    Raises: ConfigError or ModelError for what cannot be exported, or is further from its source than allowed;
        then nothing is left behind but the figures, in the run's parity.json or beside the folder.
    """
    options, chosen = options or Options(), find_format(format)
    folder = _destination(source, chosen, options)
    _check_request(source, chosen, options)
    confidence = confidence_of(source, options.accuracy)
    with whole_folder(folder) as temporary:
        parity, quantised = _write_weights(source, chosen, options, temporary, tell)
        figures = _keep_figures(source, folder, parity)
        refuse(parity.checks, chosen.name, str(folder), str(figures))
        write_json(temporary / PARITY_FILE, parity.as_json())
        tell("keeping its answers, for adaptkit verify")
        write_answers(temporary, make_record(temporary))
        record, num_bytes = _write_papers(source, chosen, temporary, parity, quantised, confidence)
        if options.sign_key is not None:
            sign(temporary, options.sign_key)
        _let_everyone_read(temporary)
    _figures_beside(folder).unlink(missing_ok=True)
    return Exported(folder, source, record, parity, num_bytes)


def _let_everyone_read(folder: Path) -> None:
    """Open the folder to all users: safetensors writes files that only their owner can read."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        else:
            path.chmod(0o644)


def _destination(source: Source, format: Format, options: Options) -> Path:
    if options.out is not None:
        folder = options.out.expanduser()
        if folder.exists() and not (folder / MANIFEST_FILE).is_file() and any(folder.iterdir()):
            what = "is a folder with something else in it"
            raise ConfigError(what, where=str(folder), fix="give --out a new folder")
        return folder
    if source.run is None:
        what = "a model folder has no run directory to write into"
        raise ConfigError(what, where=str(source.folder), fix=f"add --out {source.name}-{format.name}")
    return Run(source.run).export(format.name)


def _check_request(source: Source, format: Format, options: Options) -> None:
    if read_json(source.folder / "config.json").get("quantization_config"):
        what = "is quantised already; rounding it again would only lose more"
        raise ModelError(what, where=str(source.folder), fix="export the run or model that it was made from")
    capabilities(source.folder).check(Use.EXPORT)
    if options.method == "gptq" and format.grid is None:
        what = f"gptq rounds weights, and {format.name} keeps them"
        raise ConfigError(what, where="--method", fix="use int4 or int8")
    if options.method == "gptq" and format.grid == "fp8":
        raise ConfigError("gptq is for int4 and int8", where="--method", fix="leave --method out for fp8")


def _write_weights(
    source: Source, format: Format, options: Options, folder: Path, tell: Tell
) -> tuple[ParityReport, Quantised | None]:
    """Write the model's files and reference.json, read them back and compare them with the source."""
    tokenizer = models.load_tokenizer(source.folder)
    data = find_evaluation_data(source, evaluation=options.evaluation, calibration=options.calibration)
    tell(f"asking the trained model, on {data.origin}")
    trained = load_trained(source)
    before = ask(source, trained, tokenizer, data)
    since_scored = recorded_checks(source, tokenizer, data, before)
    refuse_changed(since_scored, source)
    method: Method | None = None
    quantised = None
    if format.grid is not None:
        method = options.method
        quantised = quantise(trained, tokenizer, format, method, data, str(source.folder), tell)
    written = _write_and_read(source, format, trained, tokenizer, quantised, folder)
    tell("asking the exported model")
    written_tokenizer = models.load_tokenizer(folder)
    after = ask(source, written, written_tokenizer, data)
    write_json(folder / REFERENCE_FILE, make_reference(source, written, written_tokenizer))
    limits = Limits.of(format, options.max_loss_bpb, options.max_loss_score)
    merge, merge_checks = compare_merge(source, tokenizer, data, before, tell)
    checks = (
        *since_scored,
        *compare(before, after, limits, data.num_items),
        *token_checks(tokenizer, written_tokenizer, data.texts),
        *merge_checks,
    )
    return ParityReport(format.name, method, data, merge, checks), quantised


def _write_and_read(
    source: Source,
    format: Format,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    quantised: Quantised | None,
    folder: Path,
) -> PreTrainedModel:
    """Write the model's files, and give back the model that a server reads from them."""
    if quantised is None:
        stored = model.bfloat16() if format.dtype == "bfloat16" else model.float()
        write_model(source, stored, tokenizer, folder)
        return load_trained(source, folder)
    write_model(source, model.bfloat16(), tokenizer, folder)
    compress(folder, quantised.scheme, quantised.layers)
    return restore(model, folder, quantised.scheme)


def _keep_figures(source: Source, folder: Path, parity: ParityReport) -> Path:
    """Write the figures where they outlive a refused export: into the run, or beside the folder."""
    if source.run is not None and folder == Run(source.run).export(parity.format):
        path = Run(source.run).parity_path
        by_format = {}
        if path.is_file():
            by_format = read_json(path)
        write_json(path, {**by_format, parity.format: parity.as_json()})
        return path
    path = _figures_beside(folder)
    if not parity.passed:
        write_json(path, parity.as_json())
    return path


def _figures_beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.{PARITY_FILE}")


def _write_papers(
    source: Source,
    format: Format,
    folder: Path,
    parity: ParityReport,
    quantised: Quantised | None,
    confidence: ConfidenceRecord | None,
) -> tuple[ExportRecord, int]:
    """Write licence texts, bill of materials and card, and last the manifest over all files.

    Returns: the manifest's record, and the size of all files.
    """
    lineage = trace(source)
    for path in lineage.licence_files():
        shutil.copyfile(path, folder / path.name)
    licence, licence_in_words = lineage.licence()
    record = _record(source, format, parity.method, quantised, lineage, licence_in_words, confidence)
    provenance = Provenance(record, weights_digests(source.folder), lineage, licence)
    write_bill(folder, provenance)
    write_card(folder, source, provenance, parity)
    files = write_manifest(folder, provenance)
    return record, sum(file["num_bytes"] for file in files.values())


def _record(
    source: Source,
    format: Format,
    method: Method | None,
    quantised: Quantised | None,
    lineage: Lineage,
    licence: str,
    confidence: ConfidenceRecord | None,
) -> ExportRecord:
    """Describe what the exported folder holds, and which place its model had in a study."""
    group_size: int | None = None
    calibration: CalibrationRecord | None = None
    if quantised is not None:
        group_size, calibration = quantised.scheme.group_size, quantised.calibration
    study: str | None = None
    if source.study is not None:
        study = source.study.resolve().name
    base: str | None = None
    if lineage.base is not None:
        base = lineage.base.name
    return ExportRecord(
        name=source.name,
        kind=source.kind,
        format=format.name,
        stores=format.describe,
        needs=format.needs,
        serving_dtype=_serving_dtype(source, format),
        method=method,
        group_size=group_size,
        calibration=calibration,
        study=study,
        study_name=source.study_name,
        arm=source.arm,
        origin=source.origin,
        adaptation=source.adaptation,
        task=source.task,
        seed=source.seed,
        base=base,
        licence=licence,
        labels=source.labels,
        confidence=confidence,
    )


def _serving_dtype(source: Source, format: Format) -> dict[str, str]:
    """Choose the precision that a server should compute in, by machine.

    CPUs without bf16 units are fastest in float32; vLLM's int4 kernel knows bfloat16 only.
    """
    if format.grid == "int4":
        return {"gpu": "bfloat16", "cpu": "bfloat16"}
    if source.kind != "generate" or format.dtype == "float32":
        return {"gpu": format.dtype, "cpu": "float32"}
    return {"gpu": "bfloat16", "cpu with bf16 units": "bfloat16", "cpu": "float32"}
