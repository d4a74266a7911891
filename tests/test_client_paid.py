"""Asking a model that is paid for: kept replies, the ceiling, rate limits, the key. Home of client.key_file
and client.paid."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from paid_server import KEY, PaidServer

from adaptkit.client import connection
from adaptkit.client.connection import PASSING, Refusal
from adaptkit.client.key_file import read_key
from adaptkit.client.openai import Client
from adaptkit.client.paid import Ledger, PaidClient, TokenPrice, most_usd
from adaptkit.errors import BudgetError, ConfigError

PRICE = TokenPrice(1000.0, 2000.0)
ASKED = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def server() -> Iterator[PaidServer]:
    with PaidServer(lambda messages: "four five") as server:
        yield server


def paid(
    server: PaidServer, folder: Path, *, ceiling: float = 1.0, key: str = KEY, patience: float = 0.0
) -> PaidClient:
    client = Client(server.url, key, patience_s=patience, again=PASSING, longest_pause_s=0.05)
    ledger = Ledger(folder / "spent.json", ceiling)
    return PaidClient(client, "small", PRICE, replies=folder / "replies", ledger=ledger)


def test_a_reply_has_its_price_and_time_and_is_never_paid_for_twice(
    server: PaidServer, tmp_path: Path
) -> None:
    with paid(server, tmp_path) as model:
        reply = model.ask(ASKED, max_tokens=4)
        assert (reply.text, reply.tokens_in, reply.tokens_out, reply.kept) == ("four five", 3, 2, False)
        assert reply.usd == pytest.approx(0.003 + 0.004) and reply.seconds > 0
    with paid(server, tmp_path, ceiling=0.0) as again:  # another process, nothing left to spend
        kept = again.ask(ASKED, max_tokens=4)
        assert kept.kept and (kept.text, kept.usd, kept.seconds) == (reply.text, reply.usd, reply.seconds)
        assert again.ledger.spent == pytest.approx(reply.usd)
        for change in ({"max_tokens": 5}, {"max_tokens": 4, "structured_outputs": {"choice": ["a"]}}):
            with pytest.raises(BudgetError):
                again.ask(ASKED, **change)
    assert len(server.bodies) == 1


def test_the_ceiling_holds_before_a_request_is_sent(server: PaidServer, tmp_path: Path) -> None:
    most = most_usd(ASKED, 4, PRICE)
    assert most >= 0.013 + 0.008
    with paid(server, tmp_path, ceiling=most * 1.2) as model:
        model.ask(ASKED, max_tokens=4)
        with pytest.raises(
            BudgetError, match=r"api.ceiling: the next .* may cost \$.*; \$.* of \$.* are spent"
        ):
            for number in range(100):
                model.ask([{"role": "user", "content": f"and {number}"}], max_tokens=9)
        assert model.ledger.spent <= model.ledger.ceiling


def test_what_fails_is_not_put_down_and_no_usage_counts_as_the_most(
    server: PaidServer, tmp_path: Path
) -> None:
    with paid(server, tmp_path) as model:
        server.failures = [(400, {})]
        with pytest.raises(Refusal):
            model.ask(ASKED, max_tokens=4)
        assert model.ledger.spent == 0
        server.usage = False
        assert model.ask(ASKED, max_tokens=4).usd == most_usd(ASKED, 4, PRICE) == model.ledger.spent


def test_two_processes_share_one_ceiling(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "spent.json", 1.0) for _ in range(2)]
    refused = []

    def spend(ledger: Ledger) -> None:
        for _ in range(30):
            try:
                ledger.reserve(0.03125)
            except BudgetError:
                refused.append(1)

    threads = [threading.Thread(target=spend, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledgers[0].spent == pytest.approx(1.0) and len(refused) == 28


def test_rate_limits_are_waited_for_as_the_server_asks(
    server: PaidServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    # The client's own name, not the module of everybody: other threads of the process sleep as well.
    own_time = SimpleNamespace(
        sleep=pauses.append, monotonic=time.monotonic, perf_counter=time.perf_counter, time=time.time
    )
    monkeypatch.setattr(connection, "time", own_time)
    in_40_s = formatdate(time.time() + 40, usegmt=True)
    server.failures = [(429, {"retry-after": "1.5"}), (429, {"retry-after": in_40_s}), (502, {}), (529, {})]
    with paid(server, tmp_path, patience=600) as model:
        reply = model.ask(ASKED, max_tokens=4)
    assert pauses[0] == 1.5 and 30 < pauses[1] <= 40 and pauses[2:] == [0.05, 0.05]
    assert reply.seconds < 1, "the time of the answer, not of the tries before it"
    server.failures = [(429, {"retry-after": "900"})]
    with paid(server, tmp_path, patience=600) as model, pytest.raises(Refusal, match="429"):
        model.ask(ASKED, max_tokens=5)


def test_a_key_is_one_line_of_its_owners_file_and_in_no_message(server: PaidServer, tmp_path: Path) -> None:
    file = tmp_path / "api.key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    assert read_key(str(file)) == KEY and read_key("") == ""
    for text, mode in ((f"{KEY} {KEY}", 0o600), ("", 0o600), (KEY, 0o640), (KEY, 0o604)):
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(ConfigError) as refused:
            read_key(str(file))
        assert KEY not in str(refused.value) and "api.key" in str(refused.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(str(tmp_path / "none"))
    with paid(server, tmp_path, key="sk-another") as model, pytest.raises(Refusal) as wrong:
        model.ask(ASKED, max_tokens=4)
    assert "sk-another" not in str(wrong.value)
    with paid(server, tmp_path) as model:
        model.ask(ASKED, max_tokens=4)
    kept = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(kept) == 2 and not any(KEY in text for text in kept)
