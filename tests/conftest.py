"""Shared fixtures. The environment is set before any library reads it: offline, one thread, nothing left in
the home folder."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import random
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adaptkit.run import Run

_HF_HOME = tempfile.mkdtemp(prefix="adaptkit-tests-")
atexit.register(shutil.rmtree, _HF_HOME, ignore_errors=True)
os.environ["HF_HOME"] = _HF_HOME
os.environ["XDG_CACHE_HOME"] = _HF_HOME
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}.items():
    os.environ.setdefault(_name, _value)
with contextlib.suppress(ImportError):
    # Its distutils must come first: torch's compiler fails where the standard library's was imported before.
    import setuptools  # noqa: F401

_LONGEST = (
    "server",
    "test_study",
    "test_model_matrix",
    "test_study_bases",
    "test_fused_training",
    "test_interpreter",
    "test_retrieve_study",
    "test_study_origins",
    "test_kinds_study",
    "test_ray_cluster",
    "test_ranks",
    "test_distill_ranks",
    "test_kill",
)
"""Groups that take minutes, the longest first: what begins last is what the other processes wait for."""
_SUBJECTS = (
    "the engine",
    "a small model",
    "our patient",
    "the second trial",
    "every nurse",
    "the old library",
    "one editor",
)
_VERBS = ("reads", "measures", "improves", "forgets", "compares", "records", "explains")
_OBJECTS = (
    "the dose",
    "a long report",
    "seven samples",
    "the missing page",
    "each answer",
    "the final score",
    "a blood test",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what collecting makes, which stays to the end, out of all collections of garbage: each looked at
    millions of objects, for a second and more."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        atexit.register(gc.unfreeze)  # nanobind would report what stays frozen as lost
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a long form what was done how often."""
    import soak

    if soak.SHARE and (lines := soak.counted()):
        terminalreporter.section("soak")
        terminalreporter.write_line("\n".join(lines))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep in one process what shares a costly fixture: a file, and all files with the real server."""
    if config.pluginmanager.hasplugin("xdist"):
        with_server = {item.path for item in items if "served" in getattr(item, "fixturenames", ())}

        def group_of(item: pytest.Item) -> str:
            return "server" if item.path in with_server else item.path.stem

        for item in items:
            item.add_marker(pytest.mark.xdist_group(group_of(item)))
        places = {group: place for place, group in enumerate(_LONGEST)}
        items.sort(key=lambda item: places.get(group_of(item), len(places)))


@pytest.fixture(scope="session")
def tiny_text() -> list[str]:
    """200 short, distinct documents of plain English, the same in every run."""
    rng = random.Random(0)

    def sentence() -> str:
        words = " ".join(rng.choice(choices) for choices in (_SUBJECTS, _VERBS, _OBJECTS))
        return f"{words} in room {rng.randrange(1000)}."

    return [" ".join(sentence() for _ in range(rng.randint(2, 6))) for _ in range(200)]


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs below; more may be made in it."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def notes(runs_root: Path, tiny_text: list[str]) -> Run:
    """A finished pretraining on `tiny_text`."""
    import tiny_exports

    return tiny_exports.pretrained(runs_root, tiny_text)


@pytest.fixture(scope="session")
def mood(runs_root: Path, notes: Run) -> Run:
    """A finished fine-tuning of `notes`, with an adapter."""
    import tiny_exports

    return tiny_exports.finetuned(runs_root, notes.model)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> dict[str, Path]:
    """Folders with random weights, one of each architecture that exports are tested with."""
    import tiny_exports

    return tiny_exports.write_models(tmp_path_factory.mktemp("models"), tiny_text)


@pytest.fixture(scope="session")
def model_study(tmp_path_factory: pytest.TempPathFactory, notes: Run, mood: Run) -> Path:
    """A study behind whose arms stand real models."""
    import tiny_exports

    return tiny_exports.study_of(tmp_path_factory.mktemp("study"), notes, mood)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The development data: `ADAPTKIT_DATA`, or shared/data beside the checkout; skips without them."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("ADAPTKIT_DATA", beside))
    if not root.is_dir():
        pytest.skip("development data not found: set ADAPTKIT_DATA")
    return root
