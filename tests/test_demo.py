"""What the page does without a browser: roles, answers that stream and fail, calibration and search over
HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fake_openai import KEY, FakeServer
from fake_study import LABELS, write_study

from adaptkit.client.openai import BadAnswer, Refusal
from adaptkit.demo import launch, roles, search_index
from adaptkit.demo.html import render, style
from adaptkit.demo.served_models import Look, Server, explain
from adaptkit.demo.streaming import Answer, Asking, Prompt
from adaptkit.errors import ConfigError, DataError, ModelError
from adaptkit.run import write_json, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("generic+prompt", "generic+lora", "continued+full", "scratch+full", "distilled+full", "placebo+full")
ARMS = [
    SimpleNamespace(name=n, origin=n.split("+")[0], adaptation=n.split("+")[1], describe=f"what {n} is")
    for n in NAMES
]
MODELS = [
    ("notes-generic-prompt", "generate"),
    ("notes-generic-lora", "generate"),
    ("notes-scratch-full", "generate"),
    ("student", "generate"),
    ("notes-generic-lora-rct_role", "classify"),
    ("generic-vectors", "embed"),
    ("domain-vectors", "embed"),
]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


def the_last(asking: Asking) -> dict[str, Answer]:
    with asking:
        *_, last = asking.progress()
    return {answer.model: answer for answer in last}


# Roles


@pytest.mark.parametrize(
    ("model", "title", "arm"),
    [
        ("notes-generic-prompt", "Generic", "generic+prompt"),
        ("notes-generic-lora", "Fine-tuned", "generic+lora"),
        ("notes-generic-lora-int8", "Fine-tuned", "generic+lora"),
        ("notes-continued-full", "Domain-pretrained", "continued+full"),
        ("notes-distilled-full-rct_role", "Distilled", "distilled+full"),
        ("notes-placebo-full", "placebo+full", "placebo+full"),
        ("generic-lora", "Fine-tuned", "generic+lora"),
        ("student", "Distilled", ""),
        ("my-base", "Generic", ""),
        ("domain-vectors", "Domain-pretrained", ""),
        ("baseline", "baseline", ""),
        ("llama", "llama", ""),
    ],
)
def test_a_served_name_tells_its_part(model: str, title: str, arm: str) -> None:
    part = roles.cast([model], "notes", ARMS, ["rct_role"])[0]
    assert (part.title, part.arm) == (title, arm)
    assert part.task == ("rct_role" if "rct_role" in model else "")


def test_one_model_of_each_role_is_shown_first_and_generic_leads() -> None:
    names = [
        "student",
        "other",
        "notes-scratch-full",
        "notes-continued-full",
        "notes-generic-lora",
        "notes-generic-prompt",
    ]
    parts = roles.cast(names, "notes", ARMS, [])
    assert parts[0].model == "notes-generic-prompt"
    first = roles.first_of_each(parts)
    assert [roles.cast([name], "notes", ARMS, [])[0].role.place for name in first] == [0, 1, 2, 3]
    assert roles.first_of_each(parts[:1]) == ["notes-generic-prompt"]


# Asking


def test_answers_stream_side_by_side_and_carry_speed_and_cost(fake: FakeServer, server: Server) -> None:
    fake.delay_s = 0.02
    prompt, models = Prompt("Once", max_tokens=30), ["notes-generic-prompt", "notes-generic-lora"]
    with Asking(server, models, prompt) as asking:
        seen = list(asking.progress())
    assert any(
        0 < len(answer.text) < len(last.text)
        for answers in seen
        for answer, last in zip(answers, seen[-1], strict=True)
    )
    for answer in seen[-1]:
        assert answer.state == "done" and answer.tokens == 30 and answer.text.startswith(" the trial of")
        assert answer.tokens_per_s == pytest.approx(30 / answer.seconds)
        assert answer.usd(3.6) == pytest.approx(answer.seconds)
    assert [path for path, _ in fake.requests] == ["/v1/completions"] * 2
    assert fake.requests[0][1]["max_tokens"] == 30


def test_one_after_another_means_that_the_second_waits(server: Server) -> None:
    models = ["notes-generic-prompt", "notes-generic-lora"]
    with Asking(server, models, Prompt("Once", max_tokens=20, together=False)) as asking:
        for first, second in asking.progress():
            assert second.state == "waiting" or first.state == "done"


def test_chat_goes_to_the_chat_route(fake: FakeServer, server: Server) -> None:
    answer = the_last(Asking(server, ["student"], Prompt("Hello", max_tokens=4, chat=True)))["student"]
    assert answer.state == "done" and answer.tokens == 4
    path, body = fake.requests[0]
    assert path == "/v1/chat/completions" and body["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("mode", "kind", "told"),
    [
        ("busy", "busy", "Try again in 9 s"),
        ("cut", "cut", "broke off"),
        ("no-template", "refused", "never taught to chat"),
    ],
)
def test_each_failure_is_told_in_its_own_words_beside_answers_that_succeed(
    fake: FakeServer, server: Server, mode: str, kind: str, told: str
) -> None:
    fake.behave["student"] = mode
    found = the_last(
        Asking(server, ["student", "notes-generic-lora"], Prompt("Hello", max_tokens=12, chat=True))
    )
    failure = found["student"].failure
    assert failure is not None and failure.kind == kind and told in f"{failure.what} {failure.do}"
    assert found["notes-generic-lora"].state == "done"
    assert bool(found["student"].text) == (mode == "cut")


def test_a_model_that_vanished_a_wrong_key_and_a_server_that_is_away(
    fake: FakeServer, server: Server
) -> None:
    gone = the_last(Asking(server, ["nobody"], Prompt("Hello")))["nobody"].failure
    assert gone is not None and gone.kind == "missing" and "nobody is no longer served" in gone.what
    refused = Server(fake.url, "another-key-entirely").look().failure
    assert refused is not None and refused.kind == "refused" and "ADAPTKIT_API_KEY" in refused.do
    away = Server("http://127.0.0.1:9", "").look().failure
    assert away is not None and away.kind == "away" and "adaptkit serve" in away.do
    fake.loading = True
    loading = server.look().failure
    assert loading is not None and loading.kind == "busy" and "Try again in 7 s" in loading.do
    for error in (json.JSONDecodeError("x", "y", 0), BadAnswer("no models in it")):
        odd = explain(error, "http://h:1")
        assert odd.kind == "refused" and "does not answer like" in odd.what
    assert "too many" in explain(Refusal("429: slow down", status=429, retry_after_s=3), "u").what


def test_leaving_ends_the_work_on_the_server(fake: FakeServer, server: Server) -> None:
    fake.delay_s = 0.05
    begun = time.monotonic()
    with Asking(server, ["student"], Prompt("Once", max_tokens=400)) as asking:
        for answers in asking.progress():
            if answers[0].tokens > 2:
                break
    assert asking.answers["student"].tokens < 100 and time.monotonic() - begun < 15
    for thread in asking._threads:
        thread.join(5)
        assert not thread.is_alive()


def test_what_a_model_writes_is_text_and_never_markup() -> None:
    part = roles.cast(["<i>m</i>"], "s", [], [])[0]
    answer = Answer(
        "<i>m</i>",
        state="done",
        text="<script>alert(1)</script> ${7*7} {{7*7}}",
        tokens=3,
        seconds=1.0,
        first_s=0.1,
    )
    card = {"part": part, "answer": answer, "share": 1.0, "usd": 0.5}
    shown = render("cards", cards=[card], note="", beginning='"><img src=x>', cut=False, usd_per_hour=1.0)
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
    )
    for name in names:
        for theirs, ours in ((light, ours_light), (dark, ours_dark)):
            pattern = rf"--{name}: (#\w+);"
            assert re.search(pattern, theirs)[1] == re.search(pattern, ours)[1], name


def test_the_style_sheet_fetches_nothing() -> None:
    assert not re.search(r"url\(|@import|http", style())


# Search


def passages(count: int) -> list[tuple[str, str]]:
    return [
        (f"notes.jsonl:{i}", f"passage {i} about {'asthma' if i % 7 == 0 else 'sleep'} number {i}")
        for i in range(count)
    ]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_vectors_are_made_once_kept_on_disk_and_told_apart_by_model(
    fake: FakeServer, server: Server, state: Path
) -> None:
    texts = passages(70)
    with server.client() as client:
        index = search_index.Index(texts)
        assert list(index.fill(client, "domain-vectors")) == [32, 64, 70]
        assert list(index.fill(client, "domain-vectors")) == []
        hits = index.nearest(client, "domain-vectors", "asthma")
        again = search_index.Index(texts)
        assert list(again.fill(client, "domain-vectors")) == []
        assert again.nearest(client, "domain-vectors", "asthma") == hits
        assert list(again.fill(client, "generic-vectors")) == [32, 64, 70]
        assert list(search_index.Index(texts[:40]).fill(client, "domain-vectors")) == [32, 40]
    assert len(hits) == 5 and "asthma" in hits[0].text
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    assert search_index.shared(hits, hits[:2]) == {hit.name for hit in hits[:2]}


def test_a_spoilt_file_of_vectors_is_made_again(server: Server, state: Path) -> None:
    with server.client() as client:
        list(search_index.Index(passages(40)).fill(client, "domain-vectors"))
        kept = next((state / "adaptkit" / "vectors").glob("*.npy"))
        kept.write_bytes(kept.read_bytes()[:100])
        assert list(search_index.Index(passages(40)).fill(client, "domain-vectors")) == [32, 40]


def test_a_sample_is_spread_evenly_and_cut() -> None:
    found = search_index.sample([(str(i), "x" * 5000) for i in range(2000)])
    assert (
        len(found) == search_index.MOST_PASSAGES
        and found[-1][0] == "1995"
        and len(found[0][1]) == search_index.MAX_PASSAGE_CHARS
    )
    assert search_index.sample([("a", "  "), ("b", "text")]) == [("b", "text")]


def test_a_file_of_text_can_be_searched(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "notes.jsonl", ({"text": f"note {i} about something"} for i in range(3)))
    assert [text for _, text in search_index.from_file(tmp_path / "notes.jsonl")] == [
        f"note {i} about something" for i in range(3)
    ]
    with pytest.raises((DataError, ConfigError)):
        search_index.from_file(tmp_path / "missing.jsonl")


# The tabs, with Gradio


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    return with_texts(write_study(root, num_rows=60))


def with_texts(study: Path) -> Path:
    """Add what a study keeps of its texts."""
    root = study.parent
    for part in ("dev", "test"):
        rows = [
            {"text": f"class{i % 5} item {i} of {part}", "label": LABELS[i % 5], "from": f"r:{i}"}
            for i in range(120)
        ]
        write_jsonl(root / "prepared" / f"rct_role.{part}.jsonl", rows)
    texts = [
        {"text": f"Passage {i} on adults with asthma who took a drug for weeks.", "from": f"d:{i}"}
        for i in range(60)
    ]
    write_jsonl(root / "prepared" / "domain.test.jsonl", texts)
    return study


@pytest.fixture
def page(study: Path, server: Server, state: Path) -> object:
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    from adaptkit.report.demo_view import StudyView

    page = launch.page(server, StudyView(study), [], launch.Door("127.0.0.1", 7860, None))
    page.look(Look())
    return page


def test_classes_are_calibrated_once_on_what_the_server_answers(page: object, fake: FakeServer) -> None:
    model = "notes-generic-lora-rct_role"
    states = [re.search(r'data-state="(\w+)"', html) for html in page.classify.classify("class1 text", model)]
    assert [state[1] for state in states if state] == ["calibrating", "calibrated"]
    last = list(page.classify.classify("class1 text", model))[-1]
    error = [float(x) for x in re.findall(r"<b>(0\.\d+)</b>", last)]
    assert error[1] < 0.6 * error[0] and "120 development items" in last
    asked = [len(body["input"]) for path, body in fake.requests if path == "/classify"]
    assert asked == [1, 32, 32, 32, 24, 32, 32, 32, 24, 1]
    shares = [float(x) for x in re.findall(r'class="share">([\d.]+) %', last)]
    assert (
        shares == sorted(shares, reverse=True)
        and sum(shares) == pytest.approx(100, abs=0.3)
        and shares[0] < 96
    )
    assert re.search(r'class="label">(\w+)<', last)[1] in LABELS


def test_an_uncalibrated_classifier_says_so(page: object, fake: FakeServer) -> None:
    fake.num_classes = 3
    *_, last = page.classify.classify("text", "notes-generic-lora-rct_role")
    assert "Not calibrated." in last and "class 0" in last


def test_search_fills_the_index_then_shows_both_lists(page: object) -> None:
    *waiting, last = page.search.search("asthma drug", "generic-vectors", "domain-vectors")
    assert any("Reading the passages: 32 of 60" in html for html in waiting)
    assert last.count('<ol class="hits">') == 2 and "both found this" in last
    alone = list(page.search.search("asthma drug", "domain-vectors", "domain-vectors"))[-1]
    assert alone.count('<ol class="hits">') == 1 and "Only one embedding model" in alone
    assert "No embedding model is served" not in last


def test_empty_and_failed_states_are_drawn(page: object, fake: FakeServer) -> None:
    assert "Write a prompt first" in next(page.compare.ask(" ", ["student"], "", "", 16, 1.0))
    assert "Choose at least one model" in next(page.compare.ask("Once", [], "", "", 16, 1.0))
    fake.behave["domain-vectors"] = fake.behave["notes-generic-lora-rct_role"] = "busy"
    *_, found = page.search.search("asthma", "generic-vectors", "domain-vectors")
    assert "failure busy" in found and found.count('<ol class="hits">') == 1
    *_, classified = page.classify.classify("text", "notes-generic-lora-rct_role")
    assert "failure busy" in classified
    fake.models = [("student", "generate")]
    page.look(Look())
    assert "No classifier is served" in next(page.classify.classify("text", "notes-generic-lora-rct_role"))
    assert "No embedding model is served" in next(page.search.search("asthma", None, None))


def test_the_head_follows_the_server_and_leaves_the_page_alone_while_nothing_changes(
    page: object, fake: FakeServer
) -> None:
    seen, head, *_ = page.look(Look())
    assert "7 models ready" in head and "4 to write, 1 to classify, 2 to search" in head
    assert page.look(seen) == page.look(seen) and page.look(seen)[1] != head
    *_, classified, hits = page.look(Look())
    assert "Which class, and how sure?" in classified and "two ways of understanding" in hits
    fake.loading = True
    assert "loading or restarting" in page.look(seen)[1]


def test_a_folder_with_one_model_gets_a_page_without_a_verdict(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    from adaptkit.demo.study_view import NoStudy

    page = launch.page(server, NoStudy(tmp_path), [], launch.Door("127.0.0.1", 7860, None), "# a card")
    page.build()
    assert "Nothing was compared yet" in page.study.verdict() and page.card == "# a card"
    page.look(Look())
    assert "no cost is shown" in list(page.compare.ask("Once", ["student"], "", "", 16, 0.0))[-1]


# The command


def test_the_card_is_the_exports_without_its_front_matter(study: Path, tmp_path: Path) -> None:
    from adaptkit.cli.serve import _card

    assert _card(study).startswith("There is no card: ")
    model = tmp_path / "tiny"
    write_json(model / "config.json", {"architectures": ["LlamaForCausalLM"]})
    assert _card(model) == "tiny: the model folder tiny."
    (model / "README.md").write_text("---\nlicense: mit\n---\n\n# Tiny\n")
    assert _card(model).strip() == "# Tiny"
    with pytest.raises(ModelError, match="no such folder"):
        _card(tmp_path / "nothing")


def test_this_machines_key_goes_to_this_machine_only(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADAPTKIT_API_KEY", "ADAPTKIT_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert len(launch.server("http://127.0.0.1:8000/v1/").key) >= 16
    assert launch.server("http://127.0.0.1:8000/v1/").url == "http://127.0.0.1:8000"
    assert launch.server("http://models.example:8000").key == ""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    assert launch.server("https://models.example", file).key == KEY
    assert KEY not in repr(launch.server("https://models.example", file))
    for wrong in ("models.example:8000", "ftp://h", "http://", "http://user:pass@h:1"):
        with pytest.raises(ConfigError, match="not an address"):
            launch.server(wrong)


def test_a_made_password_is_never_in_a_log(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    door = launch.door("0.0.0.0", 7999, None, False)
    launch.tell(door, door.url)
    told = capsys.readouterr().err
    path = state / "adaptkit" / "demo-password-7999"
    assert path.read_text().strip() == door.password and oct(path.stat().st_mode & 0o777) == "0o600"
    assert door.password not in told and str(path) in told and "without encryption" in told


def test_a_public_address_needs_the_whole_word(study: Path) -> None:
    from adaptkit.cli import console
    from adaptkit.cli.app import app

    for flag in ("--share", "--share-pub", "--share-publicl", "-s"):
        assert console.run(app, ["demo", str(study), flag]) == 2


def test_without_a_relay_there_is_no_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    networking = pytest.importorskip("gradio.networking", reason="the demo extra is not installed")

    def refuse(*_: object) -> str:
        raise RuntimeError("offline")

    monkeypatch.setattr(networking, "setup_tunnel", refuse)
    with pytest.raises(Exception, match="no public address"):
        launch._public(launch.Door("127.0.0.1", 7860, "a password", share=True))


@pytest.mark.slow
def test_the_command_starts_answers_and_ends_on_a_signal(
    study: Path, fake: FakeServer, tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    environment = {
        **os.environ,
        "ADAPTKIT_API_KEY": KEY,
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "adaptkit",
            "demo",
            str(study),
            "--server",
            fake.url,
            "--port",
            str(free_port()),
            "--json",
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as child:
        try:
            url = json.loads(next(line for line in child.stderr if "ready: " in line))["text"].removeprefix(
                "ready: "
            )
            page = httpx.get(url, trust_env=False)
            assert page.status_code == 200 and "clinical-trials" in page.text and KEY not in page.text
        finally:
            child.send_signal(signal.SIGTERM)
            out, errors = child.communicate(timeout=60)
    assert child.returncode == 0 and json.loads(out)["url"] == url and KEY not in out + errors


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
