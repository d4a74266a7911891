"""Stages of a study: where learning rates are centred, who teaches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from adaptkit.compare.stages import language
from adaptkit.compare.stages.distillation_job import best_teacher
from adaptkit.compare.stages.language_job import ADAPTER_RATE, FULL_RATE
from adaptkit.compare.stages.pretraining_jobs import Continued, KeepTraining, Placebo, Scratch
from adaptkit.compare.stages.tsdae_job import RATE, RestoreTexts
from adaptkit.compare.workspace import PreparedFiles
from adaptkit.study.arms import Adaptation, Origin, TextJob


def test_learning_rates_are_centred_by_what_a_job_moves() -> None:
    full, lora = Adaptation.FULL, Adaptation.LORA
    assert Scratch().rate_share(full) == 1.0
    assert Continued().rate_share(full) == Placebo().rate_share(full) == FULL_RATE == 0.5
    assert KeepTraining().rate_share(lora) == Continued().rate_share(lora) == ADAPTER_RATE == 3.0
    assert RestoreTexts("domain").rate_share(full) == RATE
    assert RestoreTexts("domain").rate_share(lora) == pytest.approx(RATE * 6)


def test_only_the_placebo_learns_general_text_and_only_continued_replays_it(tmp_path: Path) -> None:
    assert {origin.value for origin, job in language.JOBS.items() if job.text == "general"} == {"placebo"}
    config = SimpleNamespace(replay_share=0.2)
    workspace = SimpleNamespace(config=config, files=PreparedFiles(tmp_path))
    assert KeepTraining().replay(workspace) == Placebo().replay(workspace) == {}
    replayed = Continued().replay(workspace)
    assert replayed["replay_share"] == 0.2
    assert replayed["replay"].files == [str(tmp_path / "general.train.jsonl")]
    config.replay_share = 0.0
    assert Continued().replay(workspace) == {}


def test_an_encoder_without_a_head_restores_texts_in_the_place_of_more_pretraining(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language, "is_headless", lambda base: True)
    workspace = SimpleNamespace(base_folder="base")
    placebo = language.job_of(workspace, TextJob(Origin.PLACEBO))
    assert isinstance(placebo, RestoreTexts) and placebo.text == "general"
    assert isinstance(language.job_of(workspace, TextJob(Origin.SCRATCH)), Scratch)
    monkeypatch.setattr(language, "is_headless", lambda base: False)
    assert isinstance(language.job_of(workspace, TextJob(Origin.PLACEBO)), Placebo)


def test_the_model_with_the_lowest_dev_score_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptkit.compare.stages.distillation_job.teaching_jobs", lambda config: config.jobs)
    scores = {Origin.CONTINUED: 1.5, Origin.SCRATCH: 1.7}
    workspace = SimpleNamespace(
        config=SimpleNamespace(jobs=[TextJob(origin) for origin in scores]),
        base=SimpleNamespace(dev=1.6, model="base"),
        language=lambda job, seed, share: SimpleNamespace(dev=scores[job.origin], model=job.name),
    )
    assert best_teacher(workspace, 0, 1.0) == "continued"
    workspace.base.dev = 1.4
    assert best_teacher(workspace, 0, 1.0) == "base"
    workspace.config.jobs, workspace.base.dev = [], None
    assert best_teacher(workspace, 0, 1.0) == "base", "a masked base is all there is"


def test_prepared_files_have_one_name_each(tmp_path: Path) -> None:
    files = PreparedFiles(tmp_path)
    named = [files.train("domain"), files.train("domain", 0.25), files.dev("domain"), files.test("domain")]
    assert [path.name for path in named] == [
        "domain.train.jsonl",
        "domain.train.0.25.jsonl",
        "domain.dev.jsonl",
        "domain.test.jsonl",
    ]
    (tmp_path / "domain.train.jsonl").write_text("a")
    before = files.digest()
    (tmp_path / "manifest.json").write_text("not data")
    assert files.digest() == before
    (tmp_path / "domain.train.jsonl").write_text("b")
    assert files.digest() != before
