"""Which adapters one engine holds at the moment: loaded when they are asked, the longest idle makes room.

    async with engine.residents.hold(adapter):      # loaded from here on, and not unloaded before the end
        ...

Adapters come and go without a restart. An adapter stays where it is while requests use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from adaptkit.client.relay import JSON, Relay
from adaptkit.errors import ServerError
from adaptkit.serve.engine.adapter_calls import LOAD, UNLOAD
from adaptkit.serve.engine.lora_flags import Adapter

ROOM_S = 30.0
"""How long a request waits for room where every adapter that is loaded is in use."""
SETTLE_S = 2.0
"""How long vLLM may take to notice that a caller has gone."""


class Address(Protocol):
    """Where an engine listens now, and its key; both change when it is restarted."""

    @property
    def url(self) -> str: ...

    @property
    def key(self) -> str: ...


class NoRoom(ServerError):
    """Every adapter that is loaded is in use."""


@dataclass
class _Resident:
    """One loaded adapter and how many requests use it."""

    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Residents:
    """The adapters in one engine, in the order of their last use.

    Args:
        slots: how many may be loaded at once.
        engine: where the calls go.
        relay: what carries them.
    """

    def __init__(self, slots: int, engine: Address, relay: Relay):
        self.slots, self._engine, self._relay = slots, engine, relay
        self._held: OrderedDict[str, _Resident] = OrderedDict()
        self._changing = asyncio.Lock()
        self._freed = asyncio.Event()
        self._life = 0

    def __contains__(self, adapter: Adapter) -> bool:
        return adapter.engine_name in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def names(self) -> set[str]:
        """What the engine calls those that are loaded."""
        return set(self._held)

    def forget(self) -> None:
        """Start with none: the process that held them has ended."""
        self._held.clear()
        self._life += 1
        self._freed.set()

    @contextlib.asynccontextmanager
    async def hold(self, adapter: Adapter) -> AsyncIterator[None]:
        """Load an adapter unless it is loaded, and keep it until the end.

        Raises: ServerError where vLLM refuses it or no room is found in time; ConnectionLost.
        """
        name = adapter.engine_name
        while (resident := self._held.get(name)) is None:
            # What was begun goes on when the caller goes away: vLLM and this table must agree.
            taking = asyncio.ensure_future(self._take(adapter))
            taking.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(taking)
        resident.users += 1
        resident.idle.clear()
        self._held.move_to_end(name)
        try:
            yield
        except asyncio.CancelledError:
            # The caller went away; vLLM computes until it has noticed, and would load the adapter anew.
            asyncio.get_running_loop().call_later(SETTLE_S, self._release, resident)
            raise
        except BaseException:
            self._release(resident)
            raise
        self._release(resident)

    def _release(self, resident: _Resident) -> None:
        resident.users -= 1
        if not resident.users:
            resident.idle.set()
            self._freed.set()

    async def drop(self, name: str) -> None:
        """Unload an adapter that nobody will ask again, once the requests that use it have ended.

        Raises: ServerError; ConnectionLost.
        """
        while True:
            async with self._changing:
                resident = self._held.get(name)
                if resident is None:
                    return
                if not resident.users:
                    await self._unload(name)
                    return
            await resident.idle.wait()

    async def _take(self, adapter: Adapter) -> None:
        async with self._changing:
            if adapter in self:
                return
            life = self._life
            await self._make_room()
            await self._call(LOAD, {"name": adapter.engine_name, "folder": str(adapter.folder)})
            if life != self._life:
                raise ServerError("the engine ended while it loaded an adapter", fix="ask again")
            resident = _Resident()
            resident.idle.set()
            self._held[adapter.engine_name] = resident

    async def _make_room(self) -> None:
        """Unload those that were idle for longest until one more fits."""
        until = time.monotonic() + ROOM_S
        while len(self._held) >= self.slots:
            idle = next((name for name, held in self._held.items() if not held.users), None)
            if idle is not None:
                await self._unload(idle)
                continue
            self._freed.clear()
            try:
                await asyncio.wait_for(self._freed.wait(), until - time.monotonic())
            except TimeoutError:
                what = f"all {self.slots} adapters that are loaded are in use"
                fix = "ask again, or start the server with more --adapter-slots"
                raise NoRoom(what, fix=fix) from None

    async def _unload(self, name: str) -> None:
        del self._held[name]
        await self._call(UNLOAD, {"name": name})

    async def _call(self, path: str, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        headers = {"content-type": JSON}
        answer = await self._relay.post(self._engine.url + path, self._engine.key, content, headers)
        text = await answer.read()
        if answer.status != 200:
            with contextlib.suppress(ValueError, AttributeError):
                text = str(json.loads(text).get("message")).encode()
            what = f"vLLM says: {text.decode(errors='replace')[:300]}"
            raise ServerError(what, where=body["name"], fix="look into the adapter's folder")
