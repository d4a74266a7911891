"""Long documents are found by their passages, and an index is changed without encoding it again. Home of
cli.index, embed.faiss_vectors, embed.field_values, embed.fusion, embed.index_update, embed.index_writing,
embed.passage_spans and embed.stored_documents."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_embed

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import Encoding, encode_files
from adaptkit.embed.field_values import FieldValues
from adaptkit.embed.index import Index
from adaptkit.embed.index_folder import current, switch, versions
from adaptkit.embed.index_update import apply_update, plan_update
from adaptkit.embed.index_writing import build
from adaptkit.embed.migration import prepare
from adaptkit.embed.passage_spans import PassageSpans, cut_spans
from adaptkit.embed.stored_documents import Document
from adaptkit.errors import ConfigError, DataError, ModelError
from adaptkit.run_lock import release

SENTENCES = [f"{text.capitalize()}. " for text in tiny_embed.texts(60)]
LONG = "".join(SENTENCES[:40])
ROWS = [
    {"_id": f"d{i}", "text": text, "source": ("pubmed", "registry")[i % 2], "year": 2000 + i % 5}
    for i, text in enumerate(tiny_embed.texts(20))
]
LONG_ROW = {"_id": "long", "title": "Two engines", "text": LONG, "source": "book", "tags": ["new", "long"]}
QUESTION = SENTENCES[25]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    folder = tmp_path_factory.mktemp("model")
    Encoder.load(tiny_embed.bert(folder / "base")).save(folder / "bert")
    return Encoder.load(folder / "bert")


@pytest.fixture(scope="module")
def made(encoder, tmp_path_factory) -> Path:
    """Vectors of 20 short documents and a long one."""
    folder = tmp_path_factory.mktemp("made")
    file = tiny_embed.write(folder / "corpus.jsonl", [*ROWS, LONG_ROW])
    encode_files(encoder, [str(file)], folder / "vectors")
    return folder / "vectors"


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return build(Encoding.open(made), tmp_path / "index").folder.parent


def counting(encoder: Encoder, monkeypatch) -> list[str]:
    """The texts that are encoded from now on, but for canaries."""
    seen, encode = [], encoder.encode

    def counted(texts, **options):
        seen.extend(texts)
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", counted)
    return seen


def test_spans_cover_the_text_end_with_sentences_and_repeat_an_eighth(encoder):
    spans = PassageSpans(encoder).of(Document("long", LONG))
    assert len(spans) > 5 and spans[0][0] == 0 and spans[-1][1] == len(LONG)
    starts = {len("".join(SENTENCES[:i])) for i in range(41)}
    for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
        assert end in starts and start in starts and start < end, (
            "the next one begins with a sentence of this"
        )
    lengths = [len(encoder.tokens([LONG[start:end]])[0]) for start, end in spans]
    assert max(lengths[:-1]) <= 64 and min(lengths[:-1]) > 32, "none is cut, none is small"
    assert PassageSpans(encoder).of(Document("short", SENTENCES[0])) == ((0, len(SENTENCES[0])),)
    titled = PassageSpans(encoder).of(Document("long", LONG, "A title of some words that has to fit too"))
    assert len(titled) > len(spans)
    passages = Document("long", LONG, "A title", spans=titled).passages()
    assert all(text.startswith("A title\n") for text in passages)


def test_text_without_sentences_is_cut_between_words_and_without_words_anywhere():
    text = " ".join(["word"] * 30)
    spans = cut_spans(text, [5 * i for i in range(30)], limit=10, overlap=2)
    assert [text[start:end].split() for start, end in spans] == [["word"] * 10] * 3
    assert cut_spans("x" * 25, list(range(25)), limit=10, overlap=1) == [(0, 10), (10, 20), (20, 25)]
    assert cut_spans("\U0001f600" * 3, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], 3, 0) == [(0, 1), (1, 2), (2, 3)]


def test_a_hit_says_which_characters_of_which_document_and_no_document_comes_twice(folder, encoder):
    index = Index.open(folder)
    [hits] = index.search(encoder, [f"Two engines\n{QUESTION}"], 30)
    assert sorted(hit.id for hit in hits) == sorted(["long", *(row["_id"] for row in ROWS)])
    [best] = [hit for hit in hits if hit.id == "long"]
    assert best.text == LONG[best.start : best.end] and best.title == "Two engines"
    [all_hits] = index.search(encoder, [f"Two engines\n{QUESTION}"], 100, every_passage=True)
    own = [hit for hit in all_hits if hit.id == "long"]
    assert len(all_hits) == index.info["count"] and len(own) > 5 and max(own, key=lambda h: h.score) == best
    passages = index.document(index.places["long"]).passages()
    by_hand = encoder.encode([f"Two engines\n{QUESTION}"]) @ encoder.encode(passages).T
    assert best.score == pytest.approx(by_hand.max(), abs=1e-5)
    assert best.start == index.document(index.places["long"]).spans[int(by_hand.argmax())][0]


def test_filters_keep_what_fits_all_fields_and_name_what_no_document_has(folder, encoder):
    index = Index.open(folder)

    def ids(**filter: list[str]) -> set[str]:
        return {hit.id for hit in index.search(encoder, ["a question"], 50, filter=filter)[0]}

    fitting = {row["_id"] for row in ROWS if row["source"] == "pubmed" and row["year"] in (2001, 2002)}
    assert fitting and ids(source=["pubmed"], year=["2001", "2002"]) == fitting
    assert ids(tags=["new"]) == {"long"} and ids(source=["nowhere"]) == set()
    with pytest.raises(DataError, match="no document has a field 'sorce'.*did you mean 'source'"):
        ids(sorce=["pubmed"])
    assert FieldValues([{"ok": True}, {"ok": False}, {}]).allowed({"ok": ["true"]}).tolist() == [1, 0, 0]


def test_words_and_vectors_are_fused_where_the_index_has_both(made, encoder, tmp_path):
    both = build(Encoding.open(made), tmp_path / "both", words=True)
    rare = ROWS[7]["text"].split()[-1]
    [hits] = both.search(encoder, [f"{rare} {rare}"], 3)
    with_word = {row["_id"] for row in ROWS if rare in row["text"].split()}
    assert {hits[0].id} <= with_word | {"long"} and hits[0].score <= 2 / 61
    [filtered] = both.search(encoder, [rare], 3, filter={"source": ["registry"]})
    assert {hit.fields["source"] for hit in filtered} == {"registry"}
    assert filtered[0].score > 1 / 61, "ranks are counted among what fits"
    with pytest.raises(ConfigError, match="leave --faiss out"):
        build(Encoding.open(made), tmp_path / "odd", faiss="HNSW16", words=True)


def update_rows(tmp_path: Path) -> list[str]:
    """A new document, one with another text, another field, as it is, and a long one that is cut anew."""
    rows = [
        {"_id": "new", "text": "the rocket explains the cheese 99", "source": "registry"},
        ROWS[3] | {"text": "the violin forgets the winter 7"},
        ROWS[4] | {"source": "moved"},
        ROWS[5],
        LONG_ROW | {"text": LONG[: len(LONG) // 2]},
    ]
    return [str(tiny_embed.write(tmp_path / "update.jsonl", rows))]


@pytest.mark.parametrize("faiss", ["", "HNSW16"])
@pytest.mark.parametrize("share", [0.0, 9.0], ids=["whole", "added"])
def test_an_update_is_what_an_index_of_the_changed_documents_is_and_encodes_only_what_changed(
    made, encoder, tmp_path, monkeypatch, share, faiss
):
    monkeypatch.setattr("adaptkit.embed.index_update.WRITTEN_WHOLE", share)
    folder = build(Encoding.open(made), tmp_path / "index", faiss=faiss).folder.parent
    seen = counting(encoder, monkeypatch)
    change = plan_update(Index.open(folder), update_rows(tmp_path), ["d0", "d1", "d999"])
    assert change.missing == ("d999",) and change.num_unchanged == 1
    before = Index.open(folder)
    index = apply_update(folder, change, lambda index: encoder)
    texts = {each for document in index.documents() for each in document.passages()}
    encoded = [text for text in seen if text in texts]
    assert "the rocket explains the cheese 99" in encoded and not set(encoded) & {row["text"] for row in ROWS}
    assert len(versions(folder)) == 1 and (index.folder / "added.npy").exists() == bool(faiss or share)
    assert index.info["documents"] == len(index.ids) == 20
    changed = [row for row in [*ROWS, LONG_ROW] if row["_id"] not in ("d0", "d1", "d3", "d4", "long")]
    rows = [json.loads(line) for line in Path(update_rows(tmp_path)[0]).read_text().splitlines()]
    file = tiny_embed.write(tmp_path / "all.jsonl", [*(r for r in changed if r["_id"] != "d5"), *rows])
    anew = build(encode_files(encoder, [str(file)], tmp_path / "anew"), tmp_path / "again")
    assert index.info["count"] == anew.info["count"]
    for filter in ({}, {"source": ["registry", "moved"]}):
        for one, other in zip(
            index.search(encoder, SENTENCES[:3], 8, filter=filter),
            anew.search(encoder, SENTENCES[:3], 8, filter=filter),
            strict=True,
        ):
            assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-5)
            assert {hit[2:6] for hit in one} == {hit[2:6] for hit in other}
    assert "d0" in {hit.id for hit in before.search(encoder, [ROWS[0]["text"]], 30)[0]}, "an open one goes on"
    assert not plan_update(index, update_rows(tmp_path), ["d0"]).changes


def test_updates_follow_each_other_and_a_deleted_document_comes_back(folder, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("adaptkit.embed.index_update.WRITTEN_WHOLE", 9.0)
    files = [str(tiny_embed.write(tmp_path / "d2.jsonl", [ROWS[2], {"_id": "n", "text": "a planet"}]))]
    inodes = {(current(folder) / "vectors.npy").stat().st_ino}
    for files_now, delete in (([], ["d2", "long"]), (files, []), ([], ["n"]), (files, [])):
        index = apply_update(folder, plan_update(Index.open(folder), files_now, delete), lambda _: encoder)
        inodes.add((index.folder / "vectors.npy").stat().st_ino)
    assert len(inodes) == 1, "the base is the same file all the time"
    assert index.info["updates"] == 4 and set(index.ids) == {*(row["_id"] for row in ROWS), "n"}
    assert index.search(encoder, [ROWS[2]["text"]], 1)[0][0].id == "d2"
    index = apply_update(folder, plan_update(index, [], index.ids), lambda _: encoder)
    assert index.search(encoder, ["a"], 3) == [[]] and index.info["count"] == 0


@pytest.mark.parametrize("when", ["while encoding", "before the switch"])
def test_a_killed_update_leaves_the_index_as_it_was_and_goes_on(folder, encoder, tmp_path, monkeypatch, when):
    before = Index.open(folder).search(encoder, SENTENCES[:2], 5)

    def update() -> Index:
        return apply_update(folder, plan_update(Index.open(folder), update_rows(tmp_path)), lambda _: encoder)

    def killed(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    place = "encode_documents" if when == "while encoding" else "switch"
    with monkeypatch.context() as broken:
        broken.setattr(f"adaptkit.embed.index_update.{place}", killed)
        with pytest.raises(KeyboardInterrupt):
            update()
    assert Index.open(folder).search(encoder, SENTENCES[:2], 5) == before
    seen = counting(encoder, monkeypatch)
    assert "new" in update().ids
    texts = {"the rocket explains the cheese 99"}
    assert bool(texts & set(seen)) == (when == "while encoding"), "what was encoded is not encoded again"


def test_an_updated_index_moves_to_another_model_and_an_outdated_version_never_answers(
    folder, encoder, tmp_path
):
    Encoder.load(tiny_embed.bert(tmp_path / "base", hidden=16)).save(tmp_path / "other")
    other = Encoder.load(tmp_path / "other")
    old = shutil.copytree(current(folder), tmp_path / "kept" / current(folder).name)
    index = apply_update(folder, plan_update(Index.open(folder), [], ["d0", "d1"]), lambda _: encoder)
    prepared = prepare(folder, other)
    assert prepared.new.ids == index.ids and prepared.new.info["words"] is False
    switch(prepared.folder, prepared.new.folder)
    shutil.copytree(old, folder / old.name)  # the version before the update
    back = prepare(folder, encoder)
    assert back.new.ids == index.ids and back.num_encoded == 0 and back.new.folder == index.folder
    with pytest.raises(ModelError, match="are of model"):
        apply_update(folder, plan_update(Index.open(folder), update_rows(tmp_path)), lambda _: encoder)


def test_the_commands_update_search_and_filter(folder, encoder, tmp_path, capsys, monkeypatch):
    def run(*words: str) -> tuple[int, str, str]:
        code = run_command(app, ["embed", *words])
        release()
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    (tmp_path / "gone.txt").write_text("d0\n\nd999\n")
    files = update_rows(tmp_path)
    code, out, err = run(
        "update", str(folder), *files, "--delete", "d1", "--delete-from", f"{tmp_path}/gone.txt"
    )
    assert code == 0 and "'d999' is not in" in err
    assert "1 added, 2 replaced, 1 with other fields, 2 deleted, 1 unchanged" in out
    assert "holds 20 documents" in out
    asked = ["search", str(folder), encoder.place, QUESTION, "-k", "3"]
    code, out, _ = run(*asked, "--filter", "source=book", "--every-passage", "--json")
    found = json.loads(out)["results"][0]["found"]
    assert code == 0 and len(found) == 3 and {hit["id"] for hit in found} == {"long"}
    assert all(hit["text"] == LONG[hit["start"] : hit["end"]] for hit in found)
    code, out, _ = run(*asked, "--filter", "source=book")
    assert f"long [{found[0]['start']}-{found[0]['end']}]" in out or found[0]["start"] == 0
    assert run(*asked, "--filter", "source")[0] == 2 and run("update", str(folder))[0] == 2
    code, _, err = run("update", str(folder), *files, "--delete", "new")
    assert code == 2 and "the id 'new' is given twice, and to be deleted" in err


def test_fields_that_are_no_values_are_named_and_one_vector_a_document_can_be_had(encoder, tmp_path, capfd):
    rows = [{"_id": "a", "text": LONG, "parts": {"x": 1}, "page": "p" * 501, "year": 1}]
    file = tiny_embed.write(tmp_path / "odd.jsonl", rows)
    whole = encode_files(encoder, [str(file)], tmp_path / "whole", whole=True)
    told = capfd.readouterr().err
    assert whole.info["count"] == 1 and whole.documents()[0].fields == {"year": 1}
    assert "field 'parts' is not kept" in told and "field 'page' is not kept" in told
    assert "1 of 1 texts are cut at 64 tokens" in told, "canaries do not count"
    with pytest.raises(DataError, match="another whole"):
        encode_files(encoder, [str(file)], tmp_path / "whole")


def test_a_link_that_cannot_be_made_becomes_a_copy(folder, encoder, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    index = apply_update(folder, plan_update(Index.open(folder), [], ["d0"]), lambda _: encoder)
    assert (index.folder / "vectors.npy").stat().st_nlink == 1 and "d0" not in index.ids
    assert np.asarray(index.vectors).shape[0] == index.info["count"] + 1
