"""Strict configuration: a YAML file, dotted overrides, and for each value the place it came from.

A component declares its fields beside itself as a subclass of `Config`; a recipe's root composes them.

    loaded = load(StudyConfig, "study.yaml", ["budget.flops=3e14"])
    loaded.config, loaded.origins["budget.flops"]      # ..., "override"

The file is composed into nodes, never constructed: no tag can make an object, and each node knows its line
    and column.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

from adaptkit.errors import ConfigError, nearest

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000  # aliases of aliases grow without bound
MAX_DIGITS = 400
MAX_PROBLEMS = 8  # shown at once
MAX_SHOWN, MAX_WHAT = 60, 400  # characters of a wrong value, of a validator's sentence
OVERRIDE, DEFAULT, COMMAND_LINE = "override", "default", "command line"
_SUFFIX = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15}


class Config(BaseModel):
    """Base of every config: unknown keys are errors, values are never coerced silently, instances are frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def _whole_number(value: Any) -> Any:
    """Accept `1e6`, `10M` and `32k` where a count is asked for."""
    value = _magnitude(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _magnitude(value: Any) -> Any:
    if isinstance(value, str) and (
        match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)([kMGBTP])", value)
    ):
        return round(float(match[1]) * _SUFFIX[match[2]], 6)
    return value


Count = Annotated[int, BeforeValidator(_whole_number)]
Magnitude = Annotated[float, BeforeValidator(_magnitude)]
C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Loaded(Generic[C]):
    """A validated config and, per dotted key, `file:line:col`, `override` or `default`."""

    config: C
    origins: dict[str, str]


