"""Strict configuration: a YAML file, dotted overrides, and for each value the place it came from.

A component declares its fields beside itself as a subclass of `Config`; a recipe's root composes them.

    loaded = load(StudyConfig, "study.yaml", ["budget.flops=3e14"])
    loaded.config, loaded.origins["budget.flops"]      # ..., "override"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

from adaptkit.errors import ConfigError, nearest

_SUFFIX = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15}


class Config(BaseModel):
    """Base of every config: unknown keys are errors, values are never coerced silently, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _whole_number(value: Any) -> Any:
    """Accept `1e6`, `10M` and `32k` where a count is asked for."""
    value = _magnitude(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _magnitude(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9.]+(?:e[+-]?\d+)?)([kMGBTP])", value)):
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


class _Yaml12(yaml.SafeLoader):
    """YAML 1.2 scalars: `3e-4` is a number, `no` and `2026-11-21` are text."""

    yaml_implicit_resolvers: dict = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def load(schema: type[C], path: str | Path | None = None, overrides: list[str] | None = None) -> Loaded[C]:
    """Read a YAML file, apply `key.sub=value` overrides, validate.

    Raises: ConfigError at `file:line:col` for anything that does not fit, all problems in one message.
    """
    tree, marks = _read(Path(path)) if path is not None else ({}, {})
    for override in overrides or []:
        _apply(tree, marks, override)
    try:
        config = schema.model_validate(tree)
    except pydantic.ValidationError as error:
        raise _explain(error, schema, marks, str(path or "command line")) from None
    origins = {key: marks.get(key, "default") for key in leaves(config.model_dump())}
    return Loaded(config, origins)


def dump(config: Config) -> str:
    """The config as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value for everything below `tree` that is not a non-empty mapping."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in leaves(value, f"{prefix}.{key}" if prefix else str(key)).items()}


def _read(path: Path) -> tuple[dict, dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such config file", where=str(path), fix="check the path, or start from one in configs/") from None
    except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"cannot be read as UTF-8 text: {error}", where=str(path), fix="give a YAML text file") from None
    try:
        node = yaml.compose(text, Loader=_Yaml12)
        marks: dict[str, str] = {}
        tree = _build(node, "", str(path), marks) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}:1:1"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"not valid YAML: {problem}", where=where, fix="check indentation, quotes and brackets there") from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=f"{path}:1:1", fix="flatten the file") from None
    if not isinstance(tree, dict):
        raise ConfigError("the top of a config must be `key: value` lines", where=f"{path}:1:1", fix="write `key: value`")
    return tree, marks


def _build(node: yaml.Node, key: str, file: str, marks: dict[str, str]) -> Any:
    where = f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    marks[key] = where
    if isinstance(node, yaml.ScalarNode):
        try:
            return _scalar(node)
        except (ValueError, yaml.YAMLError):
            raise ConfigError(f"'{node.value}' cannot be read as {node.tag}", where=where, fix="remove the tag or quote the value") from None
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, f"{key}.{i}", file, marks) for i, child in enumerate(node.value)]
    tree: dict = {}
    for key_node, value_node in node.value:
        name, at = key_node.value, f"{file}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
        if not isinstance(name, str) or key_node.tag.endswith(":merge"):
            raise ConfigError("a key must be plain text", where=at, fix="write `name: value`")
        if name in tree:
            raise ConfigError(f"'{name}' is given twice", where=at, fix="remove one of them")
        dotted = f"{key}.{name}" if key else name
        marks[f"{dotted}#key"] = at
        tree[name] = _build(value_node, dotted, file, marks)
    return tree


def _scalar(node: yaml.ScalarNode) -> Any:
    return {
        "bool": lambda text: text.lower() == "true",
        "int": int,
        "float": lambda text: float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower())),
        "null": lambda text: None,
        "str": str,
    }[_known_tag(node)](node.value)


def _known_tag(node: yaml.ScalarNode) -> str:
    name = node.tag.rpartition(":")[2]
    if node.tag.startswith("tag:yaml.org,2002:") and name in ("bool", "int", "float", "null", "str"):
        return name
    raise yaml.constructor.ConstructorError(None, None, f"tag {node.tag} is not allowed", node.start_mark)


def _apply(tree: dict, marks: dict[str, str], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise ConfigError(f"'{override}' is not `key.sub=value`", where="command line", fix="for example trainer.learning_rate=3e-4")
    try:
        node = yaml.compose(text, Loader=_Yaml12)
        value = _build(node, key, "override", marks) if node is not None else None
    except yaml.YAMLError:
        raise ConfigError(f"the value of '{key}' is not valid YAML", where="command line", fix="quote it for the shell") from None
    *parents, last = key.split(".")
    place: Any = tree
    for i, part in enumerate(parents):
        place = _child(place, part, ".".join(parents[: i + 1]))
    if isinstance(place, list):
        _set_item(place, last, value, key)
    else:
        place[last] = value
    marks.update({k: "override" for k in [key, f"{key}#key", *(leaves(value, key))]})


def _child(place: Any, part: str, dotted: str) -> Any:
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        return place[int(part)]
    if isinstance(place, dict):
        if not isinstance(place.get(part), (dict, list)):
            place[part] = {}
        return place[part]
    raise ConfigError(f"'{dotted}' does not exist", where="command line", fix="`adaptkit config show FILE` lists the keys")


def _set_item(items: list, index: str, value: Any, key: str) -> None:
    if not index.isdigit() or int(index) >= len(items):
        raise ConfigError(f"'{key}' is outside the list of {len(items)}", where="command line", fix="give an index that exists")
    items[int(index)] = value


def _explain(error: pydantic.ValidationError, schema: type[Config], marks: dict[str, str], file: str) -> ConfigError:
    problems = [_problem(item, schema, marks, file) for item in error.errors(include_url=False)]
    (where, what), rest = problems[0], problems[1:]
    more = "".join(f"\n{w}: {p}" for w, p in rest)
    return ConfigError(what + more, where=where, fix="`adaptkit schema` describes every key; `adaptkit config show FILE` shows what is set")


def _problem(item: dict, schema: type[Config], marks: dict[str, str], file: str) -> tuple[str, str]:
    parts = [str(p) for p in item["loc"]]
    dotted = ".".join(parts)
    if item["type"] == "extra_forbidden":
        where = marks.get(f"{dotted}#key") or _closest(parts, marks, file)
        known = _fields_at(schema, parts[:-1])
        return where, f"unknown key '{dotted}'{nearest(parts[-1], known)}"
    if item["type"] == "missing":
        return _closest(parts[:-1], marks, file), f"'{dotted}' is required"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], (dict, list)) else f", got {item['input']!r}"
    return _closest(parts, marks, file), f"'{dotted or schema.__name__}': {message}{given}"


def _closest(parts: list[str], marks: dict[str, str], file: str) -> str:
    """The mark of the deepest known ancestor: union tags in a pydantic location are no keys of the file."""
    kept: list[str] = []
    for part in parts:
        if ".".join([*kept, part]) in marks:
            kept.append(part)
    if kept:
        return marks[".".join(kept)]
    return f"{file}:1:1" if file != "command line" else file


def _fields_at(schema: Any, parts: list[str]) -> list[str]:
    fields: dict[str, Any] = getattr(schema, "model_fields", {})
    if not parts:
        return list(fields)
    if parts[0] not in fields:
        return _fields_at(schema, parts[1:])
    return [name for child in _config_types(fields[parts[0]].annotation) for name in _fields_at(child, parts[1:])]


def _config_types(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for arg in getattr(annotation, "__args__", ()) for found in _config_types(arg)]
