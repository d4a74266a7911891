"""Strict configuration: a YAML file, dotted overrides, and for each value the place it came from.

A component declares its fields beside itself as a subclass of `Config`; a recipe's root composes them.

    loaded = load(StudyConfig, "study.yaml", ["budget.amount=3e14"])
    loaded.config, loaded.origins["budget.amount"]      # ..., "override"

`yaml_text` reads the file; here values are checked, and errors say at which line and column.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails

from adaptkit.errors import ConfigError, nearest
from adaptkit.yaml_text import COMMAND_LINE, OVERRIDE, Dumper, Reader, place, read_file, shorten

MAX_PROBLEMS = 8  # shown at once
MAX_WHAT = 400  # characters of a validator's sentence
DEFAULT = "default"
Placed = Callable[[str, Any], Any]
"""Gives what stands for a place in an identity, from its dotted key and its value."""
_SUFFIX = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15}


class Config(BaseModel):
    """Base of every config: unknown keys are errors, no value is converted silently, instances are frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    COST_ONLY: ClassVar[frozenset[str]] = frozenset()
    """Fields that change what a run costs and not what comes out: memory, threads, logs, checkpoints."""

    PLACES: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where files and models are: what lies there decides what comes out, not its place."""

    def own_places(self) -> frozenset[str]:
        """The fields of PLACES that name one; not those below."""
        return frozenset(name for name in self.PLACES if getattr(self, name))

    def identity(self, placed: Placed | None = None, prefix: str = "") -> dict[str, Any]:
        """The values that decide what comes out, JSON-able; those that only cost are left out.

        Args:
            placed: gives what stands for a place, from its dotted key and value; None keeps the value.
            prefix: of dotted keys.
        """
        values, own = {}, self.own_places()
        for name, dumped in self.model_dump(mode="json").items():
            if name in self.COST_ONLY:
                continue
            if placed is not None and name in own:
                values[name] = placed(prefix + name, dumped)
            else:
                values[name] = _identity(getattr(self, name), dumped, placed, f"{prefix}{name}.")
        return values


def _identity(value: Any, dumped: Any, placed: Placed | None, prefix: str) -> Any:
    """The identity of a field's value; what holds no config is as it was dumped."""
    if isinstance(value, Config):
        return value.identity(placed, prefix)
    if isinstance(value, list):
        pairs = zip(value, dumped, strict=True)
        return [_identity(*pair, placed, f"{prefix}{i}.") for i, pair in enumerate(pairs)]
    if isinstance(value, dict):
        return {key: _identity(value[key], dumped[key], placed, f"{prefix}{key}.") for key in value}
    return dumped


def places(config: Config) -> dict[str, Any]:
    """Dotted key -> value of every field that says where files or a model are: `train.files`, `base`."""
    named: dict[str, Any] = {}

    def note(key: str, value: Any) -> Any:
        named[key] = value
        return value

    config.identity(note)
    return named


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


def in_unit(unit: str) -> Any:
    """Say in the schema what a number counts, as in `Annotated[Count, in_unit("examples")]`."""
    return Field(json_schema_extra={"unit": unit})


# Every number has bounds. A field narrows these where it can; what lies outside is a slip of the hand.
Count = Annotated[int, BeforeValidator(_whole_number), Field(ge=0, le=10**15)]
Magnitude = Annotated[float, BeforeValidator(_magnitude), Field(ge=0, le=1e30)]
Tokens = Annotated[Count, Field(le=10**9), in_unit("tokens")]
Steps = Annotated[Count, Field(le=10**9), in_unit("optimizer steps")]
Flops = Annotated[Magnitude, in_unit("FLOPs")]
Share = Annotated[Magnitude, Field(le=1), in_unit("share of 1")]
C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Loaded(Generic[C]):
    """A validated config and, per dotted key, `file:line:col`, `override` or `default`."""

    config: C
    origins: dict[str, str]


def load(schema: type[C], path: str | Path | None = None, overrides: list[str] | None = None) -> Loaded[C]:
    """Read a YAML file, apply `key.sub=value` overrides, validate.

    Raises: ConfigError at `file:line:col` for anything that does not fit, all problems in one message.
    """
    tree, marks = read_file(Path(path)) if path is not None else ({}, {})
    of_file = copy.deepcopy(tree)
    for override in overrides or []:
        _apply(tree, marks, override)
    file = str(path or COMMAND_LINE)
    try:
        config = schema.model_validate(tree)
    except (pydantic.ValidationError, ConfigError) as error:
        if overrides and _fits(schema, of_file):  # then an override is wrong, whatever key is told
            marks, file = {}, COMMAND_LINE
        if isinstance(error, pydantic.ValidationError):
            raise _explain(error, schema, marks, file) from None
        where = _closest((error.where or "").split("."), marks, file)
        raise ConfigError(shorten(error.what, MAX_WHAT), where=where, fix=error.fix) from None
    return Loaded(config, {key: marks.get(key, DEFAULT) for key in leaves(config.model_dump())})


