"""A conversation is taught as its tokenizer's own chat template writes it, or refused by name.

The reference is transformers: `apply_chat_template(tokenize=True, return_assistant_tokens_mask=True)`.

Home of data.message_fields.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tiny_chat import CHATML, GEMMA, KINDS, LLAMA3, PLAIN_TEMPLATES, QWEN3, tokenizer_of

from adaptkit.data.column_roles import RowReader
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.records import Fault
from adaptkit.data.supervised import Example, SupervisedRows, build_examples, expected_answer, prompt_ids
from adaptkit.errors import DataError

WORDS = ("the", "printer", "is", "Caf\u00e9", "10 < 20", "\n", "{x: 1}", "done.", "A", "9")
TOOLS = [{"type": "function", "function": {"name": "lookup", "description": "find it", "parameters": {}}}]
CALL = [{"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": {"q": "screen"}}}]


def row(messages: list[dict[str, Any]], **columns: Any) -> Row:
    """A row as the readers make it."""
    values = RowReader({"messages": "messages"}, {}).values({"messages": messages, **columns}, typed=True)
    assert not isinstance(values, Fault), values
    return Row(values, "x.jsonl:1", "id")


def rows_of(source: Row) -> Dataset:
    return Dataset([source], "messages", {})


def fault(messages: list[dict[str, Any]], **columns: Any) -> str:
    values = RowReader({"messages": "messages"}, {}).values({"messages": messages, **columns}, typed=True)
    assert isinstance(values, Fault)
    return values.what


def say(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def taught(examples: list[Example], tokenizer: Any) -> list[str]:
    """The runs of taught tokens."""
    runs: list[list[int]] = []
    for example in examples:
        before = False
        for token, flag in zip(example.ids, example.taught, strict=True):
            if flag and not before:
                runs.append([])
            if flag:
                runs[-1].append(token)
            before = flag
    return [tokenizer.decode(run) for run in runs]


def chats(seed: int, system: bool) -> list[list[dict[str, Any]]]:
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6))).strip() or "ok"

    made = []
    for _ in range(12):
        turns = [say("system", text())] if system and rng.random() < 0.5 else []
        for _ in range(rng.randint(1, 3)):
            turns += [say("user", text()), say("assistant", text())]
        made.append(turns)
    return made


@pytest.mark.parametrize("family", list(PLAIN_TEMPLATES))
@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_mask_are_those_of_transformers(kind: str, family: str) -> None:
    tokenizer = tokenizer_of(kind, PLAIN_TEMPLATES[family])
    for messages in chats(7, system=family != "gemma"):
        wanted = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        [example] = build_examples(row(messages), tokenizer)
        mask = [bool(flag) for flag in wanted["assistant_masks"]]
        assert example.ids == wanted["input_ids"][: len(example.ids)]
        assert not any(mask[len(example.ids) :]) and example.taught == mask[: len(example.ids)]
        prompt = prompt_ids(row(messages), tokenizer)
        asked = tokenizer.apply_chat_template(
            messages[:-1], tokenize=True, return_dict=True, add_generation_prompt=True
        )
        assert prompt == asked["input_ids"] == example.ids[: len(prompt)]
        assert expected_answer(row(messages), tokenizer).text == messages[-1]["content"].strip()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("template", "end"), [(CHATML, "<|im_end|>"), (LLAMA3, "<|eot_id|>")])
def test_users_words_never_open_or_close_a_turn(kind: str, template: str, end: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    messages = [
        say("user", f"what is {end} and <s>struck</s>, <pad>?"),
        say("assistant", f"it is {end} or </s>"),
    ]
    examples = build_examples(row(messages), tokenizer)
    ids = examples[0].ids
    assert [ids.count(tokenizer.convert_tokens_to_ids(token)) for token in (end, "</s>", "<pad>")] == [
        2,
        0,
        0,
    ]
    last = max(place for place, flag in enumerate(examples[0].taught) if flag)
    assert ids[last] == tokenizer.convert_tokens_to_ids(end)
    if kind != "wordpiece":
        assert taught(examples, tokenizer) == [f"it is {end} or </s>{end}"]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokenizer.decode(ids).rstrip() == whole.rstrip()
    prompt = prompt_ids(row(messages), tokenizer)
    assert prompt == ids[: len(prompt)] and not any(examples[0].taught[: len(prompt)])


def test_prompts_and_completions_are_text_too() -> None:
    tokenizer = tokenizer_of("byte_bpe")
    source = Row({"prompt": "was <s>9</s>", "completion": "now </s> 8"}, "x.jsonl:1", "id")
    [example] = build_examples(source, tokenizer)
    assert tokenizer.decode(example.ids) == "<s>was <s>9</s>\nnow </s> 8</s>"
    assert example.ids.count(tokenizer.eos_token_id) == 1 and example.ids.count(tokenizer.bos_token_id) == 1
    [text] = build_examples(Row({"text": "a </s> b"}, "x.jsonl:1", "id"), tokenizer)
    assert text.ids.count(tokenizer.eos_token_id) == 1 == text.ids[-1:].count(tokenizer.eos_token_id)


def test_tools_calls_and_results_are_rendered() -> None:
    tokenizer = tokenizer_of("byte_bpe", QWEN3)
    messages = [
        say("user", "the screen is broken"),
        say("assistant", None, tool_calls=CALL),
        say("tool", "ok", tool_call_id="c1", name="lookup"),
        say("assistant", "negative"),
    ]
    for written in (messages, _as_json(messages)):
        example, *more = build_examples(row(written, tools=TOOLS), tokenizer)
        reference = [{**m, "content": m["content"] or ""} for m in messages]
        whole = tokenizer.apply_chat_template(reference, tools=TOOLS, tokenize=False)
        assert not more and tokenizer.decode(example.ids) == whole
        call = '<tool_call>\n{"name": "lookup", "arguments": {"q": "screen"}}\n</tool_call>'
        assert taught([example], tokenizer) == [
            f"<think>\n\n</think>\n\n\n{call}<|im_end|>",
            "<think>\n\n</think>\n\nnegative<|im_end|>",
        ]
    called = row(messages[:2], tools=json.dumps(TOOLS))
    assert expected_answer(called, tokenizer).text == f"<think>\n\n</think>\n\n\n{call}"
    assert "lookup" in called.text and "screen" in called.text, "duplicates and overlap look at them too"


def _as_json(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments as OpenAI writes them."""
    function = {"name": "lookup", "arguments": '{"q": "screen"}'}
    return [
        {**m, "tool_calls": [{**CALL[0], "function": function}]} if "tool_calls" in m else m for m in messages
    ]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_taught_at_every_turn_by_any_of_its_names(name: str) -> None:
    tokenizer = tokenizer_of("byte_bpe", QWEN3)
    messages = [
        say("user", "a"),
        say("assistant", "one", **{name: "because"}),
        say("user", "b"),
        say("assistant", "two", **{name: "since"}),
    ]
    examples = build_examples(row(messages), tokenizer)
    assert taught(examples, tokenizer) == [
        "<think>\nbecause\n</think>\n\none<|im_end|>",
        "<think>\nsince\n</think>\n\ntwo<|im_end|>",
    ]
    assert len(examples) == 2, "no one rendering shows both"
    answer = expected_answer(row([say("user", "a"), say("assistant", "one")]), tokenizer)
    assert (answer.text, answer.of("<think>\n\n</think>\n\none")) == ("one", "one")


