"""Load and unload LoRA adapters in a running vLLM, for the gateway alone.

    vllm serve FOLDER --enable-lora --middleware adaptkit.serve.engine.adapter_calls.AdapterCalls

vLLM's own routes for it open with a variable (VLLM_ALLOW_RUNTIME_LORA_UPDATING) that opens more, and its
unloading forgets a name but leaves the adapter in its slot: on a CPU a base whose slots are all full answers
wrongly (`lora_flags.SPARE_SLOTS`). Here its load call is used, and its two calls that end an adapter. The
paths are in no table of the guard's, so the public port does not know them; here they need the key that the
gateway and this process share.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from adaptkit.serve import api_keys

LOAD, UNLOAD = "/adaptkit/adapters/load", "/adaptkit/adapters/unload"


class AdapterCalls:
    """ASGI middleware inside vLLM, outside of its guard.

    Args:
        app: vLLM's application with its guard.
    Raises: ConfigError where the environment holds no key.
    """

    def __init__(self, app: ASGIApp):
        self.app, self.keys = app, api_keys.load()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (LOAD, UNLOAD):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        if self.keys.match(request.headers.get("authorization", "").encode("latin-1")) is None:
            response = _said(401, "a key is needed")
        elif scope["path"] == LOAD:
            response = await _load(scope["app"].state.openai_serving_models, await request.json())
        else:
            response = await _unload(scope["app"].state.openai_serving_models, await request.json())
        await response(scope, receive, send)


async def _load(models: Any, body: dict[str, str]) -> JSONResponse:
    """Load an adapter under a name."""
    from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

    wanted = LoadLoRAAdapterRequest(lora_name=body["name"], lora_path=body["folder"])
    return _answer(await models.load_lora_adapter(wanted))


async def _unload(models: Any, body: dict[str, str]) -> JSONResponse:
    """Forget a name, and free the slot of its adapter."""
    from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

    held = models.lora_requests.get(body["name"])
    answer = await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=body["name"]))
    if held is not None:
        await models.engine_client.remove_lora(held.lora_int_id)
    return _answer(answer)


def _answer(answer: Any) -> JSONResponse:
    """vLLM answers with a sentence, or with an error that holds one."""
    if isinstance(answer, str):
        return _said(200, answer)
    return _said(answer.error.code, answer.error.message)


def _said(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status)
