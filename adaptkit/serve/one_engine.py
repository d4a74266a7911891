"""Serve one model for as long as one piece of work takes: start vLLM, wait, do it, end vLLM.

with_engine(launch, lambda url, key: ask(url, key), status)
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

from adaptkit.export.hardware import Hardware
from adaptkit.export.source import Source
from adaptkit.export.verify.record import UNIT_ROUNDOFF, Precision
from adaptkit.model_gate import check_folder
from adaptkit.serve import api_keys
from adaptkit.serve.bench import wait_ready
from adaptkit.serve.engine.command import Launch, dtype, model_config
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.status import StatusLine

T = TypeVar("T")


def plan_bare(source: Source, hardware: Hardware) -> Launch:
    """Plan a server that starts whatever it answers: what is measured is not refused beforehand.

    Raises: ModelError for a folder that could run code or lead out of itself.
    """
    check_folder(source.folder, for_server=True)
    return Launch(dataclasses.replace(source, export=None), hardware)


def precision(launch: Launch) -> Precision:
    """Tell what a server computes in: what was chosen for it, or what its folder stores."""
    chosen = dtype(launch.source, launch.hardware)
    if chosen == "auto":
        config = model_config(launch.source)
        chosen = str(config.get("dtype") or config.get("torch_dtype"))
    return next((known for known in UNIT_ROUNDOFF if known == chosen), "bfloat16")


def with_engine(launch: Launch, work: Callable[[str, str], T], status: StatusLine) -> T:
    """Start a model's engine, call `work` with its address and key, and end the engine.

    Raises: ServerError if the model does not start; what `work` raises.
    """
    return asyncio.run(_with_engine(launch, work, status))


async def _with_engine(launch: Launch, work: Callable[[str, str], T], status: StatusLine) -> T:
    engine = Engine(launch, api_keys.log_folder() / f"verify-{launch.name}.log", status)
    running = asyncio.create_task(engine.run())
    try:
        await wait_ready(engine, running)
        return await asyncio.to_thread(work, engine.url, engine.key)
    finally:
        await engine.stop()
        await asyncio.gather(running, return_exceptions=True)
