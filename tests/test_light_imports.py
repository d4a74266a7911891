"""What stays light: `--help`, configs, records, and what serves or reports."""

from __future__ import annotations

import pytest
from only_extras import EXTRAS
from source_tree import fresh_python

HELP = [
    "",
    "compare",
    "pretrain",
    "finetune",
    "report",
    "data",
    "data check",
    "config",
    "config show",
    "schema",
    "doctor",
    "serve",
    "demo",
    "export",
    "distill",
    "embed",
    "embed train",
    "embed encode",
    "embed index",
    "embed search",
    "embed update",
    "embed evaluate",
]


def test_help_loads_neither_torch_nor_transformers() -> None:
    code = f"""
import io, sys, contextlib
import adaptkit
assert "pydantic" not in sys.modules
from adaptkit.cli import console
from adaptkit.cli.app import app
for words in {HELP!r}:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert console.run(app, [*words.split(), "--help"]) == 0
    shown = shown.getvalue()
    assert "--json" in shown and "Examples:" in shown or words in ("", "data", "config", "embed"), words
    print(words, sorted({{"torch", "transformers", "numpy", "datasets"}} & set(sys.modules)))
"""
    assert fresh_python(code).splitlines() == [f"{words} []" for words in HELP]


LIGHT = [
    "config",
    "errors",
    "run",
    "doctor",
    "cli.console",
    "cli.arguments",
    "trainer.config",
    "data.readers",
    "study.config",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module: str) -> None:
    loaded = fresh_python(
        f"import sys, adaptkit.{module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    assert loaded.strip() == "[]"


CORE_ROOMS = (
    "cli",
    "client",
    "compare",
    "data",
    "distill",
    "doctor",
    "embed",
    "export",
    "finetune",
    "models",
    "pretrain",
    "report",
    "study",
    "trainer",
)


def test_what_a_plain_install_offers_imports_without_extras() -> None:
    code = f"""
import importlib, pkgutil, sys
for name in {EXTRAS}:
    sys.modules[name] = None
import adaptkit
rooms = tuple("adaptkit." + room for room in {CORE_ROOMS})
for module in pkgutil.walk_packages(adaptkit.__path__, "adaptkit."):
    if module.name.startswith(rooms) and not module.name.endswith(("__main__", "hf_metrics", "client.relay")):
        importlib.import_module(module.name)
"""
    fresh_python(code)
