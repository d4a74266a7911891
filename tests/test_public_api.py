"""`from adaptkit import compare, load_study`: light to import, and the same objects whatever came first."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fake_study import write_study
from source_tree import fresh_python

import adaptkit
from adaptkit.compare import driver
from adaptkit.compare.executor import PRELOAD
from adaptkit.errors import DataError
from adaptkit.study.config import StudyConfig
from adaptkit.version import __version__

STUDY = """name: small
base_flops: 1e9
domain: {train: {files: [d.txt]}}
general: {train: {files: [g.txt]}}
budget: {amount: 1e10}
"""


def test_the_public_names_are_there_and_listed() -> None:
    assert adaptkit.__all__ == ["__version__", "compare", "load_study"]
    assert set(adaptkit.__all__) <= set(dir(adaptkit))
    assert all(callable(getattr(adaptkit, name)) for name in ("compare", "load_study"))
    assert adaptkit.__version__ == __version__
    with pytest.raises(AttributeError, match="has no attribute 'compair'"):
        adaptkit.compair  # noqa: B018


def test_importing_them_stays_light() -> None:
    heavy = "sorted({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules))"
    assert fresh_python(f"import sys, adaptkit; print({heavy})") == "[]\n"
    assert fresh_python(f"import sys; from adaptkit import compare; print({heavy})") == "[]\n"
    assert (
        fresh_python("import sys; from adaptkit import load_study; print('torch' in sys.modules)")
        == "False\n"
    )


@pytest.mark.parametrize(
    "first", ["pass", "import adaptkit.compare.driver", "from adaptkit.compare import driver"]
)
def test_compare_can_be_called_whatever_was_imported_first(first: str) -> None:
    code = f"{first}\nfrom adaptkit import compare\nimport adaptkit.compare.plan\nprint(callable(compare), "
    assert fresh_python(code + "compare is adaptkit.compare)") == "True True\n"


def test_compare_reads_a_file_and_its_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    calls = []
    outcome = driver.StudyOutcome(tmp_path, "VERDICT: ...", tmp_path / "report.html", "scratch", 0, {})

    def fake(config: StudyConfig, root: Path, **options: object) -> driver.StudyOutcome:
        calls.append((config.seeds, root, options))
        return outcome

    monkeypatch.setattr(driver, "compare", fake)
    assert adaptkit.compare(tmp_path / "study.yaml", "elsewhere", overrides=["seeds=5"]) is outcome
    assert calls == [(5, Path("elsewhere"), {"executor": "local", "resume": True})]


def test_a_finished_study_is_loaded(tmp_path: Path) -> None:
    arms = ["generic", "scratch"]
    folder = write_study(tmp_path, texts=arms, tasks=["language"], num_documents=30, num_rows=30)
    results = adaptkit.load_study(folder)
    assert {arm.name for arm in results.arms} >= set(arms)
    assert results.replicates("language").interval("scratch").low > 0


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        adaptkit.load_study(tmp_path)


def test_one_line_of_a_library_about_an_optional_kernel_stays_away() -> None:
    """It came before the first line of `compare`; other warnings of that library still come through."""
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    words = ("Failed to load CPU gemm_4bit_forward from kernels-community: %s", "something else")
    records = [log.makeRecord(log.name, logging.WARNING, "x.py", 1, each, (), None) for each in words]
    assert [bool(log.filter(record)) for record in records] == [False, True]
    assert PRELOAD[0] == "adaptkit", "a study's fork server imports that library too"
