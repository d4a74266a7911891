"""LoRA with passages in place: what a row holds, what leaks, what it costs, and what a study makes of it.
Home of finetune.rows_with_passages and study.tasks.looked_up_rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_chat
from test_rag import FEVER, HEART, ROADS, answered, library, tiny
from tiny_study import study_config, write_texts

from adaptkit import models
from adaptkit.compare.build_stages import build_stages, choosing_lookup
from adaptkit.compare.choose_arms import JOB_ARMS, TRAINED_LOOKING_UP
from adaptkit.compare.costs import Costs, TextSizes
from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import keep_plan, make_plan
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import Workspace
from adaptkit.data.readers import DataConfig, Row, read
from adaptkit.export.papers.model_card import looked_up_notes
from adaptkit.finetune.prompt_passages import Lookup
from adaptkit.finetune.rows_with_passages import row_with_fitting, row_with_passages, searched_for
from adaptkit.run import Run, read_json, read_jsonl, read_sealed
from adaptkit.run_record import read_record
from adaptkit.study.arms import ARMS, Adaptation
from adaptkit.study.base_model import base_shape
from adaptkit.study.controls import missing_controls
from adaptkit.study.task import KINDS
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tasks.passage_finder import PassageFinder

HEAD = f"Passages that may help:\n[1] {FEVER}\n[2] {HEART}\n\n"


def row(**values: object) -> Row:
    return Row(dict(values), "r:1", "id")


# What a row holds


def test_passages_stand_before_the_question_and_the_answer_and_id_stay() -> None:
    asked = row_with_passages(row(prompt="why?", completion="so"), [FEVER, HEART])
    assert asked.values == {"prompt": f"{HEAD}why?", "completion": "so"} and asked.id == "id"
    assert row_with_passages(row(text="why?", label="x"), [FEVER, HEART]).values["text"] == f"{HEAD}why?"
    bare = row(text="why?", label="x")
    assert row_with_passages(bare, []) is bare


def test_of_a_conversation_the_last_taught_question_gets_them() -> None:
    turns = [("system", "be kind"), ("user", "hello"), ("assistant", "hi"), ("user", "why?")]
    turns += [("assistant", "so"), ("user", "and?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    chat = row_with_passages(row(messages=messages), [FEVER, HEART]).values["messages"]
    assert [turn["content"] for turn in chat] == ["be kind", "hello", "hi", f"{HEAD}why?", "so", "and?"]
    assert messages[3]["content"] == "why?", "the row itself stays as it is"
    parts = [{"role": "user", "content": [{"type": "text", "text": "why?"}]}, messages[4]]
    chat = row_with_passages(row(messages=parts), [FEVER, HEART]).values["messages"]
    assert [part["text"] for part in chat[0]["content"]] == [HEAD, "why?"]
    alone = row_with_passages(row(messages=[messages[0], messages[4]]), [FEVER]).values["messages"]
    assert alone[0]["content"].startswith("Passages") and alone[1:] == [messages[0], messages[4]]
    assert searched_for(row(messages=messages)).endswith("why?") and searched_for(row(text="a")) == "a"


def test_passages_follow_while_they_fit_and_the_last_ends_where_a_sentence_does() -> None:
    bare = row(prompt="why?", completion="so")
    for room, taken in ((500, (FEVER, HEART)), (190, (FEVER, HEART.partition(". ")[0] + ".")), (20, ())):
        fits = lambda row, room=room: len(row.values["prompt"]) <= room  # noqa: E731
        asked, used = row_with_fitting(bare, [FEVER, HEART], fits)
        assert used == taken and asked == row_with_passages(bare, used)


# What leaks


@pytest.mark.parametrize("copy", ["{q} {a}", "Q: {q}\nA: {a}.", "{a}, they said when asked: {q}"])
def test_a_short_rows_own_answer_is_never_found_for_it(tmp_path: Path, copy: str) -> None:
    items = answered(("who wrote Faust?", "Goethe"), ("who mended Faust?", "nobody"))
    own = copy.format(q="Who wrote Faust?", a="Goethe")
    fact = "Goethe, born in Frankfurt, wrote Faust over sixty years."
    finder = PassageFinder(library(tmp_path, own, fact, ROADS))
    questions = [item.values["prompt"] for item in items.rows]
    mine, other = finder.find(questions, items.rows, Lookup("bm25", 5))
    assert mine == [fact], "what states a fact in other words may be found"
    assert {own, fact} <= set(other)


# What it costs, what it needs


def test_only_kinds_that_learn_from_prompts_are_trained_with_passages() -> None:
    can = {name for name, kind in KINDS.items() if kind.learns_by(Adaptation.RAG_LORA)}
    assert can >= {"generate", "label_words"}
    assert not can & {"classify", "pairs", "multi_label", "spans", "regression", "retrieve"}
    arm = ARMS["generic+rag-lora"]
    assert arm in JOB_ARMS and arm == TRAINED_LOOKING_UP and arm.trains_on_task and arm.looks_up
    assert KINDS["generate"].use(Adaptation.RAG_LORA) == "sft"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path)
    say = [
        {"prompt": f"what is in room {i}?", "completion": f"the {i % 17} th lamp of nurse {i}"}
        for i in range(60)
    ]
    (tmp_path / "say.jsonl").write_text("".join(json.dumps(row) + "\n" for row in say))
    notes = [{"text": f"In room {i} they keep the lamp that nurse {i} brought. {FEVER}"} for i in range(60)]
    notes += [{"text": f"what is in room {i}? the {i % 17} th lamp of nurse {i}"} for i in range(60)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in notes))
    return tmp_path


def config_of(folder: Path, *overrides: str):
    sizes, train = "test_items: 4, dev_items: 4", f"train: {{files: [{folder}/say.jsonl]}}"
    tasks = f"tasks=[{{name: say, kind: generate, max_length: 128, max_epochs: 1, {sizes}, {train}}}]"
    arms = "arms=[generic+rag-lora, generic+rag, generic+lora]"
    collection = f"rag.collection.files=[{folder}/notes.jsonl]"
    return study_config(folder, arms, tasks, collection, *overrides)


def test_the_arm_that_is_asked_chooses_how_passages_are_found_and_runs_first(folder: Path) -> None:
    from adaptkit.study.budget import grant

    config = config_of(folder)
    budget = grant(config.budget, flops_per_token=1.0, flops_per_second=1.0, num_seeds=2, has_tasks=True)
    places = {stage.key.name: number for number, stage in enumerate(build_stages(config, budget))}
    stages = {stage.key.name: stage for stage in build_stages(config, budget)}
    trained = [stage for stage in stages.values() if stage.key.arm == TRAINED_LOOKING_UP]
    assert len(trained) == 2 + 3, "as many trials as other arms"
    for stage in trained:
        chooser = [need for need in stage.needs if need.arm == ARMS["generic+rag"]]
        assert [need.seed for need in chooser] == [0]
        assert all(places[need.name] < places[stage.key.name] for need in stage.needs)
    assert choosing_lookup(config_of(folder, "arms=[generic+rag-lora]"), "say", TRAINED_LOOKING_UP) is None
    own = config_of(folder, "arms=[continued+rag-lora, continued+rag, generic+rag]")
    assert choosing_lookup(own, "say", ARMS["continued+rag-lora"]) == ARMS["continued+rag"]
    assert choosing_lookup(own, "say", ARMS["generic+lora"]) is None


def test_longer_examples_and_encoding_are_counted_in_steps_scoring_and_answers(folder: Path) -> None:
    from tiny_embed import bert

    def costs(*overrides: str) -> Costs:
        config = config_of(folder, *overrides)
        shape, kind = base_shape(config)
        shape.max_position_embeddings = 4096
        sizes = {"say": TaskSize(240, 20, 20, 8, 480, 2400, 120, 7e3)}
        return Costs(config, shape, kind, TextSizes(3e6, 1e5, 1e3, 1e3, 10, 3e6), sizes)

    plain, task = costs(), config_of(folder).tasks[0]
    for count in (plain.task_step, plain.task_answers):
        assert count(task, ARMS["generic+rag-lora"]) > 10 * count(task, ARMS["generic+lora"])
    scoring = {
        arm: plain.task_scoring(task, ARMS[arm], tuning=True) for arm in ("generic+lora", "generic+rag-lora")
    }
    assert scoring["generic+rag-lora"] > 10 * scoring["generic+lora"]
    searched = costs(f"rag.encoder={bert(folder / 'encoder')}")
    more = searched.task_scoring(task, ARMS["generic+rag-lora"], tuning=True)
    assert more > 1.05 * scoring["generic+rag-lora"]
    assert searched.task_scoring(task, ARMS["generic+lora"], tuning=True) == scoring["generic+lora"]


def test_without_both_of_its_controls_an_arm_that_does_both_claims_less() -> None:
    from tiny_results import TICKET, results_of

    def missing(*arms: str) -> set[str]:
        scores = {name: [0.5] * 2 for name in arms}
        return {control.name for control in missing_controls(results_of(scores, task=TICKET), TICKET)}

    alone = missing("generic+rag-lora", "generic+qlora")
    assert {"generic+rag", "generic+lora"} <= alone, "a 4-bit base is another model"
    both = missing("generic+rag-lora", "generic+rag", "generic+lora")
    assert not {"generic+rag", "generic+lora"} & both
    assert "generic+rag" not in missing("generic+lora", "generic+prompt"), "only where something does both"


# In a study


def test_a_study_trains_and_scores_with_passages_within_its_budget(folder: Path) -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe")
    base = folder / "base"
    models.save(tiny(tokenizer, 1024), tokenizer, base)
    amount = ("seeds=1", "jobs=1", "budget.amount=1e12", "budget.trials=1", f"base={base}", "base_flops=0")
    few = ("domain.test_items=4", "domain.dev_items=4", "general.test_items=4", "general.dev_items=4")
    config = config_of(folder, *amount, *few)
    run = open_study(config, folder / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    assert all(plan.seconds(stage) > 0 for stage in plan.stages)
    for stage in plan.stages:
        run_stage(run.path, stage, 1)
    workspace = Workspace(run.path)
    trained = Run(workspace.root / workspace.task("say", TRAINED_LOOKING_UP, 0).run)
    asked = Run(workspace.root / workspace.task("say", ARMS["generic+rag"], 0).run)
    other = Run(workspace.root / workspace.task("say", ARMS["generic+lora"], 0).run)
    facts = read_record(trained).facts["looked_up"]
    chosen = read_json(asked.scores("say"))["chosen"]
    assert (facts["retriever"], facts["passages"]) == (chosen["retriever"], chosen["passages"])
    assert facts["rows_with_passages"]["train"] == 1.0
    assert facts["tokens_per_item"] > 200, "passages of a thousand bytes, not a question of twenty"
    # the same items as other arms answer, with what was looked up for each
    rows = {of: list(read_jsonl(of.items("say"))) for of in (trained, asked, other)}
    assert [row["id"] for row in rows[trained]] == [row["id"] for row in rows[other]]
    assert [row["question"] for row in rows[trained]] == [row["question"] for row in rows[asked]]
    assert all(row["passages"] and 0 <= row["support"] <= 1 for row in rows[trained])
    # what was learnt from: passages, none of them the row itself
    (passages,) = workspace.root.glob("say-passages-*")
    for row in read(DataConfig(files=[str(Run(passages).items("train"))]), "sft").rows:
        head, _, question = row.values["prompt"].rpartition("\n\n")
        assert head.startswith("Passages that may help:\n[1] ") and question.startswith("what is in room")
        assert question not in head, "no row's own text"
    flops = plan.budget.run(plan.budget.on_task(TRAINED_LOOKING_UP.origin))
    spent = {of: read_sealed(of.cost_path) for of in (trained, other)}
    assert all(cost["flops"] <= 1.02 * flops for cost in spent.values())
    assert spent[trained]["tokens"] > 0
    (note,) = looked_up_notes(SimpleNamespace(record=read_record(trained)))  # type: ignore[arg-type]
    assert "It expects passages" in note and "found by BM25" in note and "Passages that may help:" in note
    assert looked_up_notes(SimpleNamespace(record=read_record(other))) == []  # type: ignore[arg-type]
