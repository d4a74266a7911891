"""Where arms that look things up find their passages: settings, and what a task is given to search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from adaptkit.config import Config
from adaptkit.data.readers import DataConfig

COLLECTION = "rag.collection"
"""Name of a collection of one's own, in a config and among the prepared data."""


class RagConfig(Config):
    """What the arms `generic+rag` and `continued+rag` search, and how."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"encoder"})

    collection: DataConfig | None = None
    """Text to look things up in; left out, it is the training part of the domain's text. What stands in a
    test is cut out of it."""
    encoder: str = ""
    """An encoder to search by: a folder or hub id. BM25 alone, the encoder alone and both fused compete on
    development rows; empty leaves BM25."""


@dataclass(frozen=True)
class Library:
    """What a task's passages are looked up in.

    Attributes:
        collection: prepared text, without what stands in a test.
        encoder: folder of the encoder to search by; None leaves BM25.
    """

    collection: Path
    encoder: Path | None = None
