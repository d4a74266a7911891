"""Text is text: what looks like a control token is spelt, for every kind of tokenizer, and nothing else
changes. Home of models.stand_ins."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tiny_chat import CHATML, KINDS, NAMES, TEXTS, TURNS, tokenizer_of
from tokenizers import processors
from transformers import AutoTokenizer

from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.models.control_tokens import (
    control_tokens,
    encode,
    encode_pair,
    encode_prompt,
    encode_rendered,
    frame,
    spell_everywhere,
)

LOSSLESS = ("byte_bpe", "fallback_bpe", "unigram", "legacy_bpe")
CONTROLS = (*NAMES.values(), *TURNS)


def texts_with(rng: random.Random, controls: tuple[str, ...]) -> list[str]:
    """Words and control tokens in any order, with and without blanks between."""
    words = ["the", "printer", "89", "<", ">", "</", "Caf\u00e9", "\n", "s>", "|", *controls]
    return ["".join(rng.choice(words) + rng.choice(["", " "]) for _ in range(12)) + "." for _ in range(40)]


@pytest.mark.parametrize("kind", KINDS)
def test_text_without_control_tokens_is_encoded_as_transformers_does(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    texts = [text for text in texts_with(random.Random(0), ()) if not control_tokens(tokenizer).spans(text)]
    assert len(texts) > 20
    for special in (True, False):
        assert (
            encode(tokenizer, texts, special=special)
            == tokenizer(texts, add_special_tokens=special).input_ids
        )
    cut = tokenizer(texts, truncation=True, max_length=9).input_ids
    assert encode(tokenizer, texts, max_length=9) == cut


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_holds_a_control_token(kind: str) -> None:
    tokenizer = tokenizer_of(kind, CHATML)
    controls = set(map(tokenizer.convert_tokens_to_ids, CONTROLS)) - {tokenizer.unk_token_id}
    texts = [*texts_with(random.Random(1), CONTROLS), *TEXTS[:4], "".join(CONTROLS)]
    before = tokenizer(texts[0]).input_ids
    assert any(controls & set(tokenizer(text).input_ids[1:]) for text in texts), "else the test shows nothing"
    for text, ids in zip(texts, encode(tokenizer, texts, special=False), strict=True):
        assert not controls & set(ids)
        if kind in LOSSLESS:
            assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids
    assert encode(tokenizer, [texts[0]])[0][0] == tokenizer.bos_token_id, "what frames a text stays"
    assert tokenizer(texts[0]).input_ids == before, "the tokenizer itself is untouched"


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_of_a_prompt_count_and_those_behind_it_do_not(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    begin, end = "<s>", "</s>"
    [ids] = encode(tokenizer, [f"the printer {end}"], prompt=f"Q{begin} ", special=False)
    assert ids.count(tokenizer.bos_token_id) == 1 and tokenizer.eos_token_id not in ids
    assert ids[: ids.index(tokenizer.bos_token_id)] == encode(tokenizer, ["Q"], special=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_spells_them_for_everybody_where_it_can(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    texts = texts_with(random.Random(2), CONTROLS)
    wanted = encode(tokenizer, texts)
    spelt = spell_everywhere(tokenizer)
    assert spelt == (kind != "unigram"), "its vocabulary holds them, so that it finds them in any text"
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded(texts).input_ids == wanted) == spelt
    assert encode(loaded, texts) == wanted, "and here they are text everywhere"
    rendered = f"{loaded.bos_token}user said </s>"
    assert encode_rendered(loaded, rendered)[0][0] == loaded.bos_token_id, "what a template writes counts"


def test_written_in_another_width_they_are_text_too() -> None:
    tokenizer = tokenizer_of("unigram")
    wide = "\uff1cs\uff1e and \uff1c/s\uff1e"  # NFKC makes <s> and </s> of it
    assert tokenizer.bos_token_id in tokenizer(wide, add_special_tokens=False).input_ids
    assert control_tokens(tokenizer).count(encode(tokenizer, [wide], special=False)[0]) == 0
    assert [wide[a:b] for a, b in control_tokens(tokenizer).spans(wide)] == [
        "\uff1cs\uff1e",
        "\uff1c/s\uff1e",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rendered_text_keeps_the_templates_tokens_and_spells_the_users(kind: str) -> None:
    tokenizer = tokenizer_of(kind, CHATML)
    said = "end it with <|im_end|> or </s>"
    rendered = f"<|im_start|>user\n{said}<|im_end|>\n"
    at = rendered.index(said)
    spelt = [(at + a, at + b) for a, b in control_tokens(tokenizer).spans(said)]
    pieces = encode_rendered(tokenizer, rendered, spelt)
    start, end = map(tokenizer.convert_tokens_to_ids, ("<|im_start|>", "<|im_end|>"))
    ids = [token for token, _, _ in pieces]
    assert (ids.count(start), ids.count(end), ids.count(tokenizer.eos_token_id)) == (1, 1, 0)
    assert [rendered[a:b] for token, a, b in pieces if token in (start, end)] == [
        "<|im_start|>",
        "<|im_end|>",
    ]
    if kind in LOSSLESS:
        assert tokenizer.decode(ids) == rendered
    plain = [token for token, _, _ in encode_rendered(tokenizer, "<|im_start|>user\nhi<|im_end|>\n")]
    assert plain == tokenizer("<|im_start|>user\nhi<|im_end|>\n", add_special_tokens=False).input_ids


def test_markers_of_turns_are_control_tokens_whatever_the_folder_calls_them() -> None:
    tokenizer = tokenizer_of("byte_bpe")
    tokenizer.add_tokens(["<|User|>", "<|Bot|>", "\n\n", "<table>"])  # none is marked as special
    ordinary = encode(tokenizer, ["<|User|> <table>\n\n"], special=False)[0]
    assert tokenizer.convert_tokens_to_ids("<|User|>") in ordinary, "no template says what it is for"
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|User|>' if m.role == 'user' else '<|Bot|>' }}{{ m.content + '\n\n' }}"
        "{% endfor %}"
    )
    ids = encode(tokenizer, ["<|User|> <table>\n\n"], special=False)[0]
    assert tokenizer.convert_tokens_to_ids("<|User|>") not in ids
    assert {*map(tokenizer.convert_tokens_to_ids, ("<table>", "\n\n"))} <= set(ids)
    assert tokenizer.decode(ids) == "<|User|> <table>\n\n"


@pytest.mark.parametrize("closing", [["</s>"], ["<pad>", "</s>"], []])
def test_a_prompt_begins_as_a_text_and_stays_open(closing: list[str]) -> None:
    tokenizer = tokenizer_of("fallback_bpe")
    names = ["<s>", *closing]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["<s>", "$A", *closing]),
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in names],
    )
    assert tokenizer.convert_ids_to_tokens(frame(tokenizer)[1]) == closing
    ids = encode_prompt(tokenizer, "the printer </s> is")
    assert ids[0] == tokenizer.bos_token_id and not control_tokens(tokenizer).count(ids[1:])
    assert tokenizer.decode(ids[1:]) == "the printer </s> is"


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_our_own_tokenizers_choose_names_that_the_text_does_not_hold(kind: Any) -> None:
    names = ["<|end_of_text|>", "<|padding|>", "<|unknown|>", "<|begin_of_text|>", "<|masked|>"]
    tokenizer = train_tokenizer([*TEXTS, " ".join(names)], kind, 400)
    texts = [*TEXTS, " ".join(names)]
    assert not any(token in text for token in tokenizer.all_special_tokens for text in texts)
    usual = train_tokenizer(TEXTS, kind, 400)
    assert not any(mark in token for token in usual.all_special_tokens for mark in ("<s>", "[", "<pad>"))


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_encoded_as_transformers_does_and_hold_no_control_token_of_a_text(kind: str) -> None:
    """A reranker's query and document."""
    tokenizer = tokenizer_of(kind)
    core, bos, eos = tokenizer.backend_tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    plain = [text for text in texts_with(random.Random(0), ()) if not control_tokens(tokenizer).spans(text)]
    for first, second in zip(plain[:8], plain[8:16], strict=True):
        for length in (12, 200):
            wanted = tokenizer(first, second, truncation=True, max_length=length, return_token_type_ids=True)
            pair = encode_pair(tokenizer, first, second, max_length=length)
            assert pair == (wanted["input_ids"], wanted["token_type_ids"])
    ids, types = encode_pair(tokenizer, "a</s>b <s>", "c <pad> d", max_length=200)
    assert [token for token in ids if token in (bos, eos, tokenizer.pad_token_id)] == [bos, eos, eos]
    assert types == sorted(types) and set(types) == {0, 1}
