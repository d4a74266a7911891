"""The fields that a request may have, by route: another one is refused by its name, not passed over.

vLLM answers as if a field that it does not know were not there: `temprature` samples at the default,
`functions` gives no call. What is here is what vLLM 0.32 reads, which a test holds against vLLM itself, and
what OpenAI's, Cohere's and Jina's clients may send beside it; and the fields of routes of our own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adaptkit.errors import nearest
from adaptkit.serve.gateway.refused import Refused


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EVERY = _words("model request_id priority cache_salt")
_TEMPLATE = _words("add_generation_prompt chat_template chat_template_kwargs continue_final_message")
_MESSAGES = _TEMPLATE | _words("messages add_special_tokens media_io_kwargs mm_processor_kwargs")
_CUT = _words("truncate_prompt_tokens truncation_side")
_GENERATE = (
    _EVERY
    | _CUT
    | _words(
        """add_special_tokens allowed_token_ids bad_words ec_transfer_params echo frequency_penalty ignore_eos
        include_stop_str_in_output kv_transfer_params length_penalty logit_bias logprob_token_ids logprobs
        max_tokens min_p min_tokens mm_payload n presence_penalty prompt_logprobs repetition_detection
        repetition_penalty response_format return_mm_kwargs return_token_ids return_token_offsets
        return_tokens_as_token_ids routed_experts_prompt_start seed session_id skip_special_tokens
        spaces_between_special_tokens stop stop_token_ids stream stream_interval stream_options
        structured_outputs temperature thinking_token_budget top_k top_p use_beam_search user vllm_xargs
        watermarking"""
    )
)
_POOLED = _EVERY | _CUT | _words("padding use_activation user")
_VECTORS = _words("dimensions embed_dtype encoding_format endianness")
_PAIRS = _POOLED | _words(
    "chat_template_kwargs documents instruction max_tokens_per_doc max_tokens_per_query mm_processor_kwargs"
)
_SCORE = _PAIRS | _words("text_1 text_2 data_1 data_2 queries items")
_RERANK = _PAIRS | _words("query top_n")
READ_BY_VLLM: dict[str, frozenset[str]] = {
    "/v1/chat/completions": _GENERATE
    | _MESSAGES
    | _words(
        """documents include_reasoning max_completion_tokens parallel_tool_calls reasoning_effort
        return_prompt_text tool_choice tools top_logprobs"""
    ),
    "/v1/completions": _GENERATE | _words("prompt prompt_embeds suffix"),
    "/v1/embeddings": _POOLED | _MESSAGES | _VECTORS | _words("input"),
    "/classify": _POOLED | _MESSAGES | _words("input"),
    "/pooling": _POOLED | _MESSAGES | _VECTORS | _words("input data task"),
    "/score": _SCORE,
    "/v1/score": _SCORE,
    "/rerank": _RERANK,
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/tokenize": _MESSAGES | _words("model prompt return_token_strs tools"),
    "/detokenize": _words("model tokens"),
}
"""Route -> the fields that vLLM 0.32 reads there."""
OURS: dict[str, frozenset[str]] = {
    "/v1/search": _words("query top_k filter every_passage rerank rerank_depth rerank_share")
}
"""Routes that vLLM does not have -> their fields."""
WITHOUT_EFFECT = _words(
    """metadata prediction prompt_cache_key prompt_cache_options prompt_cache_retention return_documents
    safety_identifier service_tier store user"""
)
"""Fields of other services that do not change what is answered; they are taken, and do nothing."""
PLAIN: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "verbosity": ("medium",),
}
"""Fields that vLLM does not read -> values that ask for what it does anyway."""
INSTEAD = {
    "best_of": "ask for `n` answers",
    "modalities": "only text is served",
    "audio": "only text is served",
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "web_search_options": "nothing is looked up",
    "verbosity": "say in the prompt how long an answer should be",
    "moderation": "use a classifier of your own",
    "max_chunks_per_doc": "use `max_tokens_per_doc`",
    "extra_body": "put its fields beside the others, as the argument of this name of the openai package does",
}
"""Fields that are known and not served -> what to do."""
_ACCEPTED = {path: fields | WITHOUT_EFFECT for path, fields in {**READ_BY_VLLM, **OURS}.items()}


def check_fields(path: str, body: dict[str, Any], own: Collection[str] = ()) -> None:
    """Refuse fields that would be passed over.

    Args:
        own: fields that the application behind reads itself, and does not hand on.

    Raises: Refused (400), naming the field and the one that was meant.
    """
    accepted = _ACCEPTED.get(path)
    if accepted is None or body.keys() <= accepted:
        return
    for field, value in body.items():
        if field in accepted or field in own or value is None or value in PLAIN.get(field, ()):
            continue
        if field in INSTEAD:
            raise Refused(400, f"`{field}` is not served: {INSTEAD[field]}", param=field)
        meant = nearest(field[:100], [*accepted, *own])
        what = f"`{field[:100]}` is no field of {path}{meant}: it would be passed over without a word"
        raise Refused(400, what, param=field[:100])
