"""Watch a folder of LoRA adapters: each sub-folder with an adapter_config.json is a served name.

    folder = AdapterFolder(Path("adapters"), bases, AdapterRoom(16, 64), taken=["support"], store=Path(...))
    folder.scan()                       # again and again; what has come, gone and been refused
    folder.adapters, folder.refused

An adapter is looked at once its files have stayed the same from one scan to the next, so that one that is
being copied is left alone. It is judged and served as a copy of its own: whatever happens to the folder
later, a process that loads it gets the files that were judged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from adaptkit.errors import AdaptkitError, ConfigError, ModelError
from adaptkit.export.papers.signature import verify_signature
from adaptkit.export.source import Source
from adaptkit.run import file_digest, read_json
from adaptkit.serve.engine import lora
from adaptkit.serve.engine.lora_flags import RANKS, Adapter, AdapterRoom
from adaptkit.serve.model_files import check_contents

State = tuple[tuple[str, int, int, int], ...]
DEFAULT_RANK = 16
KEEP_S = 60.0
"""How long a copy is kept after its last use: a process may still be about to load it."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class AdapterFolder:
    """What a folder of adapters offers at the last scan.

    Args:
        folder: the one that is watched.
        bases: the models that are served.
        room: how many adapters fit, of which rank.
        taken: names that are served already.
        store: a folder of our own, for copies of what is served.
        signed_by: the public key (PEM) that every adapter must have been signed for; None asks for none.

    Attributes:
        adapters: name -> the newest version that was found in order.
        refused: name -> why its newest version is not served: what, and how to mend it.
        present: every name whose folder is there, also those that are still being written.
        notes: name -> a clause for people about an adapter that is served.
    """

    def __init__(
        self,
        folder: Path,
        bases: Sequence[Source],
        room: AdapterRoom,
        *,
        taken: Collection[str],
        store: Path,
        signed_by: Path | None = None,
    ):
        self.folder, self.room, self._bases = folder, room, list(bases)
        self._taken, self._store, self._signed_by = frozenset(taken), store, signed_by
        self.adapters: dict[str, Adapter] = {}
        self.refused: dict[str, str] = {}
        self.present: set[str] = set()
        self.notes: dict[str, str] = {}
        self._seen: dict[str, State] = {}
        self._judged: dict[str, State] = {}
        self._unused: dict[Path, float] = {}

    def scan(self) -> None:
        """Look at the folder once.

        Raises: ConfigError where it cannot be read; what was known stays.
        """
        states = {path.name: _state(path) for path in subfolders(self.folder)}
        self.present = set(states)
        for table in (self.adapters, self.refused, self.notes, self._seen, self._judged):
            for name in set(table) - self.present:
                del table[name]
        for name, state in states.items():
            settled = state is not None and self._seen.get(name) == state
            if settled and state is not None and self._judged.get(name) != state:
                self._judge(name, state)
            if state is not None:
                self._seen[name] = state
        self._remove_unused()

    def _judge(self, name: str, state: State) -> None:
        """Take up a version of an adapter, or note why not; one that changes meanwhile comes again."""
        folder = self.folder / name
        try:
            adapter, note = self._checked(name, folder.resolve())
        except AdaptkitError as error:
            if _state(folder) == state:
                self.refused[name] = "; ".join(part for part in (error.what, error.fix) if part)
                self._judged[name] = state
            return
        except OSError as error:
            if _state(folder) == state:  # else it went away in the middle
                self.refused[name] = f"cannot be copied: {error.strerror or error}; it is tried again"
            return
        if _state(folder) == state:
            self._judged[name] = state
            self.adapters[name], self.notes[name] = adapter, note
            self.refused.pop(name, None)

    def _checked(self, name: str, folder: Path) -> tuple[Adapter, str]:
        """Judge an adapter and copy it.

        Raises: ModelError for one that cannot be served; OSError where its files go away.
        """
        if not _NAME.fullmatch(name) or name in self._taken:
            what = f"a model is called '{name}' already" if name in self._taken else "is no name for a model"
            raise ModelError(what, where=str(folder), fix="rename it: letters, digits, '.', '_' and '-'")
        check_contents(folder)
        if why := lora.cannot_be_served(folder):
            fix = "serve it merged, by a server of its own: adaptkit serve BASE NAME=ADAPTER"
            raise ModelError(why, where=str(folder), fix=fix)
        base = lora.base_of(folder, self._bases)
        adapter = lora.adapter_over(base, name, folder)
        if adapter.rank > self.room.rank:
            what = f"its rank {adapter.rank} is over {self.room.rank}, which this server was started for"
            fix = f"start the server with --adapter-rank {adapter.rank}"
            raise ModelError(what, where=str(folder), fix=fix)
        copy = self._copied(folder)
        other = lora.check_fit(copy, base)
        note = f"a LoRA adapter over {base.name}" + (f"; {other}" if other else "")
        return dataclasses.replace(adapter, folder=copy, version=copy.name, base=base.name), note

    def _copied(self, folder: Path) -> Path:
        """Copy an adapter into a folder that is named by the digest of what vLLM reads of it.

        Contents and signature are those of the copy: nobody can exchange a file after it was judged.
        """
        partial = self._store / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        check_contents(partial)
        if self._signed_by is not None:
            verify_signature(partial, self._signed_by)
        whole = hashlib.sha256()
        for path in sorted([partial / lora.SETTINGS, *partial.glob("*.safetensors")]):
            whole.update(f"{path.name} {file_digest(path)}\n".encode())
        target = self._store / whole.hexdigest()[:12]
        if not target.is_dir():
            partial.rename(target)
        self._unused.pop(target, None)
        return target

    def _remove_unused(self) -> None:
        """Remove the copies that no name has stood for, for a while."""
        used = {adapter.folder for adapter in self.adapters.values()}
        for copy in set(self._store.iterdir()) - used if self._store.is_dir() else ():
            since = self._unused.setdefault(copy, time.monotonic())
            if time.monotonic() - since > KEEP_S:
                shutil.rmtree(copy, ignore_errors=True)
                del self._unused[copy]


def subfolders(folder: Path) -> list[Path]:
    """List the adapters that lie in a folder, whatever their state.

    Raises: ConfigError where it cannot be read.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".") and (path / lora.SETTINGS).is_file()
        )
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ConfigError(what, where=str(folder), fix="give a folder of adapters to --adapters") from None


def largest_rank(folder: Path) -> int:
    """Find the rank to make room for: the largest that lies there now, at least 16.

    Raises: ConfigError where the folder cannot be read.
    """
    ranks = [DEFAULT_RANK]
    for path in subfolders(folder):
        try:
            settings = read_json(path / lora.SETTINGS)
            wanted = [settings.get("r"), *(settings.get("rank_pattern") or {}).values()]
            ranks += [rank for rank in wanted if isinstance(rank, int) and rank <= RANKS[-1]]
        except (AdaptkitError, OSError, ValueError, AttributeError):
            continue  # `scan` says what is wrong with it
    return next(rank for rank in RANKS if rank >= max(ranks))


def _state(folder: Path) -> State | None:
    """The files of a folder and when they changed; None while they come and go."""
    try:
        entries = sorted(folder.resolve().iterdir())
        stats = [(str(path), path.stat()) for path in entries]
    except OSError:
        return None
    return tuple((name, held.st_size, held.st_mtime_ns, held.st_ino) for name, held in stats)
