"""Check by trying: do torch and transformers import, is bf16 faster than fp32, does the model hub answer?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

from adaptkit.doctor.findings import Finding
from adaptkit.doctor.packages import pip

IMPORT_TIMEOUT_S, HUB_TIMEOUT_S = 180, 5
_PROGRAM = """
import importlib, json, time
result = {"failed": {}}
for name in ("torch", "transformers.models.llama.modeling_llama", "peft", "bitsandbytes"):
    try:
        importlib.import_module(name)
    except BaseException as error:
        result["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
if "torch" not in result["failed"]:
    import torch
    def seconds(dtype):
        a = torch.randn(512, 512).to(dtype)
        a @ a
        begun = time.perf_counter()
        for _ in range(10):
            a @ a
        return time.perf_counter() - begun
    result["bf16_speedup"] = seconds(torch.float32) / seconds(torch.bfloat16)
print(json.dumps(result))
"""


def imports() -> list[Finding]:
    """Import the heavy libraries in another process, so that a crash there is a finding here."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        detail = f"torch and transformers did not import within {IMPORT_TIMEOUT_S} s"
        return [Finding("imports", "problem", detail, "adaptkit doctor --deep  (again, on a quiet machine)")]
    lines = answer.stdout.strip().splitlines()
    if answer.returncode or not lines:
        what = f"importing torch and transformers ended with exit code {answer.returncode}"
        fix = f"{pip()} install --force-reinstall torch transformers"
        return [Finding("imports", "problem", f"{what}: {answer.stderr.strip()[-200:]}", fix)]
    return _read(json.loads(lines[-1]))


def _read(result: dict[str, Any]) -> list[Finding]:
    fix = f"{pip()} check  (names what does not fit)"
    findings = [
        Finding(f"import {name.partition('.')[0]}", "problem", reason, fix)
        for name, reason in result["failed"].items()
    ]
    if not findings:
        findings = [Finding("imports", "ok", "torch, transformers, peft and bitsandbytes import")]
    if "bf16_speedup" in result:
        speedup = result["bf16_speedup"]
        verdict = "pays" if speedup > 1.1 else "does not pay"
        detail = f"{verdict}: matrix products at {speedup:.2g} x the speed of fp32 on this CPU"
        findings.append(Finding("bf16 timed", "ok", detail))
    return findings


def hub(network: bool) -> list[Finding]:
    """Check whether models can be fetched by name: by the environment, with `network` also by asking."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return [Finding("model hub", "ok", "HF_HUB_OFFLINE is set: give models as local folders")]
    endpoint = os.environ.get("HF_ENDPOINT", "")
    if not network:
        shown = "the public one"
        if endpoint:
            shown = f"HF_ENDPOINT={endpoint}"
        return [Finding("model hub", "ok", f"{shown}; not asked (adaptkit doctor --network asks)")]
    from huggingface_hub.constants import ENDPOINT

    try:
        request = urllib.request.Request(endpoint or ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):
            return [Finding("model hub", "ok", "answers")]
    except urllib.error.HTTPError as error:
        return [Finding("model hub", "ok", f"answers (HTTP {error.code})")]
    except (OSError, ValueError) as error:
        fetch = "fetch the model elsewhere with `hf download NAME --local-dir FOLDER` and give FOLDER"
        fix = f"{fetch}, or set HF_ENDPOINT to a mirror"
        return [Finding("model hub", "warn", f"does not answer: {error}", fix)]
