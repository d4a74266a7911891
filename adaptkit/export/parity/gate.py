"""Compare an export's answers with the trained model's, and refuse it where it loses more than is allowed.

Compared are the model as trained (base and adapter, where both are still there), the merged model, and the
folder that was written, read back from disk. `parity.json` holds every figure, its limit and whether it held;
what could not be compared is named with the reason. A server's answers are held against the export's in
reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from adaptkit.errors import ModelError
from adaptkit.export.formats import Format
from adaptkit.export.parity.answers import Answers
from adaptkit.models.control_tokens import encode
from adaptkit.study.scores import METRICS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EXACT = 1e-5
"""Float32 against float32, relative to the largest logit."""
MIN_COSINE = 0.999
"""Of embeddings in floating point; quantised ones have the format's own limit."""
ROUNDING = 1e-9
"""0.8 - 0.76 is more than 0.04."""


@dataclass(frozen=True)
class Check:
    """One figure of the gate.

    Attributes:
        before, after: of the trained and of the exported model; None where only their distance is measured.
        loss: how much worse the export is, or how far away.
        limit: the most that it may be; None for a figure that is only reported.
    """

    name: str
    before: float | None
    after: float | None
    loss: float
    limit: float | None

    @property
    def ok(self) -> bool:
        return self.limit is None or self.loss <= self.limit + ROUNDING  # False for nan

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "loss": self.loss,
            "limit": self.limit,
            "ok": bool(self.ok),
        }

    def __str__(self) -> str:
        figures = f"loss {self.loss:.2g}"
        if self.before is not None:
            figures = f"{self.before:.4f} -> {self.after:.4f}, {figures}"
        if self.limit is not None:
            figures += f" of {self.limit:.2g} allowed"
        return f"{self.name}: {figures}"


@dataclass(frozen=True)
class Limits:
    """What an export may lose; negative losses (gains) always pass.

    Attributes:
        bpb: bits per byte.
        score: of the task's metric, or of the mean cosine of embeddings to the source's.
        exact: whether both sides are float32, so that answers must be equal.
        stated: whether `score` was given by the user; if not, one held-out item may always flip.
        floating: whether the export keeps floating point: its embeddings then have MIN_COSINE.
    """

    bpb: float
    score: float
    exact: bool = False
    stated: bool = False
    floating: bool = False

    @classmethod
    def of(cls, format: Format, bpb: float | None, score: float | None) -> Limits:
        """Take the format's own limits unless others are given."""
        limits = cls(
            bpb=format.max_loss_bpb,
            score=format.max_loss_score,
            exact=format.name == "fp32",
            stated=score is not None,
            floating=format.grid is None,
        )
        if bpb is not None:
            limits = replace(limits, bpb=bpb)
        if score is not None:
            limits = replace(limits, score=score)
        return limits

    @property
    def distance(self) -> float | None:
        """Largest distance of logits and log-probabilities; None where it is only reported."""
        return EXACT if self.exact else None

    @property
    def one_minus_cosine(self) -> float:
        if self.floating and not self.stated:
            return 1 - MIN_COSINE
        return self.score

    def score_of(self, num_items: int) -> float:
        """Limit the loss of a score that is a mean over so many items."""
        if self.stated or self.exact:
            return self.score
        return max(self.score, 1 / max(1, num_items))


def compare(before: Answers, after: Answers, limits: Limits, num_items: int = 0) -> list[Check]:
    """Compare each figure that both models have, one check for each.

    Args:
        num_items: held-out items that the scores are means of.
    """
    checks: list[Check] = []
    if before.logprobs is not None and after.logprobs is not None:
        share = _share_of_unequal_tokens(before.greedy, after.greedy)
        limit = 0.0 if limits.exact else None
        checks.append(Check("greedy tokens that differ, share", None, None, share, limit))
        name = "largest change of a token's log-probability, nats"
        change = float((before.logprobs - after.logprobs).abs().max())
        checks.append(Check(name, None, None, change, limits.distance))
    if before.bits_per_byte is not None and after.bits_per_byte is not None:
        loss = after.bits_per_byte - before.bits_per_byte
        checks.append(Check("bits per byte", before.bits_per_byte, after.bits_per_byte, loss, limits.bpb))
    if before.outputs is not None and after.outputs is not None:
        checks.extend(_compare_outputs(before.outputs, after.outputs, limits, bool(before.scores)))
    if before.vectors is not None and after.vectors is not None:
        cosine = float((before.vectors * after.vectors).sum(-1).mean())
        name = "mean cosine of embeddings to the source's"
        checks.append(Check(name, 1.0, cosine, 1 - cosine, limits.one_minus_cosine))
    for place, (name, value) in enumerate(before.scores.items()):
        # the first score decides: one flipped item moves macro-F1 by any amount
        limit = limits.score_of(num_items) if place == 0 else None
        loss = value - after.scores[name]
        if name in METRICS and not METRICS[name].higher_is_better:
            loss = -loss
        checks.append(Check(name, value, after.scores[name], loss, limit))
    return checks


