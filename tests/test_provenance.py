"""From weights back to rows: who read what, what was removed, whether digests hold, who learnt a document.

Home of cli.provenance, export.papers.compute_thresholds, provenance.ancestry, provenance.copied_export,
provenance.documents, provenance.driver, provenance.record, provenance.sources, provenance.split_rows and
study.prepared_files.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_root import write_root
from tiny_study import backwards, study_config, write_texts

from adaptkit.cli import console
from adaptkit.cli.app import app
from adaptkit.compare.stages.data import write_data
from adaptkit.data.heldout import split_record
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import DataError
from adaptkit.export.papers.compute_thresholds import TrainingCompute, check_thresholds
from adaptkit.export.papers.lineage import trace_run
from adaptkit.export.papers.provenance import Provenance, write_manifest
from adaptkit.export.record import ExportRecord
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.provenance.ancestry import find_ancestry
from adaptkit.provenance.documents import document_of, find_document
from adaptkit.provenance.driver import trace_provenance
from adaptkit.provenance.record import DocumentRecord, ProvenanceRecord
from adaptkit.run import Run, read_jsonl, write_jsonl, write_sealed, write_text
from adaptkit.run_record import RecipeKind, RunRecord
from adaptkit.study.prepared_files import PREPARED, PreparedFiles
from adaptkit.study.record import read_study, runs_of

GENERATES = '{"architectures": ["LlamaForCausalLM"]}'
COSTS = {"base-1": (1e9, 10.0), "continued-1": (2e9, 20.0), "mood-1": (4e9, 40.0), "plain-1": (8e9, 80.0)}
REPEATED = 5


@dataclass(frozen=True)
class World:
    """Runs of a study that never trained: base-1, on it continued-1 and plain-1, on that mood-1."""

    folder: Path
    root: Path
    files: PreparedFiles

    def trace(self, name: str) -> ProvenanceRecord:
        return trace_provenance(self.root / name, self.root)

    def who_learnt(self, text: str, name: str = "mood-1") -> DocumentRecord:
        return find_document(find_ancestry(self.root / name, self.root), document_of(text))

    def first(self, corpus: str) -> str:
        return str(next(iter(read_jsonl(self.files.train(corpus))))["text"])


def finished(root: Path, name: str, record: RunRecord, **manifest: object) -> Run:
    """A run that ended with these words for weights."""
    run = Run(root / name)
    write_text(run.config_path, "name: made by hand\n")
    write_text(run.model / "config.json", GENERATES)
    write_text(run.model / "model.safetensors", f"weights of {name}")
    flops, seconds = COSTS.get(name, (1.0, 1.0))
    write_sealed(run.cost_path, {"flops": flops, "seconds": seconds, "tokens": 1000, "device": "CPU"})
    run.update_manifest(name=name, identity=name, **manifest)
    run.finish(record=record.model_dump(mode="json"))
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("provenance")
    write_texts(folder)
    rows = list(read_jsonl(folder / "domain.jsonl"))
    write_jsonl(folder / "domain.jsonl", rows[:150])
    write_jsonl(folder / "more.jsonl", [*rows[150:], *rows[:REPEATED]])
    sources = [str(folder / name) for name in ("domain.jsonl", "more.jsonl")]
    config = study_config(folder, f"domain.train.files={json.dumps(sources)}")
    root = folder / "runs"
    files = PreparedFiles(root / "data-1")
    files.folder.mkdir(parents=True)
    data, _ = write_data(config, files)
    prepared = Run(files.folder)
    prepared.update_manifest(name="data", identity="data")
    facts = {"data": data.model_dump(mode="json"), "labels": {}}
    prepared.finish(record=RunRecord(recipe=RecipeKind.PREPARE, facts=facts).model_dump(mode="json"))
    inputs = {PREPARED: files.digest()}

    def train(name: str, recipe: RecipeKind, base: str, want: str, **paths: Path) -> None:
        parts = {part: read(DataConfig(files=[str(path)]), want) for part, path in paths.items()}
        splits = {part: split_record(rows) for part, rows in parts.items()}
        record = RunRecord(recipe=recipe, base=base, splits=splits, task="mood" if want == "labelled" else "")
        finished(root, name, record, inputs=inputs)

    general, domain, mood = (files.train(name) for name in ("general", "domain", "mood"))
    train("base-1", RecipeKind.PRETRAIN, "", "text", train=general)
    grown = {"train": domain, "replay": general, "dev": files.dev("domain")}
    train("continued-1", RecipeKind.PRETRAIN, "base-1/model", "text", **grown)
    train("plain-1", RecipeKind.FINETUNE, "base-1/model", "labelled", train=mood)
    train("mood-1", RecipeKind.FINETUNE, "continued-1/model", "labelled", train=mood)
    return World(folder, root, files)


@pytest.fixture
def world(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of the runs, whose root has moved with it; their source files stay where they were read."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.root, tmp_path / "runs")
    return World(made.folder, tmp_path / "runs", PreparedFiles(tmp_path / "runs" / "data-1"))


def test_weights_lead_back_to_the_files_of_every_row(world: World) -> None:
    record = world.trace("mood-1/model/model.safetensors")
    assert [each.run for each in record.trainings] == ["mood-1", "continued-1", "base-1"]
    assert [each.reads for each in record.trainings] == [("mood",), ("domain", "general"), ("general",)]
    assert record.trainings[0].flops == 4e9 and {each.state for each in record.trainings} == {"verified"}
    assert record.problems == () and record.unverified == () and len(record.weights) == 1
    domain = next(of for of in record.data if (of.name, of.part) == ("domain", "train"))
    lines = list(read_jsonl(world.files.train("domain")))
    first, more = domain.sources
    assert first.rows == sum(line["from"].startswith("domain.jsonl:") for line in lines) > 0
    assert first.rows + more.rows == domain.rows == len(lines)
    assert first.text_bytes + more.text_bytes == sum(len(line["text"].encode()) for line in lines)
    assert first.share + more.share == pytest.approx(1)
    assert {first.state, more.state} == {"verified"}


def test_what_was_removed_is_counted_with_its_reason(world: World) -> None:
    record = world.trace("continued-1")
    removed = {each.why: each for of in record.data if of.name == "domain" for each in of.removed}
    repeats = next(each for why, each in removed.items() if why.startswith("repeats another row"))
    assert repeats.rows >= REPEATED and repeats.num_bytes > 0
    assert "held out to be judged on" in removed
    tuned = removed["held out to tune on, or of one group with such rows"]
    held = {line["from"] for line in read_jsonl(world.files.dev("domain"))}
    assert tuned.rows == len(held) > 0 and tuned.num_bytes > 0
    assert {of.name for of in record.data} == {"domain", "general"}, "it did not learn the task"


def test_a_source_that_changed_is_a_problem_with_its_name(
    made: World, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made.folder / "more.jsonl"
    before = source.read_text()
    try:
        source.write_text(before + '{"text": "one more"}\n')
        assert console.run(app, ["provenance", "runs/mood-1", "--json"]) == 2
        shown = json.loads(capsys.readouterr().out)
        assert [str(source) in problem for problem in shown["problems"]] == [True]
        source.unlink()
        record = world.trace("mood-1")
        assert record.problems == () and str(source) in record.unverified[0]
    finally:
        source.write_text(before)


@pytest.mark.parametrize("damaged", ["base-1/model/model.safetensors", "data-1/domain.train.jsonl"])
def test_damage_is_named_and_the_rest_is_still_told(world: World, damaged: str) -> None:
    path = world.root / damaged
    path.write_bytes(path.read_bytes()[:-3] + b"x}\n")
    record = world.trace("mood-1")
    assert any(damaged in problem for problem in record.problems)
    assert len(record.trainings) == 3
    states = {each.run: each.state for each in record.trainings}
    assert states["base-1"] == ("changed" if "base-1" in damaged else "verified")


def test_rows_that_are_not_those_of_the_training_are_a_problem(world: World) -> None:
    Run(world.root / "mood-1").update_manifest(inputs={PREPARED: "0" * 64})
    [problem] = world.trace("mood-1").problems
    assert "mood-1" in problem and "data-1" in problem


def test_a_document_taints_what_read_it_and_what_stands_on_that(world: World) -> None:
    found = world.who_learnt(f"  {world.first('domain')}\n")
    assert {reader.run: reader.how for reader in found.readers} == {
        "mood-1": "stands on",
        "continued-1": "trained",
    }
    assert (found.retraining.runs, found.retraining.flops, found.retraining.seconds) == (2, 6e9, 60.0)
    assert found.everything.flops == 7e9 and found.retraining.complete
    place = found.readers[1].places[0]
    assert (place.part, place.how, place.rows) == ("train", "whole", 1)
    assert place.where == next(iter(read_jsonl(world.files.train("domain"))))["from"]
    general = world.who_learnt(world.first("general"))
    assert {reader.how for reader in general.readers if reader.run != "mood-1"} == {"trained"}
    assert general.retraining.flops == 7e9


def test_near_copies_pieces_and_judged_texts_are_told_apart(world: World) -> None:
    text = max((line["text"] for line in read_jsonl(world.files.train("domain"))), key=len)
    near = world.who_learnt(f"{text} {backwards('and one more word')}")
    assert near.readers[1].how == "trained" and near.readers[1].places[0].how == "part"
    words = text.split()
    nearly = world.who_learnt(" ".join([*words[:-1], "otherwise"]))
    assert nearly.readers[1].how == "near copy" and nearly.readers[1].places[0].similarity > 0.75
    inside = world.who_learnt(text[10:120])
    assert inside.readers[1].places[0].how == "within"
    held_out = next(iter(read_jsonl(world.files.dev("domain"))))["text"]
    judged = world.who_learnt(held_out, "continued-1")
    assert [(each.run, each.how) for each in judged.readers] == [("continued-1", "judged")]
    assert judged.retraining.runs == 0
    assert world.who_learnt("a text that nobody here has ever seen or read before").readers == ()


def test_rows_that_are_gone_are_no_acquittal(made: World, world: World) -> None:
    text = world.first("domain")
    world.files.train("domain").unlink()
    assert world.who_learnt(text).readers[1].how == "trained", "its rows are where it read them, too"
    there = made.files.train("domain")
    away = there.rename(there.with_suffix(".away"))
    try:
        readers = world.who_learnt(text).readers
    finally:
        away.rename(there)
    [reader] = [each for each in readers if each.run == "continued-1"]
    assert reader.how == "cannot say" and "train" in reader.why
    assert [(each.run, each.how) for each in readers] == [
        ("mood-1", "cannot say"),
        ("continued-1", "cannot say"),
    ]


def test_one_document_of_some_length_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    write_jsonl(path, [{"text": "a first text"}, {"text": "a second text"}])
    refused = {str(path): "2 rows", "too short": "shorter than", "nowhere/complaint.txt": "no such file"}
    for word, said in refused.items():
        with pytest.raises(DataError, match=said):
            document_of(word)


def copied(world: World, folder: Path) -> Path:
    """An export of mood-1 far from its run."""
    run = Run(world.root / "mood-1")
    shutil.copytree(run.model, folder)
    facts = {"kind": "generate", "format": "bf16", "stores": "bf16", "needs": "any", "licence": "mine"}
    export = ExportRecord(name="mood", serving_dtype={"cpu": "float32"}, **facts)
    weights = {path.name: "0" * 64 for path in folder.glob("*.safetensors")}
    write_manifest(folder, Provenance(export, weights, trace_run(run), "other"))
    return folder


def test_a_copied_export_tells_what_it_carries(world: World, tmp_path: Path) -> None:
    folder = copied(world, tmp_path / "elsewhere" / "model-copy")
    record = trace_provenance(folder, tmp_path / "no-runs")
    assert [each.run for each in record.trainings] == ["mood-1", "continued-1", "base-1"]
    assert {each.state for each in record.trainings} == {"not here"}
    assert sum(each.flops for each in record.trainings) == 7e9
    assert record.trainings[1].reads == ("domain", "general")
    assert {of.name for of in record.data} == {"mood", "domain", "general"}
    names = {source.name for of in record.data if of.name == "domain" for source in of.sources}
    assert names == {"domain.jsonl", "more.jsonl"}, "its sources, without their folders"
    assert any(each.rows >= REPEATED for of in record.data for each in of.removed)
    assert [check.answer for check in record.thresholds] == ["not reached", "not reached", "does not apply"]
    nobody = find_document(find_ancestry(folder, tmp_path / "no-runs"), world.first("domain"))
    assert {reader.how for reader in nobody.readers} == {"cannot say"}, (
        "runs that are not here acquit nothing"
    )
    with_runs = trace_provenance(folder, world.root)
    assert {each.state for each in with_runs.trainings} == {"verified"}
    [problem] = with_runs.problems
    assert "is not what" in problem, "the digest of the weights that it was exported from is another one"
    (folder / "model.safetensors").write_text("other weights")
    assert any("model.safetensors" in each for each in trace_provenance(folder, tmp_path).problems)


def test_a_run_of_its_own_is_counted_as_its_recipe_reads(tmp_path: Path) -> None:
    for name, size in (("a.jsonl", 30), ("b.jsonl", 90)):
        rows = [{"text": " ".join(f"{name[0]}{i}word{j}" for j in range(12))} for i in range(size)]
        write_jsonl(tmp_path / name, rows)
    named = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    config = PretrainConfig(name="own", data=DataConfig(files=named), dev_fraction=0.25)
    from adaptkit.pretrain.starting_point import read_splits

    splits = read_splits(config)
    run = Run.open(tmp_path / "runs", "own", config)
    write_sealed(run.cost_path, {"flops": 3.0, "seconds": 2.0, "tokens": 10})
    kept = {part: split_record(rows) for part, rows in splits.items()}
    run.finish(record=RunRecord(recipe=RecipeKind.PRETRAIN, splits=kept).model_dump(mode="json"))
    train = next(of for of in trace_provenance(run.path, tmp_path).data if of.part == "train")
    assert [source.rows for source in train.sources] == [
        sum(row.file == name for row in splits["train"].rows) for name in named
    ]
    ancestry = find_ancestry(run.path, tmp_path)
    [held_out] = find_document(ancestry, splits["dev"].rows[0].text).readers
    [learnt] = find_document(ancestry, splits["train"].rows[0].text).readers
    assert (held_out.how, learnt.how) == ("judged", "trained")
    (tmp_path / "a.jsonl").unlink()
    assert find_document(ancestry, splits["train"].rows[0].text).readers[0].how == "cannot say"


def test_a_study_leads_to_all_its_trainings(tmp_path: Path) -> None:
    study = write_root(tmp_path)
    named = runs_of(read_study(study))
    record = trace_provenance(study, tmp_path)
    assert record.kind == "study" and {each.run for each in record.trainings} == named
    assert record.problems == () and record.thresholds == () and record.weights == {}
    shutil.rmtree(tmp_path / sorted(named)[0])
    record = trace_provenance(study, tmp_path)
    assert len(record.trainings) == len(named) - 1 and sorted(named)[0] in record.unverified[0]


def test_what_has_no_provenance_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="trained nothing"):
        find_ancestry(world.root / "data-1", world.root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no run, study or export"):
        find_ancestry(tmp_path / "empty", tmp_path)
    with pytest.raises(DataError, match="no such file"):
        find_ancestry(tmp_path / "nowhere", tmp_path)
    Run(tmp_path / "begun").update_manifest(status="running")
    with pytest.raises(DataError, match="has not ended"):
        find_ancestry(tmp_path / "begun", tmp_path)


ANSWERS = {
    "from random weights": (
        TrainingCompute(1e20, 0.0, True),
        ["not reached", "not reached", "does not apply"],
    ),
    "much of it": (TrainingCompute(2e23, 0.0, True), ["not reached", "reached", "does not apply"]),
    "no words come out": (TrainingCompute(2e25, 0.0, False), ["reached", "does not apply", "does not apply"]),
    "unknown base": (TrainingCompute(1e20, None, True), ["cannot say", "cannot say", "not reached"]),
    "a third of 1e23": (TrainingCompute(4e22, None, True), ["cannot say", "cannot say", "reached"]),
    "a third of its base": (TrainingCompute(4e20, 1e21, True), ["not reached", "not reached", "reached"]),
    "less of its base": (TrainingCompute(3e20, 1e21, True), ["not reached", "not reached", "not reached"]),
    "at the limit": (TrainingCompute(1e25, 0.0, True), ["not reached", "reached", "does not apply"]),
    "a training without cost": (
        TrainingCompute(1e20, 0.0, True, False),
        ["cannot say"] * 2 + ["does not apply"],
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_thresholds_are_answered_by_what_is_known(case: str) -> None:
    compute, answers = ANSWERS[case]
    checks = check_thresholds(compute)
    assert [check.answer for check in checks] == answers
    assert all(check.source and check.date for check in checks)
    assert all(check.why for check in checks if check.answer in ("cannot say", "does not apply"))


def test_the_command_shows_tables_and_costs(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(app, ["provenance", "runs/mood-1", "--base-flops", "1e9"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "more.jsonl",
        "repeats another row",
        "not legal advice",
        "every digest that could be checked",
    ):
        assert words in shown
    assert console.run(app, ["provenance", "runs/mood-1", "--document", world.first("domain")]) == 0
    shown = capsys.readouterr().out
    assert "training without it again: 2 runs, 6e+09 FLOPs, 1 min" in shown
