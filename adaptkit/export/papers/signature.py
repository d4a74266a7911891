"""Sign an exported folder with an OpenSSF model signature, and check it: offline, with a key of one's own.

`model.sig` covers every file of the folder but itself and what a server writes later. ECDSA signatures hold a
random number: a signed folder differs from another one of the same run in this file alone.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from adaptkit.doctor import extras
from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.papers.provenance import LATER, SIGNATURE


def sign(folder: Path, private_key: Path) -> Path:
    """Write `model.sig` with an elliptic-curve private key (PEM), and return the signature's path.

    Raises: MissingDependency without the `model-signing` package; ConfigError for a key that cannot be used.
    """
    signing = _library("signing")
    path = folder / SIGNATURE
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
        config.set_hashing_config(_hashing(folder)).sign(folder, path)
    except (OSError, ValueError, TypeError) as error:
        fix = "make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        raise ConfigError(f"cannot sign with this key: {error}", where=str(private_key), fix=fix) from None
    return path


def verify_signature(folder: Path, public_key: Path) -> None:
    """Check `model.sig` with the public key (PEM).

    Raises: ModelError for a folder that is unsigned, or not what was signed with this key.
    """
    verifying = _library("verifying")
    path = folder / SIGNATURE
    if not path.is_file():
        raise ModelError("is not signed", where=str(folder), fix="export it with --sign-key")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(_hashing(folder)).verify(folder, path)
    except Exception as error:  # the library raises a bare ValueError, or what its key parser met
        what = f"the signature does not fit this folder or key: {str(error).splitlines()[0]}"
        raise ModelError(
            what,
            where=str(path),
            fix="take the folder from its source again, and its key from whom you trust",
        ) from None


def _hashing(folder: Path) -> Any:
    config = _library("hashing").Config()
    return config.set_ignored_paths(paths=[folder / name for name in LATER], ignore_git_paths=True)


def _library(part: str) -> Any:
    try:
        return importlib.import_module(f"model_signing.{part}")
    except ImportError as error:
        what = f"signatures need the OpenSSF package model-signing ({error})"
        raise extras.missing_extra("sign", what) from None
