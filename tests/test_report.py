"""The report: one offline file, complete for every kind of study, and honest about what is missing. Home of
report.board, report.cards, report.glossary, report.svg and report.write."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from fake_study import FULL, PORTIONS, TEXTS, edit_study, write_study

from adaptkit.errors import DataError
from adaptkit.report import board, tables
from adaptkit.report.cards import label_cells
from adaptkit.report.glossary import GLOSSARY
from adaptkit.report.svg import Scale, padded, robust_range, spread
from adaptkit.report.tables import ORIGIN_ORDER, terminal_table
from adaptkit.report.write import TEMPLATES, write_report
from adaptkit.study.results import collect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CUT_FIGURES = """() => {
    const drawings = [...document.querySelectorAll(".drawing")].filter(each => each.clientWidth);
    const says = each => getComputedStyle(each.nextElementSibling, "::before").content.includes("Swipe");
    return [drawings.some(each => each.scrollWidth > each.clientWidth), drawings.every(says)];
}"""
"""Whether a figure has parts out of sight, and whether each note says so."""
SMALLEST_TEXT = """Math.min(...[...document.querySelectorAll('svg.plot')].flatMap(plot => {
  const scale = plot.getBoundingClientRect().width / plot.viewBox.baseVal.width;
  return [...plot.querySelectorAll('text')].map(text => scale * parseFloat(getComputedStyle(text).fontSize));
}))"""
ORIGINS = ("generic", "continued", "scratch")
SMALL = {"num_documents": 60, "num_rows": 120}
STUDIES = {
    "everything": {"tasks": ("language", "rct_role", "title_gen")},
    "no labelled task": {"tasks": ("language",)},
    "one seed": {"seeds": 1},
    "a forecast": {"portions": PORTIONS},
    "a forecast from three": {"portions": PORTIONS[::2] + PORTIONS[3:], "seeds": 1},
    "no placebo": {"arms": FULL[:-1]},
    "undecided": {"bpb": {"continued": 1.93, "scratch": 1.94}},
    "two arms": {"arms": ("generic+lora", "scratch+full"), "texts": ("continued", "scratch")},
    "one side": {"arms": ("scratch+full", "continued+full"), "texts": ("scratch", "mixed")},
    "one arm": {"texts": ("continued",), "tasks": ("language",)},
    "every origin": {"texts": (*TEXTS, "mixed", "distilled")},
    "no baseline": {"baselines": False},
    "long names": {"tasks": ("language", "a_very_long_task_name_for_<script>&_sentences_in_clinical_trials")},
    "labelled task decides": {"primary": "rct_role"},
    "twelve arms": {"arms": tuple(f"{o}+{a}" for o in ORIGINS for a in ("prompt", "probe", "lora", "full"))},
}


class Page(HTMLParser):
    """Tags that are open, attributes that load something, and ids."""

    VOID = ("meta", "br", "link", "img", "hr", "input")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.loads += [value for key, value in attrs if key in ("src", "srcset", "data", "xlink:href")]
        if tag == "a":
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


@pytest.mark.parametrize("name", STUDIES)
def test_page_is_whole_offline_and_accessible(tmp_path, name):
    paths = write_report(write_study(tmp_path, **{**SMALL, **STUDIES[name]}))
    text = paths.html.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.loads == []
    assert not page.tags & {"script", "link", "iframe", "object", "img"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().replace("finance", "")
    assert "undefined" not in text.lower()
    base = text.partition('<section id="base">')[2].partition("</section>")[0]
    assert "`" not in base, "what is set in code is set as code"
    for drawing in re.findall(r"<svg class=\"plot\".*?</svg>", text, flags=re.S):
        root = ET.fromstring(drawing)
        assert root.attrib["role"] == "img" and root.find("title").text and root.find("desc") is not None
    assert paths.verdict["line"] in text.replace("&#43;", "+").replace("&gt;", ">")
    assert paths.verdict["line"] in paths.markdown.read_text(encoding="utf-8")
    assert json.loads(paths.verdict_json.read_text())["line"] == paths.verdict["line"]


@pytest.mark.parametrize("name", ["everything", "twelve arms", "long names"])
def test_drawings_stay_inside_their_frame(tmp_path, name):
    text = write_report(write_study(tmp_path, **{**SMALL, **STUDIES[name]})).html.read_text(encoding="utf-8")
    for drawing in re.findall(r"<svg class=\"plot\".*?</svg>", text, flags=re.S):
        root = ET.fromstring(drawing)
        width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
        for item in root.iter("text"):
            x, y = float(item.attrib["x"]), float(item.attrib["y"])
            left = x - {"start": 0, "middle": 0.5, "end": 1}[item.attrib["text-anchor"]] * 6.6 * len(
                item.text or ""
            )
            right = left + 6.6 * len(item.text or "")
            assert left >= -12 and right <= width + 24, item.text
            assert 0 <= y <= height, item.text


def test_sections_come_and_go_with_the_data(tmp_path):
    full = write_report(write_study(tmp_path / "a", portions=PORTIONS, **SMALL)).html.read_text()
    bare = write_report(write_study(tmp_path / "b", tasks=("language",), **SMALL)).html.read_text()
    for part in ('id="forecast"', 'id="tasks"', 'id="verdicts"', "Predicted before it ran"):
        assert part in full and part not in bare
    for part in (
        "What was held equal",
        "How to reproduce",
        "What is forgotten",
        "Learning curves",
        "17 % fewer",
        "shared sentences cut from",
    ):
        assert part in full
    assert (
        "One amount of text and compute" in bare
        and "Calibration: rct_role" in full
        and "Per class: rct_role" in full
    )
    assert "adaptkit compare study.yaml budget.amount=3.1e14" in full and "d22fab8ed0c1" in full


def test_scores_come_from_the_rows_not_from_stored_means(tmp_path):
    study = write_study(tmp_path, tasks=("language",), texts=("continued", "scratch"), **SMALL)
    before = write_report(study).verdict_json.read_text()
    for path in tmp_path.glob("*/eval/language.json"):
        scores = json.loads(path.read_text())
        path.write_text(json.dumps({**scores, "metrics": {"bits_per_byte": 99.0}}))
    assert write_report(study).verdict_json.read_text() == before


def test_missing_run_is_named(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    shutil.rmtree(tmp_path / "scratch-s1-f1")
    with pytest.raises(DataError, match="scratch-s1-f1") as caught:
        write_report(study)
    assert "run the same" in caught.value.fix


def test_terminal_table_names_every_arm(tmp_path):
    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(collect(write_study(tmp_path, **SMALL)), "scratch"))
    text = console.export_text(styles=True)
    assert all(arm in text for arm in (*FULL, *TEXTS)) and "tfidf" in text and " to " in text
    assert "95% intervals over seeds and items" in text
    assert re.findall(r"\x1b\[1;32m(\S+?)\s*\x1b", text) == ["scratch"]


def test_report_needs_no_torch(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    code = f"import sys; from adaptkit.report.write import write_report; write_report({str(study)!r}); "
    code += "print([m for m in ('torch', 'transformers', 'evaluate') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("higher_is_better", "sign"), [(True, 1), (False, -1)])
def test_a_second_that_did_worse_is_told_so(higher_is_better, sign):
    def told(gained):
        pair = SimpleNamespace(difference=sign * gained)
        fields = {"contenders": ("a", "b"), "settled": True, "outcome": "enough", "pair": pair}
        return board._difference(SimpleNamespace(higher_is_better=higher_is_better, **fields))

    assert "did worse here" in told(-0.145)
    assert told(0.004) == told(0.0) == "The second is not better by enough to act on."


def test_what_word_counts_do_not_measure_has_no_number():
    cost = SimpleNamespace(flops=0.0, seconds=7.0, peak_memory_bytes=0, tokens_per_s=0.0)
    task = SimpleNamespace(name="queue")
    results = SimpleNamespace(primary=task, tasks=[], of=lambda *_: ["a score"], cost=lambda *_: cost)
    assert tables._costs(results, "tfidf") == ("none", "7 s", "", "")


def test_axis_helpers():
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(1e6, 1e7, 0, 100, log=True)(1e6) == 0
    assert padded([2.0, 2.0])[0] < 2.0 < padded([2.0, 2.0])[1]
    low, high = robust_range([(1.0, 1.1), (1.05, 1.2), (1.1, 1.15), (9.0, 9.1)])
    assert high < 2 < 9 and low < 1.0
    placed = spread([50, 51, 52, 90], 16, 0, 200)
    assert all(b - a >= 15.9 for a, b in zip(placed, placed[1:], strict=False))


def test_the_domain_tokenizer_s_saving_is_told_as_fewer_or_more(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    data = collect(study).record.data
    assert "<b>17 % fewer</b> tokens" in write_report(study).html.read_text()
    turned = {"generic": data.tokenizers["domain"], "domain": data.tokenizers["generic"]}
    edit_study(study, data=data.model_copy(update={"tokenizers": turned}))
    assert "<b>21 % more</b> tokens" in write_report(study).html.read_text()
    edit_study(study, data=data.model_copy(update={"tokenizers": {}}))
    assert "domain tokenizer needs" not in write_report(study).html.read_text()


def test_one_training_of_each_model_is_told_as_no_proof_and_three_are_counted(tmp_path):
    few, many = (
        write_report(write_study(tmp_path / str(seeds), seeds=seeds, num_documents=20, tasks=("language",)))
        for seeds in (1, 3)
    )
    once = "Not sure: one training of each model cannot show how much of a score is luck; all were tried on"
    assert once in few.html.read_text() and "trained 1 times" not in few.html.read_text()
    assert "Each model was trained 3 times; all were tried on 20 test items." in many.html.read_text()


def test_what_was_held_equal_found_and_tried_is_told_as_recorded(tmp_path):
    study = write_study(tmp_path, tasks=("language", "rct_role"), **SMALL)
    text = write_report(study).html.read_text()
    assert "Every arm could spend 3.1e14 FLOPs per task and seed, 3 tuning trials included." in text
    assert "<li>Every arm gets the same number of trials.</li>" in text
    overlap = r'>domain against domain</th><td [^>]*class="n">150</td><td [^>]*class="n">2</td>'
    assert re.search(overlap, text)
    assert "<li>domain: 14 exact, 31 near</li>" in text
    assert "0.0003: 1.900 &middot; 0.001: 1.910 &middot; 0.003: 1.920" in text
    read = r'>train</td><td [^>]*class="n">1,816</td><td [^>]*class="n">8.2 MB</td><td[^>]*>CC BY 4.0</td>'
    assert re.search(read, text)


def test_a_paragraph_on_verdicts_says_which_task_decides(tmp_path):
    study = write_study(tmp_path, tasks=("language", "rct_role"), primary="rct_role", **SMALL)
    text = write_report(study).html.read_text()
    assert "accuracy on rct_role (decides)</th>" in text and "bits per byte</th>" in text
    assert "bits per byte (decides)" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize(
    "name", ["everything", "labelled task decides", "undecided", "every origin", "one arm"]
)
def test_the_report_prints_on_four_pages(tmp_path, name):
    """The answer on the first; then all arms, figures, what was held equal, and the words."""
    page = write_report(write_study(tmp_path, **{**SMALL, **STUDIES[name]})).html
    printed = tmp_path / "report.pdf"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *flags, profile, f"--print-to-pdf={printed}", page.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) <= 4


def test_the_deciding_table_comes_right_after_the_answer(tmp_path):
    text = write_report(write_study(tmp_path, **SMALL)).html.read_text()
    parts = ["<h1>", 'class="found"', "How sure that is", 'class="verdict"', 'class="decision"', "<nav"]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert "FLOPs to train</th>" in text and "general text lost, bits per byte</th>" in text
    assert "US$ per 1,000 requests</th>" not in text, "a column that no arm fills is left out"
    assert "bits per byte, lower is better</th>" in text and "difference to scratch</th>" in text


@pytest.mark.parametrize("tasks", [("language",), ("language", "rct_role"), ("language", "title_gen")])
def test_the_head_of_the_page_leads_to_its_sections_and_nowhere_else(tmp_path, tasks):
    """Tasks in detail are there with or without a figure of classes."""
    text = write_report(write_study(tmp_path, **SMALL, tasks=tasks)).html.read_text()
    linked = re.findall(r'href="#(\w+)"', text[text.index("<nav") : text.index("</nav>")])
    sections = set(re.findall(r'<section id="(\w+)"', text))
    assert set(linked) <= sections and ("tasks" in linked) == ("tasks" in sections)


@pytest.mark.parametrize("name", ["everything", "labelled task decides", "undecided", "one seed", "one arm"])
def test_the_first_screen_names_no_arm_and_no_flops(tmp_path, name):
    study = write_study(tmp_path, **{**SMALL, **STUDIES[name]})
    text = write_report(study).html.read_text()
    head = re.sub(r"<[^>]*>", " ", text[text.index("<header>") : text.index("</header>")])
    assert "FLOP" not in head
    assert not [
        arm.name for arm in collect(study).arms if re.search(rf"(?<!\w){re.escape(arm.name)}(?![\w ])", head)
    ]


def test_words_stand_beside_what_uses_them_and_all_at_the_end(tmp_path):
    text = write_report(write_study(tmp_path, **SMALL)).html.read_text()
    decision = html.unescape(text[text.index('id="decision"') : text.index('id="sure"')])
    assert all(GLOSSARY[word] in decision for word in ("contender", "margin", "arm"))
    end = html.unescape(text[text.index('id="words"') : text.index('id="reproduce"')])
    assert all(meaning in end for meaning in GLOSSARY.values())


def test_every_cell_names_its_column_so_that_tables_fold_into_cards(tmp_path):
    text = write_report(write_study(tmp_path, **SMALL)).html.read_text()
    headed = [table for table in re.findall(r"<table.*?</table>", text, flags=re.S) if "<thead>" in table]
    assert len(headed) > 5
    for table in headed:
        assert all("data-label=" in cell for cell in re.findall(r"<td[^>]*>", table))
    folded = label_cells(
        "<table><thead><tr><th>arm</th><th class='n'>a <b>score</b> &lt; 1</th></tr></thead>"
        "<tbody><tr><th>x</th><td>1</td></tr><tr><th>y</th><td class='n'>&ndash;</td></tr></tbody></table>"
    )
    assert '<td data-label="a score &lt; 1">1</td>' in folded and folded.count("data-empty") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_phone_shows_cards_and_words_of_at_least_12_pixels(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = write_report(write_study(tmp_path, **{**SMALL, **STUDIES["everything"]})).html
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(page_file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(SMALLEST_TEXT) >= 12
        assert page.evaluate("getComputedStyle(document.querySelector('tbody tr')).display") == "block"
        for width, hidden in ((390, True), (480, True), (501, False), (700, False)):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate(CUT_FIGURES) == [hidden, hidden], "a cut figure says so, and no other one"
        browser.close()


def test_every_origin_has_a_colour_in_light_in_dark_and_in_print():
    css = (TEMPLATES / "report.css").read_text()
    light, dark, printed = re.findall(r":root \{.*?\}", css, flags=re.S)
    for origin in ORIGIN_ORDER:
        assert all(f"--{origin}: #" in palette for palette in (light, dark, printed)), origin
        assert f".o-{origin}" in css
