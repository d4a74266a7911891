"""A metric of the user's: a Python file that gives each item a number, run in a process of its own.

    # metric.py
    def score(items):                     # items: [{"id", "text", "prediction", "reference" or "label", ...}]
        return [float(item["prediction"] == item["reference"]) for item in items]

One number per item is asked for, and the metric is their mean: so that differences between arms are paired by
item, and have intervals. A local module of Hugging Face `evaluate` is asked item by item.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.data.readers import Row
from adaptkit.errors import ConfigError
from adaptkit.run import file_digest
from adaptkit.study.user_file import UserFile

OWN_METRICS = ("own_score", "own_error")
"""Names of such a metric: larger numbers are better, or smaller ones."""
FIX = "the file defines score(items) and returns one number for each item"


def why_no_own_metric(metric: str, file: str, is_taken: bool) -> str:
    """What is wrong with how a task names a metric of the user's; empty where nothing is.

    Args:
        is_taken: whether the kind of task takes one.
    """
    own = metric in OWN_METRICS
    if own and not file:
        return f"metric '{metric}' is one of yours and needs `metric_file`"
    if file and not own:
        return f"`metric_file` is read for metric: {' or '.join(OWN_METRICS)}"
    if own and not is_taken:
        return "search is judged by rankings, and takes no metric of yours"
    return ""


@dataclass(frozen=True)
class OwnMetric:
    """A user's metric.

    Attributes:
        name: one of OWN_METRICS, and the column of item rows.
        file: the Python file.
        seconds: what scoring one set of items may take.
    """

    name: str
    file: Path
    seconds: float

    @property
    def digest(self) -> str:
        return file_digest(self.file)

    def check(self) -> None:
        """Load the file, without any item.

        Raises: ConfigError for a file that is not there, fails, or scores nothing.
        """
        self._values([])

    def complete(self, rows: Sequence[Row], items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Item rows with their number; rows of the same ids lend the text.

        Raises: ConfigError for a file that fails, takes too long, or gives something else than one number for
            each item.
        """
        texts = {row.id: row.text for row in rows}
        asked = [{"text": texts.get(str(item["id"]), ""), **item} for item in items]
        values = self._values(asked)
        if len(values) != len(asked):
            what = f"gives {len(values):,} numbers for {len(asked):,} items"
            raise ConfigError(what, where=str(self.file), fix=FIX)
        for item, value in zip(items, values, strict=True):
            if not isinstance(value, float) or not math.isfinite(value):
                what = f"gives {value} for the item {item['id']}, and no finite number"
                raise ConfigError(what, where=str(self.file), fix=FIX)
        return [{**item, self.name: value} for item, value in zip(items, values, strict=True)]

    def _values(self, items: Sequence[dict[str, Any]]) -> list[Any]:
        given = UserFile(self.file, "metric", self.seconds, FIX, raise_limit="raise metric_seconds")
        values: list[Any] = given.ask("score", items)
        return values
