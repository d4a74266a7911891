"""The names of an embedding model's prompts: which one goes before queries, and which before documents.

    prompt_for("document", {"query": "query: ", "passage": "passage: "})     # "passage"

Loads no torch: servers, clients and the demo ask it as training does.
"""

from __future__ import annotations

from collections.abc import Container

QUERY, DOCUMENT = "query", "document"
NAMES = {QUERY: (QUERY,), DOCUMENT: ("document", "passage", "corpus")}
"""What texts are -> names that sentence-transformers looks for, the first that is there."""


def prompt_for(texts: str, names: Container[str]) -> str | None:
    """Choose a model's prompt for queries or documents; None, the default, where it has no such one."""
    return next((name for name in NAMES.get(texts, ()) if name in names), None)
