"""Extract fields as JSON: schemas, rows, answers, scores, the baseline, prompts and training.
Home of data.json_fields, finetune.extraction, study.tasks.extract and study.tasks.copied_fields."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_chat
from paid_server import KEY, PaidServer
from tiny_study import study_config, write_texts

from adaptkit.client.openai import Client
from adaptkit.client.paid import Ledger, PaidClient, TokenPrice
from adaptkit.data.column_suggestions import suggest
from adaptkit.data.json_fields import Schema, facts
from adaptkit.data.readers import DataConfig, Dataset, read
from adaptkit.data.records import Fault
from adaptkit.data.row_fields import object_of, schema_of_rows
from adaptkit.errors import ConfigError, DataError
from adaptkit.export.papers.model_card import field_notes
from adaptkit.finetune.asked_answers import Asking, ask_for_answers
from adaptkit.finetune.extraction import as_answers, field_row, field_rows, field_scores
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.finetune.tasks import TASKS
from adaptkit.study.scores import f1_of_fields, score_table
from adaptkit.study.statistics import resample
from adaptkit.study.task import KINDS
from adaptkit.study.tasks.copied_fields import CopiedFields

SCHEMA = Schema.of({"vendor": "string", "total": "number", "paid": "boolean", "lines": "list of integer"})
VENDORS = ("Ames", "Bolt Works", "Carr", "Dorn")


def invoices(count: int, seed: int = 0) -> list[dict]:
    """Rows whose fields stand in their texts, all but one."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        vendor, total = rng.choice(VENDORS), rng.randrange(100, 99999) / 100
        fields = {"vendor": vendor, "total": total, "currency": "EUR"}
        text = f"Invoice {rng.randrange(10000)} from {vendor} for goods, total {total:.2f} to be paid"
        if rng.random() < 0.3:
            fields["due"] = f"2026-0{rng.randrange(1, 10)}-11"
            text += f" by {fields['due']}"
        rows.append({"text": text, "fields": fields})
    return rows


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dataset(path: Path, rows: list[dict]) -> Dataset:
    return read(DataConfig(files=[str(written(path, rows))]), "extract")


def nested_in(depth: int) -> dict:
    """An object within an object, so many in all."""
    return {"x": nested_in(depth - 1) if depth else 1}


def placed(*fields: dict) -> list[tuple[str, dict]]:
    return [(f"f:{number}", values) for number, values in enumerate(fields, 1)]


# Schemas


def test_a_schema_is_written_in_a_config_and_understood_by_servers() -> None:
    schema = Schema.of({"status": ["open", "paid"], "total": "number", "tags": "list of string"})
    assert Schema.of(schema.described) == schema
    assert schema.json_schema == {
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["open", "paid"]},
            "total": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
    }
    assert schema.sentence == "status (one of open, paid), total (number), tags (list of string)"
    with pytest.raises(ValueError, match=r"'nmber' is no type \(did you mean 'number'"):
        Schema.of({"total": "nmber"})
    with pytest.raises(ValueError, match="a list of texts"):
        Schema.of({"total": []})


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"total": "12"}, "'total' is a string, and the schema wants a number"),
        ({"totl": 12}, "field 'totl' is not in the schema (did you mean 'total'"),
        ({"lines": 3}, "'lines' is an integer, and the schema wants a list"),
        ({"lines": [1, 2.5]}, "'lines' is a number, and the schema wants an integer"),
        ({"paid": 1}, "'paid' is an integer, and the schema wants a boolean"),
        ({"total": 3, "lines": [], "vendor": "", "paid": True}, ""),
        ({}, ""),
    ],
)
def test_what_does_not_fit_a_schema_is_said(values: dict, fault: str) -> None:
    said = SCHEMA.fault(values)
    assert said.startswith(fault) if fault else said == ""


def test_choices_are_held_to() -> None:
    schema = Schema.of({"status": ["open", "paid"]})
    assert not schema.fault({"status": "paid"})
    assert "is 'lost', and the schema allows open, paid" in schema.fault({"status": "lost"})


