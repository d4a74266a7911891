"""Read the key of an API from a file of its owner's; it goes into requests and nowhere else."""

from __future__ import annotations

import stat
from pathlib import Path

from adaptkit.errors import ConfigError


def read_key(path: str) -> str:
    """The key in a file, the file's only line; empty without a file.

    Raises: ConfigError for a file that cannot be read, holds no key or more than one line, or that other
        users may read. The message names the file and never what is in it.
    """
    if not path:
        return ""
    file = Path(path).expanduser()
    try:
        text, mode = file.read_text(encoding="utf-8").strip(), file.stat().st_mode
    except (OSError, UnicodeDecodeError):
        fix = "write the key into a file, and give its path"
        raise ConfigError("cannot be read as a key", where=str(file), fix=fix) from None
    if not text or len(text.split()) > 1 or not text.isascii():
        fix = "write the key alone into the file, on one line"
        raise ConfigError("does not hold one key", where=str(file), fix=fix)
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError("other users may read this key", where=str(file), fix=f"chmod 600 {file}")
    return text
