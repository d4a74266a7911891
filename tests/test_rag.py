"""Arms that look things up: what is found, what fits into a prompt, what is tried, counted and kept apart.
Home of data.bm25, finetune.prompt_passages, study.rag, study.tasks.passage_finder and report.passages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_chat
import torch
from tiny_study import study_config, write_texts
from transformers import AutoModelForCausalLM, LlamaConfig

from adaptkit.compare.choose_arms import JOB_ARMS, LOOKS_UP, looks_up
from adaptkit.compare.costs import Costs, TextSizes
from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import keep_plan, make_plan, prompt_instructions
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import Workspace
from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.data.overlap import overlap
from adaptkit.data.readers import DataConfig, Dataset, Row, content_id, read
from adaptkit.errors import ConfigError
from adaptkit.finetune.prompt_formats import Choices, formats
from adaptkit.finetune.prompt_passages import (
    NUM_PASSAGES,
    Lookup,
    Setting,
    asked_with_passages,
    settings,
    support,
    with_passages,
)
from adaptkit.finetune.prompt_template import PlainWriter, Prompt, Question, Sections, fit
from adaptkit.finetune.prompted_answers import answer_rows
from adaptkit.finetune.prompted_labels import prompt_rows
from adaptkit.run import Run, read_json, read_jsonl, read_sealed, write_jsonl
from adaptkit.study.arms import ARMS, Adaptation
from adaptkit.study.base_model import base_shape
from adaptkit.study.rag import COLLECTION, Library
from adaptkit.study.task import KINDS
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tasks.passage_finder import PassageFinder, best, fused

FEVER = "The fever of children is treated with rest and water. Doctors advise against antibiotics here."
HEART = "A weak heart is strengthened by walking slowly. The valves of the heart close with every beat."
ROADS = "Roads are mended in spring when frost has left the ground. Asphalt is laid on gravel."


def answered(*pairs: tuple[str, str]) -> Dataset:
    rows = [{"prompt": asked, "completion": answer} for asked, answer in pairs]
    return Dataset([Row(row, f"rows.jsonl:{i}", content_id(row)) for i, row in enumerate(rows)], "sft", {})


def library(folder: Path, *texts: str) -> Library:
    write_jsonl(folder / "texts.jsonl", ({"text": text} for text in texts))
    return Library(folder / "texts.jsonl")


def tiny(tokenizer: object, context: int = 512):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=context, **sizes)  # type: ignore
    return AutoModelForCausalLM.from_config(config).eval()


class Shelf:
    """A finder that gives the same passages to every question, and notes what it was asked for."""

    retrievers = ("bm25",)

    def __init__(self, *passages: str, flops: float = 0.0):
        self.passages, self.flops, self.asked = list(passages), flops, list[Lookup]()

    def find(self, questions: Sequence[str], items: Sequence[Row], lookup: Lookup) -> list[list[str]]:
        assert len(questions) == len(items)
        self.asked.append(lookup)
        return [self.passages[: lookup.passages] for _ in questions]


# What is found


def test_bm25_looks_at_content_words_and_gives_nothing_for_stop_words_alone() -> None:
    index = Bm25([FEVER, HEART, ROADS])
    assert int(index.scores(content_terms("What is the fever treated with?")).argmax()) == 0
    assert not index.scores(content_terms("what is it with the")).any()
    assert not Bm25(["the", "of"]).scores(["fever"]).any()


def test_passages_are_found_by_words_and_unrelated_ones_are_not_given(tmp_path: Path) -> None:
    finder = PassageFinder(library(tmp_path, FEVER, HEART, ROADS, FEVER))
    assert len(finder.passages) == 3 and finder.retrievers == ("bm25",) and finder.flops == 0
    items = answered(("how is fever treated?", "with rest"), ("what of the heart?", "walk"))
    found = finder.find([row.values["prompt"] for row in items.rows], items.rows, Lookup("bm25", 3))
    assert found == [[FEVER], [HEART]]


def test_the_items_own_row_is_never_found_for_it_and_others_may_have_it(tmp_path: Path) -> None:
    asked = "how is the fever of children treated in the north of this large and cold country?"
    answer = "with rest and water as the doctors there have always done since the early days of the town"
    items = answered((asked, answer), ("is fever treated with water?", "yes it is"))
    finder = PassageFinder(library(tmp_path, f"{asked}\n{answer}", FEVER, ROADS))
    own, other = finder.find([row.values["prompt"] for row in items.rows], items.rows, Lookup("bm25", 5))
    assert own == [FEVER]
    assert any(answer in passage for passage in other) and FEVER in other


def test_rankings_are_fused_by_reciprocal_ranks() -> None:
    assert fused([[3, 1, 2], [1, 2, 3]])[0] == 1
    assert fused([[0, 1], []]) == [0, 1]
    assert best(np.array([0.0, 2.0, 1.0, 2.0]), above=0.0) == [1, 3, 2]


def test_an_encoder_is_one_more_retriever_and_what_encoding_takes_is_counted(tmp_path: Path) -> None:
    from tiny_embed import bert

    folder = bert(tmp_path / "encoder")
    texts = library(tmp_path, FEVER, HEART, ROADS)
    finder = PassageFinder(Library(texts.collection, folder))
    items = answered(("how is fever treated?", "rest"))
    assert finder.retrievers == ("fused", "bm25", "encoder") and finder.flops == 0
    (by_words,) = finder.find(["how is fever treated?"], items.rows, Lookup("bm25", 3))
    assert finder.flops == 0
    (by_vectors,) = finder.find(["how is fever treated?"], items.rows, Lookup("encoder", 3))
    spent = finder.flops
    assert spent > 0 and sorted(by_vectors) == sorted([FEVER, HEART, ROADS])
    (both,) = finder.find(["how is fever treated?"], items.rows, Lookup("fused", 3))
    assert finder.flops == spent, "nothing is encoded twice"
    assert by_words == [FEVER] and both[0] in (FEVER, by_vectors[0]) and len(both) == 3


# What is tried


@pytest.mark.parametrize("retrievers", [("bm25",), ("fused", "bm25", "encoder")])
def test_as_many_settings_as_other_arms_try_first_the_prompt_arms_formats(retrievers: tuple) -> None:
    shelf = Shelf()
    shelf.retrievers = retrievers  # type: ignore[assignment]
    choices = Choices(chat=True, described=False, examples=2, labels=False)
    for trials in (1, 3, 5):
        tried = settings(trials, choices, shelf)
        assert [setting.fmt for setting in tried] == formats(trials, choices)
        assert len(set(tried)) == trials
        assert [setting.fmt for setting in settings(trials, choices, None)] == formats(trials, choices)
    lookups = [setting.lookup for setting in settings(3, choices, shelf)]
    assert {lookup.passages for lookup in lookups if lookup} == set(NUM_PASSAGES)
    assert {lookup.retriever for lookup in lookups if lookup} == set(retrievers)
    every = settings(10_000, choices, shelf)
    lookups_in_all = len(NUM_PASSAGES) * len(retrievers)
    assert len(every) == len(set(every)) == len(formats(10_000, choices)) * lookups_in_all


# What fits


def prompt_of(context: int, passages: int = 2) -> Prompt:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe")
    writer = PlainWriter(tokenizer, "{text}\nAnswer:")
    return fit(writer, tokenizer, ["Answer."], [], context=context, answer_tokens=10, passages=passages)


def test_question_and_answer_have_their_room_first_and_passages_end_where_sentences_do() -> None:
    question = Question("how is the fever of children treated?")
    roomy = with_passages(prompt_of(2000), question, [FEVER, HEART])
    assert roomy.passages == (FEVER, HEART) and roomy.text == question.text
    seen = set()
    for context in range(40, 420, 6):
        prompt = prompt_of(context)
        asked = with_passages(prompt, question, [FEVER, HEART])
        ids = prompt.ids(asked)
        assert len(ids) <= context - 10, "the answer has room"
        assert asked.text == prompt.fitted(question).text, "passages take nothing from the question"
        for passage, whole in zip(asked.passages, (FEVER, HEART), strict=False):
            assert passage == whole or passage == whole.partition(". ")[0] + "."
        text = prompt.writer.text(Sections(prompt.block, (), asked))
        assert all(passage in text for passage in asked.passages)
        seen.add(tuple(map(len, asked.passages)))
    first, second = (len(text.partition(". ")[0]) + 1 for text in (FEVER, HEART))
    assert seen == {(), (first,), (len(FEVER),), (len(FEVER), second), (len(FEVER), len(HEART))}


def test_examples_leave_passages_as_much_room_as_they_have_themselves() -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe")
    writer, shots = PlainWriter(tokenizer, "{text}\nAnswer:"), [("word " * 200, "yes")]
    rooms = [
        fit(writer, tokenizer, [], shots, context=600, answer_tokens=10, passages=count).room
        for count in (0, 3)
    ]
    assert rooms[1] > 1.4 * rooms[0]


@pytest.mark.parametrize("template", [tiny_chat.CHATML, None])
def test_passages_stand_before_the_question_in_chat_and_in_plain_text(template: str | None) -> None:
    from adaptkit.finetune.prompt_formats import Format
    from adaptkit.finetune.prompted_labels import writer_of

    tokenizer = tiny_chat.tokenizer_of("byte_bpe", template)
    style = "chat" if template else "plain"
    fmt = Format(style, "" if template else "Q: {text}\nA:", True, False, 1)  # type: ignore[arg-type]
    question = Question("and now?", passages=(FEVER, HEART))
    text = writer_of(tokenizer, fmt).text(Sections("Answer.", (("before?", "yes"),), question))
    assert "Passages that may help:\n[1] The fever" in text and "\n[2] A weak heart" in text
    places = [text.index(part) for part in ("Answer.", "before?", "[1]", "[2]", "and now?")]
    assert places == sorted(places)
    assert "Passages" not in writer_of(tokenizer, fmt).text(Sections("", (), Question("and now?")))


def test_support_counts_distinct_content_words_in_any_passage() -> None:
    assert support("Rest and water, water!", [FEVER]) == 1.0
    assert support("rest and asphalt", [FEVER]) == 0.5 and support("rest and asphalt", [FEVER, ROADS]) == 1.0
    assert support("", [FEVER]) == support("the of", [FEVER]) == support("rest", []) == 0.0


def test_answers_with_passages_say_what_was_looked_up_and_pay_for_it() -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    model = tiny(tokenizer, 1024)
    parts = [answered(*((f"{word} {i}?", f"answer {i}") for i in range(6))) for word in ("a", "b", "c")]

    def score(rows: list[dict]) -> dict[str, float]:
        return {"score": float(np.mean([len(row["prediction"]) for row in rows]))}

    def outcome(finder: Shelf | None):
        return answer_rows(
            model, tokenizer, *parts, score=score, metric="score", trials=3, max_new_tokens=4, finder=finder
        )

    bare, shelf = outcome(None), Shelf(f"{FEVER}\nA second line.", HEART, ROADS, flops=1e12)
    full = outcome(shelf)
    assert {"id", "reference", "prediction"} == set(bare.rows[0])
    row = full.rows[0]
    assert row["passages"][0] == FEVER and row["question"].startswith("c ") and 0 <= row["support"] <= 1
    assert [(trial["retriever"], trial["passages"]) for trial in full.trials] == [
        ("bm25", count) for count in NUM_PASSAGES
    ]
    assert full.chosen["passages"] in NUM_PASSAGES and len(shelf.asked) == 4
    assert full.cost["tokens"] > bare.cost["tokens"] and full.cost["flops"] > bare.cost["flops"] + 1e12
    line = len(tokenizer(FEVER)["input_ids"])
    assert full.cost["tokens_per_item"] > bare.cost["tokens_per_item"] + line, "what serving one item takes"


def test_labels_are_scored_behind_passages_and_not_for_texts_that_say_nothing() -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe")
    model = tiny(tokenizer, 1024)

    def rows(count: int, start: int) -> Dataset:
        values = [{"text": f"room {i}", "label": "ab"[i % 2]} for i in range(start, start + count)]
        return Dataset([Row(v, f"r:{i}", content_id(v)) for i, v in enumerate(values)], "labelled", {})

    parts = (rows(6, 0), rows(4, 10), rows(4, 20))
    bare = prompt_rows(model, tokenizer, *parts, ["a", "b"], trials=2)
    shelf = Shelf(FEVER, HEART, flops=1e12)
    full = prompt_rows(model, tokenizer, *parts, ["a", "b"], trials=2, finder=shelf)
    assert [lookup.passages for lookup in shelf.asked[:2]] == [3, 1]
    assert full.cost["flops"] > bare.cost["flops"] + 1e12
    assert full.cost["tokens_per_item"] > bare.cost["tokens_per_item"]  # each in the format that it chose
    assert full.rows[0]["probabilities"] != bare.rows[0]["probabilities"]
    prompt = prompt_of(500)
    bare_setting = Setting(formats(1, Choices(False, False, 0))[0])
    asked = asked_with_passages(prompt, [Question("x")], parts[0].rows[:1], None, bare_setting)
    assert asked == [Question("x")]


# In a study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path)
    say = (
        {"prompt": f"what is in room {i}?", "completion": f"the {i % 17} th lamp of nurse {i}"}
        for i in range(80)
    )
    (tmp_path / "say.jsonl").write_text("".join(json.dumps(row) + "\n" for row in say))
    return tmp_path


def task_of(folder: Path) -> str:
    sizes, train = "test_items: 6, dev_items: 6", f"train: {{files: [{folder}/say.jsonl]}}"
    return f"tasks=[{{name: say, kind: generate, {sizes}, {train}}}]"


def test_kinds_that_are_asked_in_words_can_look_things_up_and_others_cannot() -> None:
    can = {
        name
        for name in ("classify", "label_words", "generate", "retrieve")
        if KINDS[name].learns_by(Adaptation.RAG)
    }
    assert can == {"classify", "label_words", "generate"}
    assert KINDS["classify"].use(Adaptation.RAG) == KINDS["generate"].use(Adaptation.RAG) == "write"
    for name in ("generic+rag", "continued+rag"):
        assert ARMS[name].describe.endswith("nothing trained on the task") and not ARMS[name].trains_on_task


def test_it_is_run_unasked_for_free_text_on_a_given_base_or_where_it_is_set(
    folder: Path, monkeypatch
) -> None:
    assert LOOKS_UP in JOB_ARMS
    monkeypatch.setattr("adaptkit.compare.choose_arms.scores_text", lambda config: config.base != "masked")
    assert not looks_up(study_config(folder, "arms=[]"))
    assert not looks_up(study_config(folder, "arms=[]", task_of(folder))), "no base is given"
    assert looks_up(study_config(folder, "arms=[]", task_of(folder), "base=given"))
    assert not looks_up(study_config(folder, "arms=[]", "base=given")), "labels"
    assert not looks_up(study_config(folder, "arms=[]", task_of(folder), "base=masked"))
    assert looks_up(study_config(folder, "arms=[]", f"rag.collection.files=[{folder}/general.jsonl]"))


def test_a_collection_that_no_arm_reads_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no arm looks anything up"):
        study_config(folder, "rag={}")
    config = study_config(folder, "arms=[generic+rag]", "rag={}")
    assert list(prompt_instructions(config)) == ["mood"]


def test_longer_prompts_and_encoding_are_predicted(folder: Path, monkeypatch) -> None:
    def flops(arm: str, *overrides: str) -> float:
        config = study_config(folder, "arms=[generic+rag]", *overrides)
        shape, kind = base_shape(config)
        shape.max_position_embeddings = 4096
        sizes = {"mood": TaskSize(240, 20, 20, 8, 480, 2400, 120, 7e3)}
        texts = TextSizes(3e6, 1e5, 1e3, 1e3, 10, 3e6)
        return Costs(config, shape, kind, texts, sizes).frozen(config.tasks[0], ARMS[arm], 3)

    bare, full = flops("generic+prompt"), flops("generic+rag")
    assert full > 10 * bare, "three passages of 341 tokens beside a text of 20"
    from tiny_embed import bert

    encoder = bert(folder / "encoder")
    assert flops("generic+rag", f"rag.encoder={encoder}") > 1.05 * full


SMALL = ("arms=[generic+prompt, generic+rag]", "base_flops=4e9", "seeds=1", "jobs=1", "budget.amount=6e10")


def test_a_collection_of_ones_own_is_searched_without_what_stands_in_a_test(folder: Path) -> None:
    test_row = (
        "what is in room 7 of the old house behind the third hill?\nthe lamp of the nurse who left in May"
    )
    rows = [{"prompt": p, "completion": c} for p, _, c in [test_row.partition("\n")]]
    (folder / "test.jsonl").write_text(json.dumps(rows[0]) + "\n")
    own = [f"{FEVER} {test_row}. {HEART}", FEVER, FEVER, ROADS]
    write_jsonl(folder / "own.jsonl", ({"text": text} for text in own))
    task = task_of(folder).replace("test_items", f"test: {{files: [{folder}/test.jsonl]}}, test_items")
    config = study_config(folder, *SMALL, task, f"rag.collection.files=[{folder}/own.jsonl]")
    run = open_study(config, folder / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    assert all(plan.seconds(stage) > 0 for stage in plan.stages)
    assert sum("look things up" in text for text in held(plan)) == 1
    for stage in plan.stages:
        run_stage(run.path, stage, 1)
    workspace = Workspace(run.path)
    assert workspace.library == Library(workspace.files.train(COLLECTION))
    searched = read(DataConfig(files=[str(workspace.library.collection)]), "text")
    tested = read(DataConfig(files=[str(folder / "test.jsonl")]), "sft")
    assert not overlap(searched, tested).contaminated and HEART in {row.text for row in searched.rows}
    (cut,) = [c for c in workspace.prepared.data.cuts if (c.train, c.test) == (COLLECTION, "say")]
    assert cut.num_items_contaminated == 1 and cut.bytes_cut > 0
    assert workspace.prepared.data.duplicates[COLLECTION]["num_exact"] == 1
    runs = {
        arm: Run(workspace.root / workspace.task("say", ARMS[arm], 0).run)
        for arm in ("generic+prompt", "generic+rag")
    }
    scores = {arm: read_json(of.scores("say")) for arm, of in runs.items()}
    assert {len(of["trials"]) for of in scores.values()} == {plan.budget.settings_tried}
    assert scores["generic+rag"]["chosen"]["retriever"] == "bm25"
    (row,) = read_jsonl(runs["generic+rag"].items("say"))
    assert row["question"] == rows[0]["prompt"] and row["passages"] is not None
    costs = {arm: read_sealed(of.cost_path)["flops"] for arm, of in runs.items()}
    assert costs["generic+rag"] >= costs["generic+prompt"] > 0


def held(plan) -> Sequence[str]:
    from adaptkit.compare.held_equal import held_equal

    return held_equal(plan.config, plan.budget)


def test_without_a_collection_the_domains_training_text_is_searched(folder: Path) -> None:
    config = study_config(folder, *SMALL)
    run = open_study(config, folder / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    run_stage(run.path, plan.stages[0], 1)
    workspace = Workspace(run.path)
    assert workspace.library == Library(workspace.files.train("domain"))
    assert not any(cut.train == COLLECTION for cut in workspace.prepared.data.cuts)


# In a report


def test_a_report_shows_support_and_the_best_and_worst_answers(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from adaptkit.report.passages import looked_up
    from adaptkit.report.write import environment

    def row(number: int, answer: str, **facts: object) -> dict:
        asked = {"question": f"question {number}?", "passages": [FEVER], "support": 0.5, "found": 0.25}
        return {"id": str(number), "prediction": answer, "reference": "rest and water", **asked, **facts}

    rows = [row(i, "rest and water" if i < 3 else f"asphalt {i}") for i in range(8)]
    task = SimpleNamespace(name="say", kind="generate", metric="rouge_l")
    arms = [SimpleNamespace(name=name, adaptation=name.partition("+")[2]) for name in ("a+prompt", "a+rag")]
    results = SimpleNamespace(
        tasks=[task], scored_arms=lambda name: arms, of=lambda task, arm: [SimpleNamespace(rows=rows)]
    )
    (shown,) = looked_up(results)  # type: ignore[arg-type]
    assert shown.arm == "a+rag" and (shown.support, shown.found) == (0.5, 0.25)
    assert [item.score for item in shown.hits] == [1.0] * 3
    assert [item.score for item in shown.misses] == [0.0] * 3
    assert "50% of the content words" in shown.sentence and "25%" in shown.sentence
    bare = [
        {"id": row["id"], "prediction": "", "reference": "", "support": 1.0, "found": 1.0} for row in rows
    ]
    results.of = lambda task, arm: [SimpleNamespace(rows=bare)]
    (kept,) = looked_up(results)  # type: ignore[arg-type]
    assert kept.hits == kept.misses == () and kept.support == 1.0, "a kept study holds no text"
    for name, end in (
        ("report.html.j2", "  </section>"),
        ("report.md.j2", "{% for item in detail_tables %}"),
    ):
        source = environment().loader.get_source(environment(), name)[0]  # type: ignore[union-attr]
        begun = source.index("{% for row in looked_up %}")
        part = environment().from_string(source[begun : source.index(end, begun)])
        text = part.render(looked_up=[shown])
        assert shown.sentence in text and "question 0?" in text and "asphalt 7" in text and FEVER in text
        assert text.lower().count("best") >= 1 and text.lower().count("worst") >= 1
        assert "question 0?" not in part.render(looked_up=[kept])


def test_bm25_does_not_start_jax(tmp_path):
    """Where it is installed, it would take most of the GPU's memory at the import."""
    (tmp_path / "jax").mkdir()
    for name in ("__init__", "lax"):
        (tmp_path / "jax" / f"{name}.py").write_text("raise SystemExit('started')")
    code = (
        "import sys, adaptkit.data.bm25 as b; assert 'jax' not in sys.modules; "
        "print(b.Bm25(['one fever', 'two']).scores(['fever']).argmax())"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr
