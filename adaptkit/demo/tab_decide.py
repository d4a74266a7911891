"""Tab "Decide": the study's answer, the sliders that move the break-even, and the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from adaptkit.demo.html import render
from adaptkit.demo.study_view import Dial, Study

STEPS = 200
PRICE, VOLUME = "usd_per_hour", "requests_per_month"


@dataclass
class Decide:
    """The tab's components, and what they do."""

    study: Study

    def build(self, price: gr.State) -> None:
        """Draw the tab; `price` holds the server's price for the other tabs."""
        gr.HTML(self.study.verdict(), elem_classes="ak-html", apply_default_css=False)
        dials = self.study.dials()
        if not dials:
            gr.HTML(self._weigh([], []), elem_id="weighed", apply_default_css=False)
            gr.HTML(self.study.evidence(), elem_classes="ak-html", apply_default_css=False)
            return
        main, more = [dial for dial in dials if dial.main], [dial for dial in dials if not dial.main]
        priced = any(dial.name == VOLUME for dial in dials)
        gr.HTML(render("weigh_head", priced=priced), apply_default_css=False)
        with gr.Group(elem_classes="dials"):
            drawn = [_draw_dial(dial) for dial in main]
        if more:
            with gr.Accordion("More assumptions", open=False, elem_id="more"), gr.Group(elem_classes="dials"):
                drawn += [_draw_dial(dial) for dial in more]
        back = gr.Button("Back to the first values", size="sm", elem_id="back")
        first = self._weigh(dials, [dial.value for dial in dials])
        weighed = gr.HTML(first, elem_id="weighed", apply_default_css=False)
        gr.HTML(self.study.evidence(), elem_classes="ak-html", apply_default_css=False)
        self._connect([*main, *more], drawn, weighed, back, price)

    def _connect(
        self,
        dials: Sequence[Dial],
        drawn: Sequence[tuple[gr.HTML, gr.Slider]],
        weighed: gr.HTML,
        back: gr.Button,
        price: gr.State,
    ) -> None:
        captions, sliders = [caption for caption, _ in drawn], [slider for _, slider in drawn]

        def moved(*positions: float) -> list[object]:
            values = [value_at(dial, at) for dial, at in zip(dials, positions, strict=True)]
            usd_per_hour = next((v for dial, v in zip(dials, values, strict=True) if dial.name == PRICE), 0.0)
            texts = [_caption(dial, value) for dial, value in zip(dials, values, strict=True)]
            return [self._weigh(dials, values), usd_per_hour, *texts]

        gr.on(
            [slider.change for slider in sliders],
            moved,
            sliders,
            [weighed, price, *captions],
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        back.click(
            lambda: [position(dial, dial.value) for dial in dials],
            None,
            sliders,
            show_progress="hidden",
            api_visibility="private",
        )

    def _weigh(self, dials: Sequence[Dial], values: Sequence[float]) -> str:
        return self.study.weigh(**{dial.name: value for dial, value in zip(dials, values, strict=True)})


def position(dial: Dial, value: float) -> float:
    """Where on its slider a value lies."""
    return math.log10(value) if dial.log else value


def value_at(dial: Dial, at: float) -> float:
    """The value at a position, to three digits; the first value exactly where the slider stands on it."""
    step = (position(dial, dial.high) - position(dial, dial.low)) / STEPS
    if abs(at - position(dial, dial.value)) <= step / 2:
        return dial.value
    return float(f"{10**at if dial.log else at:.3g}")


def _draw_dial(dial: Dial) -> tuple[gr.HTML, gr.Slider]:
    """The caption that says the value, and the slider that moves it."""
    low, high = position(dial, dial.low), position(dial, dial.high)
    with gr.Column(elem_classes="dial", min_width=240):
        caption = gr.HTML(_caption(dial, dial.value), elem_id=f"said-{dial.name}", apply_default_css=False)
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
    return caption, slider


def _caption(dial: Dial, value: float) -> str:
    origin = dial.origin if value == dial.value else "set on this page"
    return render("dial", label=dial.label, value=dial.show(value), origin=origin)
