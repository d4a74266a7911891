"""Duplicates and overlap: found, counted, removable, and not found where there are none. Home of data.dedup
and data.ngrams."""

from __future__ import annotations

import random

import numpy as np
import pytest

from adaptkit.data.dedup import deduplicate, minhash, near_duplicates
from adaptkit.data.ngrams import hashed_texts, hashed_words, run_hashes
from adaptkit.data.overlap import overlap, remove_overlap
from adaptkit.data.readers import Dataset, Row, content_id
from adaptkit.data.words import words

WORDS = [f"word{i}" for i in range(3000)]


def prose(seed: int, size: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=size)


def dataset(texts: list[str], name: str = "x") -> Dataset:
    rows = [
        Row({"text": text}, f"{name}.jsonl:{i + 1}", content_id({"text": text}))
        for i, text in enumerate(texts)
    ]
    return Dataset(rows, "text", {"text": "text"})


def changed(words: list[str], share: float, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in words)


def test_exact_and_near_duplicates_go_whatever_the_order() -> None:
    base = [prose(i, 300) for i in range(30)]
    texts = [" ".join(words) for words in base] + [
        " ".join(base[0]) + "  \n",
        " ".join(base[1]),
        changed(base[2], 0.01, 1),
    ]
    kept, report = deduplicate(dataset(texts))
    assert (report.num_rows, report.num_exact, report.num_near) == (33, 2, 1) and len(kept.rows) == 30
    order = list(range(33))
    random.Random(1).shuffle(order)
    again, _ = deduplicate(dataset([texts[i] for i in order]))
    assert {row.id for row in again.rows} == {row.id for row in kept.rows}
    assert len(deduplicate(dataset(texts), near=False)[0].rows) == 31
    assert report.examples[0][2] in ("exact", "near") and report.as_json()["num_near"] == 1


def test_the_row_with_the_smallest_hash_stays_and_removed_bytes_are_counted() -> None:
    texts = [f"the same words{' ' * blanks}" for blanks in range(6)]
    ids = sorted(content_id({"text": text}) for text in texts)
    for order in (texts, texts[::-1], texts[3:] + texts[:3]):
        unique, report = deduplicate(dataset(order))
        assert [row.id for row in unique.rows] == ids[:1]
        assert report.removed_bytes == sum(map(len, texts)) - len(unique.rows[0].text)


def test_blanks_at_the_ends_make_no_text_another() -> None:
    texts = ["one text of some words", "  one text of some words \n", "another text"]
    kept, report = deduplicate(dataset(texts), near=False)
    assert report.num_exact == 1 and report.removed_bytes > 0 and len(kept.rows) == 2


def test_equal_texts_with_different_labels_both_stay() -> None:
    rows = [Row({"text": "same words", "label": label}, f"x:{label}", f"{label:0>16}") for label in "ab"]
    assert deduplicate(Dataset(rows, "labelled", {}), near=False)[1].num_exact == 0


def test_near_texts_with_other_labels_repeat_nothing() -> None:
    text = "the service was kind and quick and the room was clean and warm all week"
    other = text.replace("kind", "unkind")
    values = [
        {"text": text, "label": "good"},
        {"text": other, "label": "bad"},
        {"text": other, "label": "good"},
    ]
    rows = [Row(value, f"x.jsonl:{i}", content_id(value)) for i, value in enumerate(values)]
    kept, report = deduplicate(Dataset(rows, "labelled", {}))
    assert {row.values["label"] for row in kept.rows} == {"good", "bad"} and report.num_near in (0, 1)
    assert report.num_conflicts == 1 and set(report.conflicts[0]) == {"x.jsonl:1", "x.jsonl:2"}
    assert "1 text stands with different labels (for example x.jsonl:" in report.conflict_sentence
    answers = [{"prompt": text + " " + text, "completion": word} for word in ("yes", "no")]
    rows = [Row(value, f"x.jsonl:{i}", content_id(value)) for i, value in enumerate(answers)]
    assert len(deduplicate(Dataset(rows, "sft", {}))[0].rows) == 2
    assert deduplicate(Dataset(rows[:1] * 2, "sft", {}))[1].conflict_sentence == ""


