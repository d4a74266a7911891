"""What a study serves beside its recommended model: one to classify, one to write, as memory allows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from fake_serving import fake_launch, running
from tiny_exports import edit_verdict

from adaptkit.export.hardware import Hardware
from adaptkit.export.resolve import resolve
from adaptkit.serve import preflight
from adaptkit.serve.beside import beside
from adaptkit.serve.engine.launches import Choice, ModelWord, make_launches

GIB = 2**30
ROOMY = Hardware(flags=frozenset({"avx2"}), cores=2, free_bytes=64 * GIB)
OPEN = Choice(for_demo=True)


@pytest.fixture(autouse=True)
def any_width_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of these tests are narrower than what vLLM has kernels for."""
    monkeypatch.setattr(preflight, "CPU_HEADS", range(1, 65))


def test_a_study_alone_is_served_to_write_to_classify_and_to_compare(model_study: Path) -> None:
    planned, notes = make_launches([ModelWord(None, model_study)], ROOMY, OPEN)
    served = [(launch.source.arm, launch.source.task, launch.source.kind) for launch in planned]
    assert served == [
        ("scratch", "language", "generate"),
        ("scratch+full", "mood", "classify"),
        ("generic", "language", "generate"),
    ]
    assert [launch.optional for launch in planned] == [False, True, True]
    assert all(launch.share == 1 / 3 for launch in planned)
    assert any("-scratch-full-mood, to classify: scratch+full, " in note for note in notes)
    assert any("-generic, to write: generic, the base as it is, to compare with" in note for note in notes)
    alone = f"for clinical-trials-scratch alone: adaptkit serve {model_study} --task language --arm scratch"
    assert notes[-1] == alone


@pytest.mark.parametrize(
    ("words", "choice", "extra"),
    [
        ((None,), Choice(), []),
        ((None,), Choice(task="mood", for_demo=True), []),
        ((None,), Choice(arms=("scratch",), for_demo=True), []),
        ((None,), Choice(seed=1, for_demo=True), []),
        (("mine",), OPEN, []),
        ((None, None), OPEN, []),
        ((None,), OPEN, ["--max-model-len", "64"]),
    ],
)
def test_a_model_that_was_chosen_in_any_way_is_served_alone(
    model_study: Path, words: tuple[str | None, ...], choice: Choice, extra: list[str]
) -> None:
    planned, _ = make_launches([ModelWord(word, model_study) for word in words], ROOMY, choice, extra)
    assert len(planned) == len(words) and not any(launch.optional for launch in planned)


def test_a_model_from_elsewhere_takes_the_place_of_the_studys(model_study: Path) -> None:
    labels = ModelWord("labels", model_study.parent / "mood-generic+lora-1")
    planned, _ = make_launches([ModelWord(None, model_study), labels], ROOMY, OPEN)
    assert [launch.name for launch in planned] == [
        "clinical-trials-scratch",
        "labels",
        "clinical-trials-generic",
    ]


def test_beside_a_classifier_comes_the_best_on_held_out_text_and_the_base(
    model_study: Path, tmp_path: Path
) -> None:
    classifier = resolve(model_study, task="mood")
    added, _ = beside(classifier, [], ROOMY)
    assert [(source.arm, source.task) for source in added] == [
        ("scratch", "language"),
        ("generic", "language"),
    ]
    prompted = resolve(model_study, task="mood", arm="generic+prompt")
    added, _ = beside(prompted, [], ROOMY)
    assert [source.arm for source in added] == ["scratch+full", "scratch"], "it writes: one to compare with"
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    edit_verdict(moved, "language", outcome="gain", recommended="generic", contenders=["generic"])
    added, _ = beside(resolve(moved, task="mood"), [], ROOMY)
    assert [source.arm for source in added] == ["generic"], "the base is not served twice"


@pytest.mark.parametrize(
    ("hardware", "arms"),
    [
        (Hardware(flags=ROOMY.flags, cores=2, free_bytes=6 * GIB), ["scratch+full", "generic"]),
        (Hardware(flags=ROOMY.flags, cores=2, free_bytes=5 * GIB), ["scratch+full"]),
        (Hardware(flags=ROOMY.flags, cores=16, free_bytes=7 * GIB), ["scratch+full"]),
        (Hardware(flags=ROOMY.flags, cores=2, free_bytes=4 * GIB), []),
        (Hardware(gpus=("NVIDIA H100, 81559 MiB, 570.1",), cores=8), ["scratch+full", "generic"]),
        (Hardware(gpus=("NVIDIA T1000, 8192 MiB, 570.1",), cores=8), ["scratch+full"]),
        (Hardware(gpus=("a GPU of unknown size",), cores=8), []),
    ],
)
def test_what_memory_does_not_hold_is_left_out_and_named(
    model_study: Path, hardware: Hardware, arms: list[str]
) -> None:
    added, notes = beside(resolve(model_study), [], hardware)
    assert [source.arm for source in added] == arms
    missing = [note for note in notes if "is not served: there is too little memory" in note]
    assert len(missing) == 2 - len(arms)
    assert all(f"adaptkit serve {model_study} --task " in note for note in missing)


def test_what_this_machine_cannot_serve_or_what_is_damaged_does_not_stop_the_recommended_one(
    model_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    weights = moved.parent / "mood-scratch+full-1" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    added, notes = beside(resolve(moved), [], ROOMY)
    assert added == [] and "nothing else of the study is served: " in notes[-1]
    monkeypatch.setattr(preflight, "CPU_HEADS", ())
    added, notes = beside(resolve(model_study), [], ROOMY)
    assert added == [] and all("is not served: its attention heads are" in note for note in notes)


def test_an_optional_model_that_does_not_start_is_left_out_and_the_others_answer(tmp_path: Path) -> None:
    asked = fake_launch(tmp_path, name="asked")
    beside_it = replace(fake_launch(tmp_path, mode="exit 1", name="beside"), optional=True)
    with running([asked, beside_it], tmp_path) as (client, server):
        assert [model.name for model in client.models()] == ["asked"] and not server.failed
