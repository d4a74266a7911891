"""`adaptkit try`: a trained model answers in this process. Home of cli.try_model and export.local_answers."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from adaptkit.cli import app, console
from adaptkit.errors import AdaptkitError, ConfigError, DataError
from adaptkit.export import local_answers
from adaptkit.export.local_answers import describe, load
from adaptkit.export.record import ConfidenceRecord, ExportRecord
from adaptkit.export.resolve import resolve
from adaptkit.export.source import of_run
from adaptkit.run import Run, read_jsonl


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `adaptkit try` in this process, with lines on standard input."""

    def ask(*words: str, lines: str = "") -> SimpleNamespace:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = console.run(app.app, ["try", *words])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return ask


def test_a_classifier_answers_as_it_was_scored(mood: Run) -> None:
    rows = [json.loads(line) for line in (mood.path.parent.parent / "mood.test.jsonl").open()][:8]
    model = load(of_run(mood.path))
    recorded = [row["prediction"] for row in read_jsonl(mood.items("mood"))][:8]
    assert [model.answer(row["text"]).data["label"] for row in rows] == recorded
    answer = model.answer(rows[0]["text"])
    assert sum(answer.data["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert answer.lines[0].endswith(answer.data["label"])


def test_a_study_answers_with_its_recommended_model_and_says_which(model_study: Path, ask) -> None:
    asked = ask(str(model_study), "the engine improves the valve", "--task", "mood")
    assert asked.code == 0 and "scratch+full, recommended on" in asked.err
    assert "scored accuracy" in asked.err and "loss" not in asked.err
    assert asked.out.splitlines()[0].split()[-1] in ("good", "bad")


def test_each_line_of_the_input_is_a_text_and_the_model_is_loaded_once(
    mood: Run, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    monkeypatch.setattr(
        local_answers, "_load", lambda source, real=local_answers._load: loads.append(source) or real(source)
    )
    asked = ask(str(mood.path), "--json", lines="it improves\n\nit forgets\n")
    answers = json.loads(asked.out)["answers"]
    assert [row["text"] for row in answers] == ["it improves", "it forgets"] and len(loads) == 1
    assert ask(str(mood.path), "-", lines="it improves\n").out.startswith("> it improves\n")


def test_a_writer_goes_on_with_the_text(notes: Run, ask) -> None:
    asked = ask(str(notes.path), "the engine", "--tokens", "5")
    assert asked.code == 0 and asked.out.strip() and "a model this small writes broken sentences" in asked.err
    assert "leave no room" in ask(str(notes.path), "the engine " * 2000).err


def test_an_encoder_looks_through_documents_and_shows_them(
    model_folders: dict[str, Path], tmp_path: Path, ask
) -> None:
    texts = ["the engine reads the valve", "a cat sleeps", "seven rooms are empty"]
    rows = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "notes.jsonl").write_text("\n".join(rows))
    folder = str(model_folders["bert"])
    asked = ask(folder, "a cat sleeps", "--in", str(tmp_path / "notes.jsonl"), "-k", "2")
    assert asked.code == 0, asked.err
    assert len(asked.out.splitlines()) == 2 and "d1  a cat sleeps" in asked.out.splitlines()[0]
    reranker = ask(str(model_folders["bert-pairs"]), "a cat", "--in", str(tmp_path / "notes.jsonl"))
    assert reranker.code == 0 and all(text in reranker.out for text in texts)
    assert "--in FILE" in ask(folder, "a cat").err


def test_any_classifier_folder_answers(model_folders: dict[str, Path]) -> None:
    answer = load(resolve(model_folders["bert-classes"])).answer("the engine")
    assert len(answer.data["probabilities"]) == 3 and len(answer.lines) == 3


@pytest.mark.parametrize(
    ("threshold", "abstain", "said"),
    [(0.0, False, "does not abstain"), (1.0, True, "a person should decide"), (None, False, "no threshold")],
)
def test_an_exported_classifier_says_whether_it_abstains(
    model_folders: dict[str, Path], threshold: float | None, abstain: bool, said: str
) -> None:
    record = ConfidenceRecord(temperature=0.5, threshold=threshold, wanted_accuracy=0.9, num_fitted=50)
    source = resolve(model_folders["bert-classes"])
    exported = ExportRecord.model_construct(confidence=record)
    answer = load(dataclasses.replace(source, export=exported)).answer("the engine")
    assert answer.data["abstain"] is abstain and said in answer.lines[-1]
    assert len(answer.lines) == 4 and answer.lines[:3] == load(source).answer("the engine").lines
    chances = list(answer.data["probabilities"].values())
    assert answer.data["confidence"] == record.judge(chances)["confidence"] > max(chances)


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ({"predicted_spans": [[4, 10, "PART"]]}, "PART: engine"),
        ({"predicted_spans": []}, "nothing named"),
        ({"predicted_score": 0.25}, "0.250"),
        ({"predicted_labels": ["a", "b"]}, "a, b"),
        ({"predicted_labels": []}, "no label applies"),
        ({"prediction": "an answer"}, "an answer"),
    ],
)
def test_every_kind_of_answer_is_shown(item: dict, line: str) -> None:
    assert local_answers._shown_item(item, "the engine stops").lines == (line,)


@pytest.mark.parametrize("kind", ["sft", "multi_label", "spans", "regression", "pairs", "label_words"])
def test_every_kind_of_task_gets_its_row(kind: str) -> None:
    values = local_answers._values(kind, "one\ttwo", ["a", "b"])
    assert "one" in next(iter(values.values()))
    if kind == "pairs":
        with pytest.raises(DataError, match="two texts"):
            local_answers._values(kind, "one", ["a", "b"])


def test_what_the_study_asked_otherwise_is_said(mood: Run) -> None:
    prompted = dataclasses.replace(of_run(mood.path), adaptation="prompt")
    assert any("prompt of its own" in line for line in describe(prompted))


def test_only_models_that_search_take_documents(mood: Run) -> None:
    with pytest.raises(ConfigError, match="does not search"):
        load(of_run(mood.path), search_in=["x.jsonl"])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdaptkitError):
        resolve(tmp_path)
