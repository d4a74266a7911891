"""The tables of faults that `make mutants` makes fit the code, and are enough."""

from __future__ import annotations

from mutants.run import MUTANTS, ROOT, misfitting


def test_every_fault_can_be_made() -> None:
    assert list(misfitting(MUTANTS, ROOT)) == []


def test_there_are_enough_and_no_two_alike() -> None:
    assert len(MUTANTS) >= 40
    assert len({(mutant.file, mutant.original, mutant.mutated) for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.original != mutant.mutated for mutant in MUTANTS)


def test_each_room_has_some() -> None:
    for room in ("study", "report", "data", "serve"):
        assert sum(mutant.file.startswith(f"adaptkit/{room}/") for mutant in MUTANTS) >= 8, room
