"""The house rules that a machine can hold: imports go down, functions stay short, config fields are few and
read."""

from __future__ import annotations

import ast
import fnmatch
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "adaptkit", ROOT / "kernels" / "torch-ext" / "adaptkit_kernels")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
LEVELS = {
    "__main__": 9,
    "cli": 9,
    "demo": 8,
    "serve": 7,
    "compare": 7,
    "report": 6,
    "export": 6,
    "study": 5,
    "pretrain": 4,
    "finetune": 4,
    "embed": 4,
    "distill": 4,
    "trainer": 3,
    "data": 3,
    "client": 3,
    "doctor": 2,
    "run_record": 2,
    "architecture": 1,
    "models": 1,
    "adapters": 1,
    "ops": 1,
    "run": 1,
    "config": 1,
    "yaml_text": 1,
    "errors": 1,
    "__init__": 0,
    "adaptkit_kernels": 0,
}
SIBLINGS_MEET = (1, 9)
BANNED_NAMES = {"utils", "common", "core", "helpers", "misc"}
MAX_FUNCTION, MAX_FUNCTION_P90, MAX_FILE, MAX_FIELDS = 50, 35, 350, 100


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def part_of(path: Path) -> str:
    """`adaptkit/trainer/loop.py` -> `trainer`."""
    if path.is_relative_to(PACKAGES[1]):
        return "adaptkit_kernels"
    return path.relative_to(PACKAGES[0]).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, also those inside functions; `from adaptkit import x` gives
    `adaptkit.x`."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
            yield node.lineno, ".".join([*package, *([node.module] if node.module else [])])
        elif isinstance(node, ast.ImportFrom) and node.module == "adaptkit":
            yield from ((node.lineno, f"adaptkit.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def parts_imported(path: Path) -> Iterator[tuple[int, str]]:
    for line, module in imported_modules(path):
        top, _, rest = module.partition(".")
        if top == "adaptkit" and rest:
            yield line, rest.split(".")[0]
        elif top == "adaptkit_kernels":
            yield line, top


def test_every_part_has_a_level() -> None:
    assert {part_of(path) for path in SOURCES} <= LEVELS.keys()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    here = part_of(path)
    for line, there in parts_imported(path):
        if there.startswith("__") and there != "__main__":
            continue
        down = LEVELS[there] < LEVELS[here] or (
            LEVELS[there] == LEVELS[here] and LEVELS[here] in SIBLINGS_MEET
        )
        assert there == here or down, f"{name_of(path)}:{line}: {here} may not import {there}"


def test_the_kernels_have_one_door_and_know_only_torch() -> None:
    for path in SOURCES:
        for line, module in imported_modules(path):
            top = module.split(".")[0]
            if top == "adaptkit_kernels":
                assert name_of(path) == "adaptkit/ops.py", (
                    f"{name_of(path)}:{line}: only ops.py imports the kernels"
                )
            if part_of(path) == "adaptkit_kernels" and not module.startswith("kernels.torch-ext"):
                known = top in sys.stdlib_module_names or top in ("torch", "triton")
                assert known, f"{name_of(path)}:{line}: kernels import torch and triton only"


def functions() -> list[tuple[str, int]]:
    return [
        (f"{name_of(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def test_functions_are_short() -> None:
    assert not [(name, lines) for name, lines in functions() if lines > MAX_FUNCTION]
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
    tracked = [
        path.relative_to(ROOT) for folder in (*PACKAGES, ROOT / "tests") for path in folder.rglob("*.py")
    ]
    assert not [path for path in tracked if BANNED_NAMES & {part.removesuffix(".py") for part in path.parts}]


def test_nothing_is_unpickled_evaluated_or_trusted() -> None:
    modules = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    calls = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
    for path, tree in TREES.items():
        assert not {module.split(".")[0] for _, module in imported_modules(path)} & modules, name_of(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{name_of(path)}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", f"{name_of(path)}:{node.value.lineno}"


def config_classes() -> dict[type, None]:
    """Every config class that a recipe reaches."""
    from adaptkit.cli.arguments import schema
    from adaptkit.config import Config

    found: dict[type, None] = {}

    def visit(annotation: object) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Config) and annotation not in found:
            found[annotation] = None
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for inner in getattr(annotation, "__args__", ()):
            visit(inner)

    for kind in ("compare", "pretrain", "finetune", "embed", "distill"):
        visit(schema(kind))
    return found


def leaf_fields() -> list[tuple[str, str, str | None]]:
    """(class, field, its line of text) for each field that holds a value and no config; it counts where it is
    declared."""
    classes = config_classes()
    leaves = {}
    for kind in classes:
        for name, field in kind.model_fields.items():
            owner = next(
                base for base in reversed(kind.__mro__) if name in getattr(base, "__annotations__", {})
            )
            if not any(c.__name__ in str(field.annotation) for c in classes):
                leaves[owner.__name__, name] = field.description
    return [(owner, name, text) for (owner, name), text in leaves.items()]


def test_config_fields_are_few_and_described() -> None:
    fields = leaf_fields()
    assert len(fields) > 40, "the search for fields is broken"
    assert len(fields) <= MAX_FIELDS, f"{len(fields)} fields"
    assert not [f"{owner}.{name}" for owner, name, text in fields if not text]


def test_every_config_field_is_read() -> None:
    read: set[str] = set()

    class Reads(ast.NodeVisitor):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            if not any("_validator" in ast.unparse(decorator) for decorator in node.decorator_list):
                self.generic_visit(node)

        def visit_Attribute(self, node: ast.Attribute) -> None:
            if isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            self.generic_visit(node)

        def visit_Subscript(
            self, node: ast.Subscript
        ) -> None:  # a part that is dumped whole and read from JSON
            if isinstance(node.slice, ast.Constant):
                read.add(str(node.slice.value))
            self.generic_visit(node)

    for tree in TREES.values():
        Reads().visit(tree)
    assert not [f"{owner}.{name}" for owner, name, _ in leaf_fields() if name not in read]


def test_configs_shipped_parse() -> None:
    from adaptkit.cli.arguments import kind_of, schema
    from adaptkit.config import load

    shipped = sorted((ROOT / "configs").glob("*.yaml"))
    assert shipped
    for path in shipped:
        load(schema(kind_of(path, [])), path)


def test_the_kernels_folder_is_never_a_package() -> None:
    for folder in (ROOT / "kernels", ROOT / "kernels" / "torch-ext"):
        assert not (folder / "__init__.py").exists()
    assert not [path for path in (ROOT / "tests").rglob("kernels") if path.is_dir()]
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert "graft kernels" in (ROOT / "MANIFEST.in").read_text()


def test_the_distribution_holds_two_packages_and_their_files() -> None:
    setuptools = pytest.importorskip("setuptools")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    where, include = settings["packages"]["find"]["where"], settings["packages"]["find"]["include"]
    found = {
        package
        for folder in where
        for package in setuptools.find_namespace_packages(str(ROOT / folder), include=include)
    }
    assert {package.split(".")[0] for package in found} == {"adaptkit", "adaptkit_kernels"}
    assert all(
        ".".join(path.relative_to(ROOT).parts[:-1]) in found
        for path in SOURCES
        if part_of(path) != "adaptkit_kernels"
    )
    patterns = [pattern.removeprefix("**/") for pattern in settings["package-data"]["adaptkit"]]
    for path in (ROOT / "adaptkit").rglob("*"):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns), (
                f"{name_of(path)} would not be installed"
            )


def python(code: str) -> str:
    """What a fresh Python at the repository's root prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels" / "torch-ext")]),
    }
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_transformers_finds_no_kernels_library_of_ours() -> None:
    assert (
        python("import transformers.integrations.hub_kernels as h; print(h.__name__)")
        .strip()
        .endswith("hub_kernels")
    )


HELP = [
    "",
    "compare",
    "pretrain",
    "finetune",
    "report",
    "data",
    "data check",
    "config",
    "config show",
    "schema",
    "doctor",
    "serve",
    "demo",
    "export",
    "distill",
    "embed",
    "embed train",
    "embed encode",
    "embed index",
    "embed search",
    "embed evaluate",
]


def test_help_loads_neither_torch_nor_transformers() -> None:
    code = f"""
import io, sys, contextlib
import adaptkit
assert "pydantic" not in sys.modules
from adaptkit.cli import console
from adaptkit.cli.app import app
for words in {HELP!r}:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert console.run(app, [*words.split(), "--help"]) == 0
    assert "--json" in shown.getvalue() and "Examples:" in shown.getvalue() or words in ("", "data", "config", "embed"), words
    print(words, sorted({{"torch", "transformers", "numpy", "datasets"}} & set(sys.modules)))
"""
    assert python(code).splitlines() == [f"{words} []" for words in HELP]


LIGHT = [
    "config",
    "errors",
    "run",
    "doctor",
    "cli.console",
    "cli.arguments",
    "trainer.config",
    "data.readers",
    "study.config",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module: str) -> None:
    loaded = python(
        f"import sys, adaptkit.{module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    assert loaded.strip() == "[]"