def _share_of_unequal_tokens(before: Sequence[list[int]], after: Sequence[list[int]]) -> float:
    longest = equal = 0
    for left, right in zip(before, after, strict=True):
        longest += max(len(left), len(right))
        equal += sum(a == b for a, b in zip(left, right, strict=False))
    if not longest:
        return 0.0
    return 1 - equal / longest


def _compare_outputs(before: Tensor, after: Tensor, limits: Limits, scored: bool) -> list[Check]:
    """Compare a classifier's or reranker's logits.

    Without scored items predictions may flip, or a reranker's scores drift apart, as far as a score may fall.
    """
    name = "largest change of a logit, relative to the largest"
    checks = [Check(name, None, None, _relative_change(before, after), limits.distance)]
    if before.shape[1] > 1:
        flips = float((before.argmax(-1) != after.argmax(-1)).double().mean())
        limit = None if scored else limits.score_of(len(before))
        checks.append(Check("predictions that differ, share", None, None, flips, limit))
    else:
        correlation = _correlation(before[:, 0], after[:, 0])
        name = "correlation of scores with the source's"
        limit = EXACT if limits.exact else limits.score
        checks.append(Check(name, 1.0, correlation, 1 - correlation, limit))
    return checks


def _relative_change(before: Tensor, after: Tensor) -> float:
    return float((before - after).abs().max() / before.abs().max().clamp(min=1.0))


def _correlation(before: Tensor, after: Tensor) -> float:
    """Compute Pearson's correlation of scores [N]; 1 where the source tells no texts apart."""
    x, y = before - before.mean(), after - after.mean()
    if x.norm() <= ROUNDING:
        return 1.0
    return float((x * y).sum() / (x.norm() * y.norm()))


def merge_checks(trained: Answers, merged: Answers) -> list[Check]:
    """Compare the merged model with base and adapter: they must be equal in float32."""
    pairs = (
        (trained.logprobs, merged.logprobs),
        (trained.outputs, merged.outputs),
        (trained.vectors, merged.vectors),
    )
    before, after = next((x, y) for x, y in pairs if x is not None and y is not None)
    name = "largest change by merging the adapter, relative"
    checks = [Check(name, None, None, _relative_change(before, after), EXACT)]
    if trained.greedy:
        differing = sum(x != y for x, y in zip(trained.greedy, merged.greedy, strict=True))
        name = "greedy answers that differ by merging, share"
        checks.append(Check(name, None, None, differing / len(trained.greedy), 0.0))
    return checks


def token_checks(
    before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: list[str]
) -> list[Check]:
    """Compare the tokenizers' ids in training and export: the same, at most one BOS, the same chat prompt.

    Args:
        before, after: tokenizers, read from the trained and from the exported folder.
    """
    bos, ids = after.bos_token_id, [after(text)["input_ids"] for text in texts]
    changed = sum(trained != served for trained, served in zip(encode(before, texts), ids, strict=True))
    doubled = sum(_begins_with_two(row, bos) for row in ids)
    checks = [
        Check("texts that get other token ids", None, None, changed, 0),
        Check("texts that begin with more than one BOS", None, None, doubled, 0),
    ]
    if before.chat_template:
        talk = [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[-1]}]
        was, is_now = _chat_prompt(before, talk), _chat_prompt(after, talk)
        wrong = was != is_now or (is_now is not None and _begins_with_two(is_now[1], bos))
        checks.append(Check("chat prompt: text, token ids, or a second BOS", None, None, int(wrong), 0))
    return checks


def _chat_prompt(
    tokenizer: PreTrainedTokenizerFast, talk: list[dict[str, str]]
) -> tuple[str, list[int]] | None:
    """A conversation's text and token ids; None where the chat template refuses it."""
    try:
        text = str(tokenizer.apply_chat_template(talk, tokenize=False))
        ids: Any = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
    except Exception:  # a template is a program of the user's, and may fail in any way
        return None
    return text, list(ids)


def _begins_with_two(ids: list[int], bos: int | None) -> bool:
    return bos is not None and ids[:2] == [bos, bos]


def refuse(checks: Sequence[Check], format: str, where: str, figures: str) -> None:
    """Refuse an export with a figure beyond its limit.

    Args:
        figures: the file that holds all of them.
    Raises: ModelError naming the first such figure.
    """
    broken = [check for check in checks if not check.ok]
    if not broken:
        return
    first = broken[0]
    change = f"{first.loss:.4g}, {first.limit:.4g} is allowed"
    if first.before is not None:
        change = f"{first.before:.4f} became {first.after:.4f}; a loss of {change}"
    if len(broken) > 1:
        change += f" (and {len(broken) - 1} more)"
    what = f"the {format} export is too far from its source: {first.name}: {change}"
    fix = (
        "try --method gptq or another format, or state a larger loss with --max-loss-bpb or --max-loss-score"
    )
    raise ModelError(what, where=where, fix=f"{fix}; all figures: {figures}")
