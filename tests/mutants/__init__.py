"""Hand-made faults that the tests must notice: `make mutants` makes them one at a time, in a copy.

    Mutant("adaptkit/data/overlap.py", "COVERED = 0.1", "COVERED = 0.2", OVERLAP_TESTS)

A table holds those of one room. Each says what is changed into what, and which tests must fail then.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: path from the root of the checkout.
        original: text that occurs in it exactly once.
        mutated: what stands there instead.
        tests: files of tests, or single tests, of which one must fail.
    """

    file: str
    original: str
    mutated: str
    tests: tuple[str, ...]

    @property
    def title(self) -> str:
        """File and change in one line."""
        change = " ".join(f"{self.original} -> {self.mutated or 'nothing'}".split())
        return f"{self.file.removeprefix('adaptkit/')}: {change}"
