"""The model card: filled from records, without a blank, a line of text, a path or a time."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from tiny_exports import CANARY, LINES, bytes_of, edit_verdict, study_of

from adaptkit.export.driver import Options, export
from adaptkit.export.papers.model_card import ONE_RUN, generation_notes, scores, verdict_sentence
from adaptkit.export.resolve import resolve
from adaptkit.run import Run
from adaptkit.run_record import read_record


def test_the_card_is_filled_and_holds_no_text_path_or_time(notes: Run, tmp_path: Path) -> None:
    folder = export(resolve(notes.path), "int8", Options(out=tmp_path / "out")).folder
    for name, data in bytes_of(folder).items():
        if name not in ("tokenizer.json", "model.safetensors"):
            assert (
                CANARY.encode() not in data and str(tmp_path).encode() not in data and b"/tmp" not in data
            ), name
    card = (folder / "README.md").read_text()
    assert not re.search(
        r"More Information|TODO|\|[ \t]*\||None\b|nan\b|Undefined", card.replace("\n| | |\n", "")
    )
    for line in (
        "bits per byte",
        "random weights",
        "not stated",
        "training FLOPs",
        "Reproduce",
        "one training: no interval",
        "| presumed to have systemic risk | 1e+25 |",
        "provider of a modified model: a third of its base | - |",
        "not legal advice",
    ):
        assert line in card, line
    assert "license: other" in card and "whoever owns the training text decides" in card
    assert not re.search(
        r"20\d\d-\d\d-\d\dT",
        card + (folder / "manifest.json").read_text() + (folder / "sbom.cdx.json").read_text(),
    )


def test_the_card_of_a_studys_model_has_its_interval_verdict_and_budget(model_study: Path) -> None:
    card = (export(resolve(model_study), "bf16").folder / "README.md").read_text()
    assert "| language | bits per byte | test | 1.7200 | [1.7000, 1.7400] at 95%, 2 seeds | 30 |" in card
    assert LINES["language"] in card and LINES["mood"] not in card
    assert "accuracy" not in card, "scores of other models of the arm"
    assert "3.1e+14 FLOPs, 3 tuning trials included" in card
    assert "| study | study-fake0001, arm `scratch`, task language, seed 1 |" in card


def test_the_card_of_a_models_task_tells_that_tasks_answer(model_study: Path) -> None:
    source = resolve(model_study, task="mood", arm="scratch+full", seed=1)
    card = (export(source, "int8").folder / "README.md").read_text()
    assert LINES["mood"] in card
    assert "bits per byte" not in card and "The scores above are means over the study's seeds" in card
    assert "--task mood --seed 1" in card and "adaptkit compare runs/study-fake0001/config.yaml" in card


def test_the_answer_is_that_of_the_models_own_task(notes: Run, mood: Run, tmp_path: Path) -> None:
    study = study_of(tmp_path, notes, mood, outcome="undecided")
    edit_verdict(study, "mood", line="VERDICT: undecided on mood between generic+lora and scratch+full")
    source = resolve(study, task="mood", arm="generic+lora")
    assert verdict_sentence(source) == "VERDICT: undecided on mood between generic+lora and scratch+full"
    assert verdict_sentence(resolve(study, task="language", arm="scratch")) == LINES["language"]
    assert verdict_sentence(resolve(notes.path)) is None


def test_scores_outside_a_study_are_the_runs_own(notes: Run, mood: Run, tmp_path: Path) -> None:
    own = read_record(mood).suites["mood"]
    rows = {row.metric: row for row in scores(resolve(mood.path))}
    accuracy = rows["accuracy"]
    assert (accuracy.value, accuracy.split, accuracy.items) == (own.metrics["accuracy"], "test", "40")
    assert accuracy.interval == ONE_RUN
    assert {row.split for row in scores(resolve(notes.path))} == {"development"}
    untested = own.model_copy(update={"metrics": {}, "num_items": 0})
    run = Run(shutil.copytree(mood.path, tmp_path / "run"))
    record = read_record(mood).model_copy(update={"suites": {"mood": untested}})
    run.update_manifest(record=record.model_dump(mode="json"))
    rows = {row.metric: row for row in scores(resolve(run.path))}
    assert rows["accuracy"].value == own.dev["accuracy"]
    assert (rows["accuracy"].split, rows["accuracy"].items) == ("development", "not recorded")


def test_caveats_and_commands_follow_the_export(model_folders: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(f'{{"text": "document {number} of the ward"}}\n' for number in range(60)))
    options = Options(out=tmp_path / "out", method="gptq", calibration=text, max_loss_bpb=9)
    card = (export(resolve(model_folders["llama"]), "int4", options).folder / "README.md").read_text()
    assert "rounded by GPTQ on the file text.jsonl" in card
    assert "adaptkit export FOLDER --format int4 --method gptq --calibration text.jsonl --out NEW" in card
    assert "This format needs a GPU or CPU with AVX512." in card and "a GPU, or a CPU with AVX512" in card
    assert "groups are of 64 inputs: 128 do not divide its widths" in card
    assert "What it was trained on is not known to the tool" in card and "can be wrong" in card


def test_the_card_says_which_settings_of_generation_stayed(notes: Run, tmp_path: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.6, "eos_token_id": 2, "use_cache": True}
    for name, more in (("out", {}), ("base", {"repetition_penalty": 1.3})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "generation_config.json").write_text(json.dumps(settings | more))
    source = replace(resolve(notes.path), kind="generate", folder=tmp_path / "base")
    kept, left_out = generation_notes(tmp_path / "out", source)
    assert "do_sample True, temperature 0.6" in kept and "eos" not in kept
    assert left_out.endswith("left out of generation_config.json: repetition_penalty 1.3.")
    assert generation_notes(tmp_path / "nothing", replace(source, folder=tmp_path / "nowhere")) == []
    assert generation_notes(tmp_path / "out", replace(source, kind="embed")) == []
