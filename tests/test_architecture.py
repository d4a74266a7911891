"""Imports go down and never in circles; the files of a run and of a study have one place that names them.

All imports count: those at the top, those inside functions and those under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import (
    IMPORTS,
    MODULES,
    NUM_LINES,
    OURS,
    PACKAGE,
    SOURCES,
    TREES,
    circles,
    imports_of,
    name_of,
    room_of,
)

LEVELS = {
    "__main__": 11,
    "__init__": 11,
    "cli": 11,
    "demo": 10,
    "serve": 9,
    "compare": 9,
    "provenance": 9,
    "report": 8,
    "planning": 8,
    "export": 8,
    "labelling": 8,
    "synthesis": 8,
    "audit": 7,
    "study": 6,
    "pretrain": 5,
    "finetune": 5,
    "embed": 5,
    "distill": 5,
    "trainer": 4,
    "data": 3,
    "client": 3,
    "doctor": 2,
    "run_record": 1,
    "run_lock": 1,
    "architecture": 1,
    "models": 1,
    "model_uses": 1,
    "weight_files": 1,
    "model_origin": 1,
    "prompt_names": 1,
    "model_gate": 1,
    "model_numbers": 1,
    "folder_trial": 1,
    "folder_trial_child": 1,
    "adapters": 1,
    "ops": 1,
    "run": 1,
    "seal": 1,
    "disk": 1,
    "environment": 1,
    "config": 1,
    "yaml_text": 1,
    "subsequence": 1,
    "errors": 1,
    "notices": 1,
    "version": 0,
    "adaptkit_kernels": 0,
}
SIBLINGS_MEET = (1, 11)
"""Levels whose rooms may import each other, as long as there is no circle."""
MAX_LATE_PER_1000 = 4.8
"""May only shrink: a late import keeps `--help` light or a dependency optional, and dodges nothing."""
TORCH_FREE = ("serve", "demo", "report", "client", "doctor", "cli")
HEAVY = {"torch", "transformers", "peft", "vllm", "ray", "bitsandbytes"}
OWN_PROCESSES = (
    "adaptkit.serve.engine.entrypoint",
    "adaptkit.serve.engine.vector_server",
    "adaptkit.doctor.bfloat16_trial",
)
"""Run in processes of their own: vLLM's and our encoder's, which have torch loaded, and one that tries what
torch computes."""


def arrows(*, executed_only: bool = False) -> dict[str, set[str]]:
    """Module -> modules it imports; `executed_only` leaves out what importing it does not run."""
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in OURS:
        if not (executed_only and (found.late or found.typing)):
            graph[found.source].add(found.target)
    return graph


def test_every_room_has_a_level() -> None:
    assert {room_of(module) for module in MODULES} <= LEVELS.keys()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    upward = []
    for found in imports_of(path):
        here, there = room_of(found.source), room_of(found.target)
        if found.target not in MODULES or here == there:
            continue
        same_level = LEVELS[here] == LEVELS[there] and LEVELS[here] in SIBLINGS_MEET
        if not (LEVELS[there] < LEVELS[here] or same_level):
            upward.append(str(found))
    assert not upward


def test_no_imports_go_in_circles() -> None:
    assert circles(arrows()) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}) == [
        ["a", "b", "c"],
        ["d", "e"],
    ]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_late_imports_only_grow_fewer() -> None:
    late = {(found.source, found.line) for found in IMPORTS if found.late}
    assert 1000 * len(late) / NUM_LINES <= MAX_LATE_PER_1000, f"{len(late)} in {NUM_LINES} lines"


def test_peft_is_imported_where_an_adapter_is() -> None:
    """It takes seconds, and a training of all weights needs nothing of it."""
    found = [found for found in IMPORTS if found.target.split(".")[0] == "peft"]
    assert found and not [str(imported) for imported in found if not (imported.late or imported.typing)]


HTTP_LIBRARIES = {"httpx", "requests", "aiohttp", "urllib3", "urllib", "urllib.request", "http.client"}
NO_MODEL_SERVER = {"adaptkit.doctor.live_checks": "asks the hub whether it answers, from below the client"}


def test_only_the_client_speaks_http() -> None:
    """One room knows about connections, time limits, proxies and keys; the exceptions say why."""
    speaks = {
        found.source
        for found in IMPORTS
        if found.target in HTTP_LIBRARIES or found.target.partition(".")[0] in HTTP_LIBRARIES - {"urllib"}
    }
    assert {module for module in speaks if room_of(module) != "client"} == NO_MODEL_SERVER.keys()


def test_a_config_imports_configs_only() -> None:
    """`config.py` is the floor of its package: whoever needs the settings needs no code that runs them."""
    for path in sorted(PACKAGE.glob("*/config.py")):
        for node in ast.walk(TREES[path]):
            if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adaptkit")):
                continue
            floor = node.module in ("adaptkit.config", "adaptkit.errors") or node.module.endswith(".config")
            for alias in node.names:
                is_config = alias.name.endswith("Config") or alias.name in CONFIG_WORDS
                assert floor or is_config, f"{name_of(path)}:{node.lineno} imports {alias.name}"


CONFIG_WORDS = {
    "Adaptation": "the kinds of adaptation, which a study's config names",
    "Arm": "reads the names of arms, which a study's config holds",
    "Origin": "what an arm starts from, which a study's config names",
    "with_text_arms": "the text arms that the named arms start from",
    "compute_optimal_params": "the size that a budget asks for, written into the config",
    "default_learning_rate": "the rate that a size asks for, written into the config",
}


@pytest.mark.parametrize("room", TORCH_FREE)
def test_a_room_imports_nothing_heavy(room: str) -> None:
    """What serves, shows, reports or starts must run without torch: vLLM's process has its own."""
    graph = arrows(executed_only=True)
    heavy = {}
    for found in IMPORTS:
        if not (found.late or found.typing) and found.target.split(".")[0] in HEAVY:
            heavy[found.source] = str(found)
    for module in MODULES:
        if room_of(module) == room and module not in OWN_PROCESSES:
            loaded = sorted(reached(module, graph) & heavy.keys())
            assert not loaded, f"{module} loads {heavy[loaded[0]]}"


