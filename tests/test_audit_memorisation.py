"""What models keep of their text: of a tiny model that has read it too often, and of made-up losses. Home of
audit.memorisation, audit.membership, audit.exposure, audit.extractable_text, audit.training_text,
audit.subjects and audit.record."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_study import write_study
from scipy.stats import skewnorm
from sklearn.metrics import roc_auc_score

from adaptkit.audit.exposure import exposure
from adaptkit.audit.extractable_text import HALF, HELD_OUT, draw_by_repeats
from adaptkit.audit.membership import auc_table, packed_scores
from adaptkit.audit.memorisation import audit_run, share_interval
from adaptkit.audit.record import MemorisationRecord, SubjectRecord, read_memorisation, write_memorisation
from adaptkit.audit.subjects import BASE
from adaptkit.audit.training_text import text_of_run
from adaptkit.compare.audited_study import audit_study
from adaptkit.config import dump, load
from adaptkit.data.canaries import SPACE_BITS, CanaryConfig, canaries
from adaptkit.data.readers import Row
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import DataError
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord, read_record
from adaptkit.study import record
from adaptkit.study.record import read_study
from adaptkit.study.statistics import resample

WORDS = ("dose", "trial", "nurse", "drug", "ward", "pulse", "blood", "arm", "visit", "week", "sleep", "cough")


def documents(seed: int, num: int) -> list[str]:
    """Texts of random words: nothing but having read one tells how it goes on."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=40)) for _ in range(num)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    notice = " ".join(random.Random(99).choices(WORDS, k=130))
    texts = documents(1, 40) + [f"{notice} {text}" for text in documents(2, 18)]
    write_jsonl(folder / "train.jsonl", [{"text": text} for text in texts])
    write_jsonl(folder / "dev.jsonl", [{"text": text} for text in documents(3, 40)])
    return folder


def settings(root: Path, **fields: object) -> PretrainConfig:
    given = {
        "data": {"files": [str(root / "train.jsonl")]},
        "dev": {"files": [str(root / "dev.jsonl")]},
        "size": {"params": 120_000, "seq_len": 128},
        "tokenizer": {"vocab_size": 400},
        "trainer": {"num_steps": 150, "global_batch_size": 8, "threads": 1, "learning_rate": 1e-2},
    }
    return PretrainConfig.model_validate(given | fields)


def trained(root: Path, config: PretrainConfig) -> Run:
    run = Run.open(root, config.name, config)
    pretrain(config, run)
    return run


@pytest.fixture(scope="module")
def scratch(root: Path) -> Run:
    return trained(root, settings(root, name="scratch", canaries={"repeats": [1, 32], "each": 3}))


@pytest.fixture(scope="module")
def audited(scratch: Run) -> MemorisationRecord:
    return audit_run(scratch, num=40)


# ---- a model that has read its text too often
# --------------------------------------------------------------------------------------------------
def test_a_model_that_read_its_text_often_gives_it_away(audited: MemorisationRecord) -> None:
    (subject,) = audited.subjects
    assert subject.passes is not None and 10 < subject.passes < 100
    assert subject.membership.low > 0.7 and subject.membership.mean > audited.blind.mean + 0.1
    never, once, often = subject.exposures
    assert [found.repeats for found in subject.exposures] == [0, 1, 32]
    assert never.bits.mean < 6 < often.bits.mean <= SPACE_BITS and never.num_written == 0
    assert often.num_written > 0 and never.num == once.num == often.num == 3
    extraction = {found.repeats: found for found in subject.extraction}
    assert HELD_OUT not in extraction, "its documents have fewer than 100 tokens"
    assert extraction["1"].num == 18 and extraction["1"].share.mean == 0
    assert 0.15 < extraction["1"].share.high < 0.2, "18 passages of which none came"
    assert extraction["16 or more"].num == 1, "the notice, once"
    assert extraction["16 or more"].num_tokens > 2 * extraction["1"].num_tokens


def test_the_record_is_kept_without_any_text_or_secret(scratch: Run, audited: MemorisationRecord) -> None:
    assert read_memorisation(Run(scratch.path.parent / "none")) is None
    write_memorisation(scratch, audited)
    assert read_memorisation(scratch) == audited
    config = CanaryConfig(repeats=[1, 32], each=3)
    for path in (scratch.audit_path("memorisation"), scratch.manifest_path):
        text = path.read_text()
        assert not any(canary.secret in text for canary in canaries(config))
        assert not any(words in text for words in documents(1, 1))
    assert read_record(scratch).canaries is not None and audited.canaries == read_record(scratch).canaries
    damaged = json.loads(scratch.audit_path("memorisation").read_text())
    damaged["num_train"] = 7
    scratch.audit_path("memorisation").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match="damaged"):
        read_memorisation(scratch)