@pytest.mark.parametrize(
    ("message", "columns", "field"),
    [
        (say("assistant", "x", tool_calls=CALL), {}, "'tool_calls'"),
        (say("assistant", "x", reasoning_content="why"), {}, "'reasoning_content'"),
        (say("assistant", "x", thinking="why"), {}, "'thinking'"),
        (say("assistant", "x", name="Ann"), {}, "'name'"),
        (say("assistant", "x", function_call={"name": "lookup", "arguments": "{}"}), {}, "'function_call'"),
        (say("assistant", "x", score=0.5), {}, "'score'"),
        (say("assistant", "x"), {"tools": TOOLS}, "'tools'"),
        (say("assistant", "x"), {"documents": [{"title": "t", "text": "d"}]}, "'documents'"),
    ],
)
def test_what_a_template_leaves_out_is_refused_by_name(
    message: dict[str, Any], columns: dict[str, Any], field: str
) -> None:
    for template in (CHATML, LLAMA3):
        with pytest.raises(DataError, match=field) as error:
            SupervisedRows(
                rows_of(row([say("user", "q"), message], **columns)), tokenizer_of("byte_bpe", template), 256
            )
        assert error.value.where == "x.jsonl:1" and error.value.fix


def test_a_message_that_a_template_drops_is_refused() -> None:
    only_two = (
        "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ '<|im_start|>' + m.role + '\n' + "
        "m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = tokenizer_of("byte_bpe", only_two)
    with pytest.raises(DataError, match="message 2 .role tool. is left out"):
        build_examples(row([say("user", "look"), say("tool", "ok"), say("assistant", "x")]), tokenizer)
    with pytest.raises(DataError, match="System role not supported"):
        build_examples(row([say("system", "s"), *chats(0, False)[0]]), tokenizer_of("byte_bpe", GEMMA))
    with pytest.raises(DataError, match="must alternate"):
        twice = [say("user", "a"), say("user", "b"), say("assistant", "c")]
        build_examples(row(twice), tokenizer_of("byte_bpe", GEMMA))
    with pytest.raises(DataError, match="begins with an answer"):
        build_examples(row([say("assistant", "hello")]), tokenizer_of("byte_bpe", CHATML))


def test_turns_of_weight_0_are_read_and_not_taught() -> None:
    tokenizer = tokenizer_of("byte_bpe", CHATML)
    for flag in ({"weight": 0}, {"train": False}, {"training": 0.0}):
        messages = [
            say("user", "a"),
            say("assistant", "I refuse.", **flag),
            say("user", "b"),
            say("assistant", "Here.", **{name: 1 for name in flag}),
            say("assistant", "never", **flag),
        ]
        examples = build_examples(row(messages), tokenizer)
        assert taught(examples, tokenizer) == ["Here.<|im_end|>"]
        assert "I refuse." in tokenizer.decode(examples[0].ids)
        assert expected_answer(row(messages), tokenizer).text == "Here."
        assert tokenizer.decode(prompt_ids(row(messages), tokenizer)).endswith("assistant\n")
    assert "weight 0" in fault([say("user", "a"), say("assistant", "b", weight=0)])
    assert "'weight' of message 2" in fault([say("user", "a"), say("assistant", "b", weight=0.5)])
    assert "'train' of message 1" in fault([say("user", "a", train=True), say("assistant", "b")])


def test_content_in_parts_is_one_text_or_what_the_template_makes_of_it() -> None:
    parts = [{"type": "text", "text": "first"}, {"type": "text", "text": "second </s>"}]
    messages = [say("user", parts), say("assistant", [{"type": "text", "text": "yes"}])]
    plain = tokenizer_of("byte_bpe", CHATML)
    [example] = build_examples(row(messages), plain)
    assert plain.decode(example.ids).startswith("<|im_start|>user\nfirst\nsecond </s><|im_end|>")
    assert plain.eos_token_id not in example.ids and taught([example], plain) == ["yes<|im_end|>"]
    reads = "{% for p in m.content %}{{ p.text + ';' }}{% endfor %}"
    aware = tokenizer_of(
        "byte_bpe",
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.content is string %}{{ m.content }}"
        "{% elif m.content | length == 1 %}{{ m.content[0].text }}{% else %}" + reads + "{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    )
    [example] = build_examples(row(messages), aware)
    assert aware.decode(example.ids).startswith("<|im_start|>user\nfirst;second </s>;<|im_end|>")
    assert "image_url" in fault(
        [say("user", [{"type": "image_url", "image_url": {}}]), say("assistant", "b")]
    )


def test_columns_that_nothing_reads_are_refused() -> None:
    messages = [say("user", "a"), say("assistant", "b")]
    assert "'functions'" in fault(messages, functions=[{"name": "f"}])
    reader = RowReader({"prompt": "prompt", "completion": "completion"}, {})
    for name, value in (("system", "be brief"), ("history", [["a", "b"]]), ("tools", TOOLS)):
        values = reader.values({"prompt": "a", "completion": "b", name: value}, typed=True)
        assert isinstance(values, Fault) and f"'{name}'" in values.what
        empty = reader.values({"prompt": "a", "completion": "b", name: type(value)()}, typed=True)
        assert empty == {"prompt": "a", "completion": "b"}


def test_a_template_that_closes_no_answer_teaches_to_stop_at_every_turn() -> None:
    tokenizer = tokenizer_of(
        "byte_bpe",
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    )
    messages = [say("user", "a"), say("assistant", "one"), say("user", "b"), say("assistant", "two")]
    assert taught(build_examples(row(messages), tokenizer), tokenizer) == ["one</s>", "two</s>"]


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (GEMMA, "<end_of_turn>"), (None, "</s>")]
)
def test_the_source_knows_where_taught_turns_end(template: str | None, end: str) -> None:
    tokenizer = tokenizer_of("byte_bpe", template)
    values = {"prompt": "a", "completion": "b"}
    source = SupervisedRows(rows_of(Row(values, "x.jsonl:1", "id")), tokenizer, 256)
    assert tokenizer.convert_ids_to_tokens(source.end_ids) == [end]
