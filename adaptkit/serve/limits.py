"""Limits of one request and of one key, and the environment variables that hand them to a vLLM process.

Every limit is a setting of the server: an environment variable ADAPTKIT_LIMIT_..., and for the usual ones an
option of `adaptkit serve`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from adaptkit.errors import ConfigError

HIGHEST = 2**40
"""No limit may be set higher; 0 lifts it."""


@dataclass(frozen=True)
class Limits:
    """What one request and one key may ask for; 0 lifts a limit.

    Those of structured output (from `choices` on) bound what one request can make the engine compile.
    """

    body_bytes: int = 1_048_576
    """Size of a request's body."""
    max_tokens: int = 4096
    """Tokens to generate, per sequence."""
    sequences: int = 8
    """Sequences per prompt (`n`)."""
    items: int = 2048
    """Texts, messages or documents in one request."""
    requests_per_minute: int = 6000
    """Requests of one key; as many may come at once."""
    logprobs: int = 20
    """Log-probabilities per token."""
    choices: int = 1000
    """Choices, values of enums and alternatives, all of one request together."""
    properties: int = 512
    """Properties of JSON schemas and tools, all of one request together, with `$ref` followed."""
    schema_depth: int = 32
    """Levels of a JSON schema, and of brackets in a regex or grammar."""
    regex_chars: int = 512
    """Length of one regex."""
    repeats: int = 1000
    """Repeats that a regex or grammar counts, and length, items or properties that a schema counts."""
    constraint_chars: int = 16_384
    """Text that the constraint of one request spells out: choices, names, regexes and grammar together."""


MOST_WAITING = 512
"""Sequences of one model under way at which the next request is told to come again later.

A request that comes before is admitted whole: what is refused for its size would be refused for ever."""
VARIABLES = {field.name: f"ADAPTKIT_LIMIT_{field.name.upper()}" for field in dataclasses.fields(Limits)}
"""Name of a limit -> the environment variable that sets it."""
UNLIMITED = Limits(**dict.fromkeys(VARIABLES, 0))
"""For a vLLM process behind the gateway, which has judged each request already: two judges may disagree."""


COMPILE_SECONDS, MOST_COMPILE_SECONDS = 10, 3600
"""How long one constraint may compile, and the most that may be set; 0 lifts it."""
COMPILE_VARIABLE = "ADAPTKIT_LIMIT_COMPILE_SECONDS"


def limits_from_environment(environment: Mapping[str, str]) -> Limits:
    """Read the ADAPTKIT_LIMIT_* variables; a limit without a variable has its default.

    Raises: ConfigError for a value that is not a whole number, or too high to be meant.
    """
    values: dict[str, int] = {}
    for name, variable in VARIABLES.items():
        value = _whole_number(environment, variable, HIGHEST)
        if value is not None:
            values[name] = value
    return Limits(**values)


def compile_seconds(environment: Mapping[str, str]) -> int:
    """Read how long one constraint may compile in the engine; 0 for no limit.

    Raises: ConfigError for a value that is not a whole number, or too high to be meant.
    """
    value = _whole_number(environment, COMPILE_VARIABLE, MOST_COMPILE_SECONDS)
    return COMPILE_SECONDS if value is None else value


def _whole_number(environment: Mapping[str, str], variable: str, highest: int) -> int | None:
    """Read a variable; None where it is not set."""
    text = environment.get(variable, "")
    if not text:
        return None
    fix = f"give a whole number up to {highest}; 0 lifts the limit"
    if not text.isdecimal() or not text.isascii():
        raise ConfigError(f"'{text[:20]}' is no number", where=variable, fix=fix)
    if len(text) > len(str(highest)) or int(text) > highest:
        raise ConfigError(f"{text[:20]} is too high", where=variable, fix=fix)
    return int(text)


def choose_limits(options: Mapping[str, int], environment: Mapping[str, str]) -> Limits:
    """Take the limits of the environment, and in their place the options that were not left at their default.

    Args:
        options: name of a limit -> what the command line says.
    Raises: ConfigError for a variable that is no limit, that of the engine's own (`compile_seconds`) too.
    """
    compile_seconds(environment)
    defaults = Limits()
    changed = {name: value for name, value in options.items() if value != getattr(defaults, name)}
    return dataclasses.replace(limits_from_environment(environment), **changed)


def limits_to_environment(limits: Limits) -> dict[str, str]:
    """Write the variables that `limits_from_environment` reads back."""
    return {variable: str(getattr(limits, name)) for name, variable in VARIABLES.items()}
