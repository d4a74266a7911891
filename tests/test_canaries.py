"""Planted canaries: which, how often, where, and that no record holds a secret. Home of data.canaries."""

from __future__ import annotations

from collections import Counter

import pytest

from adaptkit.data.canaries import (
    SPACE_BITS,
    WHERE,
    CanaryConfig,
    canaries,
    canary_record,
    other_secrets,
    plant,
    planted_sentence,
)
from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError

CONFIG = CanaryConfig(repeats=[16, 1, 4], each=3)
ROWS = Dataset([Row({"text": f"text {i}"}, f"a.jsonl:{i}", f"id{i}") for i in range(50)], "text", {})


def test_each_number_of_repeats_has_as_many_and_none_is_planted_as_the_control() -> None:
    made = canaries(CONFIG)
    assert Counter(canary.repeats for canary in made) == {0: 3, 1: 3, 4: 3, 16: 3}
    assert len({canary.text for canary in made}) == len({canary.secret for canary in made}) == 12
    assert made == canaries(CONFIG) and made != canaries(CanaryConfig(repeats=[1, 4, 16], each=3, seed=1))
    for canary in made:
        signs = canary.secret.split(" ")
        assert signs[0] == "" and len(signs) == 10 and all(len(sign) == 1 for sign in signs[1:])
        assert not canary.prefix.endswith(" ")


def test_copies_stand_at_places_of_their_own_among_the_rows() -> None:
    planted = plant(ROWS, CONFIG)
    texts = Counter(row.text for row in planted.rows)
    assert all(texts[canary.text] == canary.repeats for canary in canaries(CONFIG))
    assert [row for row in planted.rows if row.where != WHERE] == ROWS.rows
    assert len({row.id for row in planted.rows}) == len(planted.rows) == 50 + 3 * 21
    often = next(canary for canary in canaries(CONFIG) if canary.repeats == 16)
    places = [number for number, row in enumerate(planted.rows) if row.text == often.text]
    assert max(places) - min(places) > 40, "the copies stand together"
    assert plant(ROWS, CONFIG).digest == planted.digest != ROWS.digest


def test_what_is_no_running_text_takes_no_canaries() -> None:
    with pytest.raises(DataError, match="kind labelled"):
        plant(Dataset(ROWS.rows, "labelled", {}), CONFIG)
    with pytest.raises(ValueError, match="each once"):
        CanaryConfig(repeats=[1, 1])


def test_the_record_names_the_seed_and_no_secret() -> None:
    record = canary_record(CONFIG)
    assert (record.num_texts, record.repeats, record.each, record.seed) == (63, (1, 4, 16), 3, 0)
    assert record.num_bytes == sum(len(c.text) * c.repeats for c in canaries(CONFIG))
    dumped = record.model_dump_json()
    assert not any(canary.secret in dumped or canary.prefix in dumped for canary in canaries(CONFIG))
    assert canary_record(CanaryConfig(repeats=[1, 4, 16], each=3, seed=1)).digest != record.digest


def test_other_secrets_are_of_the_same_form() -> None:
    others = other_secrets(500)
    assert len(set(others)) == 500 and {len(secret) for secret in others} == {18}
    digits = Counter("".join(others).replace(" ", ""))
    assert set(digits) == set("0123456789") and min(digits.values()) > 380
    assert abs(2**SPACE_BITS - 1e9) < 1


def test_the_share_of_the_text_is_said() -> None:
    sentence = planted_sentence(CONFIG, 100 * canary_record(CONFIG).num_bytes)
    assert sentence == "63 copies of made-up secrets are planted in the training text: 1 % of it"
