"""Slow down who tries wrong passwords, without locking out who knows the right one.

Three things count: the caller (its address, or its browser where that has logged in before), all callers
together, and a budget that stays for callers who have not been wrong: however many others guess, their first
try is looked at.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CALLERS = 10_000


class Tries:
    """Counts wrong passwords, by caller and in all, and says how long the next try must wait.

    Five wrong ones in a row and a caller waits 30 s, twice as long after each further one, up to 15 minutes.
    Once all callers together were wrong 30 times in a minute, each caller has one try and then waits until
    the minute is over: a guesser with a thousand addresses gets a thousand guesses, and nobody else is locked
    out.
    """

    FREE, FIRST_WAIT_S, LONGEST_WAIT_S = 5, 30.0, 900.0
    IN_ALL, WINDOW_S, RESERVED = 30, 60.0, 1
    FORGET_S = 3600.0  # so long after its last wrong try a caller is a new one

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._recent: list[float] = []

    def wait_s(self, caller: str) -> float:
        """Say how long this caller must wait before its next try; 0 for not at all."""
        now = self._clock()
        self._recent = [at for at in self._recent if now - at < self.WINDOW_S]
        count, last = self._count(caller)
        waits = [0.0]
        if count >= self.FREE:
            pause = min(self.FIRST_WAIT_S * 2 ** (count - self.FREE), self.LONGEST_WAIT_S)
            waits.append(last + pause - now)
        if len(self._recent) >= self.IN_ALL and count >= self.RESERVED:
            waits.append(self._recent[0] + self.WINDOW_S - now)
        return max(waits)

    def wrong(self, caller: str) -> None:
        """Count a wrong password from this caller."""
        count, _ = self._count(caller)
        network = _network(caller)
        self._wrong[network] = (count + 1, self._clock())
        self._wrong.move_to_end(network)
        self._recent = [*self._recent, self._clock()][-self.IN_ALL :]
        while len(self._wrong) > MAX_CALLERS:
            self._wrong.popitem(last=False)

    def right(self, caller: str) -> None:
        """Forget the wrong ones of a caller that knows the password."""
        self._wrong.pop(_network(caller), None)

    def _count(self, caller: str) -> tuple[int, float]:
        """How often in a row, and when last."""
        count, last = self._wrong.get(_network(caller), (0, 0.0))
        if self._clock() - last > self.FORGET_S:
            return 0, 0.0
        return count, last


def _network(caller: str) -> str:
    """Group an IPv6 caller's 2**64 addresses into one; what is no address stays as it is."""
    try:
        parsed = ipaddress.ip_address(caller)
    except ValueError:
        return caller
    if parsed.version != 6:
        return caller
    return str(ipaddress.ip_network((parsed, 64), strict=False))
