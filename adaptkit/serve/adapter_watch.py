"""Serve what comes into a folder of adapters, and end what goes, while requests are under way.

An adapter is listed once every engine of its base has loaded it and given one real answer with it. A new
version takes the place of the old one between two requests: the old one is unloaded when its last request
has ended. A version that is refused displaces nothing.
"""

from __future__ import annotations

import asyncio
import logging

from adaptkit.client.openai import Client
from adaptkit.client.relay import ConnectionLost
from adaptkit.errors import AdaptkitError, ServerError
from adaptkit.serve.engine.adapter_folder import AdapterFolder
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.engine.residents import NoRoom
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.served_names import ServedNames
from adaptkit.serve.status import StatusLine

SCAN_S = 1.0
PATIENCE_S = 60.0
"""How long an adapter's first answer may be put off by an engine whose queue is full."""
AGAIN = "mend it, or write its files anew to have it tried again"

log = logging.getLogger("adaptkit.serve")


class AdapterWatch:
    """Brings the names that are served in line with a folder.

    Args:
        folder: what is offered.
        served: what is served.
        status: hears what came, went and was refused.
    """

    def __init__(self, folder: AdapterFolder, served: ServedNames, status: StatusLine):
        self.folder, self.served, self.status = folder, served, status
        self._failed: dict[str, tuple[Adapter, str]] = {}
        self._said: dict[str, str] = {}
        self._unreadable = ""
        self._ending: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(SCAN_S)
            await self.look()

    async def look(self) -> None:
        """Look once: take away what has gone, then take up what has come, and say what is refused."""
        try:
            await self._look()
        except Exception:  # the next look tries again; the server goes on
            log.exception("the folder of adapters could not be looked at")

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(self.folder.scan)
            self._unreadable = ""
        except AdaptkitError as error:  # a disk that is away for a moment takes no adapter with it
            if error.what != self._unreadable:
                self._unreadable = error.what
                self.status.note("adapters", f"{error.where} {error.what}; those that are served stay")
            return
        for name in set(self.served.adapters) - self.folder.present:
            self.status.note(name, "no longer served: its folder has gone")
            del self.served.adapters[name]
        for name, adapter in list(self.folder.adapters.items()):
            tried = (self.served.adapters.get(name), self._failed.get(name, (None, ""))[0])
            if adapter not in tried:
                await self._take_up(adapter)
        self._end_others()
        self._say_refused()

    async def close(self) -> None:
        """End what still waits for requests to end."""
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_up(self, adapter: Adapter) -> None:
        """Serve an adapter once the engines of its base that are up have answered with it, one by one."""
        replicas = self.served.replicas(adapter.base)
        if not replicas:  # one that nobody named, and that did not start
            self._failed[adapter.name] = adapter, f"its base {adapter.base} is not served"
        engines = [engine for engine in replicas if engine.state == "ready"]
        try:
            for engine in engines:  # one that would end an engine ends one alone
                await self._try(engine, adapter)
        except NoRoom:
            return  # the next look tries again
        except ServerError as error:
            self._failed[adapter.name] = adapter, error.what
            return
        if not engines:
            return
        before = self.served.adapters.get(adapter.name)
        self.served.adapters[adapter.name] = adapter
        self._failed.pop(adapter.name, None)
        news = "a new version of it is served" if before else "served"
        note = self.folder.notes.get(adapter.name, "")
        place = "one engine" if len(engines) == 1 else f"{len(engines)} engines"
        self.status.note(adapter.name, f"{news}: {note}, version {adapter.version}, on {place}")

    async def _try(self, engine: Engine, adapter: Adapter) -> None:
        """Load an adapter and ask for one answer with it.

        Raises: ServerError for one that vLLM refuses, or that gives no answer; NoRoom.
        """
        process_id, source = engine.process_id, engine.launch.source

        def ask() -> None:
            with Client(engine.url, engine.key, patience_s=PATIENCE_S) as client:
                engine.check(client, source, adapter.engine_name)

        try:
            async with engine.residents.hold(adapter):
                await asyncio.to_thread(ask)
        except NoRoom:
            raise
        except ServerError as error:
            if isinstance(error, ConnectionLost) or engine.process_id != process_id:
                engine.suspect()
                raise ServerError(f"the engine ended as it tried it ({error.what})", fix=AGAIN) from None
            raise

    def _end_others(self) -> None:
        """Unload every version that no name stands for, once its last request has ended.

        What is loaded is looked at, not what was displaced: a request that had chosen a version before it
        was displaced may load it again.
        """
        wanted = {adapter.engine_name for adapter in self.served.adapters.values()}
        for engine in self.served.engines:
            for name in engine.residents.names - wanted:
                if (engine.label, name) not in self._ending:
                    self._ending[engine.label, name] = asyncio.create_task(self._drop(engine, name))

    async def _drop(self, engine: Engine, name: str) -> None:
        try:
            await engine.residents.drop(name)
        except ServerError as error:  # it has ended, and its adapters with it
            log.warning("engine %s did not unload %s: %s", engine.label, name, error.what)
        finally:
            del self._ending[engine.label, name]

    def _say_refused(self) -> None:
        """Say once of each version that is refused why, and whether an older one is served meanwhile."""
        refused = dict(self.folder.refused)
        for name, (adapter, why) in list(self._failed.items()):
            if self.folder.adapters.get(name) == adapter:
                refused.setdefault(name, f"{why}; {AGAIN}")
            else:
                del self._failed[name]
        self.served.refused = refused
        for name, why in refused.items():
            if self._said.get(name) != why:
                stays = "; the version before stays" if name in self.served.adapters else ""
                self.status.note(name, f"refused: {why}{stays}")
        self._said = refused
