"""How the page looks: its pieces as HTML, its style sheet, and Gradio's theme without foreign fonts.

Every value in a piece is escaped: what a model writes is text, never markup.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from gradio.themes import Base

TEMPLATES = Path(__file__).parent / "templates"
HEAD = '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
FONTS = [
    "Inter",
    "Segoe UI",
    "system-ui",
    "Helvetica Neue",
    "Noto Sans",
    "Liberation Sans",
    "Arial",
    "sans-serif",
]
CODE_FONTS = ["ui-monospace", "SF Mono", "Cascadia Mono", "Liberation Mono", "Menlo", "Consolas", "monospace"]


def render(name: str, /, **values: Any) -> str:
    """Fill the piece `<name>.html.j2` with values."""
    return _environment().get_template(f"{name}.html.j2").render(**values)


@cache
def style() -> str:
    """Read the page's style sheet."""
    return (TEMPLATES / "demo.css").read_text(encoding="utf-8")


def theme() -> Base:
    """Make a theme with fonts of the visitor's own machine: none is fetched."""
    import gradio as gr  # late: the demo is optional, and what it asks of the network is switched off first

    return gr.themes.Base(font=FONTS, font_mono=CODE_FONTS, radius_size=gr.themes.sizes.radius_sm)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = Markup(style())
    return environment
