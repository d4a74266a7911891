"""Code: a small model of Python's own standard library, which completes a line.

python -m examples.code

The text is the source of the Python that runs this, read from its folder and never copied into the checkout.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from examples.steps import Example, start, write_rows

MODULES = ("json", "email", "http", "logging", "unittest", "collections", "importlib", "concurrent")


def sources(count: int) -> list[dict[str, object]]:
    """The first modules of a few packages of the standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [path for name in MODULES for path in sorted((library / name).glob("*.py"))]
    return [{"text": path.read_text(encoding="utf-8", errors="replace")} for path in files[:count]]


def main(example: Example) -> None:
    """Collect source, pretrain on it from scratch, and let it go on with a line."""
    write_rows("python.jsonl", sources(example.count(120, 12)))
    example.adaptkit("data", "check", "python.jsonl")
    example.train("pretrain", "pretrain.yaml", steps=400)
    example.adaptkit("try", "code", "def read(self, path):\n    ", "import os\nimport", "--tokens", "24")


if __name__ == "__main__":
    main(start(__file__))
