"""Planted faults are found and untouched exports raise no alarm: a dozen of benchmarks/verify_faults.py.

Home of export.verify.folder_answers, export.verify.rounding_noise, export.verify.upgrade,
export.verify.sentence_answers, export.verify.verify_questions, export.verify.driver.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from source_tree import ROOT

from adaptkit.errors import ConfigError, DataError
from adaptkit.export.record import ANSWERS_FILE
from adaptkit.export.verify import verify_questions as questions
from adaptkit.export.verify.answer_changes import Verdict
from adaptkit.export.verify.driver import verify_folder, verify_upgrade
from adaptkit.export.verify.record import ACTIVATIONS, AnswerKind, read_answers, write_answers
from adaptkit.export.verify.sentence_answers import ask_sentence_transformers
from adaptkit.export.verify.upgrade import ask_folder, make_record, stored_as
from adaptkit.run import read_json, write_json

KINDS = ("writer", "vectors", "classes", "pairs")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_faults", ROOT / "benchmarks/verify_faults.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exports(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind with its answers, and a real export of the generator as int8."""
    root = tmp_path_factory.mktemp("verified")
    folders = script.write_sources(root)
    for kind in KINDS:
        write_answers(folders[kind], make_record(folders[kind]))
    return {**folders, "int8": script.export_to(folders["writer"], "int8", root / "int8")}


FOUND = {
    "chat template puts a blank less": (False, AnswerKind.CHAT),
    "beginning of a text twice": (True, AnswerKind.TOKENS),
    "scaled positions left out": (True, AnswerKind.LOG_PROBABILITIES),
    "wrong end of a text": (False, AnswerKind.SETTINGS),
    "tied head lost": (False, AnswerKind.LOG_PROBABILITIES),
    "weights stored more coarsely": (False, AnswerKind.LOG_PROBABILITIES),
    "embeddings rounded to 8 bits": (True, AnswerKind.LOG_PROBABILITIES),
    "stale tokenizer of an encoder": (False, AnswerKind.TOKENS),
    "first token instead of the mean": (False, AnswerKind.VECTORS),
    "normalisation dropped": (False, AnswerKind.VECTORS),
    "prompts dropped": (False, AnswerKind.VECTORS),
    "texts cut on the other side": (False, AnswerKind.VECTORS),
    "rows of a head in another order": (False, AnswerKind.PROBABILITIES),
    "query and document no longer told apart": (False, AnswerKind.RELEVANCE),
}
"""Fault -> whether it is planted in the int8 export, and the kind of answer that must say so."""


@pytest.mark.parametrize("name", FOUND)
def test_a_planted_fault_is_found(
    script: ModuleType, exports: dict[str, Path], tmp_path: Path, name: str
) -> None:
    model, plant = script.FAULTS[name]
    quantised, kind = FOUND[name]
    copy = tmp_path / "copy"
    shutil.copytree(exports["int8" if quantised else model], copy)
    plant(copy)
    result = script.by_transformers(copy)
    assert result.verdict is Verdict.CHANGED
    by_kind = {each.kind: each for each in result.results}
    assert by_kind[kind].verdict is Verdict.CHANGED
    example = by_kind[kind].example
    assert example is not None and example.expected != example.got


def test_a_wrong_merge_is_found_and_a_quantisation_is_explained(
    script: ModuleType, exports: dict[str, Path], tmp_path: Path
) -> None:
    wrong = script.write_adapted(exports["writer"], tmp_path / "wrong", times=0.5)
    assert verify_upgrade(exports["writer"], wrong).verdict is Verdict.CHANGED
    result = verify_upgrade(exports["writer"], exports["int8"])
    assert result.verdict is Verdict.SAME and "int8" in result.why_tolerance
    assert verify_upgrade(exports["writer"], exports["vectors"]).results[0].kind is AnswerKind.LOADING


@pytest.mark.parametrize("kind", [*KINDS, "int8"])
def test_untouched_exports_raise_no_alarm(script: ModuleType, exports: dict[str, Path], kind: str) -> None:
    assert script.by_transformers(exports[kind]).verdict is Verdict.SAME
    assert script.by_transformers(exports[kind], "bfloat16").verdict is not Verdict.CHANGED


def test_sentence_transformers_gives_the_same_vectors(script: ModuleType, exports: dict[str, Path]) -> None:
    pytest.importorskip("sentence_transformers")
    result = script.by_sentence_transformers(exports["vectors"])
    assert result.verdict is Verdict.SAME
    assert {each.kind for each in result.results if each.verdict is Verdict.CANNOT_TELL} == {
        AnswerKind.SETTINGS
    }
    with pytest.raises(ConfigError, match="of kind generate"):
        verify_folder(exports["writer"], lambda record: ask_sentence_transformers(exports["writer"], record))


def test_an_export_keeps_its_answers_sealed(exports: dict[str, Path], tmp_path: Path) -> None:
    record = read_answers(exports["int8"])
    assert record is not None and record.stored_as == stored_as(exports["int8"]) == "int8"
    assert record.noise[ACTIVATIONS][AnswerKind.LOG_PROBABILITIES] > 0
    assert (
        record.noise["float32"][AnswerKind.LOG_PROBABILITIES]
        < record.noise["bfloat16"][AnswerKind.LOG_PROBABILITIES] / 1000
    )
    listed = read_json(exports["int8"] / "manifest.json")["files"]
    assert ANSWERS_FILE in listed
    copy = tmp_path / "copy"
    shutil.copytree(exports["int8"], copy)
    content = read_json(copy / ANSWERS_FILE)
    content["stored_as"] = "int4"
    write_json(copy / ANSWERS_FILE, content)
    with pytest.raises(DataError, match="digest"):
        read_answers(copy)
    (copy / ANSWERS_FILE).unlink()
    with pytest.raises(DataError, match="stores no answers"):
        verify_folder(copy, lambda stored: ask_folder(copy, stored))


def test_a_folder_that_no_longer_loads_has_changed(exports: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exports["writer"], copy)
    (copy / "model.safetensors").unlink()
    result = verify_folder(copy, lambda record: ask_folder(copy, record))
    assert result.verdict is Verdict.CHANGED and result.results[0].kind is AnswerKind.LOADING


def test_the_long_question_is_cut_by_all_but_generators() -> None:
    def count(text: str) -> int:
        return len(text.split()) + 2

    asked = questions.make_questions(count, 100, writes=False)
    assert count(asked.long) > 100 and not asked.openings
    written = questions.make_questions(count, 100, writes=True)
    assert 50 < count(written.long) <= 100 - questions.MARGIN and len(written.openings) == 4
    tight = questions.make_questions(count, 10, writes=True)
    assert max(map(count, (*tight.texts, tight.long))) <= 10 - questions.MARGIN
