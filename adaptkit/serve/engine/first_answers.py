"""Ask a server that is said to be healthy for its first answers, and hold them against what they must be."""

from __future__ import annotations

import math

from adaptkit.client.connection import Refusal
from adaptkit.client.openai import Client
from adaptkit.errors import ServerError
from adaptkit.export.parity.http_check import check_answers
from adaptkit.export.source import ONE_CLASS, Source, problem_type
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.expected_answers import Expected

PROBE_TEXT = "a"
BAD_REQUEST = 400


def check_answer(client: Client, source: Source, name: str) -> None:
    """Ask a model for one answer of its kind: a token, a vector, classes, tags or a relevance.

    A healthy server is not enough: on a CPU without AVX512 an int4 server starts, its /health says 200, and
    the first request kills it (vLLM issue 55613).

    Args:
        name: the source's own name or an adapter's.
    Raises: ServerError for an answer that is not finite, empty, or of another size.
    """
    if source.kind == "generate":
        completion = client.complete(name, PROBE_TEXT, max_tokens=1, ignore_eos=True, logprobs=0)
        good = completion.output_tokens == 1 and all(map(math.isfinite, completion.logprobs))
    elif source.kind == "embed":
        vector = client.embed(name, [PROBE_TEXT])[0]
        good = bool(vector) and all(map(math.isfinite, vector)) and any(vector)
    elif source.kind == "classify":
        _, probabilities = client.classify(name, [PROBE_TEXT])[0]
        right_size = not source.labels or len(probabilities) == len(source.labels)
        good = right_size and all(map(math.isfinite, probabilities))
        if _one_class(source):
            good = good and abs(sum(probabilities) - 1) < 1e-3
    elif source.kind == "tag":
        (tokens,) = client.tag(name, [PROBE_TEXT])
        good = bool(tokens) and all(abs(sum(chances) - 1) < 1e-3 for chances in tokens)
        good = good and all(not source.labels or len(c) == len(source.labels) for c in tokens)
    else:
        good = all(map(math.isfinite, client.rerank(name, PROBE_TEXT, [PROBE_TEXT])))
    if not good:
        what = "its first answer is none: not finite, empty, or of another size"
        raise ServerError(what, where=name, fix="adaptkit export it again")


def _one_class(source: Source) -> bool:
    """Whether a classifier's outputs are the probabilities of classes of which one is right."""
    return not (source.folder / "config.json").is_file() or problem_type(source.folder) == ONE_CLASS


def compare_with_transformers(client: Client, launch: Launch, expected: Expected) -> Expected:
    """Hold a plain folder's answers against those of transformers, where the user's flags allow that.

    Returns: what was compared, or why not.
    Raises: ServerError for other answers.
    """
    if expected.answers is None:
        return expected
    if launch.changes_model:
        return Expected(unchecked="flags after `--` change what it computes")
    try:
        check_answers(client, launch.name, expected.answers, exact=launch.exact)
    except Refusal as refusal:
        if refusal.status != BAD_REQUEST:
            raise
        return Expected(unchecked=f"vLLM refuses the sentences: {refusal.what}")
    return expected
