"""Score items by a metric of the user's; run as a script by `own_metric`.

    python -I own_metric_child.py metric.py answer.json < items-as-json  # values, or an error

Imports nothing of adaptkit. What the user's code prints goes to stderr.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def load(path: Path) -> Any:
    """The module of a file, with its folder on the path for what stands beside it."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("own_metric_of_the_user", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metric_class(module: Any) -> Any:
    """The class of an `evaluate` module; None where the file has none."""
    for value in vars(module).values():
        if inspect.isclass(value) and any(
            base.__module__.startswith("evaluate.") for base in value.__mro__[1:]
        ):
            return value
    return None


def one_by_one(metric: Any, items: list[dict[str, Any]]) -> list[Any]:
    """The values of a metric of `evaluate`, item by item: its first number of each."""
    values = []
    for item in items:
        of = metric.compute(
            predictions=[item["prediction"]], references=[item.get("reference", item.get("label"))]
        )
        values.append(next(float(value) for value in of.values()))
    return values


def answer(path: Path, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The values, or what is wrong and in which line of the user's file."""
    try:
        module = load(path)
        if callable(getattr(module, "score", None)):
            values = module.score(items) if items else []
        elif metric_class(module) is not None:
            values = one_by_one(metric_class(module)(keep_in_memory=True), items)
        else:
            return {"error": "defines neither a function `score(items)` nor a metric of `evaluate`"}
        return {"values": [_number(value) for value in values]}
    except BaseException as error:  # whatever a user's file does, sys.exit included
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        return {"error": f"{type(error).__name__}: {error}", "line": line, "trace": traceback.format_exc()}


def _number(value: Any) -> float | str:
    """A number as JSON has it; what is none as its text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return repr(value)[:80]


def main() -> None:
    """Read items from stdin, write the answer to the file that is named."""
    path, target = Path(sys.argv[1]), Path(sys.argv[2])
    items = json.load(sys.stdin)
    os.dup2(2, 1)
    target.write_text(json.dumps(answer(path, items)))


if __name__ == "__main__":
    main()
