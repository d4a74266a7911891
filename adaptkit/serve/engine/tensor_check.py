"""Compare a folder's tensors with the model that its config describes, by name and shape, without memory.

vLLM loads a folder that lacks a linear layer's weight without a word and serves rubbish; this finds it.
transformers itself does the comparison on the meta device, so that renamed, tied and sharded tensors are told
apart as it does when loading. It takes some seconds of imports and runs in another process, beside the start
of vLLM:

    python -m adaptkit.serve.engine.tensor_check FOLDER      # one JSON object
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.export.source import ServedKind, Source
from adaptkit.serve.engine.expected_answers import Expected, expect
from adaptkit.serve.engine.failures import last_line
from adaptkit.serve.model_files import weight_files
from adaptkit.weight_files import read_header

UNUSED_IN_POOLING = ("pooler", "lm_head", "cls.")
PROBLEMS = {
    "missing": "missing",
    "mismatched": "of another shape than config.json says",
    "non_finite": "that hold nan or inf",
}
PACKED = ("weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "input_scale")


async def check(source: Source) -> Expected:
    """Compare a folder's tensors with its config in another process, which also asks transformers.

    Returns: what transformers answers.
    Raises: ModelError for tensors that are missing or of another shape.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "adaptkit.serve.engine.tensor_check",
        str(source.folder),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode:
        what = f"cannot be read by transformers: {last_line(error.decode('utf-8', 'replace'))}"
        raise ModelError(what, where=str(source.folder), fix="export or copy it again")
    result = json.loads(out.splitlines()[-1])
    judge(result, source.kind, source.folder)
    return Expected(**result["expected"])


def judge(difference: Mapping[str, list[str]], kind: ServedKind, folder: Path) -> None:
    """Refuse a folder whose tensors differ from what a model of this kind needs.

    Raises: ModelError naming the first of them.
    """
    unused = UNUSED_IN_POOLING if kind == "embed" else ()
    for problem, words in PROBLEMS.items():
        names = [name for name in difference.get(problem, []) if not any(part in name for part in unused)]
        if names:
            what = f"tensors {words}: {len(names)}, first {names[0]}"
            fix = "export or copy the folder again; vLLM would serve rubbish"
            raise ModelError(what, where=str(folder), fix=fix)


def without_number(folder: Path) -> list[str]:
    """List tensors that hold an infinite value or one that is no number; vLLM would answer with rubbish."""
    from adaptkit.models.load_checks import non_finite, stored_weights

    return [name for name, _ in non_finite(stored_weights(folder))]


def compare(folder: Path) -> dict[str, list[str]]:
    """List tensors that the model needs and the weights lack, or hold in another shape."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model_class = getattr(transformers, config.architectures[0])
    if getattr(config, "quantization_config", None):
        return _compare_packed(folder, model_class, config)
    _, info = model_class.from_pretrained(
        folder,
        config=config,
        device_map="meta",
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    mismatched = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
    return {"missing": sorted(info["missing_keys"]), "mismatched": sorted(mismatched)}


def _compare_packed(folder: Path, model_class: Any, config: Any) -> dict[str, list[str]]:
    """Compare a compressed-tensors folder: a rounded `X.weight` is stored with its scales, or packed."""
    import torch

    del config.quantization_config
    with torch.device("meta"):
        model = model_class(config)
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    headers = [read_header(path) for path in weight_files(folder)]
    stored = {name: entry["shape"] for header in headers for name, entry in header.items()}
    tied: set[str] = set()
    if config.tie_word_embeddings:
        tied.update(getattr(model, "all_tied_weights_keys", None) or ())
    missing = [name for name in wanted if name not in tied and not _is_stored(name, stored)]
    mismatched = [name for name, shape in plain_shapes(stored) if name in wanted and wanted[name] != shape]
    return {"missing": sorted(missing), "mismatched": sorted(mismatched)}


def _is_stored(name: str, stored: dict[str, list[int]]) -> bool:
    """Say whether a tensor is stored, plainly or as packed integers."""
    return name in stored or name.removesuffix("weight") + PACKED[0] in stored


def plain_shapes(stored: dict[str, list[int]]) -> Iterator[tuple[str, list[int]]]:
    """Give (name, shape) as the unrounded model has them; packed int4 holds eight columns in one."""
    for name, shape in stored.items():
        stem, _, kind = name.rpartition(".")
        if kind == PACKED[0]:
            yield f"{stem}.weight", [shape[0], shape[1] * 8]
        elif kind not in PACKED:
            yield name, shape


if __name__ == "__main__":
    given = Path(sys.argv[1])
    difference = {**compare(given), "non_finite": without_number(given)}
    print(json.dumps({**difference, "expected": dataclasses.asdict(expect(given))}))
