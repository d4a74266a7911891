"""API keys of a server: read from a file or the environment, made where there is none, never shown.

A key is never on a command line, in a log or in a run directory: logs and metrics name it by the first 8 hex
digits of its sha256.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adaptkit.errors import ConfigError

KEY_VARIABLE, FILE_VARIABLE = "ADAPTKIT_API_KEY", "ADAPTKIT_API_KEY_FILE"
SHORTEST = 16
WRITABLE_BY_OTHERS = 0o022
_BEARER = b"bearer "
_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True)
class Keys:
    """The keys that open a server.

    Attributes:
        values: one or more; request rates are counted for each.
        origin: where they come from, for people: a path, or the name of an environment variable.
        file: the file that holds them; None for a key from the environment.
    """

    values: tuple[str, ...]
    origin: str
    file: Path | None = None

    def __repr__(self) -> str:
        return f"Keys({', '.join(map(fingerprint, self.values))} from {self.origin})"

    def match(self, authorization: bytes) -> str | None:
        """Find the key of an `Authorization: Bearer KEY` header: its fingerprint, or None if no key fits.

        Takes the same time whichever key fits and however much of it is right.
        """
        candidate = b""
        if authorization[: len(_BEARER)].lower() == _BEARER:
            candidate = authorization[len(_BEARER) :].strip()
        candidate_digest = hashlib.sha256(candidate).digest()
        matching = None
        for name, digest in self._digests:
            if hmac.compare_digest(digest, candidate_digest):
                matching = name
        return matching

    @cached_property
    def _digests(self) -> list[tuple[str, bytes]]:
        return [(fingerprint(value), hashlib.sha256(value.encode()).digest()) for value in self.values]


def fingerprint(key: str) -> str:
    """Name a key as logs and metrics do: by the first digits of its sha256."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def make_key() -> str:
    """Make a new random key of 256 bits."""
    return secrets.token_urlsafe(32)


def load(path: Path | None = None) -> Keys:
    """Read the keys of a file, else of the environment, else of the user's state folder.

    Where that folder holds no key yet, one is made.
    Raises: ConfigError for a file that cannot be read, holds no key, or is open to other users' writing.
    """
    if path is None and os.environ.get(KEY_VARIABLE):
        key = _checked(os.environ[KEY_VARIABLE].strip(), KEY_VARIABLE)
        return Keys((key,), f"${KEY_VARIABLE}")
    if path is None and os.environ.get(FILE_VARIABLE):
        path = Path(os.environ[FILE_VARIABLE])
    if path is not None:
        return _read(path.expanduser())
    path = own_file()
    if not path.exists():
        _write(path, make_key())
    return _read(path)


def own_file() -> Path:
    """Where the key of this user on this machine stands, which is found without being named."""
    return state_folder() / "api-key"


def state_folder() -> Path:
    """Make the user's folder for adaptkit's own files (keys, logs of servers); only its owner can look in."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = home / "adaptkit"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        fix = "set XDG_STATE_HOME to a folder that you may write to"
        raise ConfigError(f"cannot be made: {error.strerror}", where=str(folder), fix=fix) from None
    return folder


def log_folder() -> Path:
    """Make the folder in which logs of servers stay, also of failed starts; only its owner can look in."""
    folder = state_folder() / "logs"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def write_secret(path: Path, secret: str) -> None:
    """Write a new file that only its owner may read, from the first byte on.

    Raises: FileExistsError.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret + "\n")


def _write(path: Path, key: str) -> None:
    """Write a key unless another server that started at the same time has written one."""
    try:
        write_secret(path, key)
    except FileExistsError:
        return


def _read(path: Path) -> Keys:
    """Read a key file: one key per line; empty lines and those that begin with # do not count."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        fix = "give a text file with one key per line, or leave --key-file out and one is made"
        raise ConfigError(f"no key can be read: {error}", where=str(path), fix=fix) from None
    if mode & WRITABLE_BY_OTHERS:
        raise ConfigError("other users may write to this key file", where=str(path), fix=f"chmod 600 {path}")
    values = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not values:
        fix = f"write one key per line into it: {_MAKE_ONE} > {path}"
        raise ConfigError("holds no key", where=str(path), fix=fix)
    return Keys(tuple(_checked(value, str(path)) for value in values), str(path), path)


def _checked(key: str, where: str) -> str:
    if len(key) < SHORTEST or not re.fullmatch(r"[!-~]+", key):
        what = f"a key must have at least {SHORTEST} visible ASCII characters and no blanks"
        raise ConfigError(what, where=where, fix=f"{_MAKE_ONE} makes one")
    return key
