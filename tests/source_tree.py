"""The package's own source, parsed once: what the tests of its architecture look at."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "adaptkit"
KERNELS = ROOT / "kernels" / "torch-ext" / "adaptkit_kernels"
SOURCES = sorted(path for package in (PACKAGE, KERNELS) for path in package.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
NUM_LINES = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES)


@dataclass(frozen=True)
class Import:
    """One imported module of any package."""

    source: str
    """The module that imports."""
    target: str
    """The module that is imported; for `from package import name`, the submodule if `name` is one."""
    line: int
    late: bool
    """Inside a function."""
    typing: bool
    """Under `if TYPE_CHECKING`: never executed."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def name_of(path: Path) -> str:
    """`adaptkit/trainer/loss.py`."""
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    """`adaptkit/trainer/loss.py` -> `adaptkit.trainer.loss`, and a package's `__init__.py` -> its name."""
    root = ROOT if path.is_relative_to(PACKAGE) else KERNELS.parent
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def room_of(module: str) -> str:
    """`adaptkit.trainer.loss` -> `trainer`; the package itself is `__init__`."""
    first, _, rest = module.partition(".")
    if first != "adaptkit":
        return first
    return rest.split(".")[0] or "__init__"


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file: at the top, inside functions, and under TYPE_CHECKING."""
    source = module_of(path)
    package = source if path.name == "__init__.py" else source.rpartition(".")[0]
    for node, late, typing in _import_nodes(TREES[path], late=False, typing=False):
        for target in _targets(node, package):
            yield Import(source, target, node.lineno, late, typing)


def _import_nodes(
    tree: ast.AST, *, late: bool, typing: bool
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, late, typing
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for_typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        yield from _import_nodes(node, late=late or in_function, typing=typing or for_typing)


def _targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    parent = node.module or ""
    if node.level:
        above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
        parent = ".".join(part for part in (above, parent) if part)
    for alias in node.names:
        submodule = f"{parent}.{alias.name}"
        yield submodule if submodule in MODULES else parent


IMPORTS = [found for path in SOURCES for found in imports_of(path)]
OURS = [found for found in IMPORTS if found.target in MODULES and found.target != found.source]


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of more than one module that reach each other, the largest first (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in sorted(arrows.get(module, ())):
            if target not in order:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], order[target])
        if low[module] == order[module]:
            at = stack.index(module)
            groups.append(sorted(stack[at:]))
            del stack[at:]

    for module in sorted(arrows):
        if module not in order:
            visit(module)
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def fresh_python(code: str) -> str:
    """What a new Python process at the repository's root prints."""
    path = os.pathsep.join([str(ROOT), str(KERNELS.parent)])
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": path}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