def reached(module: str, graph: dict[str, set[str]]) -> set[str]:
    """Everything that importing a module executes, packages on the way included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        waiting += graph.get(current, ())
        package = current.rpartition(".")[0]
        if package in graph:
            waiting.append(package)
    return seen


def test_the_kernels_have_one_door_and_know_only_torch() -> None:
    for found in IMPORTS:
        top = found.target.split(".")[0]
        from_kernels = room_of(found.source) == "adaptkit_kernels"
        if top == "adaptkit_kernels" and not from_kernels:
            assert found.source == "adaptkit.ops", f"{found}: only ops.py imports the kernels"
        if from_kernels and top != "adaptkit_kernels":
            known = top in sys.stdlib_module_names or top in ("torch", "triton")
            assert known, f"{found}: kernels import torch and triton only"


RUN_FILES = {
    "manifest.json",
    "metrics.jsonl",
    "config.yaml",
    "cost.json",
    "crash.json",
    "parity.json",
    "bench.json",
    "memorisation.json",
    "bias.json",
    "heldout.jsonl",
    "calibration.jsonl",
}
RUN_FOLDERS = {"checkpoints", "model", "adapter", "base", "eval", "export", "report", "shards"}
OWNERS = {
    "adaptkit/run.py": RUN_FILES | RUN_FOLDERS,
    "adaptkit/seal.py": {
        "manifest.json",
        "cost.json",
        "parity.json",
        "bench.json",
        "memorisation.json",
        "bias.json",
    },  # what is not listed in it
    "adaptkit/compare/workspace.py": {"plan.json", "stages"},
    "adaptkit/study/record.py": {"study.json"},
    "adaptkit/data/offline_corpus.py": {"manifest.json"},  # of a prepared corpus
    "adaptkit/export/record.py": {"manifest.json", "parity.json"},  # of an exported folder
}
"""Who names which file or folder; a name in a sentence is no name of a file."""
FOLDERS = RUN_FOLDERS | {"stages"}
NAMES = set().union(*OWNERS.values())


def file_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) where code spells a known name: a file's as any text, a folder's as a piece of a path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in NAMES - FOLDERS:
            yield node.lineno, node.value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            for piece in ast.walk(node.right):
                if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
                    first = piece.value.strip("/").split("/")[0]
                    if first in FOLDERS:
                        yield node.lineno, first


def test_one_file_names_the_files_of_a_run_and_one_those_of_a_study() -> None:
    strangers = []
    for path in SOURCES:
        own = OWNERS.get(name_of(path), set())
        strangers += [
            f"{name_of(path)}:{line} names {name}"
            for line, name in file_names(TREES[path])
            if name not in own
        ]
    assert not strangers


def test_a_named_file_is_seen() -> None:
    code = "a = run / 'model' / 'x'\nb = 'cost.json'\nc = 'the model is gone'\nd = p / f'eval/{s}.json'"
    assert {name for _, name in file_names(ast.parse(code))} == {"model", "cost.json", "eval"}
