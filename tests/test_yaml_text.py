"""YAML texts as plain values with the place of each; test_config holds the refusals of whole files."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptkit.errors import ConfigError
from adaptkit.yaml_text import Reader, read_file, shorten


def test_values_come_with_the_places_of_keys_and_values(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: x\npart:\n  rates: [3e-4, no]\n")
    tree, places = read_file(path)
    assert tree == {"name": "x", "part": {"rates": [3e-4, "no"]}}
    assert places["name"] == f"{path}:1:7" and places["part.rates#key"] == f"{path}:3:3"
    assert places["part.rates.1"] == f"{path}:3:17"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("08", 8),
        ("yes", "yes"),
        ("True", True),
        ("~", None),
        ("", None),
        ("0x1F", "0x1F"),
        ("2026-11-21", "2026-11-21"),
        ("'7'", "7"),
        ("[1, [a]]", [1, ["a"]]),
    ],
)
def test_scalars_are_read_by_yaml_12(text: str, value: object) -> None:
    assert Reader(text, "c.yaml").read("") == value


def test_a_value_of_the_command_line_has_no_line() -> None:
    reader = Reader("[1, 2]", "override")
    assert reader.read("rates") == [1, 2]
    assert reader.places == {"rates": "override", "rates.0": "override", "rates.1": "override"}
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        Reader("[1", "override").read("rates")
    assert caught.value.where == "command line"


def test_long_text_is_shortened() -> None:
    assert shorten("a" * 60) == "a" * 60
    assert shorten("a" * 61) == "a" * 60 + "..."
    assert shorten("abc", 2) == "ab..."


@pytest.mark.parametrize(("deeper", "column"), [("[", 102), ("{", 102), ("[a, ", 402), ("- ", 201)])
def test_what_is_nested_deeply_is_refused_where_it_becomes_too_deep(deeper: str, column: int) -> None:
    """Not after a thousand brackets: reading them takes the square of their number, in seconds."""
    with pytest.raises(ConfigError, match="nested too deeply") as caught:
        Reader(deeper * 1000, "c.yaml").read("")
    assert caught.value.where == f"c.yaml:1:{column}" and caught.value.fix == "flatten it"
