"""The prepared data of a study: what is judged on, what was taken out, and how both are counted. Home of
compare.stages.data, compare.trained_text and study.data_counts."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_embed
from pydantic import ValidationError
from tiny_study import study_config, write_texts

from adaptkit.compare.stages.data import identity, prepare, write_data
from adaptkit.compare.trained_text import domain_bytes_read
from adaptkit.compare.workspace import documents
from adaptkit.data.beir import read_set
from adaptkit.data.canaries import WHERE, canaries, canary_record
from adaptkit.data.cutting import Removal
from adaptkit.data.overlap import OverlapReport
from adaptkit.data.readers import DataConfig, Dataset, Row, read
from adaptkit.errors import DataError
from adaptkit.run import Run, read_jsonl, write_jsonl, write_sealed
from adaptkit.run_record import RunRecord, SplitRecord
from adaptkit.study.arms import Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.data_counts import OTHERS, _parts, cut_record
from adaptkit.study.data_record import CorpusRecord, CutRecord, DataRecord, PartCutRecord
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.task import CorpusConfig, CorpusRows, TaskConfig


def lines(path: Path) -> list[dict]:
    return list(read_jsonl(path))


def prepared(config: StudyConfig, folder: Path) -> tuple[DataRecord, PreparedFiles]:
    folder.mkdir()
    files = PreparedFiles(folder)
    data, _ = write_data(config, files)
    return data, files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny study's texts; the rows of its task in groups, its domain documents from two sources."""
    write_texts(tmp_path)
    rows = [{**row, "group": f"talk {i % 40}"} for i, row in enumerate(lines(tmp_path / "mood.jsonl"))]
    write_jsonl(tmp_path / "mood.jsonl", rows)
    texts = [{**row, "source": "ab"[i < 60]} for i, row in enumerate(lines(tmp_path / "domain.jsonl"))]
    write_jsonl(tmp_path / "domain.jsonl", texts)
    return tmp_path


def test_test_sets_name_the_items_that_arms_answer(folder: Path) -> None:
    config = study_config(folder)
    data, files = prepared(config, folder / "data")
    assert set(data.test_sets) == {"language", "general", "mood"}
    task = config.tasks[0]
    answers = task.task_kind.baseline(task, files.task("mood"))
    ids = [row["id"] for row in answers.rows]
    mood = data.test_sets["mood"]
    assert mood.num_items == len(ids) and set(mood.clusters) <= set(ids)
    groups = Counter(line["group"] for line in lines(files.test("mood")))
    assert mood.num_clusters == len(groups) < mood.num_items
    assert sorted(Counter(mood.clusters.values()).values()) == sorted(n for n in groups.values() if n > 1)
    assert not any("talk" in cluster for cluster in mood.clusters.values()), "the record holds no names"
    for task_name, corpus in (("language", "domain"), ("general", "general")):
        passages = {name for name, _ in documents(files.test(corpus))}
        record = data.test_sets[task_name]
        assert record.num_items == len(passages) and set(record.clusters) <= passages
    assert data.test_sets["general"].clusters == {}, "short documents give one passage each"


def test_passages_of_one_document_are_one_cluster(folder: Path) -> None:
    rng = random.Random(0)
    texts = ["\n".join(" ".join(rng.choices("abcdefgh", k=40)) for _ in range(60)) for _ in range(30)]
    write_jsonl(folder / "domain.jsonl", [{"text": text} for text in texts])
    data, files = prepared(study_config(folder, "domain.test_items=9"), folder / "data")
    language = data.test_sets["language"]
    assert language.num_items == 9 and 1 < language.num_clusters < 9
    places = {row.id: row.where for row in read(DataConfig(files=[str(files.test("domain"))]), "text").rows}
    origins = [line["from"] for line in lines(files.test("domain"))]
    assert len(places) == 9 and language.num_clusters == len(set(origins))
    assert sorted(Counter(language.clusters.values()).values()) == sorted(
        count for count in Counter(origins).values() if count > 1
    )
    assert f"from {language.num_clusters} of {language.num_clusters} documents" in language.drawn


def test_the_order_of_a_file_changes_nothing_that_is_judged_on(folder: Path) -> None:
    settings = ("domain.test_items=12", "domain.dev_items=7", "tasks.0.test_items=10", "tasks.0.dev_items=20")
    first, before = prepared(study_config(folder, *settings), folder / "first")
    for name in ("domain", "general", "mood"):
        rows = lines(folder / f"{name}.jsonl")
        random.Random(name).shuffle(rows)
        write_jsonl(folder / f"{name}.jsonl", rows)
    second, after = prepared(study_config(folder, *settings), folder / "second")
    for name in ("domain", "general", "mood"):
        for path in (PreparedFiles.test, PreparedFiles.dev):
            texts = [[line["text"] for line in lines(path(files, name))] for files in (before, after)]
            assert texts[0] == texts[1]
    assert first.test_sets == second.test_sets


def test_sizes_are_settings(folder: Path) -> None:
    settings = {
        "domain.test_items": 12,
        "domain.dev_items": 7,
        "tasks.0.test_items": 10,
        "tasks.0.dev_items": 20,
    }
    config = study_config(folder, *(f"{key}={value}" for key, value in settings.items()))
    data, files = prepared(config, folder / "data")
    counts = [len(lines(path)) for name in ("domain", "mood") for path in (files.test(name), files.dev(name))]
    assert counts == [12, 7, 10, 20]
    assert [data.test_sets[name].num_items for name in ("language", "mood")] == [12, 10]
    assert "10 of " in data.test_sets["mood"].drawn and "by content hash" in data.test_sets["mood"].drawn
    sources = Counter(
        next(row["source"] for row in lines(folder / "domain.jsonl") if row["text"] == line["text"])
        for line in lines(files.test("domain"))
    )
    assert sources["b"] in (1, 2, 3), "60 of 300 documents are of that source"


def test_defaults_differ_between_text_and_tasks() -> None:
    data = {"files": ["x.jsonl"]}
    corpus = CorpusConfig.model_validate({"train": data})
    task = TaskConfig.model_validate({"name": "mood", "train": data})
    assert (corpus.test_items, corpus.dev_items, corpus.split) == (400, 100, "hash")
    assert (task.test_items, task.dev_items, task.split) == (2000, 300, "hash")
    for wrong in ({"test_items": -1}, {"dev_items": -1}, {"split": "time", "test": data}):
        with pytest.raises(ValidationError):
            CorpusConfig.model_validate({"train": data, **wrong})


def test_repeats_in_a_test_are_left_out_and_counted(folder: Path) -> None:
    rows = lines(folder / "mood.jsonl")
    write_jsonl(folder / "mood.jsonl", rows[:200])
    write_jsonl(folder / "held.jsonl", [*rows[200:], *rows[200:210], *rows[200:210]])
    config = study_config(folder, f"tasks.0.test.files=[{folder / 'held.jsonl'}]")
    data, files = prepared(config, folder / "data")
    mood = data.test_sets["mood"]
    assert mood.num_rows == 60 and mood.num_duplicates >= 20
    assert mood.num_items == 60 - mood.num_duplicates == len(lines(files.test("mood")))
    texts = [line["text"] for line in lines(files.test("mood"))]
    assert len(set(texts)) == len(texts) and "the test that is named" in mood.drawn


def test_the_newest_tenth_is_the_test_on_request(folder: Path) -> None:
    rows = [{**row, "time": f"2024-{1 + i % 12:02}-01"} for i, row in enumerate(lines(folder / "mood.jsonl"))]
    write_jsonl(folder / "mood.jsonl", [{k: v for k, v in row.items() if k != "group"} for row in rows])
    data, files = prepared(study_config(folder, "tasks.0.split=time"), folder / "data")
    held = [line["time"] for line in lines(files.test("mood"))]
    learnt = [line["time"] for path in (files.train("mood"), files.dev("mood")) for line in lines(path)]
    assert min(held) >= max(learnt) and set(held) <= {"2024-11-01T00:00:00", "2024-12-01T00:00:00"}
    times = data.shifts["mood"].times
    assert times is not None and times.train_from == "2024-01-01T00:00:00" and times.test_to == max(held)
    assert times.test_share_newer == sum(time > max(learnt) for time in held) / len(held)
    assert "from the newest tenth" in data.test_sets["mood"].drawn
    with pytest.raises(DataError, match="needs a time in every row"):
        prepared(study_config(folder, "domain.split=time"), folder / "other")


