"""What is cut of texts, and what a tokenizer cannot give back, is counted and said once.

Home of notices and compare.lost_text.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from adaptkit import notices
from adaptkit.compare import lost_text
from adaptkit.compare.lost_text import cut_sentences, lossy_tokenizers
from adaptkit.data.cut_texts import CutTexts, tell_cuts
from adaptkit.data.readers import DataConfig
from adaptkit.errors import ModelError


def test_what_is_cut_is_said_with_the_share_that_is_lost() -> None:
    said: list[str] = []
    cut = CutTexts.of([48] * 214, 24)
    tell_cuts({"train": cut}, "max_length", said.append)
    assert said == [
        "214 of 214 texts are cut at 24 tokens: 50 % of all tokens are lost; max_length changes that"
    ]


def test_nothing_is_said_where_nothing_is_cut() -> None:
    tell_cuts({"train": CutTexts.of([1, 24], 24), "dev": CutTexts()}, "max_length", pytest.fail)


def test_other_parts_stand_in_brackets() -> None:
    said: list[str] = []
    parts = {"train": CutTexts.of([30, 10], 20), "dev": CutTexts.of([20], 20), "test": CutTexts.of([60], 20)}
    tell_cuts(parts, "max_length", said.append)
    tell_cuts({name: parts[name] for name in ("dev", "test")}, "size.seq_len", said.append)
    assert said[0].startswith(
        "1 of 2 texts are cut at 20 tokens (test: 1 of 1): 50 % of all tokens are lost;"
    )
    assert said[1].startswith("1 of 1 test texts are cut at 20 tokens: 67 % of all")


@given(st.lists(st.integers(0, 99)), st.lists(st.integers(0, 99)), st.integers(1, 50))
def test_counts_add_up(first: list[int], second: list[int], limit: int) -> None:
    together = CutTexts.of(first, limit).plus(CutTexts.of(second, limit))
    assert together == CutTexts.of(first + second, limit)
    kept = sum(min(size, limit) for size in first + second)
    assert together.num_tokens - together.num_lost == kept
    assert bool(together.sentence("x")) == any(size > limit for size in first + second)


def test_a_sentence_is_shown_once_and_by_the_first_rank(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_said", set())
    notices.tell("caf\u00e9 'x'")
    notices.tell("caf\u00e9 'x'")
    shown = capsys.readouterr()
    assert [json.loads(line) for line in shown.err.splitlines()] == [
        {"note": "caf\u00e9 'x'"}
    ] and not shown.out
    monkeypatch.setenv("RANK", "1")
    notices.tell("another")
    assert capsys.readouterr().err == ""


def test_a_plan_says_which_tasks_lose_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(name: str, texts: list[str], max_length: int) -> Any:
        return SimpleNamespace(
            name=name, max_length=max_length, task_kind=SimpleNamespace(texts=lambda task: texts)
        )

    tasks = [task("long", ["a " * 90, "b"], 20), task("short", ["a"], 20), task("none", [], 20)]
    sentences = cut_sentences(cast(Any, SimpleNamespace(base="", tasks=tasks)))
    assert list(sentences) == ["long"]
    assert sentences["long"].startswith("1 of 2 texts, estimated by their bytes, are cut at 20 tokens")
    assert sentences["long"].endswith("tasks.0.max_length changes that")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the printer stands idle, The other too, 1 2 3 4 5 6 7 8 9 and so on " * 9, "cannot give back"),
        ("the printer stands idle", ""),
        ("THE PRINTER STANDS IDLE", None),
    ],
)
def test_a_plan_says_what_tokenizers_cannot_give_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str | None
) -> None:
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")
    monkeypatch.setattr(lost_text.models, "find", Path)
    monkeypatch.setattr(lost_text.models, "load_tokenizer", lambda folder: small_letters())
    monkeypatch.setattr(lost_text, "scores_text", lambda config: True)
    corpus = SimpleNamespace(train=DataConfig(files=[str(tmp_path / "text.jsonl")]), test=None)
    arms = [SimpleNamespace(origin=SimpleNamespace(starts_random=True))]
    own = SimpleNamespace(path="own")
    config = cast(Any, SimpleNamespace(base="given", domain=corpus, tokenizer=own, parsed_arms=arms))
    if said is None:
        with pytest.raises(ModelError, match="cannot give back 8") as refused:
            lossy_tokenizers(config)
        assert refused.value.where == "base" and "works on bytes" in str(refused.value)
        return
    sentences = lossy_tokenizers(config)
    assert list(sentences) == (["base", "tokenizer.path"] if said else [])
    assert all(said in sentence for sentence in sentences.values())
    arms[0].origin.starts_random = False
    assert "tokenizer.path" not in lossy_tokenizers(config), "no arm uses it"
    monkeypatch.setattr(lost_text, "scores_text", lambda config: False)
    assert not lossy_tokenizers(config)


def small_letters() -> PreTrainedTokenizerFast:
    """One token per byte of the text in small letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)
