"""Keys: made so that only their owner can read them, read strictly, compared without telling how much was
right."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from adaptkit.errors import ConfigError
from adaptkit.serve import api_keys

GOOD = "0123456789abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, no key in the environment."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in (api_keys.KEY_VARIABLE, api_keys.FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_key_is_made_once_for_its_owner_only(home: Path) -> None:
    first = api_keys.load()
    path = home / "state" / "adaptkit" / "api-key"
    assert first.origin == str(path) and first.values == (path.read_text().strip(),)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(first.values[0]) >= 43
    assert api_keys.load() == first
    path.unlink()
    assert api_keys.load() != first


def test_of_two_that_are_made_at_once_one_stays(home: Path) -> None:
    path = home / "key"
    api_keys._write(path, "first-0123456789")
    api_keys._write(path, "second-0123456789")
    assert api_keys.load(path).values == ("first-0123456789",)


def test_the_file_comes_first_then_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = home / "key", home / "other"
    file.write_text(f"# for the front\n\n  {GOOD}  \n{GOOD}-second\n")
    other.write_text(GOOD + "-other\n")
    monkeypatch.setenv(api_keys.FILE_VARIABLE, str(other))
    assert api_keys.load().values == (GOOD + "-other",)
    monkeypatch.setenv(api_keys.KEY_VARIABLE, GOOD + "-environment")
    assert api_keys.load() == api_keys.Keys((GOOD + "-environment",), "$ADAPTKIT_API_KEY")
    assert api_keys.load(file).values == (GOOD, GOOD + "-second")


@pytest.mark.parametrize(
    "text",
    ["", "# only a comment\n", "short\n", "blank in it 0123456789\n", "\u00e9" * 20, "tab\tin-it-0123456789"],
)
def test_files_that_hold_no_good_key_are_refused_without_showing_it(home: Path, text: str) -> None:
    path = home / "key"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        api_keys.load(path)
    assert str(path) in str(refused.value)
    assert text.strip() == "" or text.strip() not in str(refused.value)


def test_missing_and_writable_files_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="no key can be read"):
        api_keys.load(home / "absent")
    path = home / "key"
    path.write_text(GOOD)
    path.chmod(0o622)
    with pytest.raises(ConfigError, match="chmod 600"):
        api_keys.load(path)


def test_a_key_is_shown_by_its_fingerprint_only() -> None:
    held = api_keys.Keys((GOOD,), "test")
    assert GOOD not in repr(held) and GOOD not in str(held)
    assert api_keys.fingerprint(GOOD) == held.match(f"Bearer {GOOD}".encode())
    assert len({api_keys.fresh() for _ in range(100)}) == 100


STRANGERS = [
    *(b"", b"Bearer", b"Bearer ", GOOD.encode(), b"Token 0123456789abcdef", b"\xff\xfe"),
    *(b"Bearer 0123456789abcde", b"Bearer 0123456789abcdef0", b"Bearer " + b"x" * 100_000),
]


@pytest.mark.parametrize("header", STRANGERS)
def test_nothing_else_fits(header: bytes) -> None:
    assert api_keys.Keys((GOOD,), "test").match(header) is None
