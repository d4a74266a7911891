"""A folder of adapters as it is watched: what is taken up and when, and the calls inside vLLM.
Home of serve.engine.adapter_folder, serve.engine.adapter_calls and serve.engine.lora_flags."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tiny_served import (
    MODULE,
    SMALL,
    pair,
    write_adapter,
    write_bases,
    write_complete,
    write_model,
    write_shapes,
)

from adaptkit.cli import app, console
from adaptkit.errors import ConfigError, ModelError
from adaptkit.serve.engine import adapter_folder
from adaptkit.serve.engine.adapter_calls import LOAD, UNLOAD, AdapterCalls
from adaptkit.serve.engine.adapter_folder import AdapterFolder, largest_rank
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.launches import replicated, with_room
from adaptkit.serve.engine.lora_flags import AdapterRoom

KEY = "k" * 20


@pytest.fixture
def folder(tmp_path: Path) -> AdapterFolder:
    (tmp_path / "adapters").mkdir()
    bases = write_bases(tmp_path)
    return AdapterFolder(
        tmp_path / "adapters", bases, AdapterRoom(4, 16), taken=["one"], store=tmp_path / "store"
    )


def test_an_adapter_is_taken_up_once_its_files_stay_the_same(folder: AdapterFolder) -> None:
    two = folder._bases[1]
    made = write_adapter(folder.folder / "notes", two.folder)
    folder.scan()
    assert folder.present == {"notes"} and not folder.adapters
    write_shapes(made / "adapter_model.safetensors", pair(MODULE, 8), fill=b"\5")
    folder.scan()
    assert not folder.adapters, "its files have changed since"
    folder.scan()
    first = folder.adapters["notes"]
    assert (first.base, first.rank, first.engine_name) == ("two", 8, f"notes@{first.version}")
    write_shapes(made / "adapter_model.safetensors", pair(MODULE, 8), fill=b"\6")
    folder.scan()
    folder.scan()
    second = folder.adapters["notes"]
    assert second.version != first.version and (first.folder / "adapter_model.safetensors").is_file()
    assert (second.folder / "adapter_model.safetensors").read_bytes().endswith(b"\6")


def test_what_is_loaded_is_a_copy_that_outlives_the_folder_for_a_while(
    folder: AdapterFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_adapter(folder.folder.parent / "elsewhere", folder._bases[0].folder)
    (folder.folder / "linked").symlink_to(made)
    folder.scan()
    folder.scan()
    copy = folder.adapters["linked"].folder
    (folder.folder / "linked").unlink()
    folder.scan()
    assert not folder.adapters and not folder.present and copy.is_dir()
    monkeypatch.setattr(adapter_folder, "KEEP_S", -1.0)
    folder.scan()
    assert not copy.exists()


def test_a_version_that_is_refused_displaces_nothing(folder: AdapterFolder) -> None:
    made = write_adapter(folder.folder / "notes", folder._bases[0].folder)
    folder.scan()
    folder.scan()
    served = folder.adapters["notes"]
    write_shapes(made / "adapter_model.safetensors", pair(MODULE, 8, outputs=5))
    folder.scan()
    folder.scan()
    assert folder.adapters["notes"] == served and "is 4 x 6 in one" in folder.refused["notes"]


def test_a_folder_that_cannot_be_read_changes_nothing(folder: AdapterFolder) -> None:
    write_adapter(folder.folder / "notes", folder._bases[0].folder)
    folder.scan()
    folder.scan()
    folder.folder.rename(folder.folder.with_name("away"))
    with pytest.raises(ConfigError, match="cannot be read"):
        folder.scan()
    assert set(folder.adapters) == folder.present == {"notes"}


def test_the_copy_must_be_signed_where_a_key_is_given(
    folder: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(copy: Path, key: Path) -> None:
        assert copy.is_relative_to(tmp_path / "store") and key == tmp_path / "key.pem"
        if not (copy / "model.sig").is_file():
            raise ModelError("is not signed", where=str(copy))

    monkeypatch.setattr(adapter_folder, "verify_signature", verify)
    folder._signed_by = tmp_path / "key.pem"
    for name in ("signed", "unsigned"):
        write_adapter(folder.folder / name, folder._bases[0].folder)
    (folder.folder / "signed" / "model.sig").write_text("{}")
    folder.scan()
    folder.scan()
    assert set(folder.adapters) == {"signed"} and "is not signed" in folder.refused["unsigned"]


def test_there_is_room_for_the_largest_rank_at_the_start(tmp_path: Path) -> None:
    assert largest_rank(tmp_path) == 16
    write_adapter(tmp_path / "a", r=24)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "adapter_config.json").write_text("no json")
    write_adapter(tmp_path / "c", r=4096)
    assert largest_rank(tmp_path) == 32


def test_room_becomes_flags_and_replicas_become_processes(tmp_path: Path) -> None:
    writer, reader = write_model(tmp_path / "writer"), write_model(tmp_path / "reader", "classify")
    planned = with_room([Launch(writer, SMALL), Launch(reader, SMALL)], AdapterRoom(4, 32))
    words = " ".join(planned[0].arguments(1))
    assert "--enable-lora --max-lora-rank 32 --max-loras 5 --middleware" in words and "AdapterCalls" in words
    assert words.index("guard.Guard") < words.index("AdapterCalls"), "the last one is asked first"
    assert "--enable-lora" not in planned[1].arguments(1) and not planned[1].with_lora
    with pytest.raises(ConfigError, match="none is given"):
        with_room([Launch(reader, SMALL)], AdapterRoom(4, 32))
    spread = replicated(planned, 3)
    assert [launch.label for launch in spread[:3]] == ["writer", "writer#2", "writer#3"]
    assert {launch.name for launch in spread[:3]} == {"writer"} and spread[0].share == pytest.approx(1 / 3)


def test_a_printed_command_watches_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_complete(tmp_path / "m")
    assert console.run(app.app, ["serve", str(model), "--adapters", str(tmp_path), "--print"]) == 2
    assert "watches no folder" in capsys.readouterr().err


class Models:
    """vLLM's registry, as far as it is used."""

    def __init__(self) -> None:
        self.lora_requests: dict[str, Any] = {}
        self.engine_client = self
        self.removed: list[int] = []

    async def load_lora_adapter(self, request: Any) -> Any:
        if "none" in request.lora_path:
            return SimpleNamespace(error=SimpleNamespace(code=404, message="No adapter found"))
        self.lora_requests[request.lora_name] = SimpleNamespace(lora_int_id=7)
        return "Success"

    async def unload_lora_adapter(self, request: Any) -> Any:
        if self.lora_requests.pop(request.lora_name, None) is None:
            return SimpleNamespace(error=SimpleNamespace(code=404, message="cannot be found"))
        return "Success"

    async def remove_lora(self, number: int) -> None:
        self.removed.append(number)


