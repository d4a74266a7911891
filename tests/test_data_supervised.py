"""What is taught and what is only read: masks by position, exactly as a server renders the prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adaptkit.data.readers import Dataset, Row, content_id
from adaptkit.data.supervised import LabelledRows, SupervisedRows, prompt_ids
from adaptkit.data.tokenizers import CHAT_TEMPLATE, train_tokenizer
from adaptkit.errors import DataError
from adaptkit.ops import IGNORE_INDEX

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "first question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question"},
    {"role": "assistant", "content": "second answer"},
    {"role": "user", "content": "thanks"},
]
# Earlier answers lose their bracketed reasoning, as in the templates of reasoning models.
FORGETFUL = (
    "{% for m in messages %}[{{ m['role'] }}] {% if m['role'] == 'assistant' and not loop.last %}"
    "{{ m['content'].split(']')[-1] }}{% else %}{{ m['content'] }}{% endif %}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def dataset(kind: str, *values: dict[str, Any]) -> Dataset:
    return Dataset([Row(v, f"x.jsonl:{i + 1}", content_id(v)) for i, v in enumerate(values)], kind, {})


@pytest.fixture(scope="module")
def plain(tiny_text: list[str]) -> Any:
    return train_tokenizer(tiny_text, "bpe", 400)


@pytest.fixture()
def chat(tiny_text: list[str]) -> Any:
    return train_tokenizer(tiny_text, "bpe", 400, chat_template=CHAT_TEMPLATE)


def taught(source: SupervisedRows, tokenizer: Any, index: int = 0) -> list[str]:
    """The runs of taught tokens, decoded."""
    batch = source.collate([index], seed=0, epoch=0)
    runs: list[list[int]] = [[]]
    for token, label in zip(batch["input_ids"][0].tolist(), batch["labels"][0].tolist(), strict=True):
        assert label in (IGNORE_INDEX, token)
        if label != IGNORE_INDEX:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


def test_only_the_assistants_words_are_taught(chat: Any) -> None:
    source = SupervisedRows(dataset("messages", {"messages": CHAT}), chat, 512)
    assert taught(source, chat) == ["first answer<|end_of_text|>", "second answer<|end_of_text|>"]
    ids = source.collate([0], seed=0, epoch=0)["input_ids"][0].tolist()
    assert ids.count(chat.bos_token_id) == 1 and ids[0] == chat.bos_token_id
    assert "thanks" not in chat.decode(ids), "nothing after the last answer can be learnt from"


def test_training_ids_begin_with_the_ids_a_server_sees(chat: Any, plain: Any) -> None:
    for tokenizer, row in (
        (chat, {"messages": CHAT[:3]}),
        (chat, {"prompt": "why", "completion": "so"}),
        (plain, {"prompt": "why", "completion": "so"}),
        (plain, {"prompt": "why: ", "completion": "so"}),
        (plain, {"prompt": "why:", "completion": " so"}),
    ):
        data = dataset("sft", row)
        prompt = prompt_ids(data.rows[0], tokenizer)
        batch = SupervisedRows(data, tokenizer, 512).collate([0], seed=0, epoch=0)
        assert batch["input_ids"][0, : len(prompt)].tolist() == prompt
        assert (batch["labels"][0, : len(prompt)] == IGNORE_INDEX).all() and batch["labels"][
            0, len(prompt)
        ] != IGNORE_INDEX
        assert prompt.count(tokenizer.bos_token_id) == 1


def test_eos_is_taught_even_where_it_also_pads(plain: Any) -> None:
    tokenizer = type(plain)(
        tokenizer_object=plain.backend_tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
    )
    rows = dataset(
        "sft", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "a much longer answer"}
    )
    batch = SupervisedRows(rows, tokenizer, 128).collate([0, 1], seed=0, epoch=0)
    eos = tokenizer.eos_token_id
    assert tokenizer.pad_token_id == eos
    for row in range(2):
        assert (batch["labels"][row] == eos).sum() == 1, "the answer's end, never the padding"
    assert batch["input_ids"][0, -1] == eos and batch["labels"][0, -1] == IGNORE_INDEX


def test_plain_prompts_and_answers_do_not_run_together(plain: Any) -> None:
    rows = dataset(
        "sft", {"prompt": "What?", "completion": "That"}, {"prompt": "What? ", "completion": "That"}
    )
    source = SupervisedRows(rows, plain, 128)
    texts = [plain.decode(source.examples[i].ids, skip_special_tokens=True) for i in range(2)]
    assert texts == ["What?\nThat", "What? That"] and taught(source, plain) == ["That<|end_of_text|>"]


def test_a_template_that_rewrites_turns_gives_one_example_a_turn(chat: Any) -> None:
    chat.chat_template = FORGETFUL
    messages = [
        {"role": m["role"], "content": f"[why]{m['content']}" if m["role"] == "assistant" else m["content"]}
        for m in CHAT[1:5]
    ]
    source = SupervisedRows(dataset("messages", {"messages": messages}), chat, 512)
    assert [taught(source, chat, i) for i in range(len(source))] == [
        ["[why]first answer<|end_of_text|>"],
        ["[why]second answer<|end_of_text|>"],
    ]
    assert source.where(0) == source.where(1) == "x.jsonl:1"


def test_a_template_without_an_end_still_teaches_to_stop(chat: Any) -> None:
    chat.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert taught(SupervisedRows(dataset("messages", {"messages": CHAT[:3]}), chat, 512), chat) == [
        " first answer<|end_of_text|>"
    ]


@pytest.mark.parametrize("template", ["{{ raise_exception('only users') }}", "{{ 1 / 0 }}", "{% for %}"])
def test_a_template_that_fails_is_named_with_the_row(chat: Any, template: str) -> None:
    chat.chat_template = template
    with pytest.raises(DataError) as error:
        SupervisedRows(dataset("messages", {"messages": CHAT[:3]}), chat, 512)
    assert error.value.where == "x.jsonl:1"


def test_a_row_in_which_nothing_is_taught_is_refused(chat: Any, plain: Any) -> None:
    fine = {"prompt": "a", "completion": "b"}
    long = {"prompt": "many words " * 50, "completion": "b"}
    with pytest.raises(DataError, match="answer begins after") as error:
        SupervisedRows(dataset("sft", fine, long), plain, 64)
    assert error.value.where == "x.jsonl:2" and "max_length" in error.value.fix
    with pytest.raises(DataError, match="no chat template"):
        SupervisedRows(dataset("messages", {"messages": CHAT}), plain, 64)


def test_truncation_is_counted(plain: Any) -> None:
    source = SupervisedRows(
        dataset("sft", {"prompt": "a", "completion": "many words " * 50}, {"prompt": "a", "completion": "b"}),
        plain,
        32,
    )
    batch = source.collate([0, 1], seed=0, epoch=0)
    assert source.cut.num_cut == 1 and batch["input_ids"].shape == (2, 32)
    assert plain.eos_token_id not in batch["labels"][0], "a cut answer has no end to teach"


def test_plain_text_teaches_all_but_the_first_token(plain: Any) -> None:
    source = SupervisedRows(dataset("text", {"text": "some words"}), plain, 32)
    batch = source.collate([0], seed=0, epoch=0)
    assert (batch["labels"][0] != IGNORE_INDEX).tolist() == [False] + [True] * (batch["labels"].shape[1] - 1)


def test_packed_rows_equal_separate_ones(plain: Any, tiny_text: list[str]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    rows = dataset("sft", *({"prompt": t[:20], "completion": t[20:60]} for t in tiny_text[:8]))
    apart, packed = SupervisedRows(rows, plain, 96), SupervisedRows(rows, plain, 96, packed=True)
    assert len(packed) < len(apart)
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(plain),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    model = LlamaForCausalLM(LlamaConfig(**shape, use_cache=False))

    def loss(source: SupervisedRows) -> tuple[float, int]:
        batch = source.collate(list(range(len(source))), seed=0, epoch=0)
        labels = batch.pop("labels")
        logits = model(**batch).logits[:, :-1]
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )
        return total.item(), int((labels[:, 1:] != IGNORE_INDEX).sum())

    (a, items_a), (b, items_b) = loss(apart), loss(packed)
    assert items_a == items_b and abs(a - b) <= 1e-5 * a


def test_labelled_rows(plain: Any, tiny_text: list[str]) -> None:
    masked = train_tokenizer(tiny_text, "wordpiece", 400)
    rows = dataset(
        "labelled", {"text": "the engine", "label": "b"}, {"text": "the engine " * 40, "label": "a"}
    )
    source = LabelledRows(rows, masked, 16, ["a", "b"])
    batch = source.collate([0, 1], seed=0, epoch=0)
    assert batch["labels"].tolist() == [1, 0] and source.cut.num_cut == 1 and source.where(1) == "x.jsonl:2"
    assert batch["input_ids"].shape == (2, 16) and batch["input_ids"][1, -1] == masked.sep_token_id
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(masked("the engine").input_ids), 16]
    with pytest.raises(DataError, match="unknown label 'b'") as error:
        LabelledRows(rows, masked, 16, ["a"])
    assert error.value.where == "x.jsonl:1"
