"""Ready means one real answer: a token, a vector or a class. A healthy server is not enough.

On a CPU without AVX512 an int4 server starts, its /health says 200, and the first request kills it (vLLM
issue 55613).
"""

from __future__ import annotations

import math

from adaptkit.client.openai import Client
from adaptkit.errors import ServerError
from adaptkit.export.source import Source

TEXT = "a"


def answer(client: Client, source: Source, name: str) -> None:
    """Ask `name`, which is the source's own name or an adapter's, for one answer of its kind, and look
    whether it is one.

    Raises: ServerError.
    """
    if source.kind == "generate":
        found = client.complete(name, TEXT, max_tokens=1, ignore_eos=True, logprobs=0)
        good = found.output_tokens == 1 and all(math.isfinite(value) for value in found.logprobs)
    elif source.kind == "embed":
        vector = client.embed(name, [TEXT])[0]
        good = bool(vector) and all(map(math.isfinite, vector)) and any(vector)
    elif source.kind == "classify":
        _, probabilities = client.classify(name, [TEXT])[0]
        good = abs(sum(probabilities) - 1) < 1e-3 and (
            not source.labels or len(probabilities) == len(source.labels)
        )
    else:
        good = all(map(math.isfinite, client.rerank(name, TEXT, [TEXT])))
    if not good:
        what = "its first answer is none: not finite, empty, or of another size"
        raise ServerError(what, where=name, fix="adaptkit export it again")