def test_one_answer_has_one_spelling() -> None:
    same = [{"total": 12.0, "vendor": " Ames "}, {"vendor": "Ames", "total": 12}]
    assert {SCHEMA.canonical(values) for values in same} == {'{"vendor": "Ames", "total": 12}'}
    assert facts(same[0])[0] == facts(same[1])[1] == ["total", "12"]
    assert facts({"lines": [2, 1.0]}) == [["lines", "2"], ["lines", "1"]]
    assert facts({"total": "12"}) != facts({"total": 12}), "a text is no number"


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        ('{"total": 12.5}', {"total": 12.5}),
        ('```json\n{"total": 12.5}\n```', {"total": 12.5}),
        ('{"total": 12.5, "paid": null}', {"total": 12.5}),
        ('Here it is: {"total": 12.5}', None),
        ('{"total": 12.5} and more', None),
        ('{"total": "12.5"}', None),
        ('{"other": 1}', None),
        ('{"total": NaN}', None),
        ("[1]", None),
        ("", None),
    ],
)
def test_answers_are_read_as_strictly_as_a_program_would(answer: str, values: dict | None) -> None:
    assert SCHEMA.parsed(answer) == values


def test_fields_are_those_of_the_rows_and_mixed_types_are_refused_at_the_rare_row() -> None:
    rows = placed({"a": 1, "b": "x"}, {"a": 2.5}, {"c": [1]}, {"c": []}, {"b": "y", "d": True})
    assert schema_of_rows(rows).described == {
        "a": "number",
        "b": "string",
        "c": "list of integer",
        "d": "boolean",
    }
    with pytest.raises(
        DataError, match="field 'a' is a string here and an integer in 2 of 3 rows"
    ) as refused:
        schema_of_rows(placed({"a": 1}, {"a": "2"}, {"a": 3}))
    assert refused.value.where == "f:2"
    with pytest.raises(DataError, match="no row has a field"):
        schema_of_rows(placed({}, {}))


# Rows


def test_rows_hold_an_object_or_its_json(tmp_path: Path) -> None:
    rows = [{"text": "a", "fields": {"x": 1, "y": None}}, {"text": "b", "fields": '{"x": 2}'}]
    read_rows = dataset(tmp_path / "rows.jsonl", rows)
    assert [row.values["fields"] for row in read_rows.rows] == [{"x": 1}, {"x": 2}]
    assert read_rows.rows[0].text == "a" and not read_rows.labels, "no model sees the answer"
    (tmp_path / "rows.csv").write_text('text,fields\na b,"{""x"": 1}"\n')
    (row,) = read(DataConfig(files=[str(tmp_path / "rows.csv")]), "extract").rows
    assert row.values["fields"] == {"x": 1}
    assert read(DataConfig(files=[str(tmp_path / "rows.jsonl")])).kind == "extract", "seen unasked"
    assert suggest(tmp_path / "rows.jsonl").kind == "extract", "so `adaptkit init` sees it too"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ('{"x": ', "'fields' is no JSON"),
        ([1], "'fields' is a list, not an object of fields"),
        (None, "'fields' is a null|'fields' is null"),
        ({"x": {"y": [{"z": [[]]}]}}, r"field 'x\.y\.z' of 'fields' holds a list"),
        (nested_in(8), r"field 'x\.x\.x\.x\.x\.x\.x\.x' of 'fields' holds an object"),
        ({"x": [[1]]}, "field 'x' of 'fields' holds a list"),
    ],
)
def test_rows_without_fields_are_refused_by_their_place(tmp_path: Path, fields: object, what: str) -> None:
    path = written(tmp_path / "rows.jsonl", [*invoices(3), {"text": "bad", "fields": fields}])
    with pytest.raises(DataError, match=what) as refused:
        read(DataConfig(files=[str(path)]), "extract")
    assert refused.value.where == f"{path}:4"
    assert isinstance(object_of(fields, "fields"), Fault)


