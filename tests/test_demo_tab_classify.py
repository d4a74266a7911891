"""Classes: calibrated once on what the server answers, and drawn with their failures."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from demo_study import IDENTITIES, LABELS, MODELS, SORTER, FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

from adaptkit.client.openai import Client
from adaptkit.demo.served_models import CLASSIFY, Server
from adaptkit.demo.shown_models import show_models
from adaptkit.demo.tab_classify import Classify
from adaptkit.study.calibration import Calibration


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


def test_classes_are_calibrated_once_on_what_the_server_answers(tab: Classify, fake: FakeServer) -> None:
    states = [re.search(r'data-state="(\w+)"', html) for html in tab.classify("class1 text", SORTER)]
    assert [state[1] for state in states if state] == ["asking", "calibrating", "calibrated"]
    last = list(tab.classify("class1 text", SORTER))[-1]
    error = [float(x) for x in re.findall(r"<b>(0\.\d+)</b>", last)]
    assert error[1] < 0.6 * error[0] and "120 development items" in last
    batch_sizes = [len(body["input"]) for path, body in fake.requests if path == "/classify"]
    assert batch_sizes == [1, 32, 32, 32, 24, 32, 32, 32, 24, 1]
    shares = [float(x) for x in re.findall(r'class="share">([\d.]+) %', last)]
    assert (
        shares == sorted(shares, reverse=True)
        and sum(shares) == pytest.approx(100, abs=0.3)
        and shares[0] < 96
    )
    assert re.search(r'class="label">(\w+)<', last)[1] in LABELS


def test_a_text_that_is_longer_than_the_window_is_cut_aloud(tab: Classify) -> None:
    *_, last = tab.classify("word " * 600, SORTER)
    assert "Only the first 512 of 600 tokens were read" in last
    *_, last = tab.classify("word " * 60, SORTER)
    assert "were read" not in last


def test_a_text_that_the_model_hands_to_a_person_says_so(tab: Classify, fake: FakeServer) -> None:
    *_, answered = tab.classify("class1 text", SORTER)
    assert "It abstains" not in answered
    fake.sureness = {"confidence": 0.412, "abstain": True}
    for drawn in list(tab.classify("class1 text", SORTER))[1:]:
        assert "It abstains" in drawn and "41.2" in drawn and "A person should decide" in drawn
    fake.sureness["abstain"] = False
    *_, answered = tab.classify("class1 text", SORTER)
    assert "It abstains" not in answered


def test_an_uncalibrated_classifier_says_so(tab: Classify, fake: FakeServer) -> None:
    fake.num_classes = 3
    *_, last = tab.classify("text", SORTER)
    assert "Not calibrated." in last and "class 0" in last


@pytest.mark.parametrize(("before", "after"), [(0.05, 0.09), (0.0004, 0.0001)])
def test_a_calibration_that_gains_nothing_that_is_shown_is_not_used_and_said(
    tab: Classify, before: float, after: float
) -> None:
    raw = next(iter(tab.classify("class1 text", SORTER)))
    worse = Calibration(temperature=2.0, before=before, after=after, num_dev=120, num_test=120)
    tab._calibrated[SORTER] = worse
    *_, last = tab.classify("class1 text", SORTER)
    assert "does not help" in last and "falls" not in last and 'data-state="worse"' in last and raw
    shares = [float(x) for x in re.findall(r'class="share">([\d.]+) %', last)]
    tab._calibrated[SORTER] = None
    *_, plain = tab.classify("class1 text", SORTER)
    assert shares == [float(x) for x in re.findall(r'class="share">([\d.]+) %', plain)]


@pytest.fixture
def tab(server: Server) -> Classify:
    tab = Classify(server, FakeStudy())
    tab.models = {model.name: model for model in show_models(server.look().of_kind(CLASSIFY))}
    return tab


def test_the_task_is_the_servers_or_the_only_one_that_fits(tab: Classify, fake: FakeServer) -> None:
    assert tab._task(SORTER, 5) == "rct_role" and tab._task(SORTER, 3) == "rct_role"
    fake.identities = {}
    tab.models = {model.name: model for model in show_models(tab.server.look().of_kind(CLASSIFY))}
    assert tab._task(SORTER, 5) == "rct_role" and tab._task(SORTER, 3) == ""
    assert list(tab._labels(SORTER, 3)) == ["class 0", "class 1", "class 2"]


def test_without_a_classifier_or_a_text_nothing_is_asked(tab: Classify, fake: FakeServer) -> None:
    fake.requests.clear()
    assert "Which class, and how sure?" in next(tab.classify(" ", SORTER))
    assert "Which class, and how sure?" in next(tab.classify("text", "another"))
    tab.models = {}
    assert "No classifier is served" in next(tab.classify("text", SORTER)) and fake.requests == []


def test_what_is_no_choice_among_classes_is_said_and_not_drawn(
    tab: Classify, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"label": "score", "probs": [131.0]}
    monkeypatch.setattr(Client, "classify_rows", lambda *_, **__: [row])
    *_, last = tab.classify("text", SORTER)
    assert "does not choose one of several classes" in last and "%" not in last