def test_minhash_estimates_jaccard_as_the_reference_library_does() -> None:
    datasketch = pytest.importorskip("datasketch")
    base = prose(1, 400)
    for share in (0.0, 0.02, 0.05, 0.2, 1.0):
        other = changed(base, share, 3).split()
        sets = [{" ".join(words[i : i + 5]) for i in range(len(words) - 4)} for words in (base, other)]
        truth = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        ours = minhash([" ".join(base), " ".join(other)])
        reference = [datasketch.MinHash(num_perm=128) for _ in sets]
        for sketch, grams in zip(reference, sets, strict=True):
            sketch.update_batch([gram.encode() for gram in grams])
        assert abs((ours[0] == ours[1]).mean() - truth) < 0.15
        assert abs((ours[0] == ours[1]).mean() - reference[0].jaccard(reference[1])) < 0.2


def test_unlike_texts_and_wordless_ones_are_no_duplicates() -> None:
    texts = [" ".join(prose(i, 60)) for i in range(300)] + ["...", "!!!", "\U0001f600"]
    assert near_duplicates(texts) == {}


def test_overlap_finds_what_was_planted_and_nothing_else() -> None:
    train = [prose(i, 400) for i in range(50)]
    items = [" ".join(prose(1000 + i, 40)) for i in range(20)]
    items[3] = " ".join(train[7][100:140])  # copied whole
    items[5] = " ".join([*prose(5005, 20), *train[9][:13], *prose(5006, 7)])  # one shared run of 13
    items[6] = " ".join([*prose(5007, 20), *train[9][:12], *prose(5008, 8)])  # 12 words: too short a run
    items[8] = " ".join(train[11][50:60]).upper()  # 10 words, contained whole
    items[9] = " ".join(train[11][50:55])  # 5 words inside a row: too short to mean anything
    items[10] = "Yes, of course!"
    data = dataset([" ".join(words) for words in train] + ["yes of course"], "train")
    test = dataset(items, "test")
    report = overlap(data, test)
    assert report.contaminated == [test.rows[i].id for i in (3, 5, 8, 10)] and report.num_test_items == 20
    assert set(report.train_ids) == {data.rows[i].id for i in (7, 9, 11, 50)}
    assert report.share == 0.2 and report.examples[0] == ("test.jsonl:4", 1.0)
    assert [row.id for row in remove_overlap(test, report).rows] == [
        r.id for i, r in enumerate(test.rows) if i not in (3, 5, 8, 10)
    ]
    cleaned = remove_overlap(data, report, side="train")
    assert len(cleaned.rows) == 47 and not overlap(cleaned, test).contaminated
    assert overlap(data, test, n=12).contaminated == [test.rows[i].id for i in (3, 5, 6, 8, 10)]


@pytest.mark.parametrize(("size", "contaminated"), [(7, 0), (8, 1), (12, 1)])
def test_an_item_of_eight_words_is_looked_for_inside_longer_rows(size: int, contaminated: int) -> None:
    words = prose(1, 40)
    report = overlap(dataset([" ".join(words)]), dataset([" ".join(words[10 : 10 + size])]))
    assert len(report.contaminated) == contaminated


def test_at_most_twenty_examples_are_listed() -> None:
    items = dataset([" ".join(prose(i, 20)) for i in range(25)])
    report = overlap(items, items)
    assert len(report.contaminated) == 25
    assert [where for where, _ in report.examples] == [row.where for row in items.rows[:20]]


def test_runs_do_not_reach_across_training_rows() -> None:
    words = prose(1, 26)
    train = dataset([" ".join(words[:7]), " ".join(words[7:13]), "", " ".join(words[13:])])
    assert overlap(train, dataset([" ".join(words[:13])])).contaminated == []
    assert len(overlap(train, dataset([" ".join(words[10:])])).contaminated) == 1


def test_a_stock_phrase_touches_a_long_document_but_does_not_condemn_it() -> None:
    phrase = prose(1, 14)
    report = overlap(dataset([" ".join(prose(2, 50) + phrase)]), dataset([" ".join(prose(3, 2000) + phrase)]))
    assert report.num_touched == 1 and report.contaminated == []


