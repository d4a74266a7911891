"""Say how much of a text a model read, where that was not all of it."""

from __future__ import annotations

from adaptkit.client.openai import Client
from adaptkit.demo.shown_models import ShownModel
from adaptkit.errors import ServerError


def cut_sentence(client: Client, model: ShownModel, text: str, most_chars: int) -> str:
    """Say where a text ends for a model; empty where it is read whole, or the server does not tell.

    Args:
        most_chars: characters that the page takes.
    """
    if not model.max_len or len(text.encode()) <= model.max_len:  # no token is shorter than a byte
        return _page_end(text, most_chars)
    try:
        count = len(client.tokenize(model.name, text[:most_chars], add_special_tokens=True))
    except (ServerError, ValueError, KeyError, TypeError):
        return _page_end(text, most_chars)
    if count <= model.max_len:
        return _page_end(text, most_chars)
    return (
        f"Only the first {model.max_len:,} of {count:,} tokens were read: the model\u2019s window ends there."
    )


def _page_end(text: str, most_chars: int) -> str:
    if len(text) < most_chars:
        return ""
    return f"The text ends after its first {most_chars:,} characters: no more was read."
