"""A small study of models that start from mixed text and from the text of a task's rows: what they were
trained on, what they spent, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_study import study_config, write_texts

from adaptkit import models
from adaptkit.compare.driver import StudyOutcome, compare
from adaptkit.compare.workspace import Workspace, documents
from adaptkit.config import load
from adaptkit.models import load_tokenizer
from adaptkit.models.control_tokens import encode
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run, read_json
from adaptkit.run_record import read_record
from adaptkit.study.arms import Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.record import StudyRecord, read_study
from adaptkit.study.results import collect
from adaptkit.study.verdict import judge

ARMS = "arms=[generic+full, mixed+full, tapt+full, tapt+lora, continued, continued-vocabulary]"
SETTINGS = (
    "extend_vocabulary=40",
    "budget.trials=1",
    "tapt.repetitions=3",
    "mixed.domain_share=0.4",
    "tasks.0.max_epochs=1",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyOutcome, StudyConfig, Path]:
    """(outcome, config, root)."""
    texts, root = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("runs")
    write_texts(texts)
    config = study_config(texts, ARMS, *SETTINGS)
    outcome = compare(config, root)
    assert isinstance(outcome, StudyOutcome)
    return outcome, config, root


@pytest.fixture(scope="module")
def record(study: tuple[StudyOutcome, StudyConfig, Path]) -> StudyRecord:
    return read_study(study[0].study_path)


def trained(study: tuple[StudyOutcome, StudyConfig, Path], origin: Origin, task: str | None = None) -> Run:
    workspace = Workspace(study[0].study_path)
    return Run(workspace.root / workspace.language(origin, 0, task=task).run)


def test_every_arm_is_scored_where_it_belongs(record: StudyRecord) -> None:
    scored = {(score.arm, score.task) for score in record.scores}
    assert {("mixed", "language"), ("mixed+full", "mood"), ("tapt+full", "mood")} <= scored
    assert ("tapt+lora", "mood") in scored and "tapt" not in {arm.name for arm in record.arms}
    assert {task.name: task.controls for task in record.tasks} == {
        "language": ("mixed",),
        "mood": ("mixed+full", "tapt+full"),
    }


def test_mixed_spends_what_scratch_may_and_reads_both_texts(study, record: StudyRecord) -> None:
    run = trained(study, Origin.MIXED)
    splits = read_record(run).splits
    assert set(splits) == {"train", "dev", "replay"} and read_record(run).base == ""
    assert read_record(run).facts["replay_share"] == pytest.approx(0.6)
    spend = next(row for row in record.spends if (row.arm, row.task) == ("mixed", "language"))
    assert 0.9 < spend.spent / spend.granted <= 1
    score = next(score for score in record.scores if score.arm == "mixed")
    tokens = read_json(run.cost_path)["tokens"]
    per_token = read_record(run).facts["tokenizer"]["bytes_per_token"]
    there = record.data.corpora["domain"].train.num_bytes
    assert score.text_bytes == pytest.approx(min(there, 0.4 * tokens * per_token))


def test_what_mixed_and_tapt_forget_is_measured_on_general_text(record: StudyRecord) -> None:
    measured = {(row.arm, row.task) for row in record.forgetting if row.suite == "general"}
    continued = {("continued", None), ("continued-vocabulary", None)}
    assert measured == {("generic", None), ("mixed", None), ("tapt", "mood"), *continued}


def test_tapt_learns_the_text_of_training_rows_and_is_paid_from_the_same_budget(
    study, record: StudyRecord
) -> None:
    _, config, root = study
    run = trained(study, Origin.TAPT, "mood")
    settings = load(PretrainConfig, run.config_path).config
    learnt = {json.loads(line)["text"] for line in Path(settings.data.files[0]).read_text().splitlines()}
    mood = root / Workspace(study[0].study_path).prepared.run
    rows = {part: [json.loads(r) for r in (mood / f"mood.{part}.jsonl").open()] for part in ("train", "test")}
    assert learnt == {row["text"] for row in rows["train"]}
    assert not learnt & {row["text"] for row in rows["test"]}
    for arm in ("tapt+full", "tapt+lora"):
        spend = next(row for row in record.spends if (row.arm, row.task) == (arm, "mood"))
        assert spend.granted == record.budget.flops_per_seed and 0 < spend.spent <= spend.granted
        assert spend.reason == "tapt.repetitions: 3 passes over the text of its rows were made"
    (own,) = {score.paid_by[0] for score in record.scores if score.arm == "tapt+full" and score.seed == 0}
    assert own == run.path.name, "both arms pay for the pretraining that they start from"


def test_a_base_with_more_vocabulary_is_saved_whole_and_spends_what_continued_may(
    study, record: StudyRecord
) -> None:
    run, plain = trained(study, Origin.CONTINUED_VOCABULARY), trained(study, Origin.CONTINUED)
    tokenizer, base = (load_tokenizer(one.model) for one in (run, plain))
    assert read_record(run).facts["tokenizer"]["added"] == len(tokenizer) - len(base) == 40
    assert models.load(run.model, "causal").get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert tokenizer.chat_template == base.chat_template
    root = Workspace(study[0].study_path)
    for _, text in documents(root.files.test("domain")):
        ids = encode(tokenizer, [text], special=False)[0]
        assert tokenizer.decode(ids) == text and len(ids) <= len(encode(base, [text], special=False)[0])
    for arm in ("continued", "continued-vocabulary"):
        spend = next(row for row in record.spends if (row.arm, row.task) == (arm, "language"))
        assert 0.9 < spend.spent / spend.granted <= 1
    assert "To continued, which differs by the vocabulary alone" in study[0].report_path.read_text()


def test_the_study_is_judged_and_says_of_tapt_what_it_is(study) -> None:
    outcome, _, _ = study
    verdict = judge(collect(outcome.study_path)).main
    assert verdict.own_text and "pretraining" not in verdict.line
    page = outcome.report_path.read_text()
    assert "tapt on mood" in page, "what it forgot is drawn"