def test_a_shift_of_sources_is_measured(folder: Path) -> None:
    """Sources a and b are 4 to 1 in training and 1 to 3 in the test that is named."""
    rows = [
        {"text": f"number {i} of the test, {i * 7919} it says", "source": "abbb"[i % 4]} for i in range(40)
    ]
    write_jsonl(folder / "held.jsonl", rows)
    data, _ = prepared(study_config(folder, f"domain.test.files=[{folder / 'held.jsonl'}]"), folder / "data")
    shift = data.shifts["domain"]
    assert shift.sources["a"].train == pytest.approx(0.8, abs=0.03) and shift.sources["a"].test == 0.25
    assert shift.source_shift == pytest.approx(0.55, abs=0.03) and shift.times is None
    assert "mood" not in data.shifts, "one file, no sources, no times: nothing to compare"


def test_sentences_that_a_task_tests_on_are_cut_from_the_text_and_counted(folder: Path) -> None:
    rows = lines(folder / "mood.jsonl")
    long = [
        {**row, "text": f"{row['text'][:-1]}, and {i} more words follow here so that a run is whole."}
        for i, row in enumerate(rows)
    ]
    write_jsonl(folder / "mood.jsonl", long)
    texts = lines(folder / "domain.jsonl")
    for i, row in enumerate(texts[:240]):
        row["text"] = f"{row['text']}\n{long[i]['text']}\n{row['text'][::-1]}"
    write_jsonl(folder / "domain.jsonl", texts)
    data, files = prepared(study_config(folder), folder / "data")
    cut = next(cut for cut in data.cuts if (cut.train, cut.test) == ("domain", "mood"))
    tested = {line["text"] for line in lines(files.test("mood"))}
    learnt = "\n".join(line["text"] for line in lines(files.train("domain")))
    assert not any(text in learnt for text in tested)
    assert cut.num_items == len(tested) and 0 < cut.num_items_contaminated <= cut.num_items
    assert cut.num_documents_touched > 0 and cut.bytes_cut >= 40 * cut.num_documents_touched
    assert not cut.whole_rows and cut.share_cut < 0.2 and set(cut.by_source) <= {"a", "b"}
    assert sum(part.num_bytes for part in cut.by_source.values()) == cut.bytes_cut


def test_a_copy_of_a_test_document_leaves_training_beyond_the_passages_that_are_judged(folder: Path) -> None:
    rng = random.Random(0)

    def article() -> str:
        return "\n".join(" ".join(f"word{rng.randrange(900)}" for _ in range(30)) + "." for _ in range(40))

    held = [{"text": article()} for _ in range(3)]
    write_jsonl(folder / "held.jsonl", held)
    own = article()
    texts = [{"text": article()} for _ in range(30)] + [{"text": f"{own}\n{held[0]['text']}"}]
    write_jsonl(folder / "domain.jsonl", texts)
    named = f"domain.test.files=[{folder / 'held.jsonl'}]"
    data, files = prepared(study_config(folder, named, "domain.test_items=3"), folder / "data")
    learnt = [line["text"] for path in (files.train("domain"), files.dev("domain")) for line in lines(path)]
    first = held[0]["text"].splitlines()
    assert not any(sentence in text for text in learnt for sentence in first)
    cut = next(cut for cut in data.cuts if (cut.train, cut.test) == ("domain", "domain"))
    assert cut.num_items == 3 and cut.num_items_contaminated == 1
    assert abs(cut.bytes_cut - len(held[0]["text"])) <= 2, "what is its own stays"


def test_a_passage_counts_as_contaminated_with_its_document() -> None:
    passages = [Row({"text": f"passage {i}"}, f"x.jsonl:{i}", f"p{i}") for i in range(3)]
    whole = tuple(Row({"text": f"document {i}"}, f"x.jsonl:{i}", f"d{i}") for i in range(3))
    items = Dataset(passages, "text", {})
    report = OverlapReport(num_test_items=6, contaminated=["d1", "p2"], num_touched=2, train_ids=[])
    removal = Removal(report, num_rows=1, whole_rows=False, by_source={"x.jsonl": 10})
    record = cut_record("domain", items, "domain", CorpusRows(items, items, documents=whole), removal)
    assert record.num_items_contaminated == 2 and record.bytes_cut == 10