# Scores


def test_scores_count_fields_objects_and_valid_answers() -> None:
    truth = {"vendor": "Ames", "total": 12, "lines": [1, 2]}
    answers = [
        '{"vendor": "Ames", "total": 12.0, "lines": [2, 1]}',
        '{"vendor": "Bolt", "total": 12}',
        "none",
    ]
    rows = [field_row(str(i), truth, SCHEMA.parsed(answer)) for i, answer in enumerate(answers)]
    scores = field_scores(rows)
    assert scores["valid_json"] == pytest.approx(2 / 3) and scores["json_exact_match"] == pytest.approx(1 / 3)
    assert scores["field_f1"] == pytest.approx(2 * (4 + 1) / (4 + 4 + 2 + 4 + 0 + 4))
    per_field = [2 * 1 / (2 + 3), 2 * 2 / (2 + 3), 2 * 2 / (2 + 6)]
    assert scores["macro_field_f1"] == pytest.approx(sum(per_field) / 3)
    assert {name: score_table(name, rows).value for name in scores} == pytest.approx(scores)
    assert KINDS["extract"].scores(rows) == pytest.approx(scores)
    assert sorted(f1_of_fields(rows).values()) == pytest.approx(sorted(per_field))
    empty = [field_row("0", {}, None), field_row("1", {}, {})]
    assert field_scores(empty)["json_exact_match"] == 0.5, "no answer is not an empty object"
    tables = {"a": [score_table("field_f1", rows)], "b": [score_table("field_f1", rows[::-1])]}
    interval = resample(tables, num_resamples=50).interval("a", 0.95)
    assert interval.low < interval.mean < interval.high


# Without a language model


def test_the_baseline_copies_what_it_knows_and_what_looks_alike(tmp_path: Path) -> None:
    train, dev = dataset(tmp_path / "a.jsonl", invoices(80)), dataset(tmp_path / "b.jsonl", invoices(20, 1))
    schema = schema_of_rows([(row.where, row.values["fields"]) for row in train.rows])
    copied = CopiedFields(schema, train, dev)
    text = "Invoice 77 from Bolt Works for goods, total 345.60 to be paid by 2026-04-11"
    assert copied.values(text) == {
        "vendor": "Bolt Works",
        "total": 345.6,
        "currency": "EUR",
        "due": "2026-04-11",
    }
    assert "due" not in copied.values("Invoice 9 from Carr, total 1.00 to be paid")
    many = [{"text": f"needs {' and '.join(t)}", "fields": {"t": t}} for t in (["oil"], ["nuts", "oil"])] * 6
    parts = [dataset(tmp_path / f"m{i}.jsonl", many) for i in (0, 1)]
    found = CopiedFields(Schema.of({"t": "list of string"}), *parts)
    assert found.values("nuts, they need") == {"t": ["nuts"]}


# Models


def trained_task(schema: Schema, max_length: int = 200):
    task = TASKS["extract"](tiny_chat.tokenizer_of("byte_bpe"), [], max_length, 60)
    task.recall({"fields": schema.described})
    return task


def test_training_teaches_the_canonical_object_and_cuts_texts_never_answers(tmp_path: Path) -> None:
    rows = dataset(
        tmp_path / "rows.jsonl", [{"text": "word " * 200, "fields": {"total": 12.0, "vendor": "Ames"}}]
    )
    task = trained_task(SCHEMA)
    task.look_at(rows)
    source = task.source(rows)
    assert source.cut.num_cut == 1 and task.facts() == {"fields": SCHEMA.described}
    batch = source.collate([0], seed=0, epoch=0)
    taught = batch["labels"][0]
    answer = task.tokenizer.decode(taught[taught >= 0], skip_special_tokens=True)
    assert answer.strip() == '{"vendor": "Ames", "total": 12}' and batch["input_ids"].shape[1] <= 200
    asked = as_answers(rows, SCHEMA).rows[0].values
    assert asked["prompt"].endswith("\nJSON:") and asked["completion"] == answer.strip()
    with pytest.raises(DataError, match="leaves no room for text beside an answer"):
        trained_task(SCHEMA, 60)
    wrong = dataset(tmp_path / "wrong.jsonl", [{"text": "a", "fields": {"total": "12"}}])
    with pytest.raises(DataError, match="wants a number"):
        task.look_at(wrong)
    inferred = TASKS["extract"](task.tokenizer, [], 200, 60)
    inferred.look_at(wrong)
    assert inferred.facts() == {"fields": {"total": "string"}}


