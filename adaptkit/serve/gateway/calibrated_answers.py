"""Say in a classifier's answer how sure it is after scaling, and whether a person should decide instead.

    {"index": 0, "label": "refund", "probs": [...], "calibrated_probs": [...], "confidence": 0.71,
     "abstain": true}

`probs` stay what the model gave. Temperature and threshold are those of the exported folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from adaptkit.export.record import ConfidenceRecord

_TINY = 1e-12


def with_abstention(body: bytes, record: ConfidenceRecord) -> bytes:
    """Add confidence and `abstain` to every row of an answer of /classify; another body stays as it is."""
    try:
        answer = json.loads(body)
        rows = answer["data"]
        for row in rows:
            row |= judged(row["probs"], record)
    except (ValueError, KeyError, TypeError):
        return body
    return json.dumps(answer, ensure_ascii=False).encode()


def judged(probabilities: Sequence[float], record: ConfidenceRecord) -> dict[str, Any]:
    """The fields that are added for one text."""
    scaled = [math.log(max(p, _TINY)) / record.temperature for p in probabilities]
    raised = [math.exp(value - max(scaled)) for value in scaled]
    calibrated = [value / sum(raised) for value in raised]
    sure = max(calibrated)
    abstain = record.threshold is not None and sure < record.threshold
    return {"calibrated_probs": calibrated, "confidence": sure, "abstain": abstain}
