"""Say in a classifier's answer how sure it is after scaling, and whether a person should decide instead.

    {"index": 0, "label": "refund", "probs": [...], "calibrated_probs": [...], "confidence": 0.71,
     "abstain": true}

`probs` stay what the model gave. Temperature and threshold are those of the exported folder.
"""

from __future__ import annotations

import json

from adaptkit.export.record import ConfidenceRecord


def with_abstention(body: bytes, record: ConfidenceRecord) -> bytes:
    """Add confidence and `abstain` to every row of an answer of /classify; another body stays as it is."""
    try:
        answer = json.loads(body)
        rows = answer["data"]
        for row in rows:
            row |= record.judge(row["probs"])
    except (ValueError, KeyError, TypeError):
        return body
    return json.dumps(answer, ensure_ascii=False).encode()
