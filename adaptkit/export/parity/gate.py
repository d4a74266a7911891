"""The parity gate: an export must answer as the model that was trained does, or lose no more than is stated.

Compared are the model as trained (base and adapter, where both are still there), the merged model, and the
folder that was written, read back from disk. `parity.json` holds every figure, its limit and whether it held;
what could not be compared is named with the reason. A server's answers are held against the export's in
reference.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from adaptkit.errors import ModelError
from adaptkit.export.formats import Format
from adaptkit.export.parity.answers import Answers

EXACT = 1e-5  # float32 against float32, relative to the largest logit
MIN_COSINE = 0.999  # of embeddings in floating point; quantised ones have `max_loss_score`
ROUNDING = 1e-9  # 0.8 - 0.76 is more than 0.04


@dataclass(frozen=True)
class Limits:
    """What an export may lose; negative losses (gains) always pass.

    Attributes:
        bpb: bits per byte.
        score: of the task's metric, or of the mean cosine of embeddings to the source's.
        stated: whether `score` was given by the user; if not, one held-out item may always flip.
    """

    bpb: float
    score: float
    stated: bool = False

    @classmethod
    def of(cls, format: Format, bpb: float | None, score: float | None) -> Limits:
        """The format's own limits unless given."""
        given = format.max_loss_score if score is None else score
        return cls(format.max_loss_bpb if bpb is None else bpb, given, score is not None)


def compare(
    before: Answers, after: Answers, format: Format, limits: Limits, num_items: int = 0
) -> list[dict[str, Any]]:
    """One check per figure: name, before, after, loss, limit, ok; the limit is null for figures that are only
    told."""
    checks: list[dict[str, Any]] = []
    exact = format.name == "fp32"
    if before.logprobs is not None and after.logprobs is not None:
        pairs = [
            (a, b)
            for x, y in zip(before.greedy, after.greedy, strict=True)
            for a, b in zip(x, y, strict=False)
        ]
        longest = sum(max(len(x), len(y)) for x, y in zip(before.greedy, after.greedy, strict=True))
        unequal = 1 - sum(a == b for a, b in pairs) / longest if longest else 0.0
        checks.append(_check("greedy tokens that differ, share", None, None, unequal, 0.0 if exact else None))
        moved = float((before.logprobs - after.logprobs).abs().max())
        checks.append(
            _check(
                "largest change of a token's log-probability, nats",
                None,
                None,
                moved,
                EXACT if exact else None,
            )
        )
    if before.bits_per_byte is not None and after.bits_per_byte is not None:
        loss = after.bits_per_byte - before.bits_per_byte
        checks.append(_check("bits per byte", before.bits_per_byte, after.bits_per_byte, loss, limits.bpb))
    if before.outputs is not None and after.outputs is not None:
        checks.extend(_output_checks(before.outputs, after.outputs, exact, limits, bool(before.scores)))
    if before.vectors is not None and after.vectors is not None:
        cosine = float((before.vectors * after.vectors).sum(-1).mean())
        allowed = limits.score if format.grid or limits.stated else 1 - MIN_COSINE
        checks.append(_check("mean cosine of embeddings to the source's", 1.0, cosine, 1 - cosine, allowed))
    allowed = limits.score if limits.stated or exact else max(limits.score, 1 / max(1, num_items))
    for place, (name, value) in enumerate(
        before.scores.items()
    ):  # the first decides: one flip moves macro-F1 by any amount
        checks.append(
            _check(name, value, after.scores[name], value - after.scores[name], None if place else allowed)
        )
    return checks


def _output_checks(
    before: torch.Tensor, after: torch.Tensor, exact: bool, limits: Limits, scored: bool
) -> list[dict[str, Any]]:
    """Classifiers and rerankers; without scored items predictions may flip, or scores drift apart, as far as
    the score may fall."""
    moved = float((before - after).abs().max() / before.abs().max().clamp(min=1.0))
    checks = [
        _check(
            "largest change of a logit, relative to the largest", None, None, moved, EXACT if exact else None
        )
    ]
    if before.shape[1] > 1:
        flips = float((before.argmax(-1) != after.argmax(-1)).double().mean())
        allowed = (
            None if scored else limits.score if limits.stated or exact else max(limits.score, 1 / len(before))
        )
        checks.append(_check("predictions that differ, share", None, None, flips, allowed))
    else:
        alike = _correlation(before[:, 0], after[:, 0])
        checks.append(
            _check(
                "correlation of scores with the source's",
                1.0,
                alike,
                1 - alike,
                EXACT if exact else limits.score,
            )
        )
    return checks


