"""Put passages into rows, before the question that a row's answer follows: what training with looked-up text
reads.

A question stands in a row as it does in a prompt with passages, so that a trained model is asked as it was
taught. As in prompts, question and answer have their room first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from adaptkit.data.message_fields import taught_turns
from adaptkit.data.readers import Row
from adaptkit.finetune.prompt_passages import fitting_part
from adaptkit.finetune.prompt_template import SEPARATOR, Question, question_and_answer


def row_with_passages(row: Row, passages: Sequence[str]) -> Row:
    """A row whose question stands behind these passages; its id stays."""
    if not passages:
        return row
    head = Question("", passages=tuple(passages)).looked_up + SEPARATOR
    values = dict(row.values)
    if "messages" in values:
        values["messages"] = _before_last_question(values["messages"], head)
    else:
        role = "prompt" if "prompt" in values else "text"
        values[role] = head + values[role]
    return replace(row, values=values)


def row_with_fitting(
    row: Row, passages: Sequence[str], fits: Callable[[Row], bool]
) -> tuple[Row, tuple[str, ...]]:
    """A row with as many passages as it has room for, and these; the last may be cut after a sentence."""
    chosen: tuple[str, ...] = ()

    def fits_with(text: str) -> bool:
        return fits(row_with_passages(row, (*chosen, text)))

    for passage in passages:
        text = fitting_part(passage, fits_with)
        if text:
            chosen = (*chosen, text)
        if text != passage:
            break
    return row_with_passages(row, chosen), chosen


def searched_for(row: Row) -> str:
    """What passages are looked up by: the question of a row, or its text."""
    return row.values["text"] if "text" in row.values else question_and_answer(row)[0].whole


def _before_last_question(messages: Sequence[dict[str, Any]], head: str) -> list[dict[str, Any]]:
    """Messages with a text before the user's last turn that an answer is taught to."""
    last = taught_turns(messages)[-1]
    place = max((i for i in range(last) if messages[i]["role"] == "user"), default=None)
    if place is None:
        return [{"role": "user", "content": head.strip()}, *messages]
    turn = messages[place]
    is_parts = isinstance(turn["content"], list)
    content = [{"type": "text", "text": head}, *turn["content"]] if is_parts else head + turn["content"]
    return [*messages[:place], {**turn, "content": content}, *messages[place + 1 :]]
