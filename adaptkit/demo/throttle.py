"""Slow down who tries wrong passwords: each address waits longer, and all addresses together are limited."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_ADDRESSES = 10_000


class Tries:
    """Counts wrong passwords, by address and in all, and says how long the next try must wait.

    Five wrong ones in a row and an address waits 30 s, twice as long after each further one, up to 15
    minutes. All addresses together may be wrong 30 times a minute: many addresses do not help to guess.
    """

    FREE, FIRST_WAIT_S, LONGEST_WAIT_S, IN_ALL, WINDOW_S = 5, 30.0, 900.0, 30, 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._recent: list[float] = []

    def wait_s(self, address: str) -> float:
        """Say how long this address must wait before its next try; 0 for not at all."""
        now = self._clock()
        self._recent = [at for at in self._recent if now - at < self.WINDOW_S]
        count, last = self._wrong.get(_network(address), (0, 0.0))
        waits = [0.0]
        if count >= self.FREE:
            pause = min(self.FIRST_WAIT_S * 2 ** (count - self.FREE), self.LONGEST_WAIT_S)
            waits.append(last + pause - now)
        if len(self._recent) >= self.IN_ALL:
            waits.append(self._recent[0] + self.WINDOW_S - now)
        return max(waits)

    def wrong(self, address: str) -> None:
        """Count a wrong password from this address."""
        network = _network(address)
        count, _ = self._wrong.pop(network, (0, 0.0))
        self._wrong[network] = (count + 1, self._clock())
        self._recent.append(self._clock())
        while len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """Forget the wrong ones of an address that knows the password."""
        self._wrong.pop(_network(address), None)


def _network(address: str) -> str:
    """Group an IPv6 caller's 2**64 addresses into one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version != 6:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