def test_answers_of_a_model_become_fields(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "rows.jsonl", invoices(2))
    schema = schema_of_rows([(row.where, row.values["fields"]) for row in rows.rows])
    said = [schema.canonical(rows.rows[0].values["fields"]), "I do not know"]
    items = [
        {"id": row.id, "reference": "", "prediction": text} for row, text in zip(rows.rows, said, strict=True)
    ]
    first, second = field_rows(rows, schema, items)
    assert first["valid"] and sorted(first["predicted_fields"]) == sorted(first["fields"])
    assert not second["valid"] and second["predicted_fields"] == [] and second["fields"]


def test_an_api_is_held_to_the_schema_where_it_can_be(tmp_path: Path) -> None:
    parts = [dataset(tmp_path / f"{i}.jsonl", invoices(5, i)) for i in range(3)]
    schema = schema_of_rows([(row.where, row.values["fields"]) for part in parts for row in part.rows])
    asked = [as_answers(part, schema, "{text}") for part in parts]
    score = lambda rows: {"valid": sum(bool(schema.parsed(row["prediction"])) for row in rows)}  # noqa: E731
    for holds in (True, False):
        with PaidServer(lambda messages: '{"currency": "EUR"}', holds=holds) as server:
            ledger = Ledger(tmp_path / f"spent{holds}.json", 10.0)
            folder, price = tmp_path / f"replies{holds}", TokenPrice(1.0, 1.0)
            model = PaidClient(Client(server.url, KEY), "m", price, replies=folder, ledger=ledger)
            asking = Asking(model, TaskWords("Extract."), 1, 2, 0, "valid", schema=schema)
            outcome = ask_for_answers(asking, *asked, score=score)
            sent = [body.get("structured_outputs") for body in server.bodies]
        assert outcome.chosen["constrained"] is holds
        assert all((given == {"json": schema.json_schema}) is holds for given in sent)
        assert outcome.rows[0]["reference"] == asked[2].rows[0].values["completion"]


# In a study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path)
    written(tmp_path / "invoices.jsonl", invoices(120))
    return tmp_path


def task_of(folder: Path, more: str = "") -> str:
    train = f"train: {{files: [{folder}/invoices.jsonl]}}"
    return f"tasks=[{{name: bill, kind: extract, max_length: 96, {train}{more}}}]"


def test_a_task_is_planned_with_its_fields_and_bad_rows_stop_the_dry_run(folder: Path, capsys) -> None:
    config = study_config(folder, "arms=[generic+prompt]", task_of(folder))
    (task,) = config.tasks
    size = task.task_kind.size(task)
    assert size.answer_tokens > 20 and size.row_tokens > size.text_tokens
    assert "vendor (string), total (number), currency (string)" in task.task_kind.instruction(task)
    told = study_config(folder, "arms=[generic+prompt]", task_of(folder, ", instruction: Read the bill."))
    said = told.tasks[0].task_kind.instruction(told.tasks[0])
    assert said.startswith("Read the bill.\nAnswer with one JSON object") and "total (number)" in said
    given = study_config(folder, "arms=[generic+prompt]", task_of(folder, ", fields: {vendor: string}"))
    with pytest.raises(DataError, match="field 'total' is not in the schema") as refused:
        given.tasks[0].task_kind.size(given.tasks[0])
    assert refused.value.where.startswith(str(folder / "invoices.jsonl"))
    with pytest.raises(ConfigError, match="'money' is no type"):
        study_config(folder, task_of(folder, ", fields: {total: money}"))
    with pytest.raises(ConfigError, match="`fields` is for kind extract, and a task of kind 'classify'"):
        study_config(folder, task_of(folder, ", fields: {total: number}").replace("extract", "classify"))