_TAG = "tag:yaml.org,2002:"
_NO_TAGS = "remove the tag: configs hold plain values"
_SCALARS: dict[
    str, tuple[str, list[str], Callable[[str], Any]]
] = {  # name: pattern, first characters, reading
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

    yaml_implicit_resolvers: dict = {}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` (or a YAML 1.1 reader) would take for something other than text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quoted = (
        '"' if re.search("[\x85\u2028\u2029]", text) else None
    )  # PyYAML folds these line ends in its other styles
    return dumper.represent_scalar(f"{_TAG}str", text, style=quoted)


_Dumper.add_representer(str, _text)
for _name, (_pattern, _first, _) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def load(schema: type[C], path: str | Path | None = None, overrides: list[str] | None = None) -> Loaded[C]:
    """Read a YAML file, apply `key.sub=value` overrides, validate.

    Raises: ConfigError at `file:line:col` for anything that does not fit, all problems in one message.
    """
    tree, marks = _read(Path(path)) if path is not None else ({}, {})
    for override in overrides or []:
        _apply(tree, marks, override)
    file = str(path or COMMAND_LINE)
    try:
        config = schema.model_validate(tree)
    except pydantic.ValidationError as error:
        raise _explain(error, schema, marks, file) from None
    except ConfigError as error:  # a validator's own, whose `where` is a dotted key
        where = _closest((error.where or "").split("."), marks, file)
        raise ConfigError(_shorten(error.what, MAX_WHAT), where=where, fix=error.fix) from None
    return Loaded(config, {key: marks.get(key, DEFAULT) for key in leaves(config.model_dump())})


def dump(config: Config | dict[str, Any]) -> str:
    """The config as YAML that `load` reads back to an equal one."""
    tree = config.model_dump(mode="json") if isinstance(config, Config) else config
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value for everything below `tree` that is not a non-empty mapping."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        k: v
        for key, value in tree.items()
        for k, v in leaves(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _read(path: Path) -> tuple[dict, dict[str, str]]:
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
    reader = _Reader(text, str(path))
    tree = reader.read("")
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(
            "the top of a config must be `key: value` lines", where=f"{path}:1:1", fix="write `key: value`"
        )
    return tree or {}, reader.marks


class _Reader:
    """A YAML text as plain values, with the place of every dotted key (`key#key` is where the key itself
    stands)."""

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.marks: dict[str, str] = {}

    def read(self, prefix: str) -> Any:
        """The value of the whole text, its keys below `prefix`. Raises: ConfigError at file:line:col."""
        node = self._compose()
        try:
            return None if node is None else self._value(node, prefix)
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
            problem = f"not valid YAML: {error.problem or error.context}"
            raise self._error(problem, mark, "check indentation, quotes and brackets there") from None
        except RecursionError:
            raise self._error("nested too deeply", loader.get_mark(), "flatten it") from None
        except (ValueError, OverflowError):  # PyYAML hands an impossible \U escape to chr()
            raise self._error(
                "an escape that is no character", loader.get_mark(), "check the \\x, \\u and \\U escapes"
            ) from None

    def _error(self, what: str, mark: yaml.Mark, fix: str) -> ConfigError:
        return ConfigError(what, where=_place(self._at(mark)), fix=fix)

    def _at(self, mark: yaml.Mark) -> str:
        return OVERRIDE if self.file == OVERRIDE else f"{self.file}:{mark.line + 1}:{mark.column + 1}"

    def _value(self, node: yaml.Node, key: str) -> Any:
        self.marks[key] = self._at(node.start_mark)
        if len(self.marks) > MAX_VALUES:
            raise self._error(
                f"more than {MAX_VALUES} values", node.start_mark, "write out the aliases that multiply"
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag != _TAG + ("seq" if isinstance(node, yaml.SequenceNode) else "map"):
            raise self._error(f"tag {_shorten(node.tag)} is not allowed", node.start_mark, _NO_TAGS)
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
                    f"'{_shorten(name)}' is given twice", key_node.start_mark, "remove one of them"
                )
            dotted = f"{key}.{name}" if key else name
            self.marks[f"{dotted}#key"] = self._at(key_node.start_mark)
            tree[name] = self._value(value_node, dotted)
        return tree

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if not self._is_plain(node):
            raise self._error(f"tag {_shorten(node.tag)} is not allowed", node.start_mark, _NO_TAGS)
        try:
            return _read_scalar(node.tag.removeprefix(_TAG), node.value)
        except ValueError as error:
            shown = _shorten(ascii(node.value)[1:-1])
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


def _apply(tree: dict, marks: dict[str, str], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[\w-]+)*", key):
        what = f"'{_shorten(override)}' is not `key.sub=value`"
        raise ConfigError(what, where=COMMAND_LINE, fix="for example trainer.learning_rate=3e-4")
    reader = _Reader(text, OVERRIDE)
    try:
        value = reader.read(key)
    except ConfigError as error:
        what = f"the value of '{_shorten(key)}': {error.what}"
        raise ConfigError(what, where=COMMAND_LINE, fix="quote it for YAML and for the shell") from None
    *parents, last = key.split(".")
    place: Any = tree
    for i, part in enumerate(parents):
        place = _child(place, part, ".".join(parents[: i + 1]))
    if isinstance(place, list):
        _set_item(place, last, value, key)
    else:
        place[last] = value
    for stale in [mark for mark in marks if mark.startswith(f"{key}.")]:
        del marks[stale]
    marks.update(reader.marks)
    marks.update({key: OVERRIDE, f"{key}#key": OVERRIDE})


def _child(place: Any, part: str, dotted: str) -> Any:
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    if isinstance(place, dict):
        if not isinstance(place.get(part), (dict, list)):
            place[part] = {}
        return place[part]
    raise ConfigError(
        f"'{dotted}' does not exist", where=COMMAND_LINE, fix="`adaptkit config show FILE` lists the keys"
    )


def _set_item(items: list, index: str, value: Any, key: str) -> None:
    if not index.isdecimal() or int(index) >= len(items):
        raise ConfigError(
            f"'{key}' is outside the list of {len(items)}",
            where=COMMAND_LINE,
            fix="give an index that exists",
        )
    items[int(index)] = value


def _explain(
    error: pydantic.ValidationError, schema: type[Config], marks: dict[str, str], file: str
) -> ConfigError:
    problems = [_problem(item, schema, marks, file) for item in error.errors(include_url=False)]
    (where, what), rest = problems[0], problems[1:]
    more = "".join(f"\n{w}: {p}" for w, p in rest[: MAX_PROBLEMS - 1])
    if len(problems) > MAX_PROBLEMS:
        more += f"\nand {len(problems) - MAX_PROBLEMS} more"
    return ConfigError(what + more, where=where, fix="`adaptkit schema` describes every key")


def _problem(item: dict, schema: type[Config], marks: dict[str, str], file: str) -> tuple[str, str]:
    parts = [str(p) for p in item["loc"]]
    dotted = _shorten(".".join(parts))
    if item["type"] == "extra_forbidden":
        where = marks.get(".".join(parts) + "#key")
        known = _fields_at(schema, parts[:-1])
        return _place(where) if where else _closest(
            parts, marks, file
        ), f"unknown key '{dotted}'{nearest(parts[-1], known)}"
    if item["type"] == "missing":
        return _closest(parts[:-1], marks, file), f"'{dotted}' is required"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if item["type"] == "model_type":
        message = "should be `key: value` lines"
    if item["type"] == "list_type":
        message = f"should be a list such as [{_shorten(str(item['input']))}]"
    given = "" if isinstance(item["input"], (dict, list)) else f", got {_shorten(repr(item['input']))}"
    return _closest(parts, marks, file), f"'{dotted or schema.__name__}': {message}{given}"


def _closest(parts: list[str], marks: dict[str, str], file: str) -> str:
    """The mark of the deepest known ancestor: union tags in a pydantic location are no keys of the file."""
    kept: list[str] = []
    for part in parts:
        if ".".join([*kept, part]) in marks:
            kept.append(part)
    if kept:
        return _place(marks[".".join(kept)])
    return f"{file}:1:1" if file != COMMAND_LINE else file


def _place(mark: str) -> str:
    return COMMAND_LINE if mark == OVERRIDE else mark


def _shorten(text: str, length: int = MAX_SHOWN) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _fields_at(schema: Any, parts: list[str]) -> list[str]:
    fields: dict[str, Any] = getattr(schema, "model_fields", {})
    if not parts:
        return list(fields)
    if parts[0] not in fields:
        return _fields_at(schema, parts[1:])
    return [
        name for child in _config_types(fields[parts[0]].annotation) for name in _fields_at(child, parts[1:])
    ]


def _config_types(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for arg in getattr(annotation, "__args__", ()) for found in _config_types(arg)]
