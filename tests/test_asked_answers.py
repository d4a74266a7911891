"""An API as an arm: labels and answers asked of a real HTTP server, with their price and time. Home of
compare.outgoing, finetune.asked_answers and study.api."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from paid_server import KEY, PaidServer
from tiny_study import study_config, write_texts

from adaptkit.client.openai import Client
from adaptkit.client.paid import Ledger, PaidClient, TokenPrice
from adaptkit.compare.build_stages import build_stages
from adaptkit.compare.outgoing import check_ceiling, outgoing, outgoing_json
from adaptkit.data import Dataset, Row
from adaptkit.errors import BudgetError, ConfigError
from adaptkit.finetune.asked_answers import Asking, api_formats, ask_for_answers, ask_for_labels, named_label
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.study.arms import ARMS, Arm, Origin
from adaptkit.study.config import StudyConfig

WORDS = TaskWords("Say whether it is fruit or metal.", {"fruit": "grows on trees"})
API = (
    "api={url: 'https://api.example.com', model: small, ceiling: 5, "
    "price: {usd_per_million_in: 10, usd_per_million_out: 20, source: example, date: 2026-11-01}}"
)


def labelled(count: int, start: int) -> Dataset:
    rows = []
    for i in range(start, start + count):
        label, cue = [("fruit", "apple"), ("metal", "iron")][i % 2]
        rows.append(Row({"text": f"an old {cue} number {i}", "label": label}, f"r:{i}", f"id{i}"))
    return Dataset(rows, "labelled", {})


def knows(messages: list[dict[str, str]]) -> str:
    return "It is Fruit." if "apple" in messages[-1]["content"] else "metal"


@pytest.fixture
def server() -> Iterator[PaidServer]:
    with PaidServer(knows) as server:
        yield server


def asking(server: PaidServer, folder: Path, trials: int = 3, **settings: object) -> Asking:
    client = Client(server.url, KEY)
    ledger = Ledger(folder / "spent.json", 10.0)
    model = PaidClient(client, "small", TokenPrice(10.0, 20.0), replies=folder / "replies", ledger=ledger)
    values = {"examples": 2, "trials": trials, "seed": 0, "metric": "accuracy", "at_once": 3, **settings}
    return Asking(model=model, words=WORDS, **values)  # type: ignore[arg-type]


def test_labels_are_asked_for_as_one_of_a_list_and_paid_by_item(server: PaidServer, tmp_path: Path) -> None:
    parts = labelled(20, 0), labelled(6, 100), labelled(10, 200)
    outcome = ask_for_labels(asking(server, tmp_path), *parts, ["fruit", "metal"])
    assert [row["id"] for row in outcome.rows] == [row.id for row in parts[2].rows]
    assert all(row["prediction"] == row["label"] for row in outcome.rows)
    assert all(row["usd"] > 0 and row["seconds"] > 0 and row["tokens_in"] > 0 for row in outcome.rows)
    assert len(outcome.trials) == 3 and outcome.dev["accuracy"] == 1.0
    assert outcome.chosen["constrained"] and outcome.chosen["unparsable"] == 0
    assert all(body["structured_outputs"] == {"choice": ["fruit", "metal"]} for body in server.bodies)
    assert outcome.cost["requests"] == 3 * 6 + 10 == len(server.bodies)
    assert outcome.cost["usd"] == outcome.cost["usd_paid"] > outcome.cost["usd_per_item"] > 0
    assert outcome.cost["latency_s"]["p95"] >= outcome.cost["latency_s"]["p50"] > 0
    # the same again costs nothing, and says so
    again = ask_for_labels(asking(server, tmp_path), *parts, ["fruit", "metal"])
    assert again.rows == outcome.rows and len(server.bodies) == 28
    assert again.cost["usd_paid"] == 0 and again.cost["usd"] == outcome.cost["usd"]
    assert again.cost["requests_kept"] == 28 and again.cost["latency_s"] == outcome.cost["latency_s"]


def test_messages_are_the_instruction_examples_as_turns_and_the_text(
    server: PaidServer, tmp_path: Path
) -> None:
    ask_for_labels(
        asking(server, tmp_path, trials=1),
        labelled(20, 0),
        labelled(2, 100),
        labelled(2, 200),
        ["fruit", "metal"],
    )
    messages = server.bodies[-1]["messages"]
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert messages[0]["content"] == f"{WORDS.instruction}\nLabels:\n- fruit: grows on trees\n- metal"
    assert {messages[2]["content"], messages[4]["content"]} == {"fruit", "metal"}
    assert server.bodies[-1]["temperature"] == 0
    judged = {row.text for part in (labelled(2, 100), labelled(2, 200)) for row in part.rows}
    assert (
        not judged & {message["content"] for message in messages[:-1]} and messages[-1]["content"] in judged
    )


def test_a_server_that_holds_to_no_list_is_read_and_unparsable_replies_are_counted(tmp_path: Path) -> None:
    def unsure(messages: list[dict[str, str]]) -> str:
        return "fruit or metal, who knows" if "1" in messages[-1]["content"][-1] else knows(messages)

    with PaidServer(unsure, holds=False) as server:
        outcome = ask_for_labels(
            asking(server, tmp_path), labelled(20, 0), labelled(4, 100), labelled(10, 200), ["fruit", "metal"]
        )
        assert not any("structured_outputs" in body for body in server.bodies)
    assert not outcome.chosen["constrained"] and outcome.chosen["unparsable"] == 1
    (lost,) = [row for row in outcome.rows if not row["prediction"]]
    assert lost["reply"] == "fruit or metal, who knows" and lost["id"] == "id201"


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("no", "no"),
        ("  **No**.", "no"),
        ('Label: "no reply"', "no_reply"),
        ("The sender wants no reply at all", "no_reply"),
        ("no reply, or no", None),
        ("nothing", None),
        ("bill", "Bill"),
        ("Bill or no", None),
        ("", None),
    ],
)
def test_a_reply_names_one_label_or_none(reply: str, label: str | None) -> None:
    assert named_label(reply, {"no": "no", "no_reply": "no reply", "Bill": "Bill"}) == label


def test_labels_of_marks_alone_are_told_apart() -> None:
    assert named_label("+", {"+": "+", "-": "-"}) == "+" and named_label("5", {"5": "5", "55": "55"}) == "5"


def test_formats_of_an_api_begin_with_the_instruction() -> None:
    tried = api_formats(3, 2, WORDS, 4)
    assert [(fmt.descriptions, fmt.shots) for fmt in tried] == [(True, 4), (True, 0), (False, 4)]
    every = api_formats(1000, 2, TaskWords(), 4)
    assert [(fmt.descriptions, fmt.shots) for fmt in every] == [(False, 4), (False, 0), (False, 2)]


def test_free_text_is_asked_too(server: PaidServer, tmp_path: Path) -> None:
    def asked(count: int, start: int) -> Dataset:
        rows = [
            Row({"prompt": f"apple {i}?", "completion": "It is Fruit."}, "r", str(i))
            for i in range(start, start + count)
        ]
        return Dataset(rows, "sft", {})

    score = lambda rows: {"right": sum(row["prediction"] == row["reference"] for row in rows) / len(rows)}  # noqa: E731
    outcome = ask_for_answers(
        asking(server, tmp_path, metric="right"), asked(8, 0), asked(3, 20), asked(4, 40), score=score
    )
    assert outcome.dev == {"right": 1.0} and len(outcome.rows) == 4 and outcome.cost["usd_per_item"] > 0


class Shelf:
    """A finder that says what it was asked for."""

    retrievers, flops = ("bm25",), 7.0

    def find(self, questions, items, lookup):
        return [
            [f"a passage on {question}", "another", "a third"][: lookup.passages] for question in questions
        ]


def test_an_api_is_asked_with_passages_and_numbers_of_them_compete(
    server: PaidServer, tmp_path: Path
) -> None:
    parts = labelled(20, 0), labelled(6, 100), labelled(4, 200)
    outcome = ask_for_labels(asking(server, tmp_path, finder=Shelf()), *parts, ["fruit", "metal"])
    assert [trial["passages"] for trial in outcome.trials] == [3, 1, 5]
    assert outcome.chosen["retriever"] == "bm25" and outcome.cost["flops"] == 7.0
    text = parts[2].rows[-1].text
    contents = [body["messages"][-1]["content"] for body in server.bodies[-4:]]  # asked at once, in any order
    (last,) = [content for content in contents if content.endswith(f"\n\n{text}")]
    assert last.startswith(f"Passages that may help:\n[1] a passage on {text}\n")
    sent = len(server.bodies)
    again = ask_for_labels(asking(server, tmp_path, finder=Shelf()), *parts, ["fruit", "metal"])
    assert again.cost["usd_paid"] == 0 and len(server.bodies) == sent
    bare = ask_for_labels(asking(server, tmp_path), *parts, ["fruit", "metal"])
    assert bare.cost["usd_paid"] > 0, "other prompts are other requests"
    assert bare.cost["tokens_in_per_item"] < outcome.cost["tokens_in_per_item"]

    rows = [Row({"prompt": f"apple {i}?", "completion": "a passage"}, "r", str(i)) for i in range(9)]
    said = [Dataset(rows[i : i + 3], "sft", {}) for i in (0, 3, 6)]
    score = lambda rows: {"right": float(len(rows))}  # noqa: E731
    told = ask_for_answers(asking(server, tmp_path, metric="right", finder=Shelf()), *said, score=score)
    assert told.rows[0]["passages"][0] == "a passage on apple 6?" and told.rows[0]["found"] == 1.0
    assert told.rows[0]["question"] == "apple 6?" and told.rows[0]["usd"] > 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path)
    return tmp_path


def planned(config: StudyConfig) -> list:
    lengths = [task.model_copy(update={"max_length": 64}) for task in config.tasks]
    config = config.model_copy(update={"tasks": lengths})
    return list(outgoing(config, {task.name: task.task_kind.size(task) for task in lengths}, 3))


def test_an_api_is_an_arm_without_weights() -> None:
    assert "api+prompt" in ARMS and not {"api", "api+full", "api+probe", "api+lora"} & set(ARMS)
    with pytest.raises(ConfigError, match="unknown arm 'api\\+full'"):
        Arm.parse("api+full")
    assert Arm.parse("api+prompt").origin is Origin.API and not Origin.API.learns_text


def test_a_study_with_an_api_waits_for_data_alone_and_scores_no_text(folder: Path) -> None:
    from adaptkit.study.budget import grant

    config = study_config(folder, API, "arms=[generic+prompt, api+prompt]")
    assert [arm.name for arm in config.text_arms] == ["generic"]
    budget = grant(config.budget, flops_per_token=1.0, flops_per_second=1.0, num_seeds=2, has_tasks=True)
    stages = {stage.key.name: stage for stage in build_stages(config, budget)}
    asked = [stage for stage in stages.values() if stage.key.arm and stage.key.arm.origin is Origin.API]
    assert len(asked) == 2 and all([need.name for need in stage.needs] == ["prepare"] for stage in asked)


def test_nothing_is_sent_unless_the_study_says_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"arm 'api\+prompt' needs `api`"):
        study_config(folder, "arms=[api+prompt]")
    assert planned(study_config(folder, API, "arms=[generic+prompt]")) == []
    assert outgoing_json(study_config(folder), []) == {}


def test_the_plan_counts_what_leaves_the_house_and_refuses_it_above_the_ceiling(folder: Path) -> None:
    config = study_config(folder, API, "arms=[api+prompt]")
    (row,) = planned(config)
    assert (row.arm, row.task) == ("api+prompt", "mood")
    assert row.requests == 2 * (24 + 3 * 64) and row.tokens_in > 50 * row.requests
    assert row.usd == pytest.approx((row.tokens_in * 10 + row.tokens_out * 20) / 1e6)
    _, searching = planned(study_config(folder, API, "arms=[api+prompt, api+rag]"))
    assert searching.arm == "api+rag" and searching.requests == row.requests
    assert searching.tokens_in - row.tokens_in == pytest.approx(row.requests * 5 * 1024 / 3), "five passages"
    assert searching.usd > row.usd
    check_ceiling(config, [row])
    said = outgoing_json(config, [row])
    assert said["usd"] == row.usd and said["url"] == "https://api.example.com" and said["ceiling"] == 5
    poor = study_config(folder, API, "arms=[api+prompt]", "api.ceiling=0.01")
    with pytest.raises(BudgetError, match=r"may cost \$.* requests, .* tokens\); the ceiling is \$0.01"):
        check_ceiling(poor, [row])


def test_passages_of_your_text_are_sent_only_where_the_arm_is_named(folder: Path, monkeypatch) -> None:
    from adaptkit.compare import choose_arms
    from adaptkit.study.budget import grant

    monkeypatch.setattr(choose_arms, "_too_expensive", lambda *_: "too much")
    monkeypatch.setattr(choose_arms, "trainings", lambda *_: ())
    monkeypatch.setattr(choose_arms, "_no_mixture", lambda *_: "")
    monkeypatch.setattr(choose_arms, "_too_little_text", lambda *_: "")
    config = study_config(folder, API, "arms=[]", f"rag.collection.files=[{folder}/general.jsonl]")
    budget = grant(config.budget, flops_per_token=1.0, flops_per_second=1.0, num_seeds=2, has_tasks=True)
    choice = choose_arms.choose_arms(config, budget, None)  # type: ignore[arg-type]
    assert not any(arm.name == "api+rag" for arm in choice.arms)
    (left_out,) = [row for row in choice.left_out if row.arm == "api+rag"]
    assert "sends passages of your text" in left_out.reason and "name it in `arms`" in left_out.reason


def test_an_address_holds_no_key_and_settings_that_only_cost_change_no_identity(folder: Path) -> None:
    for url in ("https://user:pw@api.example.com", "https://api.example.com?key=1", "api.example.com"):
        with pytest.raises(ConfigError) as refused:
            study_config(folder, API.replace("https://api.example.com", url), "arms=[api+prompt]")
        assert "pw" not in str(refused.value) and "key=1" not in str(refused.value)
    config = study_config(folder, API, "arms=[api+prompt]")
    other = study_config(folder, API, "arms=[api+prompt]", "api.ceiling=9", "api.key_file=k", "api.at_once=1")
    assert (
        config.identity()
        == other.identity()
        != study_config(folder, API, "arms=[api+prompt]", "api.model=b").identity()
    )