def test_the_base_is_the_control_of_what_kept_on_from_it(root: Path, scratch: Run) -> None:
    write_jsonl(root / "other.jsonl", [{"text": text} for text in documents(4, 40)])
    data = {"files": [str(root / "other.jsonl")]}
    trainer = {"num_steps": 60, "global_batch_size": 8, "threads": 1, "learning_rate": 3e-3}
    config = settings(root, name="lora", base=str(scratch.model), data=data, trainer=trainer, tokenizer={})
    config = config.model_copy(update={"adapter": config.adapter.model_copy(update={"kind": "lora"})})
    found = audit_run(trained(root, config), num=40)
    base, adapted = found.subjects
    assert (found.control, base.name, base.passes, base.beyond_control) == (BASE, BASE, 0.0, None)
    assert base.membership.low < 0.5 < base.membership.high, "it has read none of this text"
    assert adapted.describe == "continued by adapters" and adapted.beyond_control is not None
    assert adapted.membership.mean - base.membership.mean == pytest.approx(adapted.beyond_control.mean)
    assert adapted.beyond_control.mean > 0 and found.canaries is None and not adapted.exposures


def test_a_studys_arms_are_audited_side_by_side(
    root: Path, scratch: Run, audited: MemorisationRecord
) -> None:
    text = text_of_run(scratch)
    planted = CanaryConfig(repeats=[1, 32], each=3)
    prepared = root / "data-00000000"
    rows = [*text.train.rows, *(Row({"text": canary.text}, "x", "x") for canary in canaries(planted))]
    write_jsonl(prepared / "domain.train.jsonl", [{"text": row.text} for row in rows])
    held_out = [{"text": row.text, "group": row.id} for row in text.held_out.rows]
    write_jsonl(prepared / "domain.test.jsonl", held_out)
    study = write_study(
        root, texts=("generic", "scratch"), tasks=("language",), seeds=2, num_documents=9, num_rows=9
    )
    fake = read_study(study)
    scores = tuple(
        score.model_copy(update={"model_run": None if score.arm == "generic" else scratch.path.name})
        for score in fake.scores
    )
    base = fake.base.model_copy(update={"model": str(scratch.model), "run": None})
    whole = {"scores": scores, "base": base, "prepared_run": prepared.name}
    record.write_study(study, fake.model_copy(update=whole))
    data = {"train": {"files": ["x"]}}
    config = {"name": "s", "domain": data, "general": data, "base": "b", "budget": {"amount": 1e9}}
    config |= {"canaries": planted.model_dump(), "size": {"seq_len": 128}}
    Run(study).config_path.write_text(dump(config))
    found = audit_study(study, num=40)
    generic, own = found.subjects
    assert (found.control, generic.name, generic.num_seeds, generic.passes) == ("generic", "generic", 1, 0.0)
    assert (own.name, own.num_seeds) == ("scratch", 2) and own.passes == audited.subjects[0].passes
    assert own.membership.mean == pytest.approx(audited.subjects[0].membership.mean, abs=0.02)
    assert own.beyond_control is not None and own.beyond_control.mean == pytest.approx(0)
    assert found.canaries == audited.canaries and found.num_train == found.num_held_out == 40
    assert own.exposures[2].num_written == 2 * audited.subjects[0].exposures[2].num_written
    record.write_study(study, fake.model_copy(update={**whole, "tasks": ()}))
    with pytest.raises(DataError, match="no model of this study gives any"):
        audit_study(study)


# ---- what cannot be audited
# --------------------------------------------------------------------------------------------------
def test_text_that_is_gone_or_changed_is_refused_in_a_sentence(root: Path, scratch: Run) -> None:
    text = text_of_run(scratch)
    assert len(text.train.rows) == 58 and text.seq_len == 128, "canaries are told from the documents"
    path = root / "train.jsonl"
    kept = path.read_text()
    path.write_text(kept.replace("dose", "doze"))
    with pytest.raises(DataError, match="the train text has changed since this run read it"):
        text_of_run(scratch)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        text_of_run(scratch)
    path.write_text(kept)
    run = Run(root / "tuned-00000000")
    run.finish(record=RunRecord(recipe=RecipeKind.FINETUNE, model_kind="classifier").model_dump(mode="json"))
    with pytest.raises(DataError, match="finetune of a classifier model"):
        text_of_run(run)
    shutil.rmtree(run.path)


