"""A study's own scaling law: fitted to its sizes and smaller trainings, and used by a plan. Home of
planning.own_law and planning.outcome."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_study import DOMAIN_BYTES, PASSES, PORTIONS, MadeLaw, edit_study, write_study

from adaptkit.cli.plan import as_json, as_text
from adaptkit.errors import ConfigError
from adaptkit.planning.config import PlanConfig
from adaptkit.planning.own_law import choose_law
from adaptkit.planning.planner import make_plan
from adaptkit.planning.published_law import worth_of_tokens
from adaptkit.run import Run, read_jsonl, write_jsonl
from adaptkit.study.ladder_record import LadderRecord, RungScoreRecord
from adaptkit.study.record import MachineRecord, read_study

OWN, SIZES, LEVEL, SIZE_PART, BYTES_PER_TOKEN = 3_000_000, (1_000_000, 3_000_000, 10_000_000), 1.7, 0.4, 4.12


def truth(params: float, read: float) -> float:
    """Bits per byte of the made study's models from scratch."""
    made = MadeLaw(LEVEL, 0.0)(1.0, read / PASSES / DOMAIN_BYTES)
    return made + SIZE_PART * ((params / OWN) ** -0.3 - 1)


def read_at(size: int) -> float:
    """Bytes that a model reads which spends the FLOPs of the study's own."""
    return PASSES * DOMAIN_BYTES * OWN / size


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ladder")
    study = write_study(
        root,
        texts=("generic", "scratch"),
        bpb={"scratch": LEVEL},
        portions=PORTIONS,
        tasks=("language",),
        num_documents=60,
        seed_noise=0.002,
    )
    scores = []
    whole = [score for score in read_study(study).scores if score.arm == "scratch" and score.compute == 1]
    for size in (SIZES[0], SIZES[2]):
        for own in whole:
            run = Run(root / f"scratch-{size}-s{own.seed}")
            run.path.mkdir()
            factor = truth(size, read_at(size)) / LEVEL
            rows = read_jsonl(Run(root / own.run).items("language"))
            write_jsonl(run.items("language"), [{**row, "nats": row["nats"] * factor} for row in rows])
            where = {"arm": "scratch", "seed": own.seed, "size": size, "params": size, "learning_rate": 1e-3}
            names = {"run": run.path.name, "model_run": run.path.name}
            scores.append(RungScoreRecord(**where, **names, read_bytes=read_at(size)))
    machine = MachineRecord(flops_per_second=1e10, device="CPU", cores=2)
    edit_study(study, machine=machine, ladder=LadderRecord(own=OWN, sizes=SIZES, scores=tuple(scores)))
    return study


def test_the_law_of_a_study_is_recovered_with_its_interval_and_range(made: Path) -> None:
    chosen = choose_law(PlanConfig(study=str(made)))
    assert chosen.law.name == "study" and chosen.law.unit == "bits per byte" and len(chosen.draws) == 200
    text = DOMAIN_BYTES / BYTES_PER_TOKEN
    for params, read in ((OWN, read_at(OWN)), (6e6, read_at(OWN)), (2e6, read_at(OWN) / 3)):
        interval = chosen.interval(params, read / BYTES_PER_TOKEN, text)
        assert interval is not None
        assert interval.low <= truth(params, read) <= interval.high, (params, read, interval)
        assert interval.high - interval.low < 0.3, "60 passages leave no less"
    assert chosen.law.sizes == (SIZES[0], SIZES[2])
    most = worth_of_tokens(read_at(SIZES[0]), DOMAIN_BYTES) / BYTES_PER_TOKEN
    assert chosen.law.tokens[1] == pytest.approx(most)
    assert "1,000,000 to 10,000,000 parameters" in chosen.note and chosen.note.endswith("it is a guess.")


def test_a_plan_shows_the_interval_and_what_lies_beyond(made: Path) -> None:
    plan = make_plan(
        PlanConfig(study=str(made), sizes=[1_300_000, 1_000_000_000], text_bytes=8.2e6, size=1_300_000)
    )
    near, far = plan.rows
    assert near.loss_low is not None and near.loss_high is not None
    assert near.loss_low < near.loss < near.loss_high and near.beyond == ""
    assert far.beyond == "a size beyond those that the law was fitted on"
    (buy,) = plan.answers
    assert buy.loss_low is not None and buy.loss_high is not None
    assert buy.loss_low < buy.loss < buy.loss_high
    said = as_text(plan)
    assert f"{near.loss:.3f} [{near.loss_low:.3f}, {near.loss_high:.3f}]" in said
    assert "The law is the study's own, of scratch, fitted to 7 trainings" in said
    row = json.loads(json.dumps(as_json(plan)))["rows"][0]
    assert row["loss_low"] < row["loss"] < row["loss_high"]


def test_a_study_without_a_law_says_why_and_takes_a_published_one(made: Path, tmp_path: Path) -> None:
    study = shutil.copytree(made.parent, tmp_path / "runs") / made.name
    ladder = read_study(study).ladder
    assert ladder is not None

    def note(**fields: object) -> str:
        edit_study(study, **fields)
        chosen = choose_law(PlanConfig(study=str(study)))
        assert chosen.law.name == "besiroglu-2024" and chosen.interval(1e6, 1e6, 1e9) is None
        with pytest.raises(ConfigError, match="no study with a law of its own"):
            choose_law(PlanConfig(study=str(study), law="study"))
        return chosen.note

    old = ladder.model_copy(
        update={"scores": tuple(row.model_copy(update={"read_bytes": None}) for row in ladder.scores)}
    )
    assert "an older release did not record what its other sizes read" in note(ladder=old)
    record = read_study(study).forecast
    assert record is not None
    late = record.model_copy(update={"largest_begun": record.predicted - 1})
    assert "did not predict the largest run of scratch" in note(ladder=ladder, forecast=late)
    whole = tuple(score for score in read_study(study).scores if score.compute == 1)
    assert "set `forecast.share` in the study" in note(scores=whole, forecast=None)
    assert "set `sizes` in the study" in note(ladder=None)
    assert choose_law(PlanConfig(study=str(study), law="hoffmann-2022")).note == ""
    with pytest.raises(ConfigError, match="none is named"):
        choose_law(PlanConfig(law="study"))
