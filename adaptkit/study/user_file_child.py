"""Score items by a metric of the user's, or label texts by functions of theirs; a script for `user_file`.

    python -I user_file_child.py metric.py answer.json score < items-as-json  # values, or an error
    python -I user_file_child.py rules.py answer.json rules < items-as-json

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
    spec = importlib.util.spec_from_file_location("file_of_the_user", path)
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


def scores(module: Any, items: list[dict[str, Any]]) -> list[Any]:
    """The number of each item."""
    if callable(getattr(module, "score", None)):
        values = module.score(items) if items else []
    elif metric_class(module) is not None:
        values = one_by_one(metric_class(module)(keep_in_memory=True), items)
    else:
        raise Unfit("defines neither a function `score(items)` nor a metric of `evaluate`")
    return [_number(value) for value in values]


def rules(module: Any, items: list[dict[str, Any]]) -> dict[str, list[str | None]]:
    """By the name of each public function of the file: the label that it gives each item, or none."""
    own = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    for name, function in own.items():
        takes = list(inspect.signature(function).parameters)
        if takes not in (["text"], ["row"]):
            what = f"{name}({', '.join(takes)}) takes neither `text` nor `row`"
            raise Unfit(f"{what}; the names of functions that are no rules begin with _", function)
    if not own:
        raise Unfit("defines no function of `text` or `row` that gives a label or None")
    asked = {name: next(iter(inspect.signature(function).parameters)) for name, function in own.items()}
    return {
        name: [_label(function(item[asked[name]]), function) for item in items]
        for name, function in own.items()
    }


class Unfit(Exception):
    """The file does not define what it should."""

    def __init__(self, what: str, function: Any = None):
        super().__init__(what)
        self.line = None if function is None else function.__code__.co_firstlineno


def _label(value: Any, function: Any) -> str | None:
    """A label as rows of a file have it."""
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, (bool, int)):
        return str(value).lower()
    raise Unfit(f"{function.__name__} gives {repr(value)[:80]}, and no label or None", function)


def answer(path: Path, items: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """The values, or what is wrong and in which line of the user's file."""
    try:
        return {"values": {"score": scores, "rules": rules}[what](load(path), items)}
    except Unfit as error:
        return {"error": str(error), "line": error.line}
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
    path, target, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    items = json.load(sys.stdin)
    os.dup2(2, 1)
    target.write_text(json.dumps(answer(path, items, what)))


if __name__ == "__main__":
    main()
