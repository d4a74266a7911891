"""Stages of a study: where learning rates are centred, who teaches. Home of compare.stages.distillation_job,
compare.stages.language, compare.stages.language_job, compare.stages.pretraining_jobs, compare.stages.task
and compare.stages.tsdae_job."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from adaptkit.architecture import default_learning_rate
from adaptkit.compare.stages import language
from adaptkit.compare.stages.distillation_job import best_teacher
from adaptkit.compare.stages.language_job import (
    ADAPTER_RATE,
    FULL_RATE,
    JobOrder,
    Subject,
    files,
    share_of_bytes,
)
from adaptkit.compare.stages.pretraining_jobs import SCRATCH_RATE, Continued, KeepTraining, Placebo, Scratch
from adaptkit.compare.stages.tsdae_job import RATE, RestoreTexts
from adaptkit.compare.workspace import Workspace, read_scores, tidy
from adaptkit.data.readers import Dataset, Row, content_id
from adaptkit.errors import DataError
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run, write_json
from adaptkit.seal import check
from adaptkit.study.arms import Origin
from adaptkit.study.budget import Budget
from adaptkit.study.prepared_files import PreparedFiles


def test_learning_rates_are_centred_by_what_a_job_moves() -> None:
    assert Scratch().rate_share(False) == SCRATCH_RATE == 2.0
    assert Continued().rate_share(False) == Placebo().rate_share(False) == FULL_RATE == 0.5
    assert KeepTraining().rate_share(True) == Continued().rate_share(True) == ADAPTER_RATE == 3.0
    assert RestoreTexts(Continued()).rate_share(False) == RATE
    assert RestoreTexts(Continued()).rate_share(True) == pytest.approx(RATE * 6)


class Sized(Scratch):
    """A training of a model of 16 million parameters."""

    def subject(self, order: JobOrder) -> Subject:
        return SimpleNamespace(params=16_000_000)  # type: ignore[return-value]


def order_of(flops: float, trials: int, tried: list[tuple[float, float]]) -> JobOrder:
    """An order within a study whose trials gave these rates and losses."""
    workspace = SimpleNamespace(
        budget=Budget(1e12, 1e12, trials, 0.1, 2),
        config=study_settings(),
        language_trials=lambda origin, num, task: [
            SimpleNamespace(learning_rate=rate, dev=loss) for rate, loss in tried[:num]
        ],
    )
    return JobOrder(workspace, Origin.SCRATCH, 1.0, flops, 0, 1)  # type: ignore[arg-type]


def study_settings() -> SimpleNamespace:
    return SimpleNamespace(adapter_on_text=lambda origin: SimpleNamespace(kind="none"))


def test_a_grid_lies_around_the_size_of_the_model_that_is_trained() -> None:
    centre = 2.0 * default_learning_rate(16_000_000)
    rates = [language.learning_rate(Sized(), order_of(1e11, 3, []), trial) for trial in range(3)]
    assert rates == pytest.approx([centre / 3, centre, centre * 3], rel=1e-2)
    assert language.learning_rate(Sized(), order_of(1e12, 1, []), None) == pytest.approx(centre, rel=1e-2)


def test_the_last_trial_follows_from_the_grid_and_the_run_from_all_of_them() -> None:
    grid = [(1e-3, 3.0), (3e-3, 2.0), (9e-3, 1.0)]
    beyond = language.learning_rate(Sized(), order_of(1e11, 3, grid), 3)
    assert beyond == pytest.approx(2.7e-2)
    tried = [*grid, (beyond, 0.5)]
    assert language.learning_rate(Sized(), order_of(1e11, 3, tried), None) == pytest.approx(beyond)
    longer = language.learning_rate(Sized(), order_of(8e11, 3, tried), None)
    assert longer == pytest.approx(beyond * 8**-0.32, rel=1e-2)


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
    placebo = language.job_of(workspace, Origin.PLACEBO)
    assert isinstance(placebo, RestoreTexts) and placebo.text == "general"
    assert isinstance(language.job_of(workspace, Origin.SCRATCH), Scratch)
    monkeypatch.setattr(language, "is_headless", lambda base: False)
    assert isinstance(language.job_of(workspace, Origin.PLACEBO), Placebo)


def test_the_model_with_the_lowest_dev_score_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "adaptkit.compare.stages.distillation_job.teaching_origins", lambda config: config.origins
    )
    scores = {Origin.CONTINUED: 1.5, Origin.SCRATCH: 1.7}
    workspace = SimpleNamespace(
        config=SimpleNamespace(origins=list(scores)),
        base=SimpleNamespace(dev=1.6),
        base_folder=Path("runs/base/model"),
        folder=lambda name: Path("runs") / name,
        language=lambda origin, seed: SimpleNamespace(dev=scores[origin], model=f"{origin}-1/model"),
    )
    assert best_teacher(workspace, 0) == "runs/continued-1/model"
    workspace.base.dev = 1.4
    assert best_teacher(workspace, 0) == "runs/base/model"
    workspace.config.origins, workspace.base.dev = [], None
    assert best_teacher(workspace, 0) == "runs/base/model", "a masked base is all there is"


def test_prepared_files_have_one_name_each(tmp_path: Path) -> None:
    files = PreparedFiles(tmp_path)
    named = [files.train("domain"), files.dev("domain"), files.test("domain")]
    assert [path.name for path in named] == ["domain.train.jsonl", "domain.dev.jsonl", "domain.test.jsonl"]
    (tmp_path / "domain.train.jsonl").write_text("a")
    before = files.digest()
    (tmp_path / "manifest.json").write_text("not data")
    assert files.digest() == before
    (tmp_path / "domain.train.jsonl").write_text("b")
    assert files.digest() != before


def test_a_tidied_trial_no_longer_lists_the_model_that_is_gone(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "trial", {"seed": 0})
    for folder in (run.model, run.checkpoints):
        write_json(folder / "config.json", {})
    write_json(run.scores("mood"), {"dev": {"accuracy": 0.5}})
    run.finish()
    tidy(run, keep_model=True)
    check(run.path)
    assert run.model.exists() and not run.checkpoints.exists()
    tidy(run, keep_model=False)
    tidy(run, keep_model=False)
    check(run.path)
    assert not run.model.exists() and read_scores(run, "mood")["dev"] == {"accuracy": 0.5}
    run.scores("mood").write_text("{}")
    with pytest.raises(DataError, match="this file is damaged"):
        read_scores(run, "mood")


def text_of(*texts: str) -> Dataset:
    rows = [Row({"text": text}, f"f:{i}", content_id({"text": text})) for i, text in enumerate(texts)]
    return Dataset(rows, "text", {})


def test_a_share_of_a_text_is_that_many_bytes_and_lies_inside_a_larger_one() -> None:
    text = text_of("a long document " * 40, *(f"short {i} Grüße" for i in range(30)))
    num_bytes = sum(len(row.text.encode()) for row in text.rows)
    parts = {share: list(share_of_bytes(text, share)) for share in (0.01, 0.1, 0.5, 0.9, 1.0)}
    for share, part in parts.items():
        assert share * num_bytes - 4 <= sum(len(one.encode()) for one in part) <= share * num_bytes + 1
    joined = ["".join(part) for part in parts.values()]
    assert all(larger.startswith(smaller) for smaller, larger in pairwise(joined))
    assert sorted(parts[1.0]) == sorted(row.text for row in text.rows)
    turned = text_of(*(row.text for row in reversed(text.rows)))
    assert list(share_of_bytes(turned, 0.5)) == parts[0.5]
    assert list(share_of_bytes(text_of("é" * 10), 0.05)) == [], "half a character is none"


def test_a_training_on_a_part_of_a_text_is_another_one_than_on_all_of_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs" / "study-1")
    workspace.__dict__.update(_given={}, data_digest="d1")
    texts = ("data-1/domain.train.jsonl", "part-1/domain.train.jsonl", "part-2/domain.train.jsonl")
    settings = [
        PretrainConfig(name="continued", base="base", data=files(workspace.root / text), flops=1e9)
        for text in texts
    ]
    runs = [workspace.open(each.name, each).path for each in settings]
    assert len(set(runs)) == 3, "only the file differs: nothing else tells them apart"
    assert workspace.open("continued", settings[0]).path == runs[0]
