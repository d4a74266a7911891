"""What a draft is worth: how much of it is accepted on a domain's text, and that no answer changes by it.

The model is served twice, with the draft and without. Both continue the same beginnings of held-out texts
with temperature 0, and must write the same tokens. What was drafted and accepted is counted by vLLM.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from adaptkit.client.openai import Client, Completion
from adaptkit.client.relay import Relay
from adaptkit.errors import ConfigError, ServerError
from adaptkit.export.parity.http_check import EXACT, ROUNDED
from adaptkit.serve.bench_results import DraftFigures
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import routes

COMPARED = 16
"""Texts that both continue."""
FEWEST_TOKENS = 4
"""A shorter beginning is no text of the domain yet."""
DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
METRICS_S = 30.0


def beginnings(engine: Engine, texts: Sequence[str], num_tokens: int) -> list[str]:
    """Cut texts to about so many tokens; those that are too short to say anything are left out.

    Raises: ConfigError where none is left.
    """
    cut = []
    with Client(engine.url, engine.key) as client:
        for text in texts:
            length = len(client.tokenize(engine.name, text))
            if length >= FEWEST_TOKENS:
                cut.append(text[: max(1, len(text) * num_tokens // length)])
    if not cut:
        what = f"no text of {FEWEST_TOKENS} tokens or more was held out to measure a draft on"
        raise ConfigError(what, where="--draft", fix="give text: --text FILE")
    return cut


async def compare_drafts(
    served: Mapping[str, Engine], prompts: Sequence[str], num_tokens: int
) -> dict[str, DraftFigures]:
    """Hold each model with a draft against the same one without.

    Args:
        served: name -> its engine.
    Returns: by name; `counted` adds what is drafted and accepted from now on.
    Raises: ServerError where they write different tokens.
    """
    figures = {}
    for name, engine in served.items():
        if engine.launch.draft is None:
            continue
        folder = engine.launch.source.folder
        plain = next(other for other in served.values() if other.launch.source.folder == folder)
        compared = await asyncio.to_thread(compare_greedy, plain, engine, prompts, num_tokens)
        drafted, accepted = await drafted_and_accepted(engine)
        figures[name] = dataclasses.replace(compared, drafted=-drafted, accepted=-accepted)
    return figures


async def counted(engine: Engine, before: DraftFigures | None) -> DraftFigures | None:
    """Add what was drafted and accepted since `compare_drafts`; None for a model without a draft."""
    if before is None:
        return None
    drafted, accepted = await drafted_and_accepted(engine)
    return dataclasses.replace(before, drafted=before.drafted + drafted, accepted=before.accepted + accepted)


def compare_greedy(plain: Engine, drafted: Engine, prompts: Sequence[str], num_tokens: int) -> DraftFigures:
    """Continue texts with the draft and without, one by one.

    Args:
        prompts: the first few are asked.
        num_tokens: of each continuation.
    Returns: how many tokens were the same; nothing is known yet of what was accepted.
    Raises: ServerError where a token is another one, and not for two that are as good as equal.
    """
    tolerance = EXACT if drafted.launch.exact else ROUNDED
    same = ties = 0
    with Client(plain.url, plain.key) as one, Client(drafted.url, drafted.key) as other:
        for prompt in prompts[:COMPARED]:
            expected, got = (
                _continue(client, engine.name, prompt, num_tokens)
                for client, engine in ((one, plain), (other, drafted))
            )
            place = _first_difference(expected, got)
            same += place
            if place == num_tokens:
                continue
            if abs(expected.logprobs[place] - got.logprobs[place]) > tolerance:
                what = (
                    f"with the draft it writes something else: token {place + 1} after {prompt[-40:]!r} is "
                    f"{got.token_ids[place]}, and {expected.token_ids[place]} without"
                )
                fix = "serve it without --draft, and report it with both folders' config.json"
                raise ServerError(what, where=drafted.name, fix=fix)
            ties += 1
    draft = drafted.launch.draft
    assert draft is not None
    return DraftFigures(draft.source.name, draft.tokens, same, ties)


async def drafted_and_accepted(engine: Engine) -> tuple[int, int]:
    """Read how many tokens were drafted since the engine started, and how many of them accepted.

    Raises: ServerError where vLLM counts none.
    """
    async with Relay() as relay:
        page = await relay.get_text(engine.url + routes.METRICS, engine.key, METRICS_S)
    totals = {DRAFTED: 0.0, ACCEPTED: 0.0}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in totals:
                totals[sample.name] += sample.value
    if not totals[DRAFTED]:
        fix = "look into the log of its engine"
        raise ServerError("vLLM counted no drafted tokens", where=engine.name, fix=fix)
    return int(totals[DRAFTED]), int(totals[ACCEPTED])


def _continue(client: Client, name: str, prompt: str, num_tokens: int) -> Completion:
    options = {"ignore_eos": True, "logprobs": 0, "return_token_ids": True}
    answer = client.complete(name, prompt, max_tokens=num_tokens, **options)
    if not len(answer.token_ids) == len(answer.logprobs) == num_tokens:
        what = f"{len(answer.token_ids)} tokens came, {num_tokens} were asked for"
        raise ServerError(what, where=name, fix="give smaller --input-tokens and --output-tokens")
    return answer


def _first_difference(expected: Completion, got: Completion) -> int:
    """The place of the first token that differs; the length where none does."""
    pairs = zip(expected.token_ids, got.token_ids, strict=True)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), len(got.token_ids))