def _correlation(before: torch.Tensor, after: torch.Tensor) -> float:
    """Pearson's, of scores [N]: what a reranker's order lives on; 1 where the source tells no texts apart."""
    x, y = before - before.mean(), after - after.mean()
    return 1.0 if x.norm() <= ROUNDING else float((x * y).sum() / (x.norm() * y.norm()))


def merge_checks(trained: Answers, merged: Answers) -> list[dict[str, Any]]:
    """The merged model against base and adapter: equal in float32."""
    pairs = (
        (trained.logprobs, merged.logprobs),
        (trained.outputs, merged.outputs),
        (trained.vectors, merged.vectors),
    )
    before, after = next((x, y) for x, y in pairs if x is not None and y is not None)
    moved = float((before - after).abs().max() / before.abs().max().clamp(min=1.0))
    checks = [_check("largest change by merging the adapter, relative", None, None, moved, EXACT)]
    if trained.greedy:
        unequal = sum(x != y for x, y in zip(trained.greedy, merged.greedy, strict=True)) / len(
            trained.greedy
        )
        checks.append(_check("greedy answers that differ by merging, share", None, None, unequal, 0.0))
    return checks


def token_checks(before: Any, after: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Training's token ids against the exported tokenizer's: the same, at most one BOS in front, the same
    chat prompt.

    Args:
        before, after: tokenizers, read from the trained and from the exported folder.
    """
    from adaptkit.data.tokenizers import encode

    bos, ids = after.bos_token_id, [after(text)["input_ids"] for text in texts]
    changed = sum(trained != served for trained, served in zip(encode(before, texts), ids, strict=True))
    checks = [
        _check("texts that get other token ids", None, None, changed, 0),
        _check(
            "texts that begin with more than one BOS", None, None, sum(_doubled(row, bos) for row in ids), 0
        ),
    ]
    if before.chat_template:
        talk = [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[-1]}]
        words = [t.apply_chat_template(talk, tokenize=False) for t in (before, after)]
        rows = [t.apply_chat_template(talk, tokenize=True, return_dict=False) for t in (before, after)]
        wrong = words[0] != words[1] or rows[0] != rows[1] or _doubled(rows[1], bos)
        checks.append(_check("chat prompt: text, token ids, or a second BOS", None, None, int(wrong), 0))
    return checks


def _doubled(ids: list[int], bos: int | None) -> bool:
    return bos is not None and ids[:2] == [bos, bos]


def passed(checks: list[dict[str, Any]]) -> bool:
    return all(check["ok"] for check in checks)


def refuse(report: Mapping[str, Any], where: str, figures: str) -> None:
    """Raises: ModelError naming the first figure beyond its limit, and the file `figures` that holds all of
    them."""
    broken = [check for check in report["checks"] if not check["ok"]]
    if not broken:
        return
    first = broken[0]
    change = f"{first['loss']:.4g}, {first['limit']:.4g} is allowed"
    if first["before"] is not None:
        change = f"{first['before']:.4f} became {first['after']:.4f}; a loss of {change}"
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    what = f"the {report['format']} export is too far from its source: {first['name']}: {change}{more}"
    fix = (
        "try --method gptq or another format, or state a larger loss with --max-loss-bpb or --max-loss-score"
    )
    raise ModelError(what, where=where, fix=f"{fix}; all figures: {figures}")


def _check(
    name: str, before: float | None, after: float | None, loss: float, limit: float | None
) -> dict[str, Any]:
    ok = limit is None or loss <= limit + ROUNDING  # not so for nan
    return {"name": name, "before": before, "after": after, "loss": loss, "limit": limit, "ok": bool(ok)}
