"""Limits: their defaults, and the environment variables that carry them into a child."""

from __future__ import annotations

import dataclasses

import pytest

from adaptkit.errors import ConfigError
from adaptkit.serve.limits import (
    COMPILE_SECONDS,
    COMPILE_VARIABLE,
    MOST_COMPILE_SECONDS,
    UNLIMITED,
    VARIABLES,
    Limits,
    choose_limits,
    compile_seconds,
    limits_from_environment,
    limits_to_environment,
)


def test_defaults_are_those_of_the_manual() -> None:
    assert dataclasses.asdict(Limits()) == {
        "body_bytes": 1_048_576,
        "max_tokens": 4096,
        "sequences": 8,
        "items": 2048,
        "requests_per_minute": 6000,
        "logprobs": 20,
        "choices": 1000,
        "properties": 512,
        "schema_depth": 32,
        "regex_chars": 512,
        "repeats": 1000,
        "constraint_chars": 16_384,
    }


def test_caveats_survive_the_way_through_the_environment() -> None:
    limits = Limits(1, 2, 3, 4, 0)
    assert limits_from_environment(limits_to_environment(limits)) == limits
    assert limits_to_environment(limits)["ADAPTKIT_LIMIT_BODY_BYTES"] == "1"
    assert limits_from_environment({}) == Limits()
    assert set(limits_to_environment(UNLIMITED).values()) == {"0"}
    assert limits_from_environment({"ADAPTKIT_LIMIT_ITEMS": "", "OTHER": "x"}) == Limits()
    assert VARIABLES.keys() == {field.name for field in dataclasses.fields(Limits)}


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "1e3", " 2", "\u0662", "1" * 20])
def test_a_limit_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no number|too high") as refused:
        limits_from_environment({"ADAPTKIT_LIMIT_MAX_TOKENS": text})
    assert refused.value.where == "ADAPTKIT_LIMIT_MAX_TOKENS"


@pytest.mark.parametrize("variable", [*VARIABLES.values(), COMPILE_VARIABLE])
@pytest.mark.parametrize("text", ["many", "-1", "1e3", "9" * 14, "9" * 5000])
def test_every_limit_has_bounds_and_a_bad_one_stops_the_start(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match="is no number|too high") as refused:
        choose_limits({}, {variable: text})
    assert refused.value.where == variable


def test_the_time_to_compile_is_a_limit_of_the_engines_own() -> None:
    assert compile_seconds({}) == compile_seconds({COMPILE_VARIABLE: ""}) == COMPILE_SECONDS
    assert compile_seconds({COMPILE_VARIABLE: "0"}) == 0
    assert compile_seconds({COMPILE_VARIABLE: str(MOST_COMPILE_SECONDS)}) == MOST_COMPILE_SECONDS
    with pytest.raises(ConfigError, match="too high"):
        compile_seconds({COMPILE_VARIABLE: str(MOST_COMPILE_SECONDS + 1)})


def test_options_win_over_the_environment_and_defaults_do_not() -> None:
    environment = {"ADAPTKIT_LIMIT_CHOICES": "7", "ADAPTKIT_LIMIT_MAX_TOKENS": "9"}
    options = {"max_tokens": Limits().max_tokens, "body_bytes": 5}
    assert choose_limits(options, environment) == Limits(choices=7, max_tokens=9, body_bytes=5)
    assert choose_limits({"max_tokens": 3}, environment).max_tokens == 3
