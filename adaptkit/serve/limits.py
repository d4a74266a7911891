"""Limits of one request and of one key, and the environment variables that hand them to a vLLM process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from adaptkit.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What one request and one key may ask for; 0 lifts a limit."""

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


MOST_WAITING = 512
"""Sequences of one model under way at which the next request is told to come again later.

A request that comes before is admitted whole: what is refused for its size would be refused for ever."""
VARIABLES = {field.name: f"ADAPTKIT_LIMIT_{field.name.upper()}" for field in dataclasses.fields(Limits)}
"""Name of a limit -> the environment variable that sets it."""


def limits_from_environment(environment: Mapping[str, str]) -> Limits:
    """Read the ADAPTKIT_LIMIT_* variables; a limit without a variable has its default.

    Raises: ConfigError for a value that is not a whole number.
    """
    values: dict[str, int] = {}
    for name, variable in VARIABLES.items():
        text = environment.get(variable, "")
        if not text:
            continue
        if not text.isdecimal():
            fix = "give a whole number; 0 lifts the limit"
            raise ConfigError(f"'{text[:20]}' is no number", where=variable, fix=fix)
        values[name] = int(text)
    return Limits(**values)


def limits_to_environment(limits: Limits) -> dict[str, str]:
    """Write the variables that `limits_from_environment` reads back."""
    return {variable: str(getattr(limits, name)) for name, variable in VARIABLES.items()}
