"""A YAML text as plain values, each with the line and column where it stands.

    tree, places = read_file(Path("study.yaml"))        # places["budget.amount"] == "study.yaml:3:10"

The text is read node by node and never constructed: no tag can make an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from adaptkit.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000  # aliases of aliases grow without bound
MAX_DIGITS = 400
MAX_DEPTH = 100
_TOO_DEEP = "nested too deeply"
MAX_SHOWN = 60  # characters of a wrong value
OVERRIDE, COMMAND_LINE = "override", "command line"

_TAG = "tag:yaml.org,2002:"
_NO_TAGS = "remove the tag: configs hold plain values"
# name: pattern, first characters, how it is read
_SCALARS: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF"), lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+", list("-+0123456789"), int),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
        lambda text: float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower())),
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""], lambda text: None),
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `3e-4` is a number, `no` and `2026-11-21` are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's name
        super().fetch_flow_collection_start(TokenClass)
        self._check_depth()

    def add_indent(self, column: int) -> bool:
        deeper = bool(super().add_indent(column))
        self._check_depth()
        return deeper

    def _check_depth(self) -> None:
        """PyYAML looks at every open bracket again with each token: seconds for a line of them."""
        if self.flow_level + len(self.indents) > MAX_DEPTH:
            raise yaml.scanner.ScannerError(problem=_TOO_DEEP, problem_mark=self.get_mark())


class Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` (or a YAML 1.1 reader) would take for something other than text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds these line ends in all styles but the double-quoted one.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


Dumper.add_representer(str, _text)
for _name, (_pattern, _first, _) in _SCALARS.items():
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping that a config file holds, and `file:line:col` of each dotted key.

    Raises: ConfigError for a file that cannot be read, is no YAML, or holds no mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "no such config file", where=str(path), fix="check the path, or start from one in configs/"
        ) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ConfigError(
            "not UTF-8 text", where=f"{path}:{line}:{column}", fix="save the file as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), fix="give a YAML text file") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"larger than {MAX_BYTES} bytes", where=f"{path}:1:1", fix="name data by its path instead"
        )
    reader = Reader(text, str(path))
    tree = reader.read("")
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(
            "the top of a config must be `key: value` lines", where=f"{path}:1:1", fix="write `key: value`"
        )
    return tree or {}, reader.places


class Reader:
    """Reads a YAML text into plain values and notes the place of every dotted key.

    `places["a.b"]` is where the value of `a.b` stands, `places["a.b#key"]` where the key itself does.
    """

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.places: dict[str, str] = {}

    def read(self, prefix: str) -> Any:
        """The value of the whole text, its keys below `prefix`. Raises: ConfigError at file:line:col."""
        node = self._compose()
        if node is None:
            return None
        try:
            return self._value(node, prefix)
        except RecursionError:
            raise self._error(
                "nested too deeply, or an alias within itself", node.start_mark, "flatten it"
            ) from None

    def _compose(self) -> yaml.Node | None:
        try:
            loader = _Loader(self.text)
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            mark = yaml.Mark(
                "", error.position, before.count("\n"), len(before) - before.rfind("\n") - 1, None, 0
            )
            raise self._error(
                f"control character {ord(self.text[error.position]):#04x}", mark, "remove it"
            ) from None
        try:
            return loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark or loader.get_mark()
            if error.problem == _TOO_DEEP:
                raise self._error(_TOO_DEEP, mark, "flatten it") from None
            problem = f"not valid YAML: {error.problem or error.context}"
            raise self._error(problem, mark, "check indentation, quotes and brackets there") from None
        except RecursionError:
            raise self._error(_TOO_DEEP, loader.get_mark(), "flatten it") from None
        except (ValueError, OverflowError):  # PyYAML hands an impossible \U escape to chr()
            raise self._error(
                "an escape that is no character", loader.get_mark(), "check the \\x, \\u and \\U escapes"
            ) from None

    def _error(self, what: str, mark: yaml.Mark, fix: str) -> ConfigError:
        return ConfigError(what, where=place(self._at(mark)), fix=fix)

    def _at(self, mark: yaml.Mark) -> str:
        return OVERRIDE if self.file == OVERRIDE else f"{self.file}:{mark.line + 1}:{mark.column + 1}"

    def _value(self, node: yaml.Node, key: str) -> Any:
        self.places[key] = self._at(node.start_mark)
        if len(self.places) > MAX_VALUES:
            raise self._error(
                f"more than {MAX_VALUES} values", node.start_mark, "write out the aliases that multiply"
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag != _TAG + ("seq" if isinstance(node, yaml.SequenceNode) else "map"):
            raise self._error(f"tag {shorten(node.tag)} is not allowed", node.start_mark, _NO_TAGS)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, f"{key}.{i}") for i, child in enumerate(node.value)]
        return self._mapping(node, key)

    def _mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not self._is_plain(key_node):
                raise self._error("a key must be plain text", key_node.start_mark, "write `name: value`")
            name = key_node.value
            if name in tree:
                raise self._error(
                    f"'{shorten(name)}' is given twice", key_node.start_mark, "remove one of them"
                )
            dotted = f"{key}.{name}" if key else name
            self.places[f"{dotted}#key"] = self._at(key_node.start_mark)
            tree[name] = self._value(value_node, dotted)
        return tree

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if not self._is_plain(node):
            raise self._error(f"tag {shorten(node.tag)} is not allowed", node.start_mark, _NO_TAGS)
        try:
            return _read_scalar(node.tag.removeprefix(_TAG), node.value)
        except ValueError as error:
            shown = shorten(ascii(node.value)[1:-1])
            raise self._error(
                f"'{shown}' {error}", node.start_mark, "correct it, or quote it if it is text"
            ) from None

    @staticmethod
    def _is_plain(node: yaml.ScalarNode) -> bool:
        return node.tag in {_TAG + name for name in (*_SCALARS, "str")}


def _read_scalar(kind: str, text: str) -> Any:
    if kind == "str":
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError("holds a character that no file name or text file can hold")
        return text
    pattern, _, convert = _SCALARS[kind]
    if not re.fullmatch(pattern, text) or len(text) > MAX_DIGITS:
        raise ValueError(f"cannot be read as {kind}")
    return convert(text)


def place(mark: str) -> str:
    """How an error names the place: `file:line:col`, or the command line for an override."""
    return COMMAND_LINE if mark == OVERRIDE else mark


def shorten(text: str, length: int = MAX_SHOWN) -> str:
    """`text`, cut to `length` characters with `...` where it is longer."""
    return text if len(text) <= length else f"{text[:length]}..."
