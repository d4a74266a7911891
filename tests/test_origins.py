"""Origins of models: what each is trained on, when it is chosen, what a claim without it leaves open. Home of
report.vocabulary_gain and study.mixture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_study import FULL, edit_study, write_study
from tiny_results import LANGUAGE, TICKET, arm_of, results_of
from tiny_study import study_config, write_texts

from adaptkit.compare.build_stages import build_stages, teaching_origins
from adaptkit.compare.costs import Costs, text_sizes
from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import arm_rows, make_plan
from adaptkit.compare.stages import pretraining_jobs
from adaptkit.compare.stages.language import JOBS, learning_rate
from adaptkit.compare.stages.language_job import JobOrder
from adaptkit.compare.stages.pretraining_jobs import Mixed, OwnText, own_text
from adaptkit.compare.usable_base import why_base_cannot
from adaptkit.data.readers import Row
from adaptkit.errors import ConfigError, DataError
from adaptkit.model_uses import Use
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.report.vocabulary_gain import vocabulary_sentence
from adaptkit.run import Run, write_jsonl
from adaptkit.study.arms import Origin
from adaptkit.study.base_model import base_shape, with_vocabulary
from adaptkit.study.budget import Budget
from adaptkit.study.config import MixedConfig, StudyConfig
from adaptkit.study.controls import gains_from_text, missing_controls
from adaptkit.study.mixture import domain_share, why_no_mixture
from adaptkit.study.preference import Preference, forgotten
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.record import ForgettingRecord, read_study
from adaptkit.study.results import collect
from adaptkit.study.stage_record import StageKey
from adaptkit.study.tasks.rows import question_of
from adaptkit.study.verdict import judge


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
        tokenizer=SimpleNamespace(tokenizer=SimpleNamespace(bytes_per_token=3.0, vocab_size=512)),
        tokenizer_folder=folder / "tokenizer",
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
    assert settings.base == "" and settings.tokenizer.path == str(order.workspace.tokenizer_folder)
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


def test_mixed_is_forecast_and_teaches_no_encoder(texts: Path) -> None:
    config = study_config(texts, "arms=[mixed, distilled, placebo]")
    assert Origin.MIXED.has_law and not Origin.PLACEBO.has_law and not Origin.DISTILLED.has_law
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


# The text of a task's own rows


def test_each_task_has_a_training_of_its_own_on_the_text_of_its_rows(texts: Path) -> None:
    second = f"{{name: tone, train: {{files: [{texts}/mood.jsonl]}}}}"
    first = f"{{name: mood, train: {{files: [{texts}/mood.jsonl]}}}}"
    config = study_config(texts, f"tasks=[{first}, {second}]", "arms=[tapt+full, tapt+lora]", "seeds=2")
    stages = {stage.key: stage for stage in build_stages(config, Budget(1e11, 7e10, 2, 0.1, 2))}
    names = {key.name for key in stages if key.origin is Origin.TAPT}
    assert names == {
        *(f"tune.tapt.{task}.{trial}" for task in ("mood", "tone") for trial in range(3)),
        *(f"language.tapt.{task}.s{seed}.f1" for task in ("mood", "tone") for seed in range(2)),
    }
    arm = config.job_arms[0]
    needs = stages[StageKey.for_task("tone", arm, seed=1)].needs
    assert StageKey.for_language(Origin.TAPT, seed=1, task="tone") in needs
    assert StageKey.for_language(Origin.TAPT, seed=1, task="mood") not in needs
    assert stages[StageKey.for_language(Origin.TAPT, seed=1, task="tone")].describe.startswith(
        "tapt on the text of tone: seed 1"
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"text": "the mail", "label": "good"}, "the mail"),
        ({"prompt": "say it", "completion": "the answer"}, "say it"),
        (
            {
                "messages": [
                    {"role": "system", "content": "be kind"},
                    {"role": "user", "content": "why?"},
                    {"role": "assistant", "content": "the answer"},
                ]
            },
            "be kind\nwhy?",
        ),
    ],
)
def test_what_a_row_asks_is_its_text_without_label_or_answer(values: dict, text: str) -> None:
    assert question_of(Row(values, "f:1", "1")) == text


def order_on_rows(folder: Path, config: StudyConfig, rows: dict[str, list[dict]]) -> JobOrder:
    """A training on the text of the task `mood`, whose prepared rows are these."""
    files = PreparedFiles(folder / "data")
    files.folder.mkdir()
    for part in ("train", "dev", "test"):
        write_jsonl(getattr(files.task("mood"), part), rows[part])
    workspace = SimpleNamespace(
        config=config,
        files=files,
        open_fields=lambda name, fields: Run.open(folder, name, fields),
        budget=Budget(1e11, 1e11, 2, 0.1, 2),
    )
    return JobOrder(workspace, Origin.TAPT, 1.0, 1e11, 0, 1, task="mood")  # type: ignore[arg-type]


def mood_rows(words: str, num: int) -> list[dict]:
    return [{"text": f"{words} {i}", "label": ("good", "bad")[i % 2]} for i in range(num)]


def test_tapt_reads_the_text_of_training_rows_each_once_and_nothing_of_the_test(
    texts: Path, tmp_path: Path
) -> None:
    rows = {part: mood_rows(f"{part} row", 4) for part in ("train", "dev", "test")}
    rows["train"] += rows["train"][:2]
    order = order_on_rows(tmp_path, study_config(texts), rows)
    files = own_text(order)
    learnt, judged = (path.read_text() for path in (files.train("task"), files.dev("task")))
    assert OwnText().train_file(order) == files.train("task") and OwnText().dev_file(order) == files.dev(
        "task"
    )
    assert learnt.count("train row") == 4 == judged.count("dev row")
    assert "test row" not in learnt + judged and "good" not in learnt + judged


def test_rows_without_text_are_no_text_to_pretrain_on(texts: Path, tmp_path: Path) -> None:
    rows = {part: mood_rows("row", 4) for part in ("train", "dev", "test")}
    order = order_on_rows(tmp_path, study_config(texts), rows)
    kind = SimpleNamespace(own_texts=lambda files: {"train": ["a text"], "dev": [" "]})
    task = SimpleNamespace(name="mood", kind="classify", task_kind=kind)
    order.workspace.config = SimpleNamespace(task=lambda name: task)  # type: ignore[misc, assignment]
    with pytest.raises(DataError, match="the dev rows of 'mood' hold no text to pretrain on"):
        own_text(order)


def test_its_passes_end_a_training_on_little_text_and_its_rate_is_that_of_its_length(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {part: mood_rows("row", 20) for part in ("train", "dev", "test")}
    order = order_on_rows(tmp_path, study_config(texts, "tapt.repetitions=4", "size.seq_len=64"), rows)
    job = OwnText()
    subject = SimpleNamespace(model=None, tokenizer="", params=1_000_000)
    monkeypatch.setattr(OwnText, "subject", lambda self, order: subject)
    module = "adaptkit.compare.stages.language_job"
    monkeypatch.setattr(f"{module}.models.load_tokenizer", lambda path: None)
    monkeypatch.setattr(f"{module}.token_lengths", lambda tokenizer, texts: [9] * len(texts))
    monkeypatch.setattr(f"{module}.models.flops_per_token", lambda *_: SimpleNamespace(train=5.0))
    assert job.most_flops(order) == 4 * 4 * 64 * 5.0, "20 texts of 9 tokens and an end are 4 rows of 64"
    tried = [SimpleNamespace(learning_rate=1e-3, dev=dev) for dev in (1.0, 2.0, 3.0)]
    order.workspace.language_trials = lambda origin, num, task: tried[:num]  # type: ignore[method-assign]
    assert learning_rate(job, order, None) == 1e-3, "a trial made as many passes as the run will"


def test_tapt_is_left_out_where_rows_are_no_text_or_too_little(texts: Path, tmp_path: Path) -> None:
    reason = left_out(study_config(texts, "arms=[]", "tapt.repetitions=1", "seeds=1"), tmp_path)["tapt+full"]
    assert reason.startswith("1 passes over the text of mood are") and "at least 8" in reason
    config = study_config(texts)
    search = config.tasks[0].model_copy(update={"kind": "retrieve"})
    arm = study_config(texts, "arms=[tapt+full]").job_arms[0]
    assert config.tasks_of(arm) == config.tasks
    assert config.model_copy(update={"tasks": [search]}).tasks_of(arm) == []


# What a verdict says of it

TRUTH = {"continued+full": 0.86, "tapt+full": 0.80}


def study_with_tapt(folder: Path, **skill: float) -> Path:
    options = {"num_documents": 60, "num_rows": 1200, "primary": "rct_role"}
    return write_study(folder, arms=(*FULL, "tapt+full"), skill={**TRUTH, **skill}, **options)


def test_domain_text_has_to_add_to_what_the_text_of_the_rows_gives(tmp_path: Path) -> None:
    assert not gains_from_text(arm_of("tapt+full"), TICKET)
    line = judge(collect(study_with_tapt(tmp_path / "gain"))).line
    assert "continued+full on rct_role" in line and "over the best without domain text" in line
    skill = {"continued+full": 0.80, "continued+lora": 0.7, "tapt+full": 0.90}
    verdict = judge(collect(study_with_tapt(tmp_path / "none", **skill))).main
    assert (verdict.outcome, verdict.recommended) == ("no gain", "tapt+full")
    without = write_study(tmp_path / "without", primary="rct_role", skill=TRUTH)
    assert "without domain text" not in judge(collect(without)).line


def test_a_claim_that_appears_because_tapt_is_left_out_names_it(tmp_path: Path) -> None:
    skill = {"continued+full": 0.94, "continued+lora": 0.7, "tapt+full": 0.94}
    study = study_with_tapt(tmp_path, **skill)
    record = read_study(study)
    asked = [task.model_copy(update={"controls": ("tapt+full",)}) for task in record.tasks[1:]]
    edit_study(study, tasks=(record.tasks[0], *asked))
    assert judge(collect(study)).main.outcome != "gain"
    edit_study(
        study,
        arms=tuple(arm for arm in record.arms if arm.origin != "tapt"),
        scores=tuple(score for score in record.scores if score.arm != "tapt+full"),
    )
    verdict = judge(collect(study)).main
    assert verdict.outcome == "gain" and verdict.line.endswith("not tried: tapt+full")


def test_what_tapt_forgot_is_its_own_and_counts_among_contenders(tmp_path: Path) -> None:
    study = study_with_tapt(tmp_path)
    record = read_study(study)
    lost = next(row for row in record.forgetting if row.arm == "scratch")
    own = [ForgettingRecord(arm="tapt", seed=0, run=lost.run, suite=lost.suite, task="rct_role")]
    edit_study(study, forgetting=(*record.forgetting, *own))
    results = collect(study)
    task, arm = results.task("rct_role"), results.arm("tapt+full")
    assert forgotten(results, arm, task) == pytest.approx(1.1, abs=0.05), "as much as the model of its run"
    key = Preference.of(results, task, "forgetting").key
    assert key(arm) > key(results.arm("continued+full"))
    assert forgotten(results, arm, task.model_copy(update={"name": "other"})) == 0.0


# More vocabulary


def test_continued_with_more_vocabulary_differs_from_continued_by_that_alone(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PretrainConfig] = []
    monkeypatch.setattr(pretraining_jobs, "pretrained", lambda workspace, settings: asked.append(settings))
    monkeypatch.setattr(pretraining_jobs, "text_kind", lambda base: "causal")
    config = study_config(texts, "extend_vocabulary=40", "arms=[continued, continued-vocabulary]")
    for origin in (Origin.CONTINUED, Origin.CONTINUED_VOCABULARY):
        order = prepared_order(tmp_path, config, origin)
        order.workspace.base_folder = tmp_path  # type: ignore[misc]
        JOBS[origin].train(order)
    plain, extended = (settings.model_dump(exclude={"name", "tokenizer"}) for settings in asked)
    assert plain == extended and plain["replay"] is not None
    assert [settings.tokenizer.new_tokens for settings in asked] == [0, 40]


def test_new_entries_are_paid_for_in_every_step(texts: Path) -> None:
    config = study_config(texts, "extend_vocabulary=200", "arms=[continued, continued-vocabulary]")
    shape, kind = base_shape(config)
    costs = Costs(config, shape, kind, text_sizes(config), {})
    more = costs.params(Origin.CONTINUED_VOCABULARY) - costs.params(Origin.CONTINUED)
    assert more == 200 * shape.hidden_size and shape.vocab_size == 512
    assert costs.text_step(Origin.CONTINUED_VOCABULARY) > costs.text_step(Origin.CONTINUED)
    assert with_vocabulary(shape, 5).vocab_size == 517


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("arms=[continued-vocabulary]", "set extend_vocabulary"),
        ("tokenizer.new_tokens=9", "in a study, set extend_vocabulary"),
        ("extend_vocabulary=2000000", "extend_vocabulary"),
    ],
)
def test_entries_are_asked_for_in_one_place(texts: Path, override: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        study_config(texts, override)


def test_the_arm_runs_by_itself_where_entries_are_asked_for(texts: Path, tmp_path: Path) -> None:
    config = study_config(texts, "arms=[]", "extend_vocabulary=40", "tasks=[]")
    plan = make_plan(config, open_study(config, tmp_path))
    assert [arm.name for arm in plan.config.parsed_arms][:4] == [
        *("generic", "continued", "continued-lora", "continued-vocabulary")
    ]
    assert {row["arm"] for row in arm_rows(plan)} >= {"continued-vocabulary", "mixed"}, "the dry run has them"


def test_a_base_that_takes_no_entries_gives_the_arm_no_start(texts: Path) -> None:
    config = study_config(texts, "arms=[continued-vocabulary, continued]", "extend_vocabulary=40")
    continued, extended = config.text_arms[2], config.text_arms[1]
    assert (continued.name, extended.name) == ("continued", "continued-vocabulary")
    refused = SimpleNamespace(what="has whole words", fix="take another")
    base = SimpleNamespace(form="causal", why_not=lambda use, adapter: refused if use is Use.EXTEND else None)
    assert why_base_cannot(config, base, extended) == "the base has whole words: take another"  # type: ignore[arg-type]
    assert why_base_cannot(config, base, continued) == ""  # type: ignore[arg-type]
    headless = SimpleNamespace(form="encoder", why_not=lambda use, adapter: None)
    assert "no masked-language-model head" in why_base_cannot(config, headless, extended)  # type: ignore[arg-type]


def test_how_much_of_a_gain_was_the_vocabulary_is_said_with_its_interval() -> None:
    levels = {"generic": [2.0] * 3, "continued": [1.80, 1.801, 1.799]}
    for level, words in ((1.75, "so much of it came with"), (1.85, "cost more"), (1.8002, "no gain by the")):
        extended = {"continued-vocabulary": [level, level + 0.001, level - 0.001]}
        results = results_of({**levels, **extended})
        for cell in results.cells:
            for row in cell.rows:
                row["num_tokens"] = 90 if cell.arm == "continued-vocabulary" else 100
        sentence = vocabulary_sentence(results)
        assert words in sentence and "in 10.0% fewer tokens" in sentence
        assert f"is {2.0 - level:+.3f} bits per byte ahead of the base" in sentence
    assert vocabulary_sentence(results_of(levels)) == ""
