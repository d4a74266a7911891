"""Text in, batches out: readers, tokenizers, token shards, packing, label masks, duplicates, overlap.

Names are loaded on first use, so importing this package loads neither torch nor transformers. Two functions
have the names of their modules and are imported from there: `adaptkit.data.overlap.overlap` and
`adaptkit.data.check.check`.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "DataConfig": "readers",
    "Dataset": "readers",
    "Row": "readers",
    "read": "readers",
    "split": "splitting",
    "take": "readers",
    "train_tokenizer": "tokenizers",
    "CHAT_TEMPLATE": "tokenizers",
    "extend_tokenizer": "extension",
    "write_shards": "shards",
    "TokenShards": "shards",
    "PackedTokens": "packing",
    "MixedSource": "packing",
    "packed_rows": "packing",
    "SupervisedRows": "supervised",
    "LabelledRows": "supervised",
    "TextRows": "supervised",
    "deduplicate": "dedup",
    "DedupReport": "dedup",
    "OverlapReport": "overlap",
    "remove_overlap": "overlap",
    "offline_corpus": "offline_corpus",
    "OfflineCorpus": "offline_corpus",
    "CheckReport": "check_report",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'adaptkit.data' has no attribute '{name}'")
    return getattr(importlib.import_module(f"adaptkit.data.{_HOME[name]}"), name)