def _fits(schema: type[Config], tree: dict[str, Any]) -> bool:
    """Whether a config without overrides is a valid one."""
    try:
        schema.model_validate(tree)
    except (pydantic.ValidationError, ConfigError):
        return False
    return True


def dump(config: Config | dict[str, Any]) -> str:
    """The config as YAML that `load` reads back to an equal one."""
    tree = config.model_dump(mode="json") if isinstance(config, Config) else config
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value for everything below `tree` that is not a non-empty mapping."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        k: v
        for key, value in tree.items()
        for k, v in leaves(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def refuse_credentials(url: str, *, where: str, fix: str) -> None:
    """Refuse an address that holds a login, or a query that may be a key: addresses are written down.

    Args:
        where: the setting or option that names the address.
        fix: how a key is given instead.
    Raises: ConfigError, which shows neither.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        what = "the address holds a login, and addresses are written into configs, manifests and errors"
        raise ConfigError(what, where=where, fix=fix)
    if parts.query or parts.fragment:
        what = "the address goes on after its path (? or #), where a key would be written down with it"
        raise ConfigError(what, where=where, fix=fix)


def _apply(tree: dict[str, Any], marks: dict[str, str], override: str) -> None:
    """Set one `key.sub=value` of the command line in `tree`, and the places that belong to it."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[\w-]+)*", key):
        what = f"'{shorten(override)}' is not `key.sub=value`"
        raise ConfigError(what, where=COMMAND_LINE, fix="for example trainer.learning_rate=3e-4")
    reader = Reader(text, OVERRIDE)
    try:
        value = reader.read(key)
    except ConfigError as error:
        what = f"the value of '{shorten(key)}': {error.what}"
        raise ConfigError(what, where=COMMAND_LINE, fix="quote it for YAML and for the shell") from None
    *parents, last = key.split(".")
    branch: Any = tree
    for i, part in enumerate(parents):
        branch = _child(branch, part, ".".join(parents[: i + 1]))
    if isinstance(branch, list):
        _set_item(branch, last, value, key)
    else:
        branch[last] = value
    for stale in [mark for mark in marks if mark.startswith(f"{key}.")]:
        del marks[stale]
    marks.update(reader.places)
    marks.update({key: OVERRIDE, f"{key}#key": OVERRIDE})


def _child(branch: Any, part: str, dotted: str) -> Any:
    if isinstance(branch, list) and part.isdecimal() and int(part) < len(branch):
        return branch[int(part)]
    if isinstance(branch, dict):
        if not isinstance(branch.get(part), (dict, list)):
            branch[part] = {}
        return branch[part]
    raise ConfigError(
        f"'{dotted}' does not exist", where=COMMAND_LINE, fix="`adaptkit config show FILE` lists the keys"
    )


def _set_item(items: list[Any], index: str, value: Any, key: str) -> None:
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


def _problem(item: ErrorDetails, schema: type[Config], marks: dict[str, str], file: str) -> tuple[str, str]:
    """(where, what) of one of pydantic's errors."""
    parts = [str(p) for p in item["loc"]]
    dotted = shorten(".".join(parts))
    if item["type"] == "extra_forbidden":
        mark = marks.get(".".join(parts) + "#key")
        where = place(mark) if mark else _closest(parts, marks, file)
        return where, f"unknown key '{dotted}'{nearest(parts[-1], _fields_at(schema, parts[:-1]))}"
    if item["type"] == "missing":
        return _closest(parts[:-1], marks, file), f"'{dotted}' is required"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if item["type"] == "model_type":
        message = "should be `key: value` lines"
    if item["type"] == "list_type":
        message = f"should be a list such as [{shorten(str(item['input']))}]"
    got = "" if isinstance(item["input"], (dict, list)) else f", got {shorten(repr(item['input']))}"
    return _closest(parts, marks, file), f"'{dotted or schema.__name__}': {message}{got}"


def _closest(parts: list[str], marks: dict[str, str], file: str) -> str:
    """Where the deepest ancestor stands that the file has; pydantic's tags of unions are no keys of it."""
    ancestor: list[str] = []
    for part in parts:
        if ".".join([*ancestor, part]) in marks:
            ancestor.append(part)
    if ancestor:
        return place(marks[".".join(ancestor)])
    return f"{file}:1:1" if file != COMMAND_LINE else file


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
    return [config for argument in getattr(annotation, "__args__", ()) for config in _config_types(argument)]
