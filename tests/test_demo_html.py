"""Pieces of the page: escaped, in the report's colours, and fetching nothing."""

from __future__ import annotations

import re
from pathlib import Path

from adaptkit.demo.html import render, style
from adaptkit.demo.shown_models import ShownModel
from adaptkit.demo.streaming import Answer

ROOT = Path(__file__).resolve().parents[1]


def test_what_a_model_writes_is_text_and_never_markup() -> None:
    model = ShownModel("<i>m</i>", "<i>m</i>")
    answer = Answer(
        "<i>m</i>",
        state="done",
        text="<script>alert(1)</script> ${7*7} {{7*7}}",
        tokens=3,
        seconds=1.0,
        first_s=0.1,
    )
    card = {"model": model, "answer": answer, "share": 1.0, "usd": 0.5}
    texts = {"beginning": '"><img src=x>', "following": "<script>alert(2)</script>"}
    shown = render("cards", cards=[card], note="", cut=False, usd_per_hour=1.0, **texts)
    assert "<script" not in shown and "<img" not in shown and "<i>m" not in shown
    assert "&lt;script&gt;" in shown and "${7*7} {{7*7}}" in shown


def test_the_palette_is_the_reports() -> None:
    report = (ROOT / "adaptkit/report/templates/report.css").read_text()
    light, dark = report.split("@media (prefers-color-scheme: dark)")[:2]
    ours_light, ours_dark = style().split(".dark {")[:2]
    names = (
        "paper",
        "ink",
        "muted",
        "line",
        "faint",
        "generic",
        "continued",
        "scratch",
        "placebo",
        "distilled",
        "continued-lora",
        "continued-vocabulary",
        "mixed",
        "tapt",
    )
    for name in names:
        for theirs, ours in ((light, ours_light), (dark, ours_dark)):
            pattern = rf"--{name}: (#\w+);"
            assert re.search(pattern, theirs)[1] == re.search(pattern, ours)[1], name


def test_the_style_sheet_fetches_nothing() -> None:
    assert not re.search(r"url\(|@import|http", style())
