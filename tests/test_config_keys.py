"""Every key of every command's config: described, with its unit and default in `adaptkit schema`, and read."""

from __future__ import annotations

import ast

from source_tree import TREES


def config_classes() -> dict[type, None]:
    """Every config class that a recipe reaches."""
    from adaptkit.cli.arguments import CONFIGS
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
        visit(CONFIGS[kind])
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


def test_every_key_is_described() -> None:
    fields = leaf_fields()
    assert len(fields) > 40, "the search for fields is broken"
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
