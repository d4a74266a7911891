"""Which names the port answers to, and which engines stand behind each: models, replicas, adapters.

Engines of one model are its replicas. Adapters of a watched folder come and go here between two requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.errors import nearest
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.engine.supervisor import Engine


class ServedNames:
    """The names of a server.

    Args:
        engines: in the order in which their models are listed.

    Attributes:
        adapters: name -> adapter of a watched folder that is served now.
        refused: name -> why an adapter in that folder is not served.
    """

    def __init__(self, engines: Sequence[Engine]):
        self.engines = list(engines)
        self.adapters: dict[str, Adapter] = {}
        self.refused: dict[str, str] = {}

    def replicas(self, model: str) -> list[Engine]:
        """List the engines of a model, by its own name."""
        return [engine for engine in self.engines if engine.name == model]

    def find(self, name: str, other_than: Engine | None = None) -> tuple[Engine, Adapter | None] | None:
        """Find the engine to ask: one that is ready and well, has the adapter, and has the least to do.

        Args:
            other_than: an engine that was asked already.
        """
        adapter = self.adapters.get(name)
        if adapter is not None:
            engines = self.replicas(adapter.base)
        else:
            engines = [engine for engine in self.engines if name in engine.launch.names]
        engines = [engine for engine in engines if engine is not other_than]
        if not engines:
            return None

        def cost(engine: Engine) -> tuple[bool, bool, bool, int]:
            lacks = adapter is not None and adapter not in engine.residents
            return engine.state != "ready", engine.suspected, lacks, engine.answering

        return min(engines, key=cost), adapter

    def listed(self) -> list[str]:
        """Every name, models first."""
        models = [name for engine in self.engines for name in engine.launch.names]
        return list(dict.fromkeys([*models, *self.adapters]))

    def waiting(self) -> list[Engine]:
        """List the engines of models that no engine answers for at the moment."""
        answering = {engine.name for engine in self.engines if engine.state == "ready"}
        return [engine for engine in self.engines if engine.name not in answering]

    def only(self) -> str | None:
        """The name of the one model where there is one: requests need not name it."""
        models = {engine.name for engine in self.engines}
        return models.pop() if len(models) == 1 else None

    def why_not(self, name: str) -> str:
        """Say why a name is not served, and what is: the end of an error message."""
        listed = self.listed()
        why = f": its adapter is refused, {self.refused[name]}" if name in self.refused else ""
        return f"{why}{nearest(name[:100], listed)}; served: {', '.join(listed)}"