def test_a_handful_of_documents_is_refused(root: Path, scratch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptkit.audit.training_text.MIN_DOCUMENTS", 59)
    with pytest.raises(DataError, match="58 training documents; an audit of memorisation needs 59"):
        text_of_run(scratch)


# ---- the figures, on made-up losses
# --------------------------------------------------------------------------------------------------
def test_the_auc_is_that_of_scikit_learn_and_varies_as_delong_says() -> None:
    rng = np.random.default_rng(0)
    members, others = np.round(rng.normal(0, 1, 150), 1), np.round(rng.normal(0.5, 1, 250), 1)
    table = auc_table(members, others)
    labels = [1] * 150 + [0] * 250
    assert table.value == pytest.approx(roc_auc_score(labels, -np.concatenate([members, others])))
    wins = (members[:, None] < others) + 0.5 * (members[:, None] == others)
    variance = wins.mean(1).var(ddof=1) / 150 + wins.mean(0).var(ddof=1) / 250
    interval = resample({"auc": [table]}).interval("auc")
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.06)


def test_exposure_is_what_the_losses_were_drawn_with() -> None:
    others = skewnorm.rvs(-2, 20, 1.5, size=256, random_state=0)
    for bits in (1, 5, 20):
        loss = float(skewnorm.ppf(2.0**-bits, -2, 20, 1.5))
        assert exposure(loss, others) == pytest.approx(bits, abs=0.25 * bits + 0.2)
    assert exposure(-100.0, others) == pytest.approx(SPACE_BITS) and exposure(100.0, others) == 0
    assert exposure(1.0, np.ones(9)) == 0


def test_a_share_of_none_has_an_interval() -> None:
    none = share_interval(np.zeros((1, 100)), 0.95)
    assert (none.mean, none.low) == (0, 0) and none.high == pytest.approx(0.0362, abs=1e-4)
    every = share_interval(np.ones((3, 1)), 0.95)
    assert (every.mean, every.high) == (1, 1) and every.low == pytest.approx(0.025)
    some = share_interval(np.array([[1.0] * 30 + [0.0] * 70] * 2), 0.95)
    assert some.mean == pytest.approx(0.3) and 0.19 < some.low < 0.22 and 0.39 < some.high < 0.42


def test_repeats_are_counted_in_all_of_the_text() -> None:
    notice = " ".join(random.Random(7).choices(WORDS, k=150))
    rows = [Row({"text": text}, f"a:{i}", f"id{i}") for i, text in enumerate(documents(5, 6))]
    long = [Row({"text": " ".join(documents(i, 4))}, f"b:{i}", f"long{i}") for i in range(10, 15)]
    twice = [Row({"text": f"{text} {notice}"}, f"c:{i}", f"c{i}") for i, text in enumerate(documents(6, 3))]
    tokenizer = train_tokenizer([row.text for row in (*rows, *long, *twice)], "bpe", 400)
    passages = draw_by_repeats([*rows, *long, *twice], [*rows[:1], *long[:1], *long], tokenizer, 4)
    groups = [passage.group for passage in passages]
    assert groups.count("1") == 4 and set(groups) == {"1", "2 to 3"}, "what was read is not held out"
    for passage in passages:
        assert len(passage.given) == len(passage.expected) == HALF
        text = tokenizer.decode(passage.given + passage.expected)
        assert (text.strip() in notice) == (passage.group == "2 to 3")
    ones = [passage.cluster for passage in passages if passage.group == "1"]
    assert len(set(ones)) == len(ones)
    assert draw_by_repeats(rows, rows, tokenizer, 4) == []


def test_zlib_finds_repeated_words_short() -> None:
    rows = [Row({"text": text}, "a:1", "a") for text in ("dose " * 40, documents(8, 1)[0])]
    repeated, mixed = packed_scores(rows)
    assert repeated < 1 < mixed < 8
    assert SubjectRecord.model_fields.keys() >= {"membership", "beyond_control"}


def test_canaries_are_a_setting_of_a_pretraining(root: Path) -> None:
    config = load(PretrainConfig, overrides=["data.files=[x]", "size.params=1M", "canaries.each=2"]).config
    assert config.canaries == CanaryConfig(each=2)
