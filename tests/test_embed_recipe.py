"""What a finished encoder says of itself: record, scores, held-out texts, card. Home of embed.recipe,
embed.config, embed.scores, embed.start, and embed.examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_embed

from adaptkit.data.heldout import MAX_PASSAGE_CHARS, MAX_PASSAGES, read_calibration, read_held_out
from adaptkit.data.readers import DataConfig
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.examples import read_examples, train_and_dev
from adaptkit.embed.recipe import EmbedResult, embed
from adaptkit.embed.scores import scores_of
from adaptkit.embed.start import steps_for_budget
from adaptkit.errors import BudgetError, DataError
from adaptkit.run import Run, digest, read_json, read_jsonl
from adaptkit.run_record import ModelKind, RecipeKind, read_record

TRAINER = {"num_steps": 2, "global_batch_size": 8, "threads": 1, "learning_rate": 1e-3, "log_every": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("embed-recipe")
    return {
        "bert": tiny_embed.bert(root / "bert"),
        "pairs": tiny_embed.write(root / "pairs.jsonl", tiny_embed.pairs()),
        "set": tiny_embed.write_set(root / "set"),
        "texts": tiny_embed.write(root / "texts.jsonl", [{"text": text} for text in tiny_embed.texts(60)]),
    }


def settings(folders: dict[str, Path], train: str = "pairs", **changes: Any) -> EmbedConfig:
    data = {"base": str(folders["bert"]), "train": {"files": [str(folders[train])]}, "max_length": 32}
    return EmbedConfig.model_validate({**data, "trainer": TRAINER, **changes})


def done(config: EmbedConfig, root: Path, **options: Any) -> tuple[EmbedResult, Run]:
    run = Run.open(root, config.name, config.model_dump(mode="json"))
    return embed(config, run, **options), run


def test_the_record_says_what_the_run_is(folders, tmp_path):
    test = {"files": [str(folders["set"])]}
    config = settings(folders, "set", test=test, adapter={"kind": "lora", "rank": 2}, hard_negatives=1)
    result, run = done(config, tmp_path, suite="search")
    record = read_record(run)
    assert (record.recipe, record.model_kind) == (RecipeKind.EMBED, ModelKind.ENCODER)
    assert (record.base, record.teacher, record.adapter_base) == (config.base, "", "")
    assert record.adapter == config.adapter and record.seq_len == 32 and record.num_steps == 2
    assert (record.task, record.suite) == ("search", "search") and list(record.suites) == ["search"]
    scores = record.suites["search"]
    assert scores.judged_on == "test" and scores.num_items == 8 == len(list(read_jsonl(run.items("search"))))
    assert scores.metrics == result.scores == scores_of(list(read_jsonl(run.items("search"))))
    assert scores.dev == result.dev_scores and "loss" in scores.dev and "ndcg_at_10" in scores.dev
    train = record.splits["train"]
    assert (train.kind, train.documents) == ("retrieval", 40)
    assert train.facts == {"queries": 24, "unjudged": 0, "examples": 24}
    assert record.splits["dev"].facts["examples"] == 8
    assert 0 < record.facts["trained"] < record.params and record.facts["merge_difference"] < 1e-4
    assert read_json(run.scores("search"))["metrics"] == scores.metrics
    assert EmbedResult.of(run) == result and result.adapter_folder == run.adapter


def test_a_run_without_test_data_is_judged_by_nothing_but_dev(folders, tmp_path):
    result, run = done(settings(folders), tmp_path)
    record = read_record(run)
    assert record.suites["retrieval"].metrics == {} and record.suites["retrieval"].num_items == 0
    assert record.adapter is None and result.adapter_folder is None
    assert record.splits["train"].kind == "pairs" and record.splits["dev"].kind == "held out of train"
    assert record.splits["train"].documents == 60
    assert sum(record.splits[name].facts["examples"] for name in ("train", "dev")) == 60
    assert "| retrieval | ndcg at 10 | development | " in (run.model / "README.md").read_text()


def test_plain_text_is_no_task(folders, tmp_path):
    _, run = done(settings(folders, "texts", loss="tsdae"), tmp_path)
    record = read_record(run)
    assert (
        record.task == "" and record.suite == "retrieval" and set(record.suites["retrieval"].dev) == {"loss"}
    )
    assert record.splits["train"].kind == "text"


@pytest.mark.parametrize(
    ("train", "changes"), [("pairs", {}), ("set", {"hard_negatives": 1}), ("texts", {"loss": "tsdae"})]
)
def test_the_dev_texts_are_kept_as_they_were_read(folders, tmp_path, train, changes):
    """Neither mined negatives nor pieces of texts: what an export is measured on does not change with
    them."""
    config = settings(folders, train, **changes)
    _, run = done(config, tmp_path)
    _, dev = train_and_dev(config.train, None, config.loss)
    texts = list(dict.fromkeys(text[:MAX_PASSAGE_CHARS] for row in dev.rows for text in row.texts))
    held = read_held_out(run)
    assert held is not None and held.items is None and read_calibration(run) is None
    assert held.passages == [(f"held-out-{i}", text) for i, text in enumerate(texts[:MAX_PASSAGES])]
    assert held.digest == digest(texts[:MAX_PASSAGES])


def test_the_digest_of_a_split_is_of_its_rows(folders, tmp_path):
    rows = tiny_embed.pairs()
    swapped = tiny_embed.write(tmp_path / "swapped.jsonl", [rows[1], rows[0], *rows[2:]])
    records = [
        read_examples(DataConfig(files=[str(path)]), "infonce").record()
        for path in (folders["pairs"], swapped)
    ]
    assert records[0].digest != records[1].digest and records[0].num_bytes == records[1].num_bytes
    again = read_examples(DataConfig(files=[str(folders["pairs"])]), "infonce").record()
    assert again.digest == records[0].digest


def test_a_budget_buys_steps(folders):
    config = settings(folders)
    one = next(flops for flops in (10.0**power for power in range(5, 12)) if affords(config, flops))
    assert steps_for_budget(config, 100 * one) > steps_for_budget(config, 10 * one)
    learnt, _ = train_and_dev(config.train, None, config.loss)
    assert steps_for_budget(config, 1e15, epochs=2) == round(2 * len(learnt.rows) / 8)
    with pytest.raises(BudgetError, match="buy 0 steps"):
        steps_for_budget(config, 1.0)


def affords(config: EmbedConfig, flops: float) -> bool:
    try:
        return steps_for_budget(config, flops) > 0
    except BudgetError:
        return False


def test_a_retrieval_set_is_learnt_from_by_contrast_only(folders):
    with pytest.raises(DataError, match="does not learn from a retrieval set"):
        read_examples(DataConfig(files=[str(folders["set"])]), "cosine")
