"""Pieces of the page as HTML. Every value is escaped: what a model writes is text, never markup."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def render(name: str, /, **values: Any) -> str:
    """The piece `<name>.html.j2` with its values."""
    return _environment().get_template(f"{name}.html.j2").render(**values)


def style() -> str:
    """The page's style sheet."""
    return (HERE / "demo.css").read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    import jinja2
    from markupsafe import Markup

    loader, undefined = jinja2.FileSystemLoader(HERE), jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=loader, undefined=undefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["css"] = Markup(style())
    return environment
