"""Adapters that come and go under load, over stand-ins of vLLM: three replicas, and no failed request.
Home of serve.adapter_watch, serve.engine.residents, serve.gateway.served_names and serve.gateway.replies."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import contextlib
import dataclasses
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from fake_serving import eventually, fake_launch, running
from tiny_served import MODULE, pair, write_adapter, write_bases, write_shapes

from adaptkit.client.openai import Client
from adaptkit.serve import adapter_watch
from adaptkit.serve.engine import residents
from adaptkit.serve.engine.adapter_folder import AdapterFolder
from adaptkit.serve.engine.launches import replicated
from adaptkit.serve.engine.lora_flags import Adapter, AdapterRoom
from adaptkit.serve.engine.residents import Residents
from adaptkit.serve.server import Server

COMING, AT_ONCE = 20, 4
SLOTS = 4  # fewer than there are adapters at the worst moment


@dataclasses.dataclass
class Port:
    """A server over three replicas of one base, and the folder that it watches."""

    client: Client
    server: Server
    base: Path
    folder: Path

    def ask(self, name: str, prompt: str = "a") -> httpx.Response:
        body = {"model": name, "prompt": prompt, "max_tokens": 1}
        return self.client._http.post("/v1/completions", json=body)

    def add(self, name: str, **settings: object) -> Path:
        """Move a new adapter in, as a program does that writes it elsewhere first."""
        made = write_adapter(self.folder.parent / f"made-{name}", self.base, **settings)
        return made.rename(self.folder / name)

    @property
    def adapters(self) -> dict[str, Adapter]:
        return self.server.router.served.adapters

    @property
    def refused(self) -> dict[str, str]:
        return self.server.router.served.refused

    def listed(self) -> dict[str, dict]:
        return {row["id"]: row for row in self.client.get("/v1/models", dict)["data"]}

    def why(self, name: str) -> str:
        return self.ask(name).json()["error"]["message"]


@contextlib.contextmanager
def port(root: Path, replicas: int = 3) -> Iterator[Port]:
    base, _ = write_bases(root)
    room = AdapterRoom(SLOTS, 16)
    (root / "adapters").mkdir()
    folder = AdapterFolder(root / "adapters", [base], room, taken=["one"], store=root / "store")
    launch = dataclasses.replace(fake_launch(base.folder, f"slots {SLOTS}", name="one"), room=room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter_watch, "SCAN_S", 0.05)
        with running(replicated([launch], replicas), root, adapters=folder) as (client, server):
            yield Port(client, server, base.folder, root / "adapters")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with port(tmp_path_factory.mktemp("three")) as made:
        yield made


def test_no_request_fails_while_twenty_adapters_come_and_go(three: Port) -> None:
    three.add("steady")
    eventually(lambda: "steady" in three.adapters, "the first adapter is served")
    stop, versions, busy = threading.Event(), set(), set()
    statuses: Counter[tuple[int, str]] = Counter()

    def ask(name: str) -> None:
        answer = three.ask(name)
        statuses[answer.status_code, "" if answer.status_code == 200 else answer.text] += 1
        if name == "steady" and answer.status_code == 200:
            versions.add(answer.json()["body"]["model"])

    def load(name: str) -> None:
        while not stop.wait(0.05):
            ask(name)
            busy.add(sum(engine.answering for engine in three.server.engines))

    def visit(number: int) -> None:
        name = f"guest-{number}"
        folder = three.add(name)
        eventually(lambda: name in three.adapters, "it is served")
        for _ in range(2):
            ask(name)
        shutil.rmtree(folder)
        eventually(lambda: name not in three.adapters, "it has gone")
        assert three.ask(name).status_code == 404

    loads = [threading.Thread(target=load, args=(name,)) for name in ("one", "steady", "steady")]
    for thread in loads:
        thread.start()
    with ThreadPoolExecutor(AT_ONCE) as visitors:
        visits = [visitors.submit(visit, number) for number in range(COMING)]
        # Another version takes the place of the first one, under load.
        write_shapes(three.folder / "steady" / "adapter_model.safetensors", pair(MODULE, 8), fill=b"\7")
        for done in visits:
            done.result()
    eventually(lambda: len(versions) == 2, "the new version answers")
    stop.set()
    for thread in loads:
        thread.join()
    assert set(statuses) == {(200, "")} and statuses[200, ""] > 2 * COMING
    assert set(three.listed()) == {"one", "steady"} and three.listed()["steady"]["parent"] == "one"
    left = {three.adapters["steady"].engine_name}  # not in an engine where a guest took its room last
    eventually(lambda: all(each.residents.names <= left for each in three.server.engines), "all are unloaded")
    assert [engine.restarts for engine in three.server.engines] == [0, 0, 0] and max(busy) > 0


def test_a_bad_adapter_is_refused_with_a_reason_and_the_others_go_on(
    three: Port, capfd: pytest.CaptureFixture[str]
) -> None:
    three.add("large", r=64)
    three.add("odd")  # the engine refuses it
    three.add("one")  # the name of the base
    broken = three.add("broken")
    (broken / "adapter_model.safetensors").write_bytes(b"junk")
    (three.folder / "no-adapter").mkdir()
    eventually(lambda: set(three.refused) == {"large", "odd", "one", "broken"}, "all four are refused")
    assert "rank 64 is over 16" in three.why("large") and "--adapter-rank 64" in three.why("large")
    assert "vLLM says: vLLM does not know this kind" in three.why("odd")
    assert "is called 'one' already" in three.refused["one"]
    assert three.ask("steady").status_code == three.ask("one").status_code == 200
    shutil.rmtree(broken)
    three.add("broken")
    eventually(lambda: "broken" in three.adapters and "broken" not in three.refused, "it was mended")
    assert capfd.readouterr().err.count('"model": "large", "text": "refused: its rank 64') == 1


def test_one_that_ends_the_engine_ends_one_alone_and_is_not_tried_again(three: Port) -> None:
    three.add("kills")
    eventually(lambda: "the engine ended as it tried it" in three.refused.get("kills", ""), "it is refused")
    assert three.ask("steady").status_code == 200
    eventually(lambda: all(engine.state == "ready" for engine in three.server.engines), "all are back")
    assert sum(engine.restarts for engine in three.server.engines) == 1
    for _ in range(6):  # the one that came back has no adapter yet: it loads it when it is asked
        assert three.ask("steady").status_code == 200


def test_a_request_goes_to_the_replica_with_the_least_to_do(three: Port) -> None:
    engines, served = three.server.engines, three.server.router.served
    assert [engine.answering for engine in engines] == [0, 0, 0]
    try:
        for number, engine in enumerate(engines):
            assert served.find("one") == (engine, None)
            engine.answering = 3 - number
        assert served.find("one") == (engines[2], None)
    finally:
        for engine in engines:
            engine.answering = 0
    assert served.find("absent") is None and served.only() == "one"


def test_an_adapter_stays_while_it_is_used_and_the_longest_idle_makes_room() -> None:
    calls: list[tuple[str, str]] = []

    class Relay:
        async def post(self, url: str, key: str, content: bytes, headers: object) -> object:
            calls.append((url.rpartition("/")[2], json.loads(content)["name"]))
            await asyncio.sleep(0.01)
            return Answer()

    class Answer:
        status = 200

        async def read(self) -> bytes:
            return b"{}"

    class Engine:
        url, key = "http://engine", "k"

    def named(name: str) -> Adapter:
        return Adapter(name, Path(name), 8)

    async def use() -> None:
        held = Residents(2, Engine(), Relay())
        async with held.hold(named("a")):
            async with held.hold(named("b")):
                pass
            async with held.hold(named("c")):
                assert named("b") not in held and named("a") in held and len(held) == 2
                with pytest.raises(residents.NoRoom, match="all 2 adapters"):
                    async with held.hold(named("d")):
                        pass
            dropping = asyncio.create_task(held.drop("a"))
            await asyncio.sleep(0.05)
            assert not dropping.done() and ("unload", "a") not in calls
        await dropping
        assert calls[-1] == ("unload", "a") and named("a") not in held
        gone = asyncio.create_task(held.hold(named("e")).__aenter__())
        await asyncio.sleep(0)
        gone.cancel()  # its caller; the load itself goes on, and the table knows of it
        await asyncio.sleep(0.05)
        assert named("e") in held and calls[-1] == ("load", "e")
        held.forget()
        assert len(held) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residents, "ROOM_S", 0.1)
        asyncio.run(use())
    assert calls[:4] == [("load", "a"), ("load", "b"), ("unload", "b"), ("load", "c")]
