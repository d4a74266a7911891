"""A stand-in for vLLM: answers like it, and dies, hangs or stumbles when the prompt says so.

python fake_engine.py PORT NAME MODE      # MODE: good, or how its start fails; starts in a tenth of a second
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from adaptkit.serve.engine.entrypoint import end_with_parent

LOAD, UNLOAD = "/adaptkit/adapters/load", "/adaptkit/adapters/unload"


def vector_of(text: str) -> list[float]:
    """A vector of length 1: how often each letter comes."""
    counts = [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz "]
    length = sum(count * count for count in counts) ** 0.5 or 1.0
    return [count / length for count in counts]


def wait_for_file(prompt: object) -> None:
    """Wait until there is the file that a prompt `until FILE` names."""
    while isinstance(prompt, str) and prompt.startswith("until ") and not os.path.exists(prompt[6:]):
        time.sleep(0.02)


class Answers(BaseHTTPRequestHandler):
    """`dead` is vLLM's state between the death of its engine and its exit with 0."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as vLLM, whose event loop sets TCP_NODELAY
    dead = False

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(503 if self.dead else 200, {})
        elif self.path == "/metrics":
            name = "vllm:num_requests_running"
            self.reply(200, f"# HELP {name} R\n# TYPE {name} gauge\n{name} 2.0\n", "text/plain")
        else:
            self.reply(200, {"data": [{"id": NAME, "max_model_len": 64}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {os.environ['ADAPTKIT_API_KEY']}":
            return self.reply(401, {"error": "Unauthorized"})
        if self.path in (LOAD, UNLOAD):
            return self.reply(*Adapters.change(self.path, body["name"], body.get("folder", "")))
        model = body.get("model", "")
        if "@" in model and not Adapters.answers(model):
            return self.reply(404, {"error": {"message": f"The model `{model}` does not exist."}})
        prompt = body.get("prompt")
        if prompt == "exit":
            os._exit(0)
        if prompt == "engine dies":
            Answers.dead = True
            threading.Timer(0.5, os._exit, [0]).start()
            return self.reply(500, {"error": {"message": "EngineCore encountered an issue."}})
        if MODE == "illegal":
            os.kill(os.getpid(), signal.SIGILL)
            time.sleep(60)  # another thread may be the one that dies of it
        if MODE == "illegal in a child":
            Answers.dead = True
            print(
                "Fatal Python error: Fatal Python error: \nIllegal instruction\n", file=sys.stderr, flush=True
            )
            threading.Timer(0.5, os._exit, [0]).start()
            return self.reply(500, {"error": {"message": "EngineCore encountered an issue."}})
        if prompt in ("full", ["full"] * 3):
            return self.reply(503, {"error": {"message": "queue"}})
        if prompt == "constraint fails":
            return self.reply(500, {"error": {"message": "Internal server error"}})
        if prompt == "slow":
            time.sleep(1.5)
        if body.get("stream"):
            return self.stream(prompt)
        wait_for_file(prompt)
        seen = {"body": body, "headers": {name.lower(): value for name, value in self.headers.items()}}
        if self.path == "/classify":
            rows = [{"index": 0, "label": "a", "probs": [0.6, 0.4], "num_classes": 2}]
            return self.reply(200, {"data": rows, **seen})
        if self.path == "/v1/embeddings":
            rows = [{"index": i, "embedding": vector_of(text)} for i, text in enumerate(body["input"])]
            return self.reply(200, {"data": rows, **seen})
        if self.path == "/rerank":
            rows = [
                {"index": i, "relevance_score": 1 / len(text)} for i, text in enumerate(body["documents"])
            ]
            return self.reply(200, {"results": rows, **seen})
        choice = {"index": 0, "text": "x", "finish_reason": "length"}
        self.reply(200, {"choices": [choice], "usage": {"completion_tokens": 1}, **seen})

    def stream(self, prompt: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        wait_for_file(prompt)
        if prompt == "dies late":
            self.chunk(b'data: {"error": {"message": "EngineCore encountered an issue."}}\n\n')
            return os._exit(0)
        for piece in range(3):
            self.chunk(b'data: {"choices": [{"text": "%d"}]}\n\n' % piece)
            if prompt == "exit in stream" and piece == 1:
                os._exit(0)
            time.sleep(0.3 if prompt == "paced" else 0)
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def reply(self, status: int, body: object, kind: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


class Adapters:
    """The adapters that are loaded; vLLM answers wrongly when all slots are full, this one not at all."""

    loaded: ClassVar[set[str]] = set()

    @classmethod
    def change(cls, path: str, name: str, folder: str) -> tuple[int, dict[str, str]]:
        if path == UNLOAD:
            cls.loaded.remove(name)
            return 200, {"message": "removed"}
        if name.startswith("kills"):
            os._exit(0)
        if name.startswith("odd") or not os.path.isfile(os.path.join(folder, "adapter_config.json")):
            return 500, {"message": "vLLM does not know this kind of adapter"}
        cls.loaded.add(name)
        if MODE.startswith("slots") and len(cls.loaded) > int(MODE.split()[1]):
            return 500, {"message": "too many adapters"}
        return 200, {"message": "added"}

    @classmethod
    def answers(cls, name: str) -> bool:
        """Whether an adapter is there from the beginning of an answer to its end."""
        there = name in cls.loaded
        time.sleep(0.02)
        return there and name in cls.loaded


class FakeVllm(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    """Run as the child."""
    global NAME, MODE
    port, NAME, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    MODE = mode
    if mode == "grandchild" and os.fork() == 0:
        time.sleep(600)
    if lifeline := os.environ.get("ADAPTKIT_LIFELINE"):
        threading.Thread(target=end_with_parent, args=(int(lifeline),), daemon=True).start()
    if mode == "exit 0":
        return None
    if mode == "exit 1":
        cause = "RuntimeError: Cannot find any model weights with `x`"
        print(f"(EngineCore pid=1) ERROR 11-21 11:33:01 [core.py:1] {cause}")
        sys.exit(1)
    FakeVllm(("127.0.0.1", port), Answers).serve_forever()


if __name__ == "__main__":
    main()
