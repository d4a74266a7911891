"""Answer a click on a button whose first click is still at work: without a word it would look broken.

The browser looks by itself whether something is under way, so that no request of the visitor's is spent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import gradio as gr

BUSY_STATES = ("waiting", "asked", "writing", "asking", "calibrating", "filling")
"""What `data-state` in a piece of the page says while its answer is on the way."""

_STOP = """() => {
  const stop = () => document.querySelectorAll(%s).forEach(each => { each.dataset.state = "stopped" });
  stop(); setTimeout(stop, 700);
  return '';
}"""
"""Marked once more a moment later: a last piece may have been on its way."""


def draw_note(area: str) -> gr.HTML:
    """Draw the place of the message: above what shows the progress, where it is seen on a phone too."""
    return gr.HTML("", elem_id=f"{area}-busy", elem_classes="busy-note", apply_default_css=False)


def say_while_busy(
    note: gr.HTML,
    triggers: Sequence[Callable[..., object]],
    running: gr.events.Dependency,
    area: str,
    message: str,
    stops: Sequence[Callable[..., object]] = (),
) -> None:
    """Show a message in `note` when one of them is clicked again; it goes once the answer is there.

    Args:
        triggers: what starts the work.
        running: the work.
        area: id of the element that shows its progress.
        stops: what ends it early; what is drawn then stays, and waits for nothing more.
    """
    states = ", ".join(f"#{area} [data-state={state}]" for state in BUSY_STATES)
    shown = f'<p class="ak note again" role="status">{message}</p>'
    look = f"() => document.querySelector({json.dumps(states)}) ? {json.dumps(shown)} : ''"
    options = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on(list(triggers), None, None, note, js=look, **options)
    running.then(None, None, note, js="() => ''", **options)
    if stops:
        gr.on(list(stops), None, None, note, js=_STOP % json.dumps(states), **options)
