"""Keys: made so that only their owner can read them, read strictly, compared without telling how much was
right."""

from __future__ import annotations

import hmac
import os
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


def test_a_missing_file_is_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="no key can be read"):
        api_keys.load(home / "absent")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o622, 0o777])
def test_a_file_that_others_may_write_to_is_refused(home: Path, mode: int) -> None:
    path = home / "key"
    path.write_text(GOOD)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        api_keys.load(path)
    for fine in (0o600, 0o400, 0o644):
        path.chmod(fine)
        assert api_keys.load(path).values == (GOOD,)


def test_a_secret_is_its_owners_from_the_first_byte(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    opened = os.open

    def open_and_note(path: Path, flags: int, mode: int) -> int:
        modes.append(mode)
        return opened(path, flags, mode)

    monkeypatch.setattr(api_keys.os, "open", open_and_note)
    api_keys.write_secret(home / "secret", "s")
    assert modes == [0o600] and (home / "secret").read_text() == "s\n"
    with pytest.raises(FileExistsError):
        api_keys.write_secret(home / "secret", "other")


@pytest.mark.parametrize("length", [15, 16])
def test_a_key_has_at_least_16_characters(home: Path, length: int) -> None:
    path = home / "key"
    path.write_text("k" * length)
    if length < 16:
        with pytest.raises(ConfigError, match="at least 16 visible ASCII"):
            api_keys.load(path)
    else:
        assert api_keys.load(path).values == ("k" * 16,)


def test_a_key_is_compared_in_constant_time_with_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(api_keys.hmac, "compare_digest", compare)
    keys = api_keys.Keys((GOOD, GOOD + "-second", GOOD + "-third"), "test")
    for header in (f"Bearer {GOOD}", f"Bearer {GOOD}-third", "Bearer x", "", "Basic x"):
        compared.clear()
        keys.match(header.encode())
        assert len(compared) == 3, "the first key that fits does not end the search"
        assert {len(side) for pair in compared for side in pair} == {32}, "digests, all of one length"


def test_a_key_is_shown_by_its_fingerprint_only() -> None:
    held = api_keys.Keys((GOOD,), "test")
    assert GOOD not in repr(held) and GOOD not in str(held)
    assert api_keys.fingerprint(GOOD) == held.match(f"Bearer {GOOD}".encode())
    assert len({api_keys.make_key() for _ in range(100)}) == 100


STRANGERS = [
    *(b"", b"Bearer", b"Bearer ", GOOD.encode(), b"Token 0123456789abcdef", b"\xff\xfe"),
    *(b"Bearer 0123456789abcde", b"Bearer 0123456789abcdef0", b"Bearer " + b"x" * 100_000),
]


@pytest.mark.parametrize("header", STRANGERS)
def test_nothing_else_fits(header: bytes) -> None:
    assert api_keys.Keys((GOOD,), "test").match(header) is None
