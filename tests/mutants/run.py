"""Make each fault of the tables in a copy of the checkout and see whether its tests notice it.

    python tests/mutants/run.py              # all; what is given are words of the faults to make
    python tests/mutants/run.py verdict.py

First the tests run without any fault. Then each worker makes one fault at a time in a copy of its own, runs
the tests of that fault in a fork of this process (which holds the heavy libraries already), and takes the
fault back. Exit code 1 where a fault survives, 2 where a table does not fit the code.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from mutants import Mutant, audit, data, gateway, planner, prompts, report, study  # noqa: E402

MUTANTS: list[Mutant] = [
    *study.MUTANTS,
    *planner.MUTANTS,
    *prompts.MUTANTS,
    *report.MUTANTS,
    *audit.MUTANTS,
    *data.MUTANTS,
    *gateway.MUTANTS,
]
COPIED = ("adaptkit", "kernels", "tests", "configs", "pyproject.toml", "README.md")
HEAVY = (
    "hypothesis.strategies",
    "jinja2",
    "numpy",
    "pydantic",
    "rouge_score.rouge_scorer",
    "scipy.stats",
    "scipy.optimize",
    "sklearn.metrics",
    "prometheus_client",
    "pytest",
    "rich.console",
)
NUM_WORKERS = min(4, os.cpu_count() or 1)


def main(words: Sequence[str]) -> int:
    """Run the faults whose title holds one of the words; all without words."""
    chosen = [m for m in MUTANTS if not words or any(word in m.title for word in words)]
    if misfits := list(misfitting(chosen, ROOT)):
        print(*misfits, sep="\n")
        return 2
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adaptkit-mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(NUM_WORKERS):
            copies.put(_copied(Path(folder) / str(number)))
        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            tests = sorted({test for mutant in chosen for test in mutant.tests})
            sound = list(pool.map(lambda test: _passes(copies, (test,)), tests))
            if broken := [test for test, passed in zip(tests, sound, strict=True) if not passed]:
                print(f"these tests fail without any fault: {', '.join(broken)}")
                return 2
            survived = []
            outcomes = pool.map(lambda mutant: _passes(copies, mutant.tests, mutant), chosen)
            for mutant, alive in zip(chosen, outcomes, strict=True):
                survived.append(alive)
                print(f"{'SURVIVED' if alive else 'killed  '}  {mutant.title[:150]}", flush=True)
    print(f"{survived.count(False)} of {len(chosen)} killed in {time.monotonic() - began:.0f} s")
    return 1 if any(survived) else 0


def misfitting(mutants: Iterable[Mutant], root: Path) -> Iterator[str]:
    """What does not fit the code: text that is not there exactly once, tests that do not exist."""
    for mutant in mutants:
        path = root / mutant.file
        count = path.read_text(encoding="utf-8").count(mutant.original) if path.is_file() else 0
        if count != 1:
            yield f"{mutant.title}: the text to change occurs {count} times"
        for test in mutant.tests:
            if not (root / test.partition("::")[0]).is_file():
                yield f"{mutant.title}: there is no {test}"


def _copied(folder: Path) -> Path:
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, folder / name)
    return folder


def _passes(copies: SimpleQueue[Path], tests: Sequence[str], mutant: Mutant | None = None) -> bool:
    """Whether the tests pass in a copy, with the fault where there is one."""
    folder = copies.get()
    try:
        with _fault(folder, mutant):
            return _forked(folder, tests) == 0
    finally:
        copies.put(folder)


@contextmanager
def _fault(folder: Path, mutant: Mutant | None) -> Iterator[None]:
    if mutant is None:
        yield
        return
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.original, mutant.mutated), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def _forked(folder: Path, tests: Sequence[str]) -> int:
    """The exit code of pytest in a fork whose modules come from the copy."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 3
    try:
        code = _pytest(folder, tests)
    finally:
        os._exit(code)


def _pytest(folder: Path, tests: Sequence[str]) -> int:
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    own = str(ROOT)
    sys.path[:] = [path for path in sys.path if not path.startswith(own)]
    sys.path[:0] = [str(folder), str(folder / "tests"), str(folder / "kernels" / "torch-ext")]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("adaptkit", "mutants")]:
        del sys.modules[name]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "--hypothesis-seed=0"]
    return int(pytest.main([*options, *tests]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
