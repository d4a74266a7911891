"""A small real HTTP server that answers chats as a paid API does: usage, rate limits, refusals, on demand.

with PaidServer(answer=lambda messages: "no") as server: ... server.bodies, server.url
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-of-nobody"


class PaidServer:
    """Asks for KEY; gives `failures` (status, headers) before any answer; takes choices if `holds`."""

    def __init__(
        self, answer: Callable[[list[dict[str, str]]], str], *, holds: bool = True, usage: bool = True
    ):
        self.answer, self.holds, self.usage = answer, holds, usage
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.bodies: list[dict[str, Any]] = []
        paid = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return None

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._send(*paid.reply(body, self.headers.get("authorization", "")))

            def _send(self, status: int, value: dict[str, Any], headers: dict[str, str]) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def reply(self, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, JSON and headers of one answer."""
        if key != f"Bearer {KEY}":
            return 401, {"error": {"message": f"wrong key {key}"}}, {}
        if self.failures:
            status, headers = self.failures.pop(0)
            return status, {"error": {"message": "not now"}}, headers
        if not self.holds and "structured_outputs" in body:
            return 400, {"error": {"message": "unknown parameter: structured_outputs"}}, {}
        self.bodies.append(body)
        text = self.answer(body["messages"])
        value: dict[str, Any] = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        if self.usage:
            num_words = sum(len(message["content"].split()) for message in body["messages"])
            value["usage"] = {"prompt_tokens": num_words, "completion_tokens": len(text.split())}
        return 200, value, {}

    def __enter__(self) -> PaidServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