def split_record(num_bytes: int = 100) -> SplitRecord:
    return SplitRecord(kind="text", documents=1, num_bytes=num_bytes, digest="0")


def cut(test: str, share: float, **parts: dict[str, PartCutRecord]) -> CutRecord:
    return CutRecord(
        train="domain",
        test=test,
        num_items=10,
        num_items_contaminated=1,
        num_documents_touched=2,
        whole_rows=False,
        bytes_cut=round(share * 1000),
        share_cut=share,
        **parts,
    )


def test_cuts_above_a_tenth_are_named_for_all_tests_together() -> None:
    statutes = {
        "statutes": PartCutRecord(num_bytes=30, share=0.3),
        "rulings": PartCutRecord(num_bytes=1, share=0.01),
    }
    corpora = {"domain": CorpusRecord(train=split_record(), test=split_record())}
    small = DataRecord(corpora=corpora, cuts=(cut("a", 0.06), cut("b", 0.04)))
    assert small.large_cuts == ()
    data = DataRecord(corpora=corpora, cuts=(cut("a", 0.06, by_source=statutes), cut("b", 0.05)))
    assert [(of.train, of.part, of.name, of.num_bytes) for of in data.large_cuts] == [
        ("domain", "", "", 110),
        ("domain", "source", "statutes", 30),
    ]
    assert data.large_cuts[0].share == pytest.approx(0.11)
    labels = DataRecord(corpora=corpora, cuts=(cut("a", 0.01, by_label=statutes),))
    assert [(of.part, of.name) for of in labels.large_cuts] == [("label", "statutes")]


def test_many_sources_are_counted_as_the_largest_and_the_others() -> None:
    lost = {f"s{i}": 100 - i for i in range(25)} | {"none": 0}
    parts = _parts(lost, dict.fromkeys(lost, 200))
    assert len(parts) == 21 and "none" not in parts
    assert sum(part.num_bytes for part in parts.values()) == sum(lost.values())
    assert parts["s0"].share == 0.5 and parts[OTHERS].share == pytest.approx(78 / 200)


def test_prepared_data_is_another_for_other_settings_and_the_same_for_the_same(folder: Path) -> None:
    config = study_config(folder)
    for other in ("domain.test_items=5", "tasks.0.dev_items=5", "general.split=time"):
        assert identity(study_config(folder, other)) != identity(config)
    assert identity(study_config(folder, "seeds=5")) == identity(config)
    workspace = SimpleNamespace(config=config, root=folder / "runs", path=folder / "runs" / "tiny")
    first, again = (prepare(workspace, None, 1) for _ in range(2))
    assert first == again and first.data.test_sets["mood"].num_items > 0
    assert len(list((folder / "runs").glob("data-*"))) == 1


def test_canaries_are_planted_in_the_domains_training_text_alone(folder: Path) -> None:
    config = study_config(folder, "canaries.repeats=[1,3]", "canaries.each=2")
    assert config.canaries is not None
    plain, _ = prepared(study_config(folder), folder / "plain")
    data, files = prepared(config, folder / "data")
    assert plain.canaries is None and data.canaries == canary_record(config.canaries)
    texts = Counter(row["text"] for row in lines(files.train("domain")))
    assert all(texts[canary.text] == canary.repeats for canary in canaries(config.canaries))
    rest = [row for row in lines(files.train("domain")) if row["from"] != WHERE]
    assert rest == lines(PreparedFiles(folder / "plain").train("domain"))
    for name in ("domain.dev", "domain.test", "general.train", "general.dev", "general.test", "mood.train"):
        assert (folder / "data" / f"{name}.jsonl").read_text() == (
            folder / "plain" / f"{name}.jsonl"
        ).read_text()
    assert identity(config) != identity(study_config(folder))


def retrieval_task(folder: Path, **settings: object) -> TaskConfig:
    train = {"files": [str(folder)], "on_bad_row": settings.pop("on_bad_row", "stop")}
    return TaskConfig.model_validate({"name": "find", "kind": "retrieve", "train": train, **settings})


