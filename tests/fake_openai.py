"""A server that speaks as much OpenAI and vLLM as the demo asks for, in a thread, with failures on demand.

with FakeServer(["study-generic-prompt", ...]) as server: ...
server.behave["study-generic-prompt"] = "busy"      # busy, cut, slow, gone, no-template, other
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a-key-that-no-page-may-ever-show"
WORDS = [
    "the",
    "trial",
    "of",
    "a",
    "drug",
    "in",
    "adults",
    "with",
    "asthma",
    "shows",
    "no",
    "effect",
    "after",
    "twelve",
    "weeks",
]


class FakeServer:
    """Models are (name, kind); `identities` is what an adaptkit server tells of some, by name."""

    def __init__(
        self,
        models: list[tuple[str, str]],
        *,
        identities: dict[str, dict[str, str]] | None = None,
        num_classes: int = 5,
        delay_s: float = 0.01,
        port: int = 0,
    ):
        self.models, self.num_classes, self.delay_s = models, num_classes, delay_s
        self.identities = dict(identities or {})
        self.behave: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.sureness: dict[str, Any] = {}
        """What an exported classifier says of each text beside label and probabilities."""
        self.loading = False
        self.answer: Callable[[str], str] = lambda asked: "as much"
        fake = self

        class Handler(_Handler):
            server_of = fake

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # callers hang up in the middle: that is tested
                return None

        self._http = Quiet(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_of: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return None

    def do_GET(self) -> None:
        fake = self.server_of
        if not self._allowed():
            return
        if fake.loading:
            self._json({"error": {"message": "loading"}}, 503, {"retry-after": "7"})
        elif self.path == "/v1/models":
            rows = [{"id": name, "kind": kind, "max_model_len": 512} for name, kind in fake.models]
            told = {name: {"adaptkit": identity} for name, identity in fake.identities.items()}
            self._json({"data": [{**row, **told.get(row["id"], {})} for row in rows]})
        else:
            self._json({"error": {"message": "not found"}}, 404)

    def do_POST(self) -> None:
        fake = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fake.requests.append((self.path, body))
        if not self._allowed():
            return
        mode = fake.behave.get(body["model"], "")
        if mode == "busy":
            self._json({"error": {"message": "restarting; try again in 9 s"}}, 503, {"retry-after": "9"})
        elif body["model"] not in dict(fake.models):
            self._json({"error": {"message": "no such model"}}, 404)
        elif self.path == "/v1/chat/completions" and mode == "no-template":
            self._json({"error": {"message": "the tokenizer does not define a chat template"}}, 400)
        elif self.path in ("/v1/completions", "/v1/chat/completions") and body.get("stream"):
            self._stream(body, mode)
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            text = fake.answer(body["messages"][-1]["content"] if "messages" in body else body["prompt"])
            self._json(
                {
                    "choices": [
                        {"index": 0, "finish_reason": "stop", "text": text, "message": {"content": text}}
                    ]
                }
            )
        elif self.path == "/v1/embeddings":
            self._json(
                {
                    "data": [
                        {"index": i, "embedding": _vector(body["model"], t)}
                        for i, t in enumerate(body["input"])
                    ]
                }
            )
        elif self.path == "/tokenize":
            self._json({"tokens": list(range(len(body["prompt"].split())))})
        elif self.path == "/classify":
            self._json({"data": [self._classified(i, text) for i, text in enumerate(body["input"])]})

    def _allowed(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {KEY}":
            return True
        self._json({"error": {"message": "a key is needed"}}, 401)
        return False

    def _classified(self, index: int, text: str) -> dict[str, Any]:
        """Overconfident on purpose: right in about two of three, sure in nearly all."""
        rng = random.Random(text)
        count = self.server_of.num_classes
        true = next((i for i in range(count) if f"class{i}" in text), 0)
        said = true if rng.random() < 0.66 else rng.randrange(count)
        rest = 0.04 / (count - 1)
        return {
            "index": index,
            "label": f"LABEL_{said}",
            "probs": [0.96 if i == said else rest for i in range(count)],
            **self.server_of.sureness,
        }

    def _stream(self, body: dict[str, Any], mode: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        count = min(body["max_tokens"], 400)
        time.sleep(3.0 if mode == "slow" else 0.0)
        for i in range(count):
            if mode == "cut" and i == 5:
                self.close_connection = True
                return
            word = (
                " <b>bold</b> ${1+1} {{2}}"
                if mode == "hostile" and i == 2
                else f" {WORDS[(i + (mode == 'other')) % len(WORDS)]}"
            )
            key = {"text": word} if self.path == "/v1/completions" else {"delta": {"content": word}}
            self._event({"choices": [{"index": 0, **key, "finish_reason": None}]})
            time.sleep(self.server_of.delay_s)
        self._event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": count}})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, value: dict[str, Any]) -> None:
        self._chunk(f"data: {json.dumps(value)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "content-type": "application/json",
            "content-length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


def _vector(model: str, text: str) -> list[float]:
    """A bag of hashed words; the generic model sees their first letters only."""
    vector = [0.01] * 32
    for word in text.lower().split():
        seen = word if "domain" in model else word[:2]
        vector[int(hashlib.sha256(seen.encode()).hexdigest(), 16) % 32] += 1.0
    return vector
