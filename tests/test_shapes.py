"""Files of benchmarks/shapes name what exists, and claims are judged by the interval. Home of
benchmarks/shapes.py and its parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adaptkit.config import load

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FILES = sorted((BENCHMARKS / "shapes").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_and_starts_name_trainings_and_settings_are_valid(path: Path) -> None:
    from shape_config import ShapeConfig, toy
    from shape_work import RECIPES

    config = load(ShapeConfig, path).config
    for claim in [*config.claimed, *config.predicted]:
        assert claim.test in config.tests
        for name in {name for pair in claim.pairs() for name in pair}:
            assert claim.test in config.tests_of(name)
    for name in config.trainings:
        training = config.training(name)
        assert training.start in ("", "models/smollm2", *config.trainings)
        if training.recipe != "none":
            base = {"base": "models/smollm2"} if training.start else {}
            for settings in (training.config, toy(training.config)):
                RECIPES[training.recipe][0](**settings, **base)


def test_a_claim_holds_where_its_whole_interval_does(tmp_path: Path) -> None:
    from shape_config import ClaimConfig, ShapeConfig
    from shape_table import judge, replicates

    config = load(ShapeConfig, BENCHMARKS / "shapes" / "replay.yaml").config
    items = {}
    for name, nats in (("replay-10", 100.0), ("replay-1", 120.0)):
        path = tmp_path / f"{name}.jsonl"
        rows = [{"id": str(i), "nats": nats + i, "num_bytes": 100} for i in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        items["general", name] = [path, path]
    drawn = replicates(config, items)

    def outcome(**said: object) -> str:
        return judge(ClaimConfig(test="general", **said), config, drawn)[0].outcome  # type: ignore[arg-type]

    assert outcome(order=["replay-10", "replay-1"]) == "holds"
    assert outcome(order=["replay-1", "replay-10"]) == "does not hold"
    assert outcome(ahead="replay-10", of="replay-1", by=[1.0, 2.0]) == "does not hold"
    assert outcome(ahead="replay-10", of="replay-0") == "not run"


def test_work_names_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shape_work", None)  # importing it fails
    import shapes

    assert shapes.FOLDER == BENCHMARKS / "shapes"
