"""Origins of models: what each is trained on, when it is chosen, what a claim without it leaves open. Home of
study.mixture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_results import LANGUAGE, TICKET, results_of
from tiny_study import study_config, write_texts

from adaptkit.compare.build_stages import shares_of, teaching_origins
from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import make_plan
from adaptkit.compare.stages import pretraining_jobs
from adaptkit.compare.stages.language_job import JobOrder
from adaptkit.compare.stages.pretraining_jobs import Mixed
from adaptkit.compare.workspace import PreparedFiles
from adaptkit.errors import ConfigError
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.study.arms import Origin
from adaptkit.study.budget import Budget
from adaptkit.study.config import MixedConfig, StudyConfig
from adaptkit.study.controls import missing_controls
from adaptkit.study.mixture import domain_share, why_no_mixture


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def left_out(config: StudyConfig, tmp_path: Path) -> dict[str, str]:
    """Arms that a plan of the config leaves out, with the reason."""
    plan = make_plan(config, open_study(config, tmp_path))
    return {row.arm: row.reason for row in plan.fixed.left_out}


def prepared_order(folder: Path, config: StudyConfig, origin: Origin, flops: float = 1e11) -> JobOrder:
    """A training on text that a stage would ask for, with the prepared data described and not there."""
    corpus = SimpleNamespace(train=SimpleNamespace(num_bytes=60_000))
    workspace = SimpleNamespace(
        config=config,
        files=PreparedFiles(folder),
        budget=Budget(1e11, 1e11, 1, 0.1, 2),
        tokenizer=SimpleNamespace(
            path=str(folder / "tokenizer"), tokenizer=SimpleNamespace(bytes_per_token=3.0, vocab_size=512)
        ),
        prepared=SimpleNamespace(data=SimpleNamespace(corpora={"domain": corpus})),
    )
    return JobOrder(workspace, origin, 1.0, flops, 0, 1, learning_rate=1e-3)  # type: ignore[arg-type]


# Mixed


def test_a_small_text_is_read_so_often_and_no_more_and_general_text_fills_the_rest() -> None:
    mixed = MixedConfig(domain_share=0.5, repetitions=4)
    assert domain_share(mixed, num_tokens=1e6, domain_tokens=1e6) == 0.5
    assert domain_share(mixed, num_tokens=1e6, domain_tokens=1e4) == pytest.approx(0.04)


def test_texts_that_make_no_mixture_are_told_by_what_is_lacking() -> None:
    mixed = MixedConfig(domain_share=0.5, repetitions=4)
    assert why_no_mixture(mixed, 0.01, 4.0) == ""
    assert why_no_mixture(mixed, 0.009, 1.0).startswith("4 passes over the domain text are 0.9% of what")
    assert why_no_mixture(mixed, 0.5, 4.1).startswith("the general text would be read 4 times")


@pytest.mark.parametrize(
    "setting", ["domain_share=0", "domain_share=1", "repetitions=0.5", "repetitions=2000", "share=0.5"]
)
def test_a_mixture_outside_its_bounds_is_refused(texts: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        study_config(texts, f"mixed.{setting}")


def test_mixed_trains_random_weights_on_both_texts_with_the_vocabulary_of_scratch(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PretrainConfig] = []
    monkeypatch.setattr(pretraining_jobs, "pretrained", lambda workspace, settings: asked.append(settings))
    config = study_config(texts, "mixed.domain_share=0.3")
    order = prepared_order(tmp_path, config, Origin.MIXED)
    Mixed().train(order)
    (settings,) = asked
    assert settings.base == "" and settings.tokenizer.path == order.workspace.tokenizer.path
    assert settings.data.files == [str(tmp_path / "domain.train.jsonl")]
    assert settings.dev is not None and settings.dev.files == [str(tmp_path / "domain.dev.jsonl")]
    assert settings.replay is not None and settings.replay.files == [str(tmp_path / "general.train.jsonl")]
    assert (settings.flops, settings.replay_share) == (order.flops, pytest.approx(0.7))


def test_the_mixture_of_a_trial_is_that_of_the_run_whose_rate_it_looks_for(
    texts: Path, tmp_path: Path
) -> None:
    config = study_config(texts, "mixed.repetitions=1", "mixed.domain_share=0.9")
    run, trial = (prepared_order(tmp_path, config, Origin.MIXED, flops) for flops in (1e11, 1e10))
    assert 0.05 < Mixed().domain_share(run) < 0.9, "the passes decide"
    assert Mixed().domain_share(trial) == Mixed().domain_share(run)


def test_mixed_is_left_out_by_itself_where_the_texts_do_not_fit_and_run_where_it_is_named(
    texts: Path, tmp_path: Path
) -> None:
    assert "mixed" not in left_out(study_config(texts, "arms=[]"), tmp_path)
    few = ("mixed.repetitions=1", "budget.amount=1e13")
    reasons = left_out(study_config(texts, "arms=[]", *few), tmp_path)
    assert reasons["mixed"] == reasons["mixed+full"]
    assert "the domain text are" in reasons["mixed"] or "would be read" in reasons["mixed"]
    assert left_out(study_config(texts, "arms=[mixed+full]", *few), tmp_path) == {}


def test_mixed_learns_the_domain_at_every_share_and_teaches_no_encoder(texts: Path) -> None:
    config = study_config(texts, "arms=[mixed, distilled, placebo]", "fractions=[0.25, 1.0]")
    assert shares_of(config, Origin.MIXED) == [0.25, 1.0] and shares_of(config, Origin.PLACEBO) == [1.0]
    assert teaching_origins(config) == [Origin.MIXED]


def test_a_study_that_could_have_run_an_arm_says_what_it_cannot_exclude_without_it() -> None:
    scores = {"generic": [1.9, 1.9], "continued": [1.8, 1.8]}
    scores |= {"continued-lora": [1.8, 1.8], "scratch": [1.8, 1.8], "placebo": [1.9, 1.9]}
    text = LANGUAGE.model_copy(update={"controls": ("mixed",)})
    assert [control.name for control in missing_controls(results_of(scores, task=text), text)] == ["mixed"]
    assert missing_controls(results_of(scores), LANGUAGE) == (), (
        "of a study from before there was such an arm"
    )
    job = TICKET.model_copy(update={"controls": ("mixed+full",)})
    results = results_of({"generic+full": [0.5, 0.5]}, task=job, without=("mixed", "mixed+lora"))
    names = [control.name for control in missing_controls(results, job)]
    assert "mixed+full" in names and "mixed+lora" in names and "mixed" not in names, "named once"
