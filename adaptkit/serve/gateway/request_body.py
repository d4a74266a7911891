"""What a request's body may hold: bounded sizes, and nothing that vLLM would misread, ignore or fetch.

The body is parsed strictly: one JSON object in UTF-8, no name twice in an object, finite numbers of at most
64 bits, no half surrogate pairs. So vLLM, which gets the same bytes, reads the same. Then each field is
checked, and a number that was sent as text counts as the number that vLLM makes of it; refusals are OpenAI's
error objects.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from adaptkit.serve.gateway.constraints import check_constraints
from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.gateway.request_fields import check_fields
from adaptkit.serve.limits import Limits

TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")
SEQUENCE_FIELDS = ("n",)
LOGPROB_FIELDS = ("logprobs", "top_logprobs", "prompt_logprobs")
LIST_FIELDS = ("prompt", "input", "messages", "stop", "tools", "documents", "items", "queries")
ONE_SEQUENCE = ("messages", "stop", "tools")
"""Lists whose items all belong to one sequence."""
PAIR_FIELDS = ("text_1", "text_2", "data_1", "data_2")
FREE_SCHEMAS = (
    "tools",
    "tool_choice",
    "functions",
    "response_format",
    "structured_outputs",
    "chat_template_kwargs",
    "logit_bias",
    "metadata",
    "filter",
)
"""Fields within which callers choose the names: a tool may well have an argument `image_url`."""
_MEDIA = re.compile(r"(input_)?(image|audio|video|file)(_url|_embeds|_pil)?|\w+_url|\w+_embeds")
UNSUPPORTED = {
    "chat_template": "the model's own template is used",
    "mm_processor_kwargs": "only text is served",
    "media_io_kwargs": "only text is served",
    "prompt_embeds": "send text or token ids",
    "kv_transfer_params": "it belongs to servers that share their caches",
    "vllm_xargs": "it reaches extensions that are not served",
}
OBJECTS = ("structured_outputs", "response_format", "stream_options", "chat_template_kwargs", "logit_bias")
OLD_GUIDED = (
    "vLLM 0.32 ignores it and answers without the constraint: use `structured_outputs` or `response_format`"
)
TOKEN_INPUT = (
    "token ids as `input` are refused: they would be read with this model's vocabulary, and ids of another "
    "tokenizer give a vector that looks right and is not. Send text "
    "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)
LARGEST = 2**63 - 1


def parse(body: bytes) -> dict[str, Any]:
    """Read the JSON object that `body` is.

    Raises: Refused (400).
    """
    try:
        text = body.decode("utf-8-sig")
        value = _DECODER.decode(text)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except Refused:
        raise
    except RecursionError:
        raise Refused(400, "the body is nested too deeply") from None
    except UnicodeError:
        raise Refused(400, "the body is not valid UTF-8, or holds half of a surrogate pair") from None
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body must be one JSON object")
    return value


def check(path: str, body: dict[str, Any], limits: Limits, own: Collection[str] = ()) -> None:
    """Refuse a body that is over a limit, or that vLLM would ignore, misread or fetch from elsewhere.

    Args:
        own: fields that the application behind reads itself.
    Raises: Refused (400).
    """
    for field, value in body.items():
        _check_known(field, value)
    for field in TOKEN_FIELDS:
        _at_most(body, field, limits.max_tokens)
    for field in SEQUENCE_FIELDS:
        _at_most(body, field, limits.sequences)
    for field in LOGPROB_FIELDS:
        _at_most(body, field, limits.logprobs, lowest=0)
    for field in (*LIST_FIELDS, *PAIR_FIELDS):
        _few_items(field, body.get(field), limits.items)
    if path == "/v1/embeddings" and _token_ids(body.get("input")):
        raise Refused(400, TOKEN_INPUT, param="input")
    for part in _media_parts(body):
        raise Refused(400, f"content of type {part!r} is not served: only text is")
    check_constraints(body, limits)
    check_fields(path, body, own)


def count_sequences(body: dict[str, Any]) -> int:
    """Count the sequences that a request makes a model work on: its texts, pairs or prompts, times `n`."""
    texts = 1
    for field in (*LIST_FIELDS, *PAIR_FIELDS):
        value = body.get(field)
        if (
            field in ONE_SEQUENCE
            or not isinstance(value, list)
            or all(isinstance(item, int) for item in value)
        ):
            continue
        texts = max(texts, len(value))
    wanted = [int(_as_number(body, field) or 1) for field in SEQUENCE_FIELDS]
    return texts * max(1, *wanted)


def _check_known(field: str, value: Any) -> None:
    if value is not None and field in UNSUPPORTED:
        raise Refused(400, f"`{field}` is not allowed: {UNSUPPORTED[field]}", param=field)
    if value is not None and field in OBJECTS and not isinstance(value, dict):
        raise Refused(400, f"`{field}` must be an object", param=field)  # vLLM 0.32 fails on others: 500
    if value is not None and field.startswith("guided_"):
        raise Refused(400, f"`{field}`: {OLD_GUIDED}", param=field)


def _at_most(body: dict[str, Any], field: str, limit: int, lowest: float = -math.inf) -> None:
    value = _as_number(body, field)
    if not limit or value is None:
        return
    if value > limit:
        raise Refused(400, f"`{field}` is {value:g}, at most {limit} are allowed", param=field)
    if value < lowest:  # vLLM reads -1 as all of the vocabulary
        raise Refused(400, f"`{field}` is {value:g}, at least {lowest:g} is allowed", param=field)


def _as_number(body: dict[str, Any], field: str) -> float | None:
    """Read a number as vLLM does, which takes "7", " 7 " and "7.0" for 7; None where none is given.

    Raises: Refused (400) for what is no number.
    """
    value = body.get(field)
    if value is None or isinstance(value, int | float):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Refused(400, f"`{field}` must be a number", param=field)
    return number


def _few_items(field: str, value: Any, limit: int) -> None:
    """Refuse a list that is too long; one text as token ids is one item, limited by the model's window."""
    items = value
    if isinstance(value, dict):
        items = value.get("content")
    if not limit or not isinstance(items, list) or len(items) <= limit:
        return
    if not all(isinstance(item, int) for item in items):
        raise Refused(400, f"`{field}` holds {len(items)} items, at most {limit} are allowed", param=field)


def _token_ids(value: Any) -> bool:
    """Say whether a value is a list of integers, or a list that holds one."""
    if not isinstance(value, list):
        return False
    inner = [item for part in value if isinstance(part, list) for item in part]
    return any(isinstance(item, int) for item in [*value, *inner])


def _media_parts(body: dict[str, Any]) -> Iterator[str]:
    """Find content parts that a server would fetch, wherever they stand: images, audio, video, files."""
    pending = [value for field, value in body.items() if field not in FREE_SCHEMAS]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            names = [name for name in (*value, value.get("type")) if isinstance(name, str)]
            yield from (name[:40] for name in names if _MEDIA.fullmatch(name))
            pending += [inner for name, inner in value.items() if name != "tool_calls"]
        elif isinstance(value, list):
            pending += [inner for inner in value if isinstance(inner, dict | list)]


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; a name that comes twice could be read either way."""
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise Refused(400, f"the name {twice[:40]!r} stands twice in one object")
    return value


def _integer(text: str) -> int:
    if len(text) <= 20 and -LARGEST - 1 <= int(text) <= LARGEST:
        return int(text)
    raise Refused(400, f"the number {text[:30]} does not fit into 64 bits")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused(400, f"the number {text[:30]} is not finite")
    return value


_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=_number, parse_constant=_number, object_pairs_hook=_unambiguous
)
