"""Make a smaller vocabulary: the tokens that the domain's text uses most, and what they are built from.

Every text stays encodable. BPE and Unigram keep their bytes and, BPE for each token kept, the tokens that are
merged into it; WordPiece and Unigram keep their single characters. A token that goes is written by smaller
ones, which the teacher knows too: it reads the student's tokens by their old ids, and its distribution is
taken over the tokens that are left.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from adaptkit.errors import ModelError
from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def prune_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], size: int
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A tokenizer of at most `size` tokens, and the old id of each new one (ascending).

    Raises: ModelError if the special tokens and characters alone are more, or the tokenizer is of another
        kind.
    """
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    model = core["model"]
    vocab: dict[str, int] = tokenizer.get_vocab()
    if model["type"] not in ("BPE", "WordPiece", "Unigram"):
        what = f"a {model['type']} vocabulary cannot be pruned"
        raise ModelError(what, where="student.vocab_size", fix="set it to 0")
    merged_from: dict[str, tuple[str, str]] = {}
    if model["type"] == "BPE":
        merged_from = _merged_from(model)
    selected = set(_indispensable(core, vocab))
    if len(selected) > size:
        what = f"{len(selected):,} of the {len(vocab):,} tokens are special or single characters"
        fix = f"ask for at least {len(selected):,}, better twice as many"
        raise ModelError(f"{what}, more than {size:,}", where="student.vocab_size", fix=fix)
    counts = Counter(token_id for ids in encode(tokenizer, texts) for token_id in ids)
    by_id = {token_id: token for token, token_id in vocab.items()}
    for token_id, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        missing = _missing_parts(by_id[token_id], merged_from, selected)
        if len(selected) + len(missing) <= size:
            selected |= missing
    old = sorted(vocab[token] for token in selected)
    return _rebuilt(tokenizer, core, [by_id[token_id] for token_id in old]), old


def _indispensable(core: dict[str, Any], vocab: dict[str, int]) -> Iterable[str]:
    """Added and special tokens, the unknown one, and every token of one character or byte."""
    yield from (token["content"] for token in core["added_tokens"])
    model = core["model"]
    marker = model.get("continuing_subword_prefix") or ""
    if model["type"] == "Unigram":
        yield model["vocab"][model["unk_id"] or 0][0]
    elif model.get("unk_token") in vocab:
        yield model["unk_token"]
    yield from (token for token in vocab if len(token.removeprefix(marker)) == 1)
    if model.get("byte_fallback"):
        yield from (token for token in vocab if _BYTE.fullmatch(token))


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The pairs of tokens that a BPE model joins, in order; older files write a pair as one string."""
    for merge in model["merges"]:
        if isinstance(merge, str):
            merge = merge.split(" ")
        first, second = merge
        yield first, second


def _merged_from(model: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Token -> the two tokens that its first merge joins."""
    parts: dict[str, tuple[str, str]] = {}
    for first, second in _merges(model):
        parts.setdefault(first + second, (first, second))
    return parts


def _missing_parts(token: str, merged_from: dict[str, tuple[str, str]], selected: set[str]) -> set[str]:
    """`token` and the tokens that it is built from, as far as they are not selected yet."""
    missing, waiting = set(), [token]
    while waiting:
        current = waiting.pop()
        if current not in selected and current not in missing:
            missing.add(current)
            waiting += merged_from.get(current, ())
    return missing


def _rebuilt(
    tokenizer: PreTrainedTokenizerFast, core: dict[str, Any], tokens: list[str]
) -> PreTrainedTokenizerFast:
    """The same tokenizer over `tokens`, numbered in their order."""
    new = {token: number for number, token in enumerate(tokens)}
    model = core["model"]
    if model["type"] == "Unigram":
        unknown = model["vocab"][model["unk_id"] or 0][0]
        pairs = [pair for pair in model["vocab"] if pair[0] in new]
        model["vocab"] = sorted(pairs, key=lambda pair: new[pair[0]])
        model["unk_id"] = next(number for number, pair in enumerate(model["vocab"]) if pair[0] == unknown)
    else:
        model["vocab"] = {token: number for token, number in new.items() if token in model["vocab"]}
    if model["type"] == "BPE":
        model["merges"] = [list(pair) for pair in _merges(model) if {*pair, "".join(pair)} <= new.keys()]
    core["added_tokens"] = [{**token, "id": new[token["content"]]} for token in core["added_tokens"]]
    _renumber(core.get("post_processor"), new)
    pruned: Any = copy.deepcopy(tokenizer)
    pruned._tokenizer = Tokenizer.from_str(json.dumps(core))
    return pruned


def _renumber(processor: dict[str, Any] | None, new: dict[str, int]) -> None:
    """Give the special tokens that a post-processor adds their new ids."""
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber(part, new)
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], new[processor[name][0]]]
    if isinstance(processor.get("special_tokens"), dict):
        for entry in processor["special_tokens"].values():
            entry["ids"] = [new[token] for token in entry["tokens"]]
