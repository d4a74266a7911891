"""Judge a model folder from outside before anything of it is used; the one gatekeeper for all commands.

    check_folder(Path("models/base"))                      # what adaptkit reads by itself
    check_folder(Path("exports/int8"), for_server=True)    # what vLLM reads, which chooses among files itself

A folder is data that may be damaged or hostile. What could run code, lead out of it, block, or ask for more
memory and time than a model does is refused in one sentence, within seconds. Loads no torch; what only a try
can tell (chat templates, tokenizers) is tried in a child process with limits: `folder_trial`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.folder_trial import check_templates, check_tokenizer
from adaptkit.model_numbers import check_numbers
from adaptkit.seal import MANIFEST
from adaptkit.weight_files import (
    AGAIN,
    INDEX,
    MIB,
    PICKLES,
    WHOLE,
    check_index,
    check_plain,
    kind_of_entry,
    read_header,
    read_json_object,
    read_json_value,
    weight_map,
)

CODE = (".py", ".pyc", ".so", ".sh")
RUNS_CODE = ("auto_map", "_attn_implementation_internal", "custom_pipelines", "trust_remote_code")
LARGE_DATA = ("tokenizer.json", "vocab.json", INDEX, MANIFEST)
"""JSON files that are read as data only, so that no setting in them can ask for code."""
OBJECTS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
MODULES = "modules.json"
MAX_MODULES = 32
MAX_ENTRIES = 100_000
MAX_TEXT_BYTES = 64 * MIB
TEXTS = (".txt", ".model", ".jinja", ".tiktoken")

_State = tuple[tuple[str, int, int, int], ...]
_passed: dict[tuple[Path, bool], _State] = {}


def check_folder(folder: Path, *, for_server: bool = False) -> None:
    """Refuse a folder that is no model, or more than one.

    A folder that has passed is judged again only when one of its files changes.

    Args:
        for_server: refuse pickles, code and settings that ask for code too: another program may choose them.
            Adaptkit itself opens none of them.
    Raises: ModelError.
    """
    entries = list(_entries(folder, hidden=for_server))
    state = tuple(sorted(_state_of(path) for path in entries if not path.is_dir()))
    if _passed.get((folder, for_server)) == state:
        return
    for path in entries:
        _check_entry(path, for_server)
    for name in OBJECTS:
        if os.path.lexists(folder / name):
            read_json_object(folder, name)
    check_modules(folder)
    headers = _headers(folder)
    if os.path.lexists(folder / "config.json"):
        check_numbers(read_json_object(folder, "config.json"), str(folder / "config.json"), headers)
    check_tokenizer(folder)
    check_templates(folder)
    _passed[folder, for_server] = state


def _state_of(path: Path) -> tuple[str, int, int, int]:
    held = path.stat()
    return str(path), held.st_size, held.st_mtime_ns, held.st_ino


def _entries(folder: Path, *, hidden: bool) -> Iterator[Path]:
    """Everything below a folder, each named by a path that stays within it, and that nothing blocks on.

    Raises: ModelError for an entry that leads out, or is no file, folder or link to one.
    """
    root = Path(os.path.realpath(folder))
    pending, number = [folder], 0
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.name.startswith(".") and not hidden:
                continue
            number += 1
            if number > MAX_ENTRIES:
                what, fix = f"holds more than {MAX_ENTRIES:,} files", "give the folder of one model"
                raise ModelError(what, where=str(folder), fix=fix)
            if _leads_to_folder(path, root):
                pending.append(path)
            yield path


def _leads_to_folder(path: Path, root: Path) -> bool:
    """Whether a folder stands there itself, whose entries are to be looked at too."""
    is_link, where = path.is_symlink(), str(path)
    target = Path(os.path.realpath(path))
    if is_link and not target.is_relative_to(root) and not _in_hub_cache(root, target):
        fix = "copy the file itself into the folder"
        raise ModelError("a link that leads out of the folder", where=where, fix=fix)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        what = f"a link that leads nowhere: {error.strerror}"
        raise ModelError(what, where=where, fix=AGAIN) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        fix = "remove it, or put the file itself there"
        raise ModelError(f"is {kind_of_entry(mode)}, not a file", where=where, fix=fix)
    return stat.S_ISDIR(mode) and not is_link


def _in_hub_cache(root: Path, target: Path) -> bool:
    """Whether a link leads into the hub's cache: its snapshots are links into `blobs` beside them."""
    return root.parent.name == "snapshots" and target.is_relative_to(root.parents[1] / "blobs")


def _check_entry(path: Path, for_server: bool) -> None:
    if path.is_dir():
        return
    if path.suffix == ".json":
        check_plain(path)
        if for_server and path.name not in LARGE_DATA:
            _refuse_settings_that_run_code(path)
    elif path.suffix in TEXTS and path.stat().st_size > MAX_TEXT_BYTES:
        what = f"has more than {MAX_TEXT_BYTES // MIB} MiB, as no vocabulary or template has"
        raise ModelError(what, where=str(path), fix=AGAIN)
    if for_server and path.suffix in CODE:
        fix = "remove it; adaptkit never runs code of a folder"
        raise ModelError("a model folder holds no code", where=str(path), fix=fix)
    if for_server and path.suffix in PICKLES:
        fix = "remove it, or convert it to safetensors where you trust it"
        raise ModelError("a pickle, which can run code when read", where=str(path), fix=fix)


def _refuse_settings_that_run_code(path: Path) -> None:
    if key := key_that_runs_code(read_json_value(path)):
        fix = "use a model whose architecture is part of transformers: code of a folder never runs"
        raise ModelError(f"'{key}' asks for code to be run", where=str(path), fix=fix)


def key_that_runs_code(settings: Any) -> str | None:
    """The first key, however deep in these settings, that asks a library to run a folder's code."""
    pending = [settings]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        if isinstance(value, dict):
            for key in RUNS_CODE:
                if value.get(key):
                    return key
            pending += value.values()
    return None


def check_modules(folder: Path) -> None:
    """Check that modules.json, where there is one, names folders within its own.

    Raises: ModelError.
    """
    if not os.path.lexists(folder / MODULES):
        return
    where, modules = str(folder / MODULES), read_json_value(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError("must hold a list of modules", where=where, fix=AGAIN)
    if len(modules) > MAX_MODULES:
        what = f"names {len(modules)} modules, and no model has more than {MAX_MODULES}"
        raise ModelError(what, where=where, fix=AGAIN)
    for module in modules:
        path = module.get("path", "")
        if not isinstance(path, str) or not isinstance(module.get("type"), str):
            raise ModelError("names a module without a path or type", where=where, fix=AGAIN)
        parts = PurePosixPath(path).parts
        if ".." in parts or "\\" in path or "\0" in path or path.startswith("/"):
            what = f"names a module outside the folder: {path[:200]!r}"
            raise ModelError(what, where=where, fix="copy the module's folder into this one")


def _headers(folder: Path) -> dict[str, dict[str, Any]]:
    """File -> header of the weights that the folder's model or adapter consists of, all sound."""
    names = {path.name for path in folder.glob("*.safetensors")}
    if os.path.lexists(folder / INDEX):
        # those that are missing are named by `check_weight_files`, with their number
        names &= set(weight_map(folder).values())
    elif WHOLE in names:
        names = {WHOLE}
    headers = {name: read_header(folder / name) for name in sorted(names)}
    if (folder / INDEX).exists() and names == set(weight_map(folder).values()):
        check_index(folder, headers)
    return headers
