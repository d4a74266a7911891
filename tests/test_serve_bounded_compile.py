"""Constraints are compiled in processes that end in time, as vLLM would, and remembered."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptkit.serve.engine import bounded_compile
from adaptkit.serve.engine.bounded_compile import Compiled, TooSlow, in_own_process


def sleeps() -> bytes:
    time.sleep(60)
    return b""


def fails() -> bytes:
    raise RuntimeError("no such rule")


def test_what_another_process_made_comes_back() -> None:
    large = b"x" * 5_000_000
    assert in_own_process(lambda: large, 30) == b"+" + large
    assert in_own_process(lambda: b"", 0) == b"+"
    assert in_own_process(fails, 30) == b"-the constraint does not compile: no such rule"


def test_what_takes_too_long_is_ended_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTKIT_LIMIT_COMPILE_SECONDS", "1")
    compiled, began = Compiled(), time.monotonic()
    for _ in range(20):
        with pytest.raises(TooSlow, match="did not compile within 1 s"):
            compiled.get("bomb", sleeps)
    assert time.monotonic() - began < 20, "only the first one was tried"
    assert compiled.get("good", lambda: b"1") == b"1" == compiled.get("good", lambda: b"2")


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_compile, "in_own_process", lambda make, seconds: b"+" + make())
    compiled = Compiled()
    for i in range(100):
        compiled.get(i, lambda: b"x")
    assert len(compiled._texts) == bounded_compile.REMEMBERED


def backend_of(tokenizer: Any) -> Any:
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

    config = SimpleNamespace(
        structured_outputs_config=SimpleNamespace(disable_any_whitespace=True),
        model_config=None,
        speculative_config=None,
    )
    return XgrammarBackend(config, tokenizer=tokenizer, vocab_size=len(tokenizer))


def test_a_grammar_from_another_process_is_vllms_own(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="the serve extra is not installed")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
    bytes_ = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bytes_.pre_tokenizer, bytes_.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="</s>")
    backend = backend_of(tokenizer)
    key = (StructuredOutputOptions.JSON, '{"type": "object", "properties": {"a": {"type": "integer"}}}')
    bounded = bounded_compile.compile_bounded(backend, key, None, Compiled())
    direct = backend.compile_grammar(*key)
    for text, fits in (('{"a":3}', True), ('{"a":"b"}', False)):
        ids = tokenizer(text)["input_ids"]
        assert (bounded.validate_tokens(ids) == ids) == fits == (direct.validate_tokens(ids) == ids)
    with pytest.raises(TooSlow, match="does not compile"):
        bounded_compile.compile_bounded(
            backend, (StructuredOutputOptions.GRAMMAR, "x ::= ("), None, Compiled()
        )
