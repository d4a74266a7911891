"""Wrong passwords: each address waits longer and longer, and many addresses do not help."""

from __future__ import annotations

from adaptkit.demo.throttle import Tries


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_sixth_try_waits_and_each_wrong_one_doubles_it() -> None:
    clock = Clock()
    tries = Tries(clock)
    for _ in range(4):
        tries.wrong("10.0.0.1")
    assert tries.wait_s("10.0.0.1") == 0
    tries.wrong("10.0.0.1")
    assert tries.wait_s("10.0.0.1") == 30 and tries.wait_s("10.0.0.2") == 0
    clock.now += 29
    assert tries.wait_s("10.0.0.1") == 1
    tries.wrong("10.0.0.1")
    assert tries.wait_s("10.0.0.1") == 60


def test_waiting_grows_to_a_quarter_of_an_hour_and_no_further() -> None:
    clock = Clock()
    tries = Tries(clock)
    for _ in range(40):
        tries.wrong("10.0.0.1")
        clock.now += 1000
    tries.wrong("10.0.0.1")
    assert tries.wait_s("10.0.0.1") == 900
    assert tries.wait_s("10.0.0.2") == 0
    tries.right("10.0.0.1")
    assert tries.wait_s("10.0.0.1") == 0


def test_many_addresses_have_one_try_each_and_lock_nobody_out() -> None:
    clock = Clock()
    tries = Tries(clock)
    for i in range(30):
        assert tries.wait_s(f"10.0.1.{i}") == 0
        tries.wrong(f"10.0.1.{i}")
    assert tries.wait_s("10.9.9.9") == 0, "who was not wrong yet has a try of its own"
    tries.wrong("10.9.9.9")
    assert 0 < tries.wait_s("10.9.9.9") <= 60 and 0 < tries.wait_s("10.0.1.7") <= 60
    clock.now += 61
    assert tries.wait_s("10.9.9.9") == 0


def test_addresses_of_one_network_count_as_one_and_old_mistakes_do_not_count() -> None:
    clock = Clock()
    tries = Tries(clock)
    for i in range(6):
        tries.wrong(f"2001:db8::{i}")
    assert tries.wait_s("2001:db8::ffff") > 0 and tries.wait_s("2001:db8:0:1::1") == 0
    assert tries.wait_s("browser 1") == 0
    clock.now += 3601
    tries.wrong("2001:db8::1")
    assert tries.wait_s("2001:db8::1") == 0, "the first wrong one of another day"


def test_memory_stays_bounded() -> None:
    tries = Tries(Clock())
    for i in range(10_100):
        tries.wrong(f"10.{i // 65536}.{i // 256 % 256}.{i % 256}")
    assert len(tries._wrong) == 10_000 and len(tries._recent) == Tries.IN_ALL
