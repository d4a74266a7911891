"""Personal data: what is masked, what is not, what is counted, and that no value is told. Home of
data.personal_data and data.byte_sample."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_embed import write_set

from adaptkit.data.beir import read_set
from adaptkit.data.byte_sample import ByteSample
from adaptkit.data.personal_data import Masker, Personal
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import ConfigError, DataError

KINDS: list[Personal] = ["email", "phone", "iban", "card"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to anna.k+x@mail.example.org.", "Write to [EMAIL]."),
        ("a@b, @home, x@y.z and 5 @ 3.50 EUR", "a@b, @home, x@y.z and 5 @ 3.50 EUR"),
        ("Call +49 30 901820 or +1 650-253-0000!", "Call [PHONE] or [PHONE]!"),
        ("in 2019, 12 of 345 patients; p = 0.0312; PMC101395", None),
        ("IBAN DE89 3704 0044 0532 0130 00, please", "IBAN [IBAN], please"),
        ("IBAN DE88 3704 0044 0532 0130 00 has a wrong digit", None),
        ("Paid by 4111 1111 1111 1111.", "Paid by [CARD]."),
        ("Paid by 4111 1111 1111 1112, no card", None),
        ("doi 10.1000/4111111111111111.22", None),
    ],
)
def test_a_text_is_masked_by_form_and_check_digit(text: str, masked: str | None) -> None:
    assert Masker(KINDS).text(text) == (masked or text)


def test_numbers_without_a_countrys_code_need_the_country() -> None:
    text = "Rufen Sie 030 901820 an."
    assert Masker(["phone"]).text(text) == text
    assert Masker(["phone"], "DE").text(text) == "Rufen Sie [PHONE] an."
    with pytest.raises(ConfigError, match="no country is called 'Germany'"):
        Masker(["phone"], "Germany")
    with pytest.raises(ConfigError, match="none are masked"):
        Masker([], "DE")


def test_only_the_kinds_that_are_asked_for_are_masked() -> None:
    assert Masker(["email"]).text("a@b.org, +49 30 901820") == "[EMAIL], +49 30 901820"


def test_reading_masks_counts_and_tells_no_value(tmp_path: Path) -> None:
    rows = [
        {"text": "ask a@b.org or c@d.org", "source": "mail"},
        {"text": "nothing here", "source": "a@b.org"},
        {"text": "call +49 30 901820", "source": "phone"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told: list[str] = []
    plain = read(DataConfig(files=[str(path)]), "text", tell=told.append)
    dataset = read(DataConfig(files=[str(path)], protect=KINDS), "text", tell=told.append)
    assert [row.text for row in dataset.rows] == ["ask [EMAIL] or [EMAIL]", "nothing here", "call [PHONE]"]
    assert dataset.rows[1].values["source"] == "a@b.org" and dataset.rows[1].id == plain.rows[1].id
    assert dataset.rows[0].id != plain.rows[0].id and dataset.digest != plain.digest
    assert dataset.masked == {"email": {str(path): 2}, "iban": {}, "card": {}, "phone": {str(path): 1}}
    assert dataset.manifest()["masked"] == dataset.masked and plain.masked == {}
    counted = "personal data masked: 2 of email, 0 of iban, 0 of card, 1 of phone"
    assert f"{path}: {counted}" in told
    assert "a@b.org" not in " ".join(told)


def test_messages_are_masked_and_labels_are_not(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "I am a@b.org"}, {"role": "assistant", "content": "Hello a@b.org"}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n")
    (row,) = read(DataConfig(files=[str(path)], protect=["email"]), "sft").rows
    assert [turn["content"] for turn in row.values["messages"]] == ["I am [EMAIL]", "Hello [EMAIL]"]
    path.write_text(json.dumps({"text": "to a@b.org", "label": "a@b.org"}) + "\n")
    (row,) = read(DataConfig(files=[str(path)], protect=["email"]), "labelled").rows
    assert row.values == {"text": "to [EMAIL]", "label": "a@b.org"}


def test_a_country_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "to a@b.org"}) + "\n")
    with pytest.raises(ConfigError, match="none are masked"):
        read(DataConfig(files=[str(path)], protect_region="DE"), "text")


def test_spans_are_refused_as_their_places_would_move(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    spans = [{"start": 0, "end": 2, "label": "x"}]
    path.write_text(json.dumps({"text": "to a@b.org", "spans": spans}) + "\n")
    with pytest.raises(DataError, match="masking would move the spans"):
        read(DataConfig(files=[str(path)], protect=["email"]), "spans")


def test_a_retrieval_set_is_refused_as_nothing_of_it_would_be_masked(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    assert read_set(folder, "test").documents
    with pytest.raises(ConfigError, match="nothing of a retrieval set is masked"):
        read_set(folder, "test", protect=["email"])


def test_a_sample_is_the_first_by_hash_whatever_the_order() -> None:
    def kept(order: list[int], limit: int) -> set[int]:
        sample: ByteSample[int] = ByteSample(limit)
        for number in order:
            sample.add(number, f"{number:x}", 10)
        assert sample.num_seen == len(order) and sample.kept() == [n for n in order if n in sample.kept()]
        return set(sample.kept())

    numbers = list(range(20))
    assert kept(numbers, 55) == kept(numbers[::-1], 55) == {0, 1, 2, 3, 4}
    assert kept(numbers, 0) == set(numbers)
