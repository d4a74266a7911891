"""Strict configs: YAML 1.2 values, dotted overrides, origins, and every refusal at file:line:col."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import field_validator, model_validator

from adaptkit.config import Config, Count, Magnitude, dump, leaves, load
from adaptkit.errors import ConfigError


class Inner(Config):
    rate: float = 3e-4
    """Step size."""
    steps: Count = 10
    """Steps."""
    kind: Literal["a", "b"] = "a"
    """A choice."""

    @field_validator("rate")
    @classmethod
    def _positive(cls, rate: float) -> float:
        if rate <= 0:
            raise ConfigError("must be positive", where="inner.rate", fix="give a number above 0")
        return rate


class Outer(Config):
    name: str = "x"
    """A name."""
    flops: Magnitude = 1.0
    """Budget."""
    inner: Inner = Inner()
    """A part."""
    items: list[Inner] = []
    """Parts."""
    columns: dict[str, str] = {}
    """Free keys."""
    maybe: Inner | None = None
    """An optional part."""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path: Path | None, overrides: list[str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(Outer, path, overrides)
    assert caught.value.fix
    return caught.value


def test_values_are_read_by_yaml_12(write) -> None:
    text = "name: no\nflops: 3e14\ninner: {rate: 1e-3, steps: 32k}\ncolumns: {text: 2026-11-21, on: off}\n"
    config = load(Outer, write(text)).config
    assert (config.name, config.flops, config.inner.rate, config.inner.steps) == ("no", 3e14, 1e-3, 32000)
    assert config.columns == {"text": "2026-11-21", "on": "off"}


@pytest.mark.parametrize(
    ("text", "value"), [("10M", 10_000_000), ("1e6", 1_000_000), ("2.5k", 2500), ("1.5B", 1_500_000_000)]
)
def test_counts_accept_suffixes_and_exponents(write, text: str, value: int) -> None:
    assert load(Outer, write(f"inner: {{steps: {text}}}")).config.inner.steps == value


@pytest.mark.parametrize(
    "text", ["2.5", "1.0001k", "'7'", "1_000", "0x10", "10m", "1.2.3k", ".inf", "null", "[1]", "1e999"]
)
def test_counts_refuse_the_rest(write, text: str) -> None:
    assert refusal(write(f"inner:\n  steps: {text}\n")).where.endswith("c.yaml:2:10")


def test_an_empty_file_is_all_defaults(write) -> None:
    loaded = load(Outer, write(""))
    assert loaded.config == Outer()
    assert set(loaded.origins.values()) == {"default"}


def test_origins_name_file_override_and_default(write) -> None:
    path = write("name: a\ninner:\n  rate: 0.1\n")
    origins = load(Outer, path, ["inner.steps=5"]).origins
    assert origins["name"] == f"{path}:1:7"
    assert origins["inner.rate"] == f"{path}:3:9"
    assert origins["inner.steps"] == "override"
    assert origins["flops"] == "default"


def test_an_override_of_a_whole_part_forgets_where_its_old_values_stood(write) -> None:
    loaded = load(Outer, write("inner:\n  rate: 0.1\n  steps: 3\n"), ["inner={steps: 4}"])
    assert (loaded.config.inner.rate, loaded.origins["inner.rate"]) == (3e-4, "default")
    assert (loaded.config.inner.steps, loaded.origins["inner.steps"]) == (4, "override")


class Paired(Config):
    low: Count = 1
    """Not above high."""
    high: Count = 5
    """Not below low."""

    @model_validator(mode="after")
    def _ordered(self) -> Paired:
        if self.low > self.high:
            raise ConfigError(f"{self.low} is above {self.high}", where="high", fix="swap them")
        return self


@pytest.mark.parametrize(
    ("text", "override", "where"),
    [("high: 5\n", "low=9", "command line"), ("high: 0\n", "low=9", "c.yaml:1:7")],
)
def test_what_only_an_override_spoils_is_not_told_of_the_file(write, text, override, where) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(Paired, path, [override])
    assert str(caught.value.where).endswith(where)


def test_overrides_reach_into_lists_and_absent_parts(write) -> None:
    overrides = ["items.1.steps=9", "maybe.kind=b", "columns.text-col=body"]
    config = load(Outer, write("items: [{steps: 1}, {steps: 2}]"), overrides).config
    assert [item.steps for item in config.items] == [1, 9]
    assert config.maybe == Inner(kind="b")
    assert config.columns == {"text-col": "body"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("inner.steps", "is not `key.sub=value`"),
        ("=3", "is not `key.sub=value`"),
        ("a b=3", "is not `key.sub=value`"),
        ("inner.steps=[", "not valid YAML"),
        ("inner.steps=!!python/name:os.system", "tag"),
        ("items.7=x", "outside the list"),
        ("items.7.steps=1", "does not exist"),
        ("inner.stepz=1", "did you mean 'steps'"),
        ("flops=many", "valid number, got 'many'"),
        ("name=" + "[" * 3000, "nested too deeply"),
    ],
)
def test_wrong_overrides_point_at_the_command_line(write, override: str, said: str) -> None:
    error = refusal(write("items: [{steps: 1}]"), [override])
    assert error.where == "command line"
    assert said in error.what
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("nam: x\n", "1:1", "unknown key 'nam' (did you mean 'name'?)"),
        ("inner:\n  stepz: 1\n", "2:3", "unknown key 'inner.stepz' (did you mean 'steps'?)"),
        ("items:\n  - steps: 1\n  - kindd: a\n", "3:5", "did you mean 'kind'"),
        ("maybe:\n  rated: 1\n", "2:3", "did you mean 'rate'"),
        ("inner:\n  rate: fast\n", "2:9", "valid number, got 'fast'"),
        ("inner:\n  rate: .nan\n", "2:9", "finite number"),
        ("inner:\n  rate: -1\n", "2:9", "must be positive"),
        ("inner:\n  kind: c\n", "2:9", "'a' or 'b', got 'c'"),
        ("inner: 3\n", "1:8", "should be `key: value` lines, got 3"),
        ("name: a\nname: b\n", "2:1", "'name' is given twice"),
        ("name: [a\n", "2:1", "not valid YAML"),
        ("name: 'a\n", "2:1", "not valid YAML"),
        ("name: a: b\n", "1:8", "not valid YAML"),
        ("a: 1\n--- \nb: 2\n", "2:1", "not valid YAML"),
        ("- a\n", "1:1", "`key: value` lines"),
        ("just text\n", "1:1", "`key: value` lines"),
        ("name: \x07\n", "1:7", "control character 0x07"),
        ('name: "\\ud800"\n', "1:7", "character that no file"),
        ('name: "\\0"\n', "1:7", "character that no file"),
        ('flops: 1\nname: "\\UFFFFFFFF"\n', "2:", "an escape that is no character"),
        ('flops: 1\nname: "\\U00110000"\n', "2:", "an escape that is no character"),
        (
            "name: !!python/object:os.system {}\n",
            "1:7",
            "tag tag:yaml.org,2002:python/object:os.system is not allowed",
        ),
        ("inner: !!python/object/apply:os.system [ls]\n", "1:8", "is not allowed"),
        ("inner: !mine\n  rate: 1\n", "1:8", "tag !mine is not allowed"),
        ("columns: !!set {a, b}\n", "1:10", "is not allowed"),
        ("columns: !!omap [a: b]\n", "1:10", "is not allowed"),
        ("name: !!binary aGk=\n", "1:7", "is not allowed"),
        ("name: !!timestamp 2026-11-21\n", "1:7", "is not allowed"),
        ("flops: !!int 0x10\n", "1:8", "cannot be read as int"),
        ("name: !!bool maybe\n", "1:7", "cannot be read as bool"),
        ("!!python/name:os name: 1\n", "1:1", "a key must be plain text"),
        ("? [a, b]\n: 1\n", "1:3", "a key must be plain text"),
        ("base: &b {rate: 1}\ninner:\n  <<: *b\n", "3:3", "unknown key 'inner.<<'"),
        ("inner: *nowhere\n", "1:8", "undefined alias"),
        ("columns: &x\n  a: *x\n", "", "alias within itself"),
        ("flops: " + "9" * 5000 + "\n", "1:8", "cannot be read as int"),
        ("flops: " + "9" * 390 + "\n", "1:8", ""),
        ("inner:\n  steps: " + "9" * 390 + "e5\n", "2:10", ""),
        ("name: " + "[" * 5000, "1:", "nested too deeply"),
        ("\t", "1:", "not valid YAML"),
        ("%YAML 9.9\n---\nname: x\n", "1:1", "not valid YAML"),
        ("? \n" * 3, "2:", "given twice"),
    ],
)
def test_refusals_name_the_place_and_the_reason(write, text: str, place: str, said: str) -> None:
    path = write(text)
    error = refusal(path)
    assert f"{path}:{place}" in str(error)
    assert said in str(error)
    assert len(str(error)) < 1500


def test_a_byte_that_is_no_utf8_is_located(write) -> None:
    path = write(b"name: ok\nflops: \xff1\n")
    assert refusal(path).where == f"{path}:2:8"


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path, write) -> None:
    assert "no such config file" in refusal(tmp_path / "absent.yaml").what
    assert "cannot be read" in refusal(tmp_path).what
    assert "cannot be read" in refusal(tmp_path / ("n" * 300)).what
    assert "cannot be read" in refusal(Path("nul\0byte")).what
    assert "larger than" in refusal(write("name: x\n" + "#" * 1_000_001)).what
    assert "larger than" in refusal(Path("/dev/zero")).what


def test_aliases_are_read_but_may_not_explode(write) -> None:
    shared = load(Outer, write("inner: &a {rate: 0.5}\nmaybe: *a\n"))
    assert shared.config.maybe == shared.config.inner == Inner(rate=0.5)
    laughs = ["columns: &l0 [a, b, c, d, e, f, g, h, i]"] + [
        f"k{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)
    ]
    assert "more than 100000 values" in refusal(write("\n".join(laughs))).what


def test_all_problems_are_told_at_once_but_not_hundreds(write) -> None:
    error = refusal(write("nam: 1\nflops: x\ninner: {stepz: 3}\n"))
    assert str(error).count("c.yaml:") == 3
    many = refusal(write("".join(f"key{i}: 1\n" for i in range(50))))
    assert "and 42 more" in many.what
    assert len(str(many).splitlines()) <= 12


def test_a_huge_value_is_not_echoed(write) -> None:
    assert len(str(refusal(write(f"flops: {'y' * 10_000}\n")))) < 300


def test_configs_are_frozen_and_never_coerced() -> None:
    with pytest.raises(ValueError):
        Outer().name = "y"
    with pytest.raises(ValueError):
        Outer(name=3)


def test_leaves_are_dotted() -> None:
    assert leaves({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


TRICKY = [
    "3e-4",
    "08",
    "no",
    "null",
    "~",
    ".inf",
    "1_000",
    "0o7",
    "2026-11-21",
    "1e5",
    "+1",
    "0x1F",
    "NaN",
    ".nan",
    "yes",
    "12:30",
]
TRICKY += [
    "",
    "-",
    "- x",
    "?",
    "|",
    ">",
    "&",
    "*a",
    "%",
    "@",
    "`",
    "'",
    '"',
    "[",
    "{",
    "#",
    "a: b",
    "=",
    "<<",
    "!!int 3",
]
TRICKY += ["\x85", "\u2028"]
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
) | st.sampled_from(TRICKY)
inners = st.builds(
    Inner, rate=st.floats(1e-300, 1e30), steps=st.integers(0, 10**15), kind=st.sampled_from(["a", "b"])
)
outers = st.builds(
    Outer,
    name=texts,
    flops=st.floats(0, 1e30),
    inner=inners,
    items=st.lists(inners, max_size=2),
    columns=st.dictionaries(texts.filter(lambda key: "\n" not in key), texts, max_size=3),
    maybe=st.none() | inners,
)


@settings(max_examples=150, deadline=None)
@given(outers)
def test_dump_and_load_are_inverse(tmp_path_factory, config: Outer) -> None:
    path = tmp_path_factory.mktemp("dump") / "c.yaml"
    path.write_bytes(dump(config).encode())
    again = load(Outer, path).config
    assert again == config
    assert math.copysign(1, again.flops) == math.copysign(1, config.flops)