def test_a_field_that_only_a_named_test_has_is_refused(folder: Path) -> None:
    test = [{"text": "from Ames", "fields": {"vendor": "Ames", "iban": "DE1"}}]
    named = f", test: {{files: [{written(folder / 'test.jsonl', test)}]}}"
    config = study_config(folder, "arms=[generic+prompt]", task_of(folder, named))
    with pytest.raises(DataError, match="field 'iban' is not in the schema") as refused:
        config.tasks[0].task_kind.size(config.tasks[0])
    assert refused.value.where == f"{folder}/test.jsonl:1"


def test_a_study_extracts_with_prompts_training_and_copies(folder: Path) -> None:
    from test_rag import tiny

    from adaptkit import models
    from adaptkit.compare.driver import open_study
    from adaptkit.compare.plan import keep_plan, make_plan
    from adaptkit.compare.stages.run import run_stage
    from adaptkit.compare.workspace import Workspace, result_path
    from adaptkit.run import Run, read_jsonl
    from adaptkit.run_record import read_record
    from adaptkit.study.arms import ARMS
    from adaptkit.study.stage_record import BaselineResult, StageKey, read_result

    tokenizer = tiny_chat.tokenizer_of("byte_bpe")
    models.save(tiny(tokenizer, 512), tokenizer, folder / "base")
    sizes = ", max_epochs: 1, test_items: 5, dev_items: 4"
    given = (
        f"base={folder}/base",
        "base_flops=0",
        "seeds=1",
        "jobs=1",
        "budget.amount=1e12",
        "budget.trials=1",
    )
    few = ("domain.test_items=4", "domain.dev_items=4", "general.test_items=4", "general.dev_items=4")
    config = study_config(folder, "arms=[generic+prompt, generic+lora]", task_of(folder, sizes), *given, *few)
    run = open_study(config, folder / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    assert all(plan.seconds(stage) > 0 for stage in plan.stages)
    for stage in plan.stages:
        run_stage(run.path, stage, 1)
    workspace = Workspace(run.path)
    baseline = read_result(result_path(run.path, StageKey.for_baseline("bill")), BaselineResult)
    assert baseline.name == "copied" and baseline.score is not None and baseline.score > 0.9
    rows = {}
    for arm in ("generic+prompt", "generic+lora"):
        of = Run(workspace.root / workspace.task("bill", ARMS[arm], 0).run)
        rows[arm] = list(read_jsonl(of.items("bill")))
        suite = read_record(of).suites["bill"]
        assert set(suite.metrics) == set(KINDS["extract"].metrics)
        assert suite.metrics["valid_json"] == sum(row["valid"] for row in rows[arm]) / len(rows[arm])
        assert suite.dev
    ids = {name: [row["id"] for row in of] for name, of in rows.items()}
    ids["copied"] = [row["id"] for row in read_jsonl(Run(workspace.root / str(baseline.run)).items("bill"))]
    assert len({tuple(of) for of in ids.values()}) == 1, "one test for all"
    trained = read_record(Run(workspace.root / workspace.task("bill", ARMS["generic+lora"], 0).run))
    assert trained.facts["fields"] == {
        "vendor": "string",
        "total": "number",
        "currency": "string",
        "due": "string",
    }
    (note,) = field_notes(SimpleNamespace(record=trained))  # type: ignore[arg-type]
    assert "a line 'JSON:'" in note and "total (number)" in note and '"structured_outputs": {"json"' in note