@pytest.mark.parametrize(("num_words", "contaminated"), [(129, 1), (130, 1), (131, 0), (150, 0)])
def test_an_item_is_contaminated_from_a_tenth_of_its_words_on(num_words: int, contaminated: int) -> None:
    run = prose(1, 13)
    item = " ".join(prose(2, num_words - 13) + run)
    report = overlap(dataset([" ".join(prose(3, 80) + run)], "train"), dataset([item]))
    assert (len(report.contaminated), report.num_touched) == (contaminated, 1)
    assert len(report.train_ids) == contaminated


def test_only_training_rows_that_cover_a_tenth_by_themselves_go() -> None:
    runs = [prose(seed, 13) for seed in (1, 2, 3)]
    item = " ".join(word for run in runs for word in run + prose(9, 87))  # 3 runs of 13 in 300 words
    whole = dataset([" ".join(run) for run in runs] + [item], "train")
    report = overlap(whole, dataset([item]))
    assert len(report.contaminated) == 1 and report.train_ids == [whole.rows[3].id]
    apart = overlap(dataset([" ".join(run) for run in runs]), dataset([item]))
    assert len(apart.contaminated) == 1 and apart.train_ids == [], "each holds 4 % of the item"


def test_a_word_is_one_number_in_every_text_and_texts_do_not_run_together() -> None:
    rng = random.Random(3)
    alphabet = [*map(chr, range(128)), "\u00e9", "\u7532", "\u0e01"]
    texts = ["".join(rng.choices(alphabet[:128], k=rng.randrange(40))) for _ in range(200)]
    texts += ["", "one", "Panic in the DINER, snake_case 42", "x" * 300_000 + " y", "a b c d e f " * 30_000]
    texts += [
        "\u00e9t\u00e9 Panic na\u00efve",
        "\u0434\u043e\u043c x",
        "".join(rng.choices(alphabet[:130], k=60)),
    ]
    mixed = [*texts, "\u7532\u4e59 panic", "".join(rng.choices(alphabet, k=60)), "\U00010437a b"]
    plain, ends = hashed_texts(texts)
    with_others, other_ends = hashed_texts(mixed)
    assert ends.tolist() == np.cumsum([len(words(text)) for text in texts]).tolist()
    assert other_ends[: len(texts)].tolist() == ends.tolist()
    assert np.array_equal(with_others.hashes[: len(plain)], plain.hashes)
    assert len(set(plain.hashes.tolist())) == len({word for text in texts for word in words(text)})
    assert len(with_others) == sum(len(words(text)) for text in mixed)
    starts, lengths, hashes = run_hashes(plain, 5, ends)
    alone = [run_hashes(hashed_words(text), 5) for text in texts]
    assert np.array_equal(hashes, np.concatenate([part[2] for part in alone]))
    assert np.array_equal(lengths, np.concatenate([part[1] for part in alone]))
    begins = np.concatenate([[0], ends[:-1]])
    assert np.array_equal(
        starts, np.concatenate([a + part[0] for a, part in zip(begins, alone, strict=True)])
    )


def test_two_texts_are_near_duplicates_from_three_quarters_of_equal_shingles_on() -> None:
    base = prose(1, 400)
    found = {}
    for num_changed in range(20, 100, 4):
        other = base[:-num_changed] + prose(2, num_changed)
        first, second = minhash([" ".join(base), " ".join(other)])
        alike = float((first == second).mean())
        found[alike] = bool(near_duplicates([" ".join(base), " ".join(other)]))
    assert all(twins == (alike >= 0.75) for alike, twins in found.items())
    assert any(0.75 <= alike < 0.8 for alike in found) and any(0.7 < alike < 0.75 for alike in found)


def test_many_small_rows_give_the_same_answer_as_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    train = dataset([" ".join(prose(i, 30)) for i in range(200)])
    test = dataset(
        [train.rows[i].text for i in range(0, 200, 7)] + [" ".join(prose(9000 + i, 30)) for i in range(30)]
    )
    whole = overlap(train, test)
    monkeypatch.setattr("adaptkit.data.overlap.CHUNK_CHARACTERS", 300)
    assert overlap(train, test) == whole and len(whole.contaminated) == 29
    assert overlap(train.with_rows([]), test).contaminated == []
    assert np.isclose(whole.share, 29 / 59)
