"""Prompts as people write them: instructions, label descriptions, examples, chat templates, and which of them
are tried. Home of finetune.prompt_chat, finetune.prompt_examples, finetune.prompt_formats and
finetune.prompt_words."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_chat
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from adaptkit.data import Dataset, Row
from adaptkit.data.readers import content_id
from adaptkit.errors import DataError
from adaptkit.finetune.prompt_chat import ChatWriter, has_system_turn
from adaptkit.finetune.prompt_examples import drawn_examples, in_turns
from adaptkit.finetune.prompt_formats import Choices, formats, num_examples
from adaptkit.finetune.prompt_template import (
    PlainWriter,
    Question,
    Sections,
    cut,
    fit,
    question_and_answer,
    shared_prefix,
)
from adaptkit.finetune.prompt_words import ANSWER_INSTRUCTION, LABEL_INSTRUCTION, TaskWords, written_labels
from adaptkit.finetune.prompted_answers import answer_rows
from adaptkit.finetune.prompted_labels import begin_alike, label_shares, prompt_rows

LABELS = ["no", "no reply", "BILL_late"]
MEANINGS = {"no": "the sender says no", "BILL_late": "an invoice is overdue"}
WORDS = TaskWords("Sort the message.", MEANINGS)


def labelled(count: int, start: int = 0) -> Dataset:
    rows = []
    for i in range(start, start + count):
        values = {"text": f"the printer in room {i} is broken", "label": LABELS[i % 3]}
        rows.append(Row(values, f"rows.jsonl:{i + 1}", content_id(values)))
    return Dataset(rows, "labelled", {})


def tiny(tokenizer: object, context: int = 512):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=context, **sizes)  # type: ignore
    return AutoModelForCausalLM.from_config(config)


def test_few_formats_differ_most_and_all_are_distinct() -> None:
    every = formats(10_000, Choices(chat=True, described=True, examples=4, cased=True))
    assert len(every) == len(set(every)) > 100
    first = every[:4]
    assert formats(4, Choices(chat=True, described=True, examples=4, cased=True)) == first
    assert {f.style for f in first} == {"chat", "plain"} and {f.shots for f in first} == {0, 4}
    assert {f.instruction for f in first} == {True, False} and {f.descriptions for f in first} == {
        True,
        False,
    }
    assert not any(f.descriptions and not f.instruction for f in every)
    assert {f.shots for f in every} == {0, 2, 4}


def test_formats_leave_out_what_a_task_or_base_does_not_have() -> None:
    plain = formats(10_000, Choices(chat=False, described=False, examples=0))
    assert {f.style for f in plain} == {"plain"} and {f.shots for f in plain} == {0}
    assert not any(f.descriptions or f.lower for f in plain)
    answers = formats(10_000, Choices(chat=True, described=False, examples=2, labels=False))
    assert not any(f.normalised for f in answers) and {f.shots for f in answers} == {0, 1, 2}
    assert all(bool(f.wording) == (f.style == "plain") for f in answers)


def test_the_number_of_examples_is_the_users_or_one_of_each_label() -> None:
    assert num_examples(0, 5) == 0 and num_examples(7, 0) == 7
    assert [num_examples(None, labels) for labels in (0, 2, 5, 77)] == [2, 4, 5, 16]


def test_examples_are_drawn_by_content_and_seed_balanced_and_never_judged_rows() -> None:
    train = labelled(30)
    backwards = train.with_rows(train.rows[::-1])
    drawn = drawn_examples(train, [], 7, seed=1)
    assert drawn == drawn_examples(backwards, [], 7, seed=1) != drawn_examples(train, [], 7, seed=2)
    counts = [sum(row.values["label"] == label for row in drawn) for label in LABELS]
    assert sorted(counts) == [2, 2, 3]
    judged = train.with_rows(drawn)
    assert not {row.text for row in drawn} & {row.text for row in drawn_examples(train, [judged], 30, seed=1)}
    assert in_turns(["a", "a", "a", "b"], 3) == [0, 3, 1]


def test_an_instruction_is_the_users_or_made_and_describes_what_is_described() -> None:
    block = WORDS.block(LABELS, described=True)
    assert block == "Sort the message.\nLabels:\n- no: the sender says no\n- no reply\n" + (
        "- BILL late: an invoice is overdue"
    )
    assert (
        WORDS.block(LABELS, described=False, lower=True)
        == "Sort the message.\nLabels: no, no reply, bill late"
    )
    assert TaskWords().block(["a", "b"], described=True) == f"{LABEL_INSTRUCTION}\nLabels:\n- a\n- b"
    assert TaskWords().block([], described=True) == ANSWER_INSTRUCTION
    assert written_labels(["Yes", "yes"], lower=True) == ["Yes", "yes"], "labels stay apart"
    with pytest.raises(DataError, match=r"'bil', which no training row has \(did you mean 'bill'"):
        TaskWords("", {"bil": "x"}).check(["bill", "other"], "labels of 'm'")


@pytest.mark.parametrize("kind", tiny_chat.KINDS[:4])
@pytest.mark.parametrize("family", ["chatml", "llama3"])
def test_a_chat_prompt_is_what_the_template_writes_for_its_turns(kind: str, family: str) -> None:
    tokenizer = tiny_chat.tokenizer_of(kind, tiny_chat.PLAIN_TEMPLATES[family])
    sections = Sections("Sort it.", (("is it broken", "no"),), Question("the shop in Paris"))
    turns = [
        {"role": "system", "content": "Sort it."},
        {"role": "user", "content": "is it broken"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "the shop in Paris"},
    ]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    writer = ChatWriter(tokenizer)
    assert writer.text(sections) == expected
    assert writer.ids(sections) == tokenizer(expected, add_special_tokens=False)["input_ids"]
    answered = [*turns, {"role": "assistant", "content": "printer"}]
    whole = tokenizer(tokenizer.apply_chat_template(answered, tokenize=False), add_special_tokens=False)
    row = [*writer.ids(sections), *writer.answer("printer"), *writer.ending()]
    assert whole["input_ids"][: len(row)] == row
    assert writer.first_part([*writer.answer("printer"), *writer.ending(), 5, 6]) == "printer"


def test_a_template_without_a_system_turn_gets_the_instruction_in_the_first() -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.GEMMA)
    assert not has_system_turn(tokenizer)
    writer = ChatWriter(tokenizer)
    text = writer.text(Sections("Sort it.", (("is it broken", "no"),), Question("the shop")))
    assert "user\nSort it.\n\nis it broken<end_of_turn>" in text and text.endswith("<start_of_turn>model\n")
    assert "user\nSort it.\n\nthe shop<end_of_turn>" in writer.text(
        Sections("Sort it.", (), Question("the shop"))
    )


def test_reasoning_is_switched_off_where_a_template_knows_how() -> None:
    opened = "{{ '<|im_start|>assistant\n' }}"
    empty = "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    template = tiny_chat.CHATML.replace(opened, opened + empty)
    writer = ChatWriter(tiny_chat.tokenizer_of("byte_bpe", template))
    assert writer.text(Sections("", (), Question("a"))).endswith("assistant\n<think>\n\n</think>\n\n")


def test_control_tokens_in_a_text_are_words() -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for writer in (ChatWriter(tokenizer), PlainWriter(tokenizer, "{text}\nLabel:")):
        clean = writer.ids(Sections("", (), Question("stop")))
        spelt = writer.ids(Sections("", (), Question("stop <|im_end|> <|im_end|>")))
        assert spelt.count(end) == clean.count(end)


@pytest.mark.parametrize("context", [400, 150, 90, 40])
def test_what_does_not_fit_is_left_out_and_the_text_is_cut(context: int) -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    examples = [("the printer in room 12 is broken again " * 5, "no")] * 4
    full, short = "Sort the message. " + "x: why " * 12, "Sort."
    for writer in (ChatWriter(tokenizer), PlainWriter(tokenizer, "{text}\nLabel:")):
        prompt = fit(writer, tokenizer, [full, short], examples, context=context, answer_tokens=3)
        ids = prompt.ids(Question("nobody answers " * 200))
        assert len(ids) + 3 <= context
        if context == 400:
            assert prompt.block == full and len(prompt.examples) >= 2
        if context == 40:
            assert prompt.block in (short, "") and not prompt.examples
        assert prompt.writer.text(Sections(prompt.block, (), Question("{text}"))).count("{text}") == 1
    capped = fit(
        PlainWriter(tokenizer, "{text}"), tokenizer, [], [], context=400, answer_tokens=3, max_length=9
    )
    assert capped.ids(Question("the printer in room 12 is broken again")) == capped.writer.ids(
        Sections("", (), Question(cut(tokenizer, "the printer in room 12 is broken again", 9)))
    )


def test_rows_share_the_tokens_they_begin_with_and_keep_one_of_their_own() -> None:
    assert shared_prefix([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]]) == [1, 2]
    assert shared_prefix([[1, 2], [1, 2]]) == [1] and shared_prefix([[1]]) == [] and shared_prefix([]) == []


def test_a_label_that_begins_as_another_is_closed_before_it_is_scored() -> None:
    assert (
        begin_alike([[1], [1, 2]])
        and begin_alike([[3], [1, 2], [1, 2]])
        and not begin_alike([[1, 2], [1, 3]])
    )
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    model = tiny(tokenizer)
    rows = labelled(6, 40)
    outcome = prompt_rows(
        model, tokenizer, labelled(30), rows, rows, LABELS, words=WORDS, trials=1, examples=0
    )
    (trial,) = outcome.trials
    assert (trial["style"], trial["instruction"], trial["descriptions"], trial["shots"]) == (
        "chat",
        True,
        True,
        0,
    )
    assert outcome.chosen["prompt"].startswith(
        "<|im_start|>system\nSort the message.\nLabels:\n- no: the sender"
    )
    writer = ChatWriter(tokenizer)
    sections = Sections(WORDS.block(LABELS, described=True), (), Question("{text}"))
    assert outcome.chosen["prompt"] == writer.text(sections)

    def nats(text: str) -> list[float]:
        before = writer.ids(Sections(WORDS.block(LABELS, described=True), (), Question(text)))
        found = []
        for name in written_labels(LABELS):
            choice = [*writer.answer(name), *writer.ending()]
            with torch.no_grad():
                chances = model.eval()(input_ids=torch.tensor([before + choice])).logits[0].log_softmax(-1)
            found.append(sum(float(chances[len(before) - 1 + i, token]) for i, token in enumerate(choice)))
        return found

    scores = np.array([nats(text) for text in ["N/A", "", "[MASK]", rows.rows[0].text]])
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    # of the two calibrations, the first format takes the one by shares: here each label has a third
    whole = np.array([nats(row.text) for row in rows.rows])
    whole = np.exp(whole) / np.exp(whole).sum(1, keepdims=True)
    expected = chances[3] / whole.mean(0)
    expected /= expected.sum()
    assert list(outcome.rows[0]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=2e-4)


def test_conversations_are_asked_as_turns_and_flat_where_they_cannot() -> None:
    turns = [("system", "be short"), ("user", "broken?"), ("assistant", "yes"), ("user", "again?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    row = Row({"messages": [*messages, {"role": "assistant", "content": "no"}]}, "r:1", "1")
    question, answer = question_and_answer(row)
    assert (question.text, answer) == ("again?", "no") and question.whole == "be short\nbroken?\nyes\nagain?"
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    writer = ChatWriter(tokenizer)
    asked = writer.text(Sections("Answer.", (("q", "a"),), question))
    merged = [{"role": "system", "content": "Answer.\n\nbe short"}]
    merged += [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, *messages[1:]]
    assert asked == tokenizer.apply_chat_template(merged, add_generation_prompt=True, tokenize=False)
    prompt = fit(writer, tokenizer, ["Answer."], [], context=60, answer_tokens=4)
    long = Question("again? " * 50, question.before)
    assert len(prompt.ids(long)) <= 56


def test_free_text_is_asked_through_the_chat_template_too() -> None:
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    model = tiny(tokenizer)

    def asked(count: int, start: int) -> Dataset:
        rows = [
            Row({"prompt": f"room {i}?", "completion": "nobody"}, f"r:{i}", str(i))
            for i in range(start, start + count)
        ]
        return Dataset(rows, "sft", {})

    outcome = answer_rows(
        model,
        tokenizer,
        asked(8, 0),
        asked(3, 10),
        asked(4, 20),
        score=lambda rows: {"length": -float(sum(len(str(row["prediction"])) for row in rows))},
        metric="length",
        words=TaskWords("Say who is there."),
        trials=5,
        max_new_tokens=4,
    )
    assert {trial["style"] for trial in outcome.trials} == {"chat", "plain"} and len(outcome.trials) == 5
    assert len(outcome.rows) == 4 and all(row["reference"] == "nobody" for row in outcome.rows)


def test_answers_lean_towards_labels_as_often_as_training_rows_have_them() -> None:
    shares = label_shares(labelled(4), LABELS)
    assert shares.tolist() == pytest.approx([3 / 7, 2 / 7, 2 / 7])
    tokenizer = tiny_chat.tokenizer_of("byte_bpe", tiny_chat.CHATML)
    rows = labelled(9, 40)
    often = labelled(60).with_rows([row for row in labelled(60).rows if row.values["label"] == "no reply"])
    outcome = prompt_rows(tiny(tokenizer), tokenizer, often, rows, rows, LABELS, trials=1, examples=0)
    assert {row["prediction"] for row in outcome.rows} == {"no reply"}
    few = formats(4, Choices(chat=True, described=False, examples=2))
    assert {fmt.calibration for fmt in few} == {"empty", "shares"}
