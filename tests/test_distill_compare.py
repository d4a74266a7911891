"""The origin `distilled` in a study: after its teachers, within the budget, scored like any other."""

from __future__ import annotations

import pytest
import tiny_embed
from test_plan import stages_of
from tiny_study import study_config, write_texts

from adaptkit import models
from adaptkit.compare.assemble import study_record
from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import check_distillable, keep_plan, make_plan
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import Workspace
from adaptkit.errors import ModelError
from adaptkit.run import Run, read_json
from adaptkit.study.arms import Arm, Origin, text_trainings
from adaptkit.study.stage_record import BASE, StageKey

ARMS = "arms=[distilled+full, continued-lora, scratch+full, placebo+full]"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def test_students_are_trained_after_all_that_may_teach_them(texts):
    distilled, scratch, continued = Origin.DISTILLED, Origin.SCRATCH, Origin.CONTINUED_LORA
    named = [Arm.parse(name) for name in ("distilled+full", "scratch+full")]
    assert text_trainings(named) == [scratch, distilled]
    stages = {stage.key: stage for stage in stages_of(study_config(texts, ARMS))}

    def run(origin):
        return StageKey.for_language(origin, seed=1)

    trial = StageKey.for_language(distilled, trial=0)
    needs = set(stages[run(distilled)].needs)
    assert {BASE, run(continued), run(scratch), trial} <= needs
    assert not [need for need in needs if need.origin is Origin.PLACEBO]
    assert StageKey.for_language(scratch) in stages[trial].needs
    assert list(stages).index(run(distilled)) > list(stages).index(run(scratch))


def test_a_study_distils_its_best_model_within_the_budget(texts, tmp_path):
    small = (
        "tasks=[]",
        "seeds=1",
        "base_flops=4e9",
        "budget.amount=1.5e10",
        "budget.trials=1",
        "trainer.threads=1",
    )
    config = study_config(texts, "arms=[scratch, distilled]", *small)
    run = open_study(config, tmp_path)
    plan = keep_plan(make_plan(config, run), run.path)
    for stage in plan.stages:
        run_stage(run.path, stage, 1)
    workspace = Workspace(run.path)
    found = workspace.language(Origin.DISTILLED, 0)
    student = Run(tmp_path / found.run)
    teachers = (workspace.base, workspace.language(Origin.SCRATCH, 0))
    best = min(teachers, key=lambda teacher: teacher.dev).model
    assert f"teacher: {student.path.parent / best}" in (student.path / "config.yaml").read_text()
    shape = models.load(tmp_path / found.model, "causal").config
    assert shape.num_hidden_layers == max(
        1, models.load(tmp_path / best, "causal").config.num_hidden_layers // 2
    )
    cost = read_json(student.cost_path)
    assert 0 < cost["teacher_flops"] < cost["flops"] <= plan.budget.text
    record = study_record(plan, run)
    scores = [score for score in record.scores if score.arm == "distilled"]
    assert scores[0].paid_by == (student.path.name,) and scores[0].text_bytes > 0


def test_a_base_without_servable_students_is_refused_before_anything_runs(texts, tmp_path):
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="shape 'gpt2' is not served"):
        check_distillable(study_config(texts, "arms=[distilled+full]", f"base={tmp_path}"))


def test_an_encoder_that_does_not_say_how_it_pools_is_refused_where_only_it_could_teach(texts, tmp_path):
    tiny_embed.bert(tmp_path)
    arms, based = "arms=[distilled+full, generic+full{}]", f"base={tmp_path}"
    check_distillable(study_config(texts, arms.format(", continued+full"), based))
    with pytest.raises(ModelError, match=r"no modules\.json"):
        check_distillable(study_config(texts, arms.format(""), based))
