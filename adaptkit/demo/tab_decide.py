"""Tab 4: the study's answer, the sliders that move the break-even, and the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from adaptkit.demo.html import render
from adaptkit.demo.study_view import Dial, Study

STEPS = 200
PRICE = "usd_per_hour"


@dataclass
class Decide:
    """The tab's components, and what they do."""

    study: Study

    def build(self, price: gr.State) -> None:
        """Draw the tab; `price` holds the server's price for the other tabs."""
        gr.HTML(self.study.verdict(), elem_classes="ak-html", apply_default_css=False)
        dials = self.study.dials()
        if not dials:
            return
        gr.HTML(render("weigh_head"), apply_default_css=False)
        with gr.Group(elem_classes="dials"):
            drawn = [self._dial(dial) for dial in dials if dial.main]
        with gr.Accordion("More assumptions", open=False, elem_id="more"), gr.Group(elem_classes="dials"):
            drawn += [self._dial(dial) for dial in dials if not dial.main]
        back = gr.Button("Back to the first values", size="sm", elem_id="back")
        weighed = gr.HTML(
            self._weigh(dials, [dial.value for dial in dials]), elem_id="weighed", apply_default_css=False
        )
        gr.HTML(self.study.evidence(), elem_classes="ak-html", apply_default_css=False)
        self._connect(
            [*(d for d in dials if d.main), *(d for d in dials if not d.main)], drawn, weighed, back, price
        )

    def _dial(self, dial: Dial) -> tuple[gr.HTML, gr.Slider]:
        with gr.Column(elem_classes="dial", min_width=240):
            said = gr.HTML(_said(dial, dial.value), elem_id=f"said-{dial.name}", apply_default_css=False)
            low, high = position(dial, dial.low), position(dial, dial.high)
            slider = gr.Slider(
                low,
                high,
                value=position(dial, dial.value),
                step=(high - low) / STEPS,
                label=dial.label,
                show_label=False,
                container=False,
                elem_id=f"dial-{dial.name}",
                elem_classes="bare-slider",
                buttons=[],
            )
        return said, slider

    def _connect(
        self,
        dials: Sequence[Dial],
        drawn: Sequence[tuple[gr.HTML, gr.Slider]],
        weighed: gr.HTML,
        back: gr.Button,
        price: gr.State,
    ) -> None:
        said, sliders = [pair[0] for pair in drawn], [pair[1] for pair in drawn]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}

        def moved(*positions: float) -> list[object]:
            values = [value_at(dial, at) for dial, at in zip(dials, positions, strict=True)]
            hour = next(value for dial, value in zip(dials, values, strict=True) if dial.name == PRICE)
            return [
                self._weigh(dials, values),
                hour,
                *(_said(dial, value) for dial, value in zip(dials, values, strict=True)),
            ]

        outputs = [weighed, price, *said]
        gr.on(
            [slider.change for slider in sliders],
            moved,
            sliders,
            outputs,
            trigger_mode="always_last",
            **quiet,
        )
        back.click(lambda: [position(dial, dial.value) for dial in dials], None, sliders, **quiet)

    def _weigh(self, dials: Sequence[Dial], values: Sequence[float]) -> str:
        told = self.study.weigh(**{dial.name: value for dial, value in zip(dials, values, strict=True)})
        return told


def position(dial: Dial, value: float) -> float:
    """Where on its slider a value lies."""
    return math.log10(value) if dial.log else value


def value_at(dial: Dial, at: float) -> float:
    """The value of a position: three digits of it, and exactly the first value where the slider stands there."""
    step = (position(dial, dial.high) - position(dial, dial.low)) / STEPS
    if abs(at - position(dial, dial.value)) <= step / 2:
        return dial.value
    return float(f"{10**at if dial.log else at:.3g}")


def _said(dial: Dial, value: float) -> str:
    origin = dial.origin if value == dial.value else "set on this page"
    return render("dial", label=dial.label, value=dial.show(value), origin=origin)
