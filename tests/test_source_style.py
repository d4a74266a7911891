"""Rules of style that a machine can hold: sizes, docstrings, names of files, what is never called."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from source_tree import IMPORTS, KERNELS, NUM_LINES, PACKAGE, ROOT, SOURCES, TREES, module_of, name_of

MAX_FUNCTION, MAX_FUNCTION_P90, MAX_FILE = 50, 35, 350
MAX_KERNEL = 60  # calls within a Triton kernel spell out each pointer, stride and mask, one a line
UNTYPED = "dict[str, Any]"
MAX_UNTYPED_PER_1000 = 5.8
"""May only shrink: a record or dataclass says more than a dictionary of anything."""
DRAWERS = {"utils", "common", "core", "helpers", "misc"}
NAMED_AFTER_WHAT_THEY_RUN = ("adaptkit.cli.", "adaptkit.compare.stages.")
ONE_MEANING = {
    "__init__": "a package's own docstring and names",
    "__main__": "what `python -m` runs",
    "config": "the settings of a package",
    "driver": "the roof of a package",
    "objective": "what the trainer minimises, of one recipe",
    "progress": "what long work shows while it runs",
    "recipe": "one training from config to record",
    "record": "the frozen records of a package",
    "rows": "data as one recipe reads it",
    "scores": "how a model is scored",
    "start": "what one recipe starts from",
}
"""File names that stand in several packages, each with the same meaning everywhere."""

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions() -> list[tuple[str, int]]:
    """Name and lines of every function: of its body, without the functions that stand within it."""
    return [
        (f"{name_of(path)}:{node.lineno} {node.name}", body_lines(node) - sum(map(whole_lines, inner(node))))
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
    ]


def inner(node: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions directly within a function; a kernel's forty parameters are no lines of code."""
    found = []
    for child in ast.iter_child_nodes(node):
        found += [child] if isinstance(child, FUNCTION) else inner(child)
    return found


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return node.end_lineno - node.body[0].lineno + 1


def whole_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return node.end_lineno - node.lineno + 1


def test_functions_are_short() -> None:
    over = [(name, lines) for name, lines in functions() if lines > MAX_FUNCTION]
    assert not [(name, lines) for name, lines in over if lines > MAX_KERNEL or "kernels" not in name]
    lengths = sorted(lines for _, lines in functions())
    assert lengths[int(0.9 * len(lengths))] <= MAX_FUNCTION_P90


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FILE}


def test_every_module_says_what_it_is_in_ascii() -> None:
    for path, tree in TREES.items():
        assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
        assert path.read_text(encoding="utf-8").isascii(), f"{name_of(path)} holds characters beyond ASCII"
        assert "TODO" not in path.read_text(encoding="utf-8")


def test_no_module_is_a_drawer() -> None:
    folders = (PACKAGE, KERNELS, ROOT / "tests")
    files = [path.relative_to(ROOT) for folder in folders for path in folder.rglob("*.py")]
    assert not [path for path in files if DRAWERS & {part.removesuffix(".py") for part in path.parts}]


def test_one_file_name_has_one_meaning() -> None:
    homes = defaultdict(list)
    for path in SOURCES:
        if path.is_relative_to(PACKAGE) and not module_of(path).startswith(NAMED_AFTER_WHAT_THEY_RUN):
            homes[path.stem].append(name_of(path))
    assert not {stem: files for stem, files in homes.items() if len(files) > 1 and stem not in ONE_MEANING}


def test_every_module_has_its_tests_or_a_stated_home() -> None:
    """`adaptkit/serve/engine/lora.py` has tests/test_serve_lora.py, or a file of tests calls itself its home.

    Such a file ends its docstring with: Home of serve.engine.lora.
    """
    tests = {path.stem.removeprefix("test_"): path for path in (ROOT / "tests").rglob("test_*.py")}
    docstrings = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in tests.values())
    stated = (" ".join((docstring or "").split()).partition("Home of ")[2] for docstring in docstrings)
    homes = {name for text in stated for name in re.findall(r"[a-z_0-9]+(?:\.[a-z_0-9]+)+", text)}
    without = []
    for path in SOURCES:
        module = module_of(path).removeprefix("adaptkit.")
        room, _, rest = module.partition(".")
        if not path.is_relative_to(PACKAGE) or not rest or path.stem.startswith("__"):
            continue
        names = {path.stem, f"{room}_{path.stem}", rest.replace(".", "_"), module.replace(".", "_")}
        if not names & tests.keys() and module not in homes:
            without.append(name_of(path))
    assert not without


def test_untyped_dictionaries_only_grow_fewer() -> None:
    count = sum(path.read_text(encoding="utf-8").count(UNTYPED) for path in SOURCES)
    assert 1000 * count / NUM_LINES <= MAX_UNTYPED_PER_1000, f"{count} in {NUM_LINES} lines"


def test_nothing_is_unpickled_evaluated_or_trusted() -> None:
    modules = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    calls = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
    assert not [str(found) for found in IMPORTS if found.target.split(".")[0] in modules]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{name_of(path)}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", f"{name_of(path)}:{node.value.lineno}"
