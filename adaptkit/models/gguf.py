"""Turn a .gguf file, as llama.cpp reads it, into a Hugging Face folder that can be trained.

    folder = from_gguf("models/SmolLM2-135M-Instruct.Q4_1.gguf")   # models/SmolLM2-135M-Instruct.Q4_1

The folder lies beside the file and is made once: weights as the file holds them, no longer quantised, the
tokenizer with its chat template, a model card with the licence that the file states, and provenance.json.
What rounding to few bits lost before stays lost; how much that is, the card says as an estimate.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.disk import whole_folder
from adaptkit.errors import ModelError, first_line
from adaptkit.run import file_digest, read_json, write_json, write_text
from adaptkit.run_record import Record

PROVENANCE = "provenance.json"
EVEN_STEPS = {
    "Q4_0": 32,
    "Q4_1": 32,
    "Q5_0": 32,
    "Q5_1": 32,
    "Q8_0": 32,
    "Q2_K": 16,
    "Q3_K": 16,
    "Q4_K": 32,
    "Q5_K": 32,
    "Q6_K": 16,
}
"""Formats whose values lie in even steps, and how many values in a row share a step (ggml-quants.h)."""
SAMPLED_BLOCKS = 4096
"""Blocks of a tensor that the estimate of its rounding is made from."""
HALF_PRECISION = {"F16": "float16", "Q8_0": "float16", "F32": "float32", "F64": "float32"}
"""What keeps every digit of a format; bfloat16 is finer than any with fewer bits."""
FIX = "check that the file is whole, or take the model as a Hugging Face folder"


class GgufRecord(Record):
    """What a folder was made from, in its provenance.json.

    Attributes:
        formats: format -> share of the weights.
        bits_per_weight: of the file.
        rounding: root mean square of what rounding changed, as a share of the weights', estimated from the
            steps between values; None where no format has even steps.
    """

    file: str
    sha256: str
    num_bytes: int
    modified_ns: int
    formats: dict[str, float]
    bits_per_weight: float
    rounding: float | None
    licence: str
    name: str

    def describe(self) -> str:
        """`Q4_1, 5.0 bits per weight; rounding moved weights by about 8 % of their size`."""
        main = max(self.formats, key=lambda name: self.formats[name])
        words = f"{main}, {self.bits_per_weight:.1f} bits per weight"
        if self.rounding is None:
            return words
        return f"{words}; rounding moved weights by about {100 * self.rounding:.2g} % of their size"


def from_gguf(file: str | Path) -> Path:
    """The folder of a .gguf file, beside it; made where it is not there yet, or where the file changed.

    Raises: ModelError if the file is no whole model, or of an architecture that transformers does not read.
    """
    source = Path(file)
    folder = source.with_suffix("")
    if _is_made_from(folder, source):
        return folder
    if folder.exists() and not (folder / PROVENANCE).exists():
        what = f"a .gguf file is turned into the folder {folder.name} beside it, which exists already"
        raise ModelError(what, where=str(source), fix=f"give {folder} itself, or rename one of the two")
    record = _read(source)
    model, tokenizer = _load(source)
    with whole_folder(folder) as target:
        _unquantised(model, _precision(record)).save_pretrained(target)
        tokenizer.save_pretrained(target)
        write_json(target / PROVENANCE, record.model_dump(mode="json"))
        write_text(target / "README.md", _card(record))
    return folder


def gguf_record(folder: Path) -> GgufRecord | None:
    """What a folder was made from; None where it was not made from a .gguf file."""
    path = folder / PROVENANCE
    return GgufRecord(**read_json(path)) if path.is_file() else None


def _is_made_from(folder: Path, source: Path) -> bool:
    """Whether a folder was made from this file; the file is only read where its size or time differs."""
    record, held = gguf_record(folder), source.stat()
    if record is None or record.num_bytes != held.st_size:
        return False
    return record.modified_ns == held.st_mtime_ns or record.sha256 == file_digest(source)


def _read(source: Path) -> GgufRecord:
    """Look at the tensors and the facts of a file."""
    import gguf

    try:
        reader = gguf.GGUFReader(source)
    except Exception as error:  # its reader raises whatever numpy does on a file that is cut short
        raise ModelError(f"not a .gguf file: {first_line(error)}", where=str(source), fix=FIX) from None
    numbers: Counter[str] = Counter()
    for tensor in reader.tensors:
        numbers[tensor.tensor_type.name] += int(tensor.n_elements)
    total = sum(numbers.values())
    if not total:
        raise ModelError("the .gguf file holds no tensor", where=str(source), fix=FIX)
    num_bits = 8 * sum(int(tensor.n_bytes) for tensor in reader.tensors)
    held = source.stat()
    return GgufRecord(
        file=source.name,
        sha256=file_digest(source),
        num_bytes=held.st_size,
        modified_ns=held.st_mtime_ns,
        formats={name: round(number / total, 4) for name, number in numbers.most_common()},
        bits_per_weight=round(num_bits / total, 2),
        rounding=_rounding(reader.tensors),
        licence=_fact(reader, "general.license"),
        name=_fact(reader, "general.name"),
    )


def _fact(reader: Any, key: str) -> str:
    value = reader.get_field(key)
    return str(value.contents()) if value is not None else ""


def _rounding(tensors: list[Any]) -> float | None:
    """Error of rounding as a share of the weights' size, over all tensors in even steps.

    A value rounded to steps of s is off by s / sqrt(12) in the root mean square (Bennett 1948). The step of a
    block is taken for the smallest gap between two of its values.
    """
    from gguf import quants

    errors, squares = 0.0, 0.0
    for tensor in tensors:
        length = EVEN_STEPS.get(tensor.tensor_type.name)
        if length is None:
            continue
        rows = tensor.data.reshape(-1, tensor.data.shape[-1])
        values = quants.dequantize(rows[: _enough_rows(rows, tensor)], tensor.tensor_type)
        blocks = values.reshape(-1, length).astype(np.float64)[:SAMPLED_BLOCKS]
        weight = float(tensor.n_elements) / blocks.size
        errors += weight * length * float(np.sum(smallest_gaps(blocks) ** 2)) / 12
        squares += weight * float(np.sum(blocks**2))
    return math.sqrt(errors / squares) if squares else None


def _enough_rows(rows: Any, tensor: Any) -> int:
    """Rows of a tensor that hold enough blocks for the estimate."""
    a_row = max(1, int(tensor.n_elements) // len(rows))
    return max(1, math.ceil(SAMPLED_BLOCKS * 32 / a_row))


def smallest_gaps(blocks: np.ndarray) -> np.ndarray:
    """The smallest difference between two unequal values of each row; 0 where all are equal."""
    gaps = np.diff(np.sort(blocks, axis=1), axis=1)
    size = np.abs(blocks).max(axis=1, keepdims=True)
    gaps[gaps <= 1e-6 * size] = np.inf  # equal values, a float's last digit aside
    smallest = gaps.min(axis=1)
    return np.where(np.isfinite(smallest), smallest, 0.0)


def _load(source: Path) -> tuple[Any, Any]:
    """(model in float32, tokenizer) as transformers reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
    except Exception as error:  # of an unknown architecture or a missing field it raises many types
        what = f"transformers cannot read this .gguf file: {first_line(error)}"
        raise ModelError(what, where=str(source), fix=FIX) from None
    return model, tokenizer


def _unquantised(model: Any, precision: str) -> Any:
    """The same weights in a fresh model: the one that was read refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    config = type(model.config).from_dict(settings)
    fresh = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, precision))
    fresh.load_state_dict(model.state_dict())
    return fresh


def _precision(record: GgufRecord) -> str:
    main = max(record.formats, key=lambda name: record.formats[name])
    return HALF_PRECISION.get(main, "bfloat16")


def _card(record: GgufRecord) -> str:
    """README.md with the licence where the Hub looks for it."""
    licence = record.licence or "other"
    return f"""---
license: {licence}
library_name: transformers
pipeline_tag: text-generation
---
# {record.name or Path(record.file).stem}

Made from `{record.file}` (sha256 {record.sha256}): {record.describe()}.
The weights are those of the file, stored without quantisation; what its rounding lost is not won back.
"""
