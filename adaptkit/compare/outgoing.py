"""What a study sends to an API and what that costs at most: known before anything is sent, and refused above
the study's ceiling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adaptkit.client.paid import TURN_TOKENS, TokenPrice
from adaptkit.data.drawing import PASSAGE_BYTES
from adaptkit.errors import BudgetError
from adaptkit.finetune.asked_answers import LABEL_TOKENS, MAX_DEV_ROWS
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.prompt_formats import num_examples
from adaptkit.finetune.prompt_passages import NUM_PASSAGES
from adaptkit.study.api import ApiConfig
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.task import TaskConfig
from adaptkit.study.task_size import BYTES_PER_TOKEN, TaskSize

LABEL_BYTES = 32
"""Of a label's name, about."""
SECONDS_PER_REQUEST = 1.5
"""Until an API has answered, in plans."""


@dataclass(frozen=True)
class Outgoing:
    """What one arm sends at most for one task, all seeds and formats, in tokens of BYTES_PER_TOKEN bytes."""

    arm: str
    task: str
    requests: int
    tokens_in: float
    tokens_out: float
    usd: float


def token_price(api: ApiConfig) -> TokenPrice:
    return TokenPrice(api.price.usd_per_million_in, api.price.usd_per_million_out)


def outgoing(config: StudyConfig, sizes: Mapping[str, TaskSize], settings_tried: int) -> Iterator[Outgoing]:
    """What each arm that asks an API sends for each of its tasks."""
    if config.api is None:
        return
    price = token_price(config.api)
    for arm in config.job_arms:
        if arm.origin is not Origin.API:
            continue
        for task in config.tasks_of(arm):
            requests = num_requests(task, sizes[task.name], settings_tried) * config.seeds
            tokens_in, tokens_out = (requests * each for each in _tokens_of_one(task, arm, sizes[task.name]))
            usd = price.usd(tokens_in, tokens_out)
            yield Outgoing(arm.name, task.name, requests, tokens_in, tokens_out, usd)


def num_requests(task: TaskConfig, size: TaskSize, settings_tried: int) -> int:
    """Requests of one seed: every format on development rows, and the best on the test."""
    return size.num_items + settings_tried * min(MAX_DEV_ROWS, task.dev_items or MAX_DEV_ROWS)


def _tokens_of_one(task: TaskConfig, arm: Arm, size: TaskSize) -> tuple[float, float]:
    """Tokens of a request with all of its examples and passages, and of the longest reply."""
    block = len(task.task_kind.instruction(task).encode()) / BYTES_PER_TOKEN
    labelled = "labels" in task.task_kind.asks
    answer = LABEL_TOKENS + LABEL_BYTES if labelled else FinetuneConfig.model_fields["max_new_tokens"].default
    answer = size.answer_tokens or answer
    shots = num_examples(task.examples, size.num_labels)
    turns = block + (shots + 1) * (size.text_tokens + 2 * TURN_TOKENS) + shots * answer
    if arm.looks_up:
        turns += max(NUM_PASSAGES) * PASSAGE_BYTES / BYTES_PER_TOKEN
    return turns, float(answer)


def check_ceiling(config: StudyConfig, rows: list[Outgoing]) -> None:
    """Raises: BudgetError where the API may cost more than the study may spend there."""
    usd = sum(row.usd for row in rows)
    if config.api is not None and usd > config.api.ceiling:
        tokens = sum(row.tokens_in + row.tokens_out for row in rows)
        requests = sum(row.requests for row in rows)
        what = f"the API may cost ${usd:.2f} ({requests:,} requests, {tokens:,.0f} tokens); the ceiling is"
        fix = "raise api.ceiling, or lower test_items, dev_items, examples, seeds or budget.trials"
        raise BudgetError(f"{what} ${config.api.ceiling:g}", where="api.ceiling", fix=fix)


def outgoing_json(config: StudyConfig, rows: list[Outgoing]) -> dict[str, Any]:
    """What leaves the house, for a dry run; empty where nothing does."""
    if config.api is None or not rows:
        return {}
    return {
        "url": config.api.url,
        "model": config.api.model,
        "rows": [asdict(row) for row in rows],
        "usd": sum(row.usd for row in rows),
        "ceiling": config.api.ceiling,
    }
