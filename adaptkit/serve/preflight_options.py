"""Judge the words behind `--` in `adaptkit serve ... -- options` as vLLM reads them, before it does.

vLLM takes `--trust_remote_code` for `--trust-remote-code`, the beginning of a flag for the flag, `--a.b` for
a key of a JSON value, and the keys of a YAML file (`--config`) for flags. Here too all spellings mean the
same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from adaptkit.errors import ConfigError
from adaptkit.model_gate import RUNS_CODE, key_that_runs_code
from adaptkit.serve.engine.command import OURS, UNSAFE_FLAGS
from adaptkit.serve.model_files import check_contents
from adaptkit.weight_files import MIB

UNSAFE_FOR_REQUESTS = ("--enable-prompt-embeds", "--enable-mm-embeds")
"""Flags that let requests bring tensors, which are unpickled."""
FOLDERS = ("--tokenizer", "--hf-config-path", "--generation-config", "--spec-model", "--speculative-config")
"""Flags whose value may name another model's folder."""
KEY_FLAG, FILE_FLAG = "--api-key", "--config"
MAX_FILE_BYTES = MIB
LEAVE_OUT = "leave it out; to run it all the same, take the command of --print"


def check_options(words: Sequence[str]) -> None:
    """Refuse flags that let requests or folders run code, show the key, or move the child, in any spelling.

    Raises: ConfigError; ModelError for a folder that a flag names and the gatekeeper refuses.
    """
    for flag, value, where in _options(words):
        _check_flag(flag, where)
        name = flag.lstrip("-").replace("-", "_")
        if _names_code(name) or (key := key_that_runs_code(value)):
            key = name.rpartition(".")[2] if _names_code(name) else key
            raise ConfigError(f"'{key}' asks for code to be run", where=where, fix=LEAVE_OUT)
        if flag.partition(".")[0] in FOLDERS:
            for folder in _folders(value):
                check_contents(folder)


def _names_code(name: str) -> bool:
    return any(part in RUNS_CODE for part in name.split("."))


def _check_flag(flag: str, where: str) -> None:
    stem = flag.partition(".")[0]
    if _means(stem, (KEY_FLAG,)):
        what = "a key on a command line is seen by every user of the machine"
        raise ConfigError(what, where=where, fix="use --key-file FILE")
    if _means(stem, (*UNSAFE_FLAGS, *UNSAFE_FOR_REQUESTS)):
        raise ConfigError("opens the server to code or files of others", where=where, fix=LEAVE_OUT)
    if _means(stem, OURS):
        what = "is set by adaptkit, which must know where each child listens"
        fix = "use adaptkit's own options, or run the command that --print shows yourself"
        raise ConfigError(what, where=where, fix=fix)


def _means(flag: str, refused: Sequence[str]) -> bool:
    """Whether a word is one of these flags, or the beginning of one."""
    return len(flag) > 2 and flag.startswith("--") and any(name.startswith(flag) for name in refused)


def _options(words: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """(flag in its one spelling, value, place) of each option, those of a config file among them."""
    for number, word in enumerate(words):
        if not word.startswith("-"):
            continue
        written, has_value, value = word.partition("=")
        if not has_value and number + 1 < len(words) and not words[number + 1].startswith("--"):
            value = words[number + 1]
        flag = _spelt(written)
        yield flag, _parsed(value), word
        if len(flag) > 4 and FILE_FLAG.startswith(flag):
            yield from _of_file(value)


def _spelt(flag: str) -> str:
    """A long flag with dashes in its name and its keys as they are."""
    if not flag.startswith("--"):
        return flag
    stem, dot, keys = flag.partition(".")
    return stem.replace("_", "-") + dot + keys


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _of_file(name: str) -> Iterator[tuple[str, Any, str]]:
    """The options of a YAML file, as vLLM makes flags of its keys."""
    fix = "give a YAML file of vLLM options, or write them behind --"
    path = Path(name).expanduser()
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError("is no file of options", where=f"{FILE_FLAG} {name}", fix=fix)
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        what = f"not readable as YAML: {str(error).splitlines()[0]}"
        raise ConfigError(what, where=str(path), fix=fix) from None
    if not isinstance(options, dict):
        raise ConfigError("holds no options", where=str(path), fix=fix)
    for key, value in options.items():
        if value is not False:
            yield _spelt(f"--{str(key).strip().lstrip('-')}"), value, f"{path}: {key}"


def _folders(value: Any) -> Iterator[Path]:
    """Every text in a value that names a folder of this machine."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str) and len(item) < 4096 and "\0" not in item:
            path = Path(item).expanduser()
            if item not in ("auto", "vllm") and path.is_dir():  # words of --generation-config
                yield path
