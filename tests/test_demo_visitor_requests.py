"""What one visitor may send: bodies of a bounded size, functions that exist, a share of the queue."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the demo extra is not installed")

from adaptkit.demo import visitor_requests
from adaptkit.demo.visitor_requests import JOIN, SHARE, VISITOR, VisitorRequests


class Page:
    """An application whose queue keeps every request, behind the bounds."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.waiting: dict[str, int] = {}
        self.bounds = VisitorRequests(self.join, {0: "first", 7: "second"}, self._pending, 1_000_000)

    def _pending(self, visitor: str) -> int:
        return self.waiting.get(visitor, 0)

    async def join(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        self.bodies.append((await receive())["body"])
        self.waiting[scope[VISITOR]] = self.waiting.get(scope[VISITOR], 0) + 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(self, parts: list[bytes], path: str = JOIN, visitor: str = "one") -> int:
        """Send a body in parts, as a chunked one comes; the status."""
        statuses = []
        left = list(parts)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: dict[str, Any]) -> None:
            statuses.append(message.get("status"))

        await self.bounds({"type": "http", "method": "POST", "path": path, VISITOR: visitor}, receive, send)
        return statuses[0]


def call(number: object) -> list[bytes]:
    return [json.dumps({"fn_index": number, "data": []}).encode()]


def test_a_body_of_any_pieces_is_bounded_and_handed_on_whole() -> None:
    page = Page()
    assert asyncio.run(page.send([b"a" * 999_999, b"b"], "/gradio_api/reset")) == 200
    assert page.bodies == [b"a" * 999_999 + b"b"]
    assert asyncio.run(page.send([b"a" * 1000] * 1001, "/gradio_api/reset")) == 413
    assert asyncio.run(page.send([b"a" * 1_000_001])) == 413
    assert len(page.bodies) == 1


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_requests, "BODY_S", 0.05)
    statuses = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status"))

    asyncio.run(Page().bounds({"type": "http", "method": "POST", "path": JOIN}, receive, send))
    assert statuses[0] == 408


@pytest.mark.parametrize(
    ("number", "status"), [(0, 200), (7, 200), (1, 404), (-1, 404), (True, 404), ("7", 404), (None, 200)]
)
def test_only_functions_of_the_page_are_called(number: object, status: int) -> None:
    assert asyncio.run(Page().send(call(number))) == status


def test_one_visitor_cannot_fill_the_queue() -> None:
    async def crowd() -> tuple[list[int], int]:
        page = Page()
        greedy = await asyncio.gather(*(page.send(call(0)) for _ in range(40)))
        return greedy, await page.send(call(0), visitor="another")

    greedy, another = asyncio.run(crowd())
    assert greedy.count(200) == SHARE and greedy.count(429) == 40 - SHARE
    assert another == 200