def write_queries(folder: Path) -> Path:
    """A retrieval set of 40 documents whose test queries are 8, and 3 repeats of the first of them."""
    tiny_embed.write_set(folder)
    (first, *_), text = read_set(folder, "test").queries.items(), read_set(folder, "test").queries
    answer = next(iter(read_set(folder, "test").grades[first[0]]))
    other = next(name for name in read_set(folder, "test").documents if name != answer)
    (queries,) = folder.glob("queries*.jsonl")
    with queries.open("a") as file, (folder / "qrels" / "test.tsv").open("a") as qrels:
        for i, document in enumerate((answer, answer, other)):
            file.write(json.dumps({"_id": f"again{i}", "text": text[first[0]], "group": "twins"}) + "\n")
            qrels.write(f"again{i}\t{document}\t1\n")
    return folder


def test_queries_are_deduplicated_drawn_and_grouped(tmp_path: Path) -> None:
    task = retrieval_task(write_queries(tmp_path / "set"), test_items=6, dev_items=5)
    kind = task.task_kind
    rows = kind.read(task)
    assert rows.num_test_rows == 11 and rows.num_test_duplicates == 2, "other answers make another query"
    files = PreparedFiles(tmp_path / "data").task("find")
    kind.prepare(files, task, rows)
    assert {name: len(read_set(files.folder, name).queries) for name in ("train", "dev", "test")} == {
        "train": 24,
        "dev": 5,
        "test": 6,
    }
    first = list(read_set(tmp_path / "set", "test").queries)[:6]
    assert {row.id for row in rows.test.rows} != set(first), "drawn, not the first"
    clusters = kind.clusters(files, rows)
    assert set(clusters) == set(read_set(files.folder, "test").queries)
    everything = kind.read(retrieval_task(tmp_path / "set", test_items=0))
    distinct = {row.id for row in everything.test.rows}
    first = [name for name in read_set(tmp_path / "set", "test").queries if name in distinct][:6]
    assert {row.id for row in rows.test.rows} != set(first), "drawn, not the first"
    assert len(everything.test.rows) == 9 and "9 of 9 queries" in everything.drawn
    assert [row.cluster for row in everything.test.rows if row.id.startswith("again")].count("twins") >= 1


def test_grades_of_unknown_documents_stop_or_are_counted(tmp_path: Path) -> None:
    folder = tiny_embed.write_set(tmp_path / "set")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\tnothing\t1\n")
    task = retrieval_task(folder)
    with pytest.raises(DataError, match="'nothing' is not in the set") as caught:
        task.task_kind.read(task)
    assert caught.value.where.endswith("train.tsv:26")
    skipping = retrieval_task(folder, on_bad_row="skip")
    rows = skipping.task_kind.read(skipping)
    assert rows.train.manifest()["num_skipped"] == 1 and len(rows.test.rows) == 8
    skipping.task_kind.prepare(PreparedFiles(tmp_path / "data").task("find"), skipping, rows)


def test_a_retrieval_set_is_not_split_by_time(tmp_path: Path) -> None:
    task = retrieval_task(tiny_embed.write_set(tmp_path / "set"), split="time")
    with pytest.raises(DataError, match="has its own splits"):
        task.task_kind.read(task)


@pytest.mark.parametrize(
    ("origin", "num_bytes"),
    [(Origin.SCRATCH, 4000.0), (Origin.CONTINUED, 3000.0), (Origin.PLACEBO, 0.0)],
    ids=lambda value: value.value if isinstance(value, Origin) else "",
)
def test_the_domain_text_read_is_the_tokens_without_what_was_replayed(tmp_path, origin, num_bytes):
    run = Run.open(tmp_path, "text", {"seed": 0})
    write_sealed(run.cost_path, {"tokens": 1000})
    facts = {"tokenizer": {"bytes_per_token": 4.0}}
    run.finish(record=RunRecord(recipe="pretrain", facts=facts).model_dump(mode="json"))
    workspace = SimpleNamespace(root=tmp_path, config=SimpleNamespace(replay_share=0.25))
    assert domain_bytes_read(workspace, origin, run.path.name) == num_bytes