def test_the_calls_inside_vllm_need_the_key_and_free_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = ModuleType("vllm.entrypoints.serve.lora.protocol")
    protocol.LoadLoRAAdapterRequest = protocol.UnloadLoRAAdapterRequest = SimpleNamespace
    for name in ("vllm", "vllm.entrypoints", "vllm.entrypoints.serve", "vllm.entrypoints.serve.lora"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, protocol.__name__, protocol)
    monkeypatch.setenv("ADAPTKIT_API_KEY", KEY)
    models = Models()
    vllm = Starlette(routes=[Route("/health", lambda request: PlainTextResponse("well"))])
    vllm.state.openai_serving_models = models
    vllm.add_middleware(AdapterCalls)

    async def use() -> list[tuple[int, str]]:
        url, own = "http://engine", {"authorization": f"Bearer {KEY}"}
        body = {"name": "notes@1", "folder": "copy"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(vllm), base_url=url) as client:
            answers = [
                await client.post(LOAD, json=body),
                await client.post(LOAD, json=body, headers=own),
                await client.post(UNLOAD, json=body, headers=own),
                await client.post(UNLOAD, json=body, headers=own),
                await client.post(LOAD, json={**body, "folder": "none"}, headers=own),
                await client.get("/health"),
            ]
        return [(answer.status_code, answer.text) for answer in answers]

    answers = asyncio.run(use())
    assert [status for status, _ in answers] == [401, 200, 200, 404, 404, 200]
    assert models.removed == [7] and "No adapter found" in answers[4][1] and answers[5][1] == "well"
