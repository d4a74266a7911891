"""Save and load checkpoints that survive a kill at any moment, a full disk and a flipped bit.

    checkpoints/step-000500/ state.json  <group>.safetensors ...  MANIFEST.json (digests)

Each is written by `disk.whole_folder`, and only then old ones are pruned: a kill leaves a temporary folder
that nobody reads, and the next save removes it. safetensors and JSON only: no pickle, nothing in a checkpoint
can run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from adaptkit.disk import whole_folder, writing
from adaptkit.errors import CheckpointError, DiskFullError
from adaptkit.run import file_digest

MANIFEST = "MANIFEST.json"
FORMAT = 1
_SPARE = 1 << 20  # bytes beyond the tensors: JSON, headers, directory blocks
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass
class Checkpoint:
    """A checkpoint that verified: its step, its JSON state, and its tensors by group name."""

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors of a group, on the CPU; empty if the checkpoint has no such group."""
        file = self.path / f"{group}.safetensors"
        if not file.exists():
            return {}
        return load_file(file)


class Checkpoints:
    """The folder of one run's checkpoints; knows which of them were rejected, and why."""

    def __init__(self, folder: Path, *, keep: int, identity: dict[str, Any]):
        """`identity` says what run and model the checkpoints belong to; any difference refuses them."""
        self.folder, self.keep, self.identity = folder, keep, identity
        self.rejected: dict[Path, str] = {}
        self._saved_at = time.monotonic()

    @property
    def minutes_since_save(self) -> float:
        """Minutes since the last save, or since this object was made."""
        return (time.monotonic() - self._saved_at) / 60

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose manifest verifies, or None if none was ever completed.

        Fills `rejected` with the newer ones that do not verify.
        Raises: CheckpointError if there are checkpoints but none is valid, or they belong to another run or
            model.
        """
        paths = sorted(self.folder.glob("step-*"), key=_step, reverse=True)
        for path in paths:
            problem = verify(path)
            if problem is None:
                return self._owned(path)
            self.rejected[path] = problem
        if paths:
            listed = "; ".join(f"{path.name}: {why}" for path, why in self.rejected.items())
            fix = "restore the folder from a backup, or delete it to start again from step 0"
            raise CheckpointError(
                f"none of the {len(paths)} checkpoints is valid ({listed})", where=str(self.folder), fix=fix
            )
        return None

    def _owned(self, path: Path) -> Checkpoint:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        theirs = state["identity"]
        differing = sorted(
            k for k in theirs.keys() | self.identity.keys() if theirs.get(k) != self.identity.get(k)
        )
        if differing:
            what = f"belongs to another run: {', '.join(differing)} differ"
            raise CheckpointError(
                what, where=str(path), fix="use a new run directory, or go back to the settings that made it"
            )
        return Checkpoint(path, state["step"], state)

    def save(self, step: int, state: dict[str, Any], groups: Groups) -> Path:
        """Write a checkpoint of `step`; when this returns it is on disk, and older ones beyond `keep` are
        gone.

        Raises: DiskFullError with the need and what there is, AdaptkitError where nothing can be written;
            checkpoints already on disk are untouched.
        """
        final = self.folder / f"step-{step:06d}"
        need = sum(tensor_bytes(t) for group in groups.values() for t in group.values()) + _SPARE
        self._make_room(final, need)
        try:
            with whole_folder(final) as temporary:  # only a rejected one can lie there
                facts = {"format": FORMAT, "step": step, "identity": self.identity}
                _write(temporary, {**facts, **state}, groups)
        except DiskFullError:
            raise self._full(need) from None
        self._prune(step)
        self._saved_at = time.monotonic()
        return final

    def _make_room(self, final: Path, need: int) -> None:
        """Remove what killed saves left, and see that the next checkpoint fits."""
        with writing(final):
            for leftover in self.folder.glob(".*step-*"):
                shutil.rmtree(leftover)
        if shutil.disk_usage(self.folder).free < need:
            raise self._full(need)

    def _full(self, need: int) -> DiskFullError:
        have, good = shutil.disk_usage(self.folder).free, sorted(self.folder.glob("step-*"), key=_step)
        last = "no checkpoint was written yet"
        if good:
            last = f"last good checkpoint {good[-1].name} is intact"
        what = f"no space: a checkpoint needs {need / 1e6:.1f} MB, {have / 1e6:.1f} MB are free; {last}"
        fix = "free some space and run the same command again"
        return DiskFullError(what, where=str(self.folder), fix=fix)

    def _prune(self, step: int) -> None:
        """Keep the newest `keep` up to `step`; later ones were rejected when this run resumed from an earlier
        one."""
        paths = sorted(self.folder.glob("step-*"), key=_step, reverse=True)
        current = [
            path
            for path in paths
            if _step(path) == step or (_step(path) < step and path not in self.rejected)
        ]
        for path in set(paths) - set(current[: self.keep]):
            (path / MANIFEST).unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks whole
            shutil.rmtree(path)
        self.rejected.clear()


def _write(folder: Path, state: dict[str, Any], groups: Groups) -> None:
    files = {}
    for group, tensors in groups.items():
        name = f"{group}.safetensors"
        files[name] = write_safetensors(folder / name, tensors)
    files["state.json"] = _write_json(folder / "state.json", state)
    _write_json(folder / MANIFEST, {"format": FORMAT, "step": state["step"], "files": files})


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file of the manifest, its size and sha256, and no other
    file."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (int(row["size"]), str(row["sha256"])) for name, row in manifest["files"].items()}
        belongs_here = manifest["format"] == FORMAT and manifest["step"] == _step(path)
    except FileNotFoundError:
        return "no manifest, so it was never completed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is not readable"
    if not belongs_here:
        return "its manifest is of another format or step"
    present = {file.name for file in path.iterdir()} - {MANIFEST}
    if not_listed := sorted(present - files.keys()):
        return f"{not_listed[0]} is not in the manifest"
    if missing := sorted(files.keys() - present):
        return f"{missing[0]} is missing"
    for name, (size, sha256) in files.items():
        if (actual := (path / name).stat().st_size) != size:
            return f"{name} has {actual} bytes instead of {size}"
        if file_digest(path / name) != sha256:
            return f"{name} was altered on disk (sha256 differs)"
    return None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file one tensor at a time, with no second copy in memory; returns its size and
    sha256."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, offset = {}, 0
    for name in names:
        tensor, end = tensors[name], offset + tensor_bytes(tensors[name])
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    opening = len(head).to_bytes(8, "little") + head
    blocks: Iterator[bytes | memoryview] = chain([opening], (raw_bytes(tensors[name]) for name in names))
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            sha256.update(block)
    return {"size": len(opening) + offset, "sha256": sha256.hexdigest()}


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes, without a copy if it is a contiguous CPU tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]  # a Buffer from 3.12 on


def tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _write_json(path: Path, value: Any) -> dict[str, Any]:
    data = json.dumps(value, allow_nan=False).encode()
    path.write_bytes(data)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _step(path: Path) -> int:
    """Steps that a checkpoint's name counts; -1 for a name that no save gives."""
    digits = path.name.removeprefix("step-")
    if not digits.isdigit():
        return -1
    return int(digits)
