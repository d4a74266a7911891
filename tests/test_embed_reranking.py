"""A reranker reads pairs as its saved folder is read elsewhere, learns what words do not tell, and ranks no
worse than the first stage on development queries. Home of embed.cross_encoder, embed.first_stage,
embed.pair_tokens, embed.ranking_rows, embed.reading_cost, embed.reranking, embed.two_stages and
study.tasks.reranker_arm."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_embed
import tiny_rerank
import torch
from test_embed_hybrid import DOCUMENTS, searched, vectors_that_find
from test_kind_arms import work_on

from adaptkit import models
from adaptkit.embed.config import RerankConfig
from adaptkit.embed.cross_encoder import CrossEncoder
from adaptkit.embed.first_stage import FirstStage, choose_first_stage
from adaptkit.embed.objective import LocalisedContrast
from adaptkit.embed.pair_tokens import PairTokens, with_boundary
from adaptkit.embed.ranking_rows import RankingExample, RankingRows, ranking_examples
from adaptkit.embed.reading_cost import ReadingCost
from adaptkit.embed.reranking import rerank, steps_for_budget
from adaptkit.embed.rows import Example
from adaptkit.embed.two_stages import SHARES, ReadAgain, choose_share, read_again, two_stage_rows
from adaptkit.errors import BudgetError, ConfigError, DataError, ModelError
from adaptkit.export.source import of_run
from adaptkit.models.control_tokens import encode_pair
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import ModelKind, RecipeKind, read_record
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import TaskConfig, TaskFiles

TEXTS = ("engine", "the river reads 7", "[SEP] is <|eos|> text", "cheese " * 30, "planet winter " * 40, "")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("rerank")
    return {
        "bert": tiny_rerank.bert(root / "bert"),
        "qwen": tiny_embed.qwen(root / "qwen"),
        "set": tiny_rerank.write_set(root / "set"),
    }


def settings(folders: dict[str, Path], **changes: Any) -> RerankConfig:
    given = {
        "base": str(folders["bert"]),
        "train": {"files": [str(folders["set"])]},
        "test": {"files": [str(folders["set"])]},
        "depth": 8,
        "negatives": 3,
        "max_length": 32,
    }
    trainer = {"num_steps": 2, "global_batch_size": 8, "threads": 1, "learning_rate": 3e-3, "log_every": 10}
    return RerankConfig.model_validate({**given, "trainer": trainer, **changes})


def trained(config: RerankConfig, root: Path) -> Run:
    run = Run.open(root, config.name, config.model_dump(mode="json"))
    rerank(config, run)
    return run


@pytest.mark.parametrize("base", ["bert", "qwen"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_is_the_one_that_the_tokenizer_makes(folders: dict[str, Path], base: str, side: str) -> None:
    tokenizer = with_boundary(models.load_tokenizer(folders[base]))
    tokenizer.truncation_side = side
    pairs = PairTokens(tokenizer, 24)
    for first in TEXTS:
        for second in TEXTS:
            ids, types = encode_pair(tokenizer, first, second, max_length=24)
            assert pairs.row(first, second) == (ids, types), (first, second)


def test_a_pair_is_counted_as_cut_where_it_is(folders: dict[str, Path]) -> None:
    tokenizer = models.load_tokenizer(folders["bert"])
    whole = len(encode_pair(tokenizer, TEXTS[1], TEXTS[3], max_length=999)[0])
    cut = PairTokens(tokenizer, 24).cuts([(TEXTS[1], TEXTS[3]), (TEXTS[0], TEXTS[1])])
    assert (cut.num_texts, cut.num_cut, cut.num_lost) == (2, 1, whole - 24)
    with pytest.raises(ModelError, match="no room"):
        PairTokens(tokenizer, 4)


def test_a_tokenizer_without_a_boundary_gets_one_that_its_files_keep(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    plain = models.load_tokenizer(folders["qwen"])
    question, document = (plain(text, add_special_tokens=False)["input_ids"] for text in TEXTS[:2])
    alone, joined = plain(TEXTS[0])["input_ids"], plain(*TEXTS[:2])["input_ids"]
    assert plain.eos_token_id not in joined[1:]
    bounded = with_boundary(plain)
    bounded.save_pretrained(tmp_path)
    again = models.load_tokenizer(tmp_path)
    end = joined.index(document[0], len(question))
    assert again(*TEXTS[:2])["input_ids"] == [*joined[:end], plain.eos_token_id, *joined[end:]]
    assert again(TEXTS[0])["input_ids"] == alone
    before = models.load_tokenizer(folders["bert"])
    kept = before.backend_tokenizer.to_str()
    assert with_boundary(before).backend_tokenizer.to_str() == kept
    without = models.load_tokenizer(folders["qwen"])
    without.eos_token = None
    with pytest.raises(ModelError, match="names no EOS"):
        with_boundary(without)


def test_the_first_stage_takes_vectors_only_where_they_help(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = searched({"q": "cough syrup", "r": "arm"}, {"q": {"c": 1}, "r": {"b": 1}})
    encoder = vectors_that_find(monkeypatch, {"q": "dbac", "r": "dcab"})
    words = choose_first_stage(shared, "ndcg_at_10", encoder)
    assert words == FirstStage() == choose_first_stage(shared, "ndcg_at_10", None)
    assert words.candidates(shared, 2) == {"q": ["c", "a"], "r": ["b", "d"]} and str(words) == "words (BM25)"
    unshared = searched({"q": "temperature"}, {"q": {"a": 1}})
    vectors = choose_first_stage(unshared, "ndcg_at_10", vectors_that_find(monkeypatch, {"q": "abcd"}))
    assert vectors.encoder is not None and vectors.candidates(unshared, 2) == {"q": ["a", "b"]}
    assert "vectors" in str(vectors)


def test_what_is_known_to_be_right_is_no_negative() -> None:
    found = searched({"q": "cough"}, {"q": {"a": 1, "c": 1}})
    examples = [Example(("cough", DOCUMENTS["a"]), "set:1"), Example(("cough", DOCUMENTS["c"]), "set:1")]
    groups = {"cough": 0, DOCUMENTS["a"]: 0, DOCUMENTS["c"]: 0}
    candidates = {"q": ["a", "d", "c", "b"]}
    rows = ranking_examples(examples, found, candidates, groups, 1, 9)
    assert [row.negatives for row in rows] == [(DOCUMENTS["d"], DOCUMENTS["b"])] * 2
    assert ranking_examples(examples, found, candidates, groups, 1, 1)[0].negatives == (DOCUMENTS["d"],)
    with pytest.raises(DataError, match="only 2 documents can be negatives of this row, 3") as no:
        ranking_examples(examples, found, candidates, groups, 3, 9)
    assert no.value.where == "set:1"
    with pytest.raises(ValueError, match="below depth"):
        RerankConfig.model_validate({"base": "b", "train": {"files": ["f"]}, "depth": 5, "negatives": 5})


def test_a_batch_holds_the_right_document_first_and_new_negatives_each_epoch(
    folders: dict[str, Path],
) -> None:
    reranker = CrossEncoder.start(folders["bert"], 32, seed=0)
    documents = tuple(f"the {thing} {'reads ' * number}" for number, thing in enumerate(tiny_embed.THINGS))
    rows = RankingRows([RankingExample("engine", "the cheese", documents, "set:1")] * 3, reranker, 4)
    drawn = {
        (epoch, index): rows.documents(index, seed=0, epoch=epoch) for epoch in (0, 1) for index in (0, 1)
    }
    assert all(each[0] == "the cheese" and len(set(each)) == 5 for each in drawn.values())
    assert len({tuple(each) for each in drawn.values()}) == 4
    assert rows.documents(1, seed=0, epoch=1) == drawn[1, 1] != rows.documents(1, seed=1, epoch=1)
    batch = rows.collate([0, 1], seed=0, epoch=0)
    assert not any(name.endswith("token_type_ids") for name in batch), "its tokenizer names no token types"
    reranker.has_types = True
    typed = rows.collate([0, 1], seed=0, epoch=0)
    lines, types = (
        [line for name in typed if name.endswith(end) for line in typed[name].tolist()]
        for end in ("input_ids", "token_type_ids")
    )
    for row, index in zip(typed["order"].tolist(), (0, 1), strict=True):
        for place, document in zip(row, drawn[0, index], strict=True):
            wanted = reranker.pairs.row("engine", document)
            assert lines[place][: len(wanted.ids)] == wanted.ids
            assert types[place][: len(wanted.ids)] == wanted.types and sum(wanted.types) > 2


class Sums(torch.nn.Module):
    """Scores a row by the mean of its ids, padding left out."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        mean = (input_ids * attention_mask).sum(1) / attention_mask.sum(1)
        return SimpleNamespace(logits=mean[:, None].float())


def test_the_loss_is_that_of_the_right_document_among_all_that_are_shown() -> None:
    def part(*rows: list[int]) -> dict[str, torch.Tensor]:
        ids = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    parts = {"00.": part([3, 3], [1, 0]), "01.": part([2], [4])}
    batch = {f"{name}{key}": value for name, tensors in parts.items() for key, value in tensors.items()}
    batch["order"] = torch.tensor([[0, 2], [1, 3]])  # scores 3 and 2, 1 and 4
    loss = LocalisedContrast().loss(Sums(), batch)
    by_hand = -math.log(math.exp(3) / (math.exp(3) + math.exp(2))) - math.log(
        math.exp(1) / (math.exp(1) + math.exp(4))
    )
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-5)
    assert int(loss.metrics["accuracy"]) == 1 and int(LocalisedContrast().items(batch)) == 2


def test_both_stages_make_the_order_and_the_rest_stays_behind() -> None:
    read = ReadAgain("q", ["a", "b", "c"], np.array([3.0, 2.0, 1.0]), np.array([-1.0, 0.0, 3.0]), ["d"])
    assert read.ranking(0.0) == ["a", "b", "c", "d"] and read.ranking(1.0) == ["c", "b", "a", "d"]
    assert read.ranking(0.25) == ["a", "b", "c", "d"]
    for right, share in (("c", 1.0), ("a", 0.25)):
        found = searched({"q": "x"}, {"q": {right: 1}})
        assert choose_share([read], found, "mrr_at_10") == share, "of equal ones the largest"
        assert two_stage_rows([read], found, share)[0]["hits"] == [1]
    assert SHARES[0] == 1.0 and SHARES[-1] == 0.0


def test_only_the_first_documents_are_read_again() -> None:
    asked: list[tuple[str, str]] = []

    def scores(pairs: list[tuple[str, str]]) -> np.ndarray:
        asked.extend(pairs)
        return np.arange(len(pairs), dtype=float)

    found = searched({"q": "cough syrup"}, {"q": {"b": 1}})
    read = read_again(SimpleNamespace(scores=scores), FirstStage(), found, 2)  # type: ignore[arg-type]
    assert asked == [("cough syrup", DOCUMENTS["c"]), ("cough syrup", DOCUMENTS["a"])]
    assert read[0].ranking(1.0) == ["a", "c", "d", "b"] and read[0].first_K[0] > read[0].first_K[1] > 0


def test_it_learns_what_words_do_not_tell_and_others_load_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    trainer = {"num_steps": 30, "global_batch_size": 8, "threads": 1, "learning_rate": 5e-3, "log_every": 30}
    run = trained(settings(folders, trainer=trainer), tmp_path)
    record = read_record(run)
    assert (record.recipe, record.model_kind) == (RecipeKind.RERANK, ModelKind.RERANKER)
    suite, first = record.suites["reranking"], record.facts["first_stage"]
    assert first["test"]["mrr_at_10"] < 0.5 and suite.metrics["mrr_at_10"] > 0.9
    assert suite.dev["mrr_at_10"] >= first["dev"]["mrr_at_10"] and suite.num_items == 8
    assert record.facts["share"] > 0 and record.facts["depth"] == 8 and first["name"] == "words (BM25)"
    pairs = [(question, documents[at]) for question, documents in tiny_rerank.rows(3) for at in (0, 1)]
    ours = CrossEncoder.load(run.model)
    scores = ours.scores(pairs)
    assert (scores[::2] > scores[1::2]).all() and ours.flops > 0
    cost = read_sealed(run.cost_path)
    rows = [len(ours.pairs.row(*pair).ids) for pair in pairs]
    assert cost["tokens_per_item"] == pytest.approx(8 * np.mean(rows), rel=0.1)
    from sentence_transformers import CrossEncoder as Theirs

    theirs = Theirs(str(run.model), device="cpu").predict(pairs)
    assert np.allclose(theirs, 1 / (1 + np.exp(-scores)), atol=1e-5)
    assert of_run(run.path).kind == "rerank"
    card = (run.model / "README.md").read_text()
    assert "pipeline_tag: text-ranking" in card and "words (BM25); its first 8 documents" in card


def test_adapters_decoders_and_vectors(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = str(tiny_embed.bert(tmp_path / "encoder"))
    config = settings(
        folders, base=str(folders["qwen"]), adapter={"kind": "lora", "rank": 2}, encoder=encoder
    )
    run = trained(config, tmp_path)
    record = read_record(run)
    assert (run.adapter / "adapter_config.json").exists() and record.facts["merge_difference"] < 1e-4
    assert 0 < record.facts["trained"] < record.params and read_sealed(run.cost_path)["flops"] > 0
    assert rerank(config, run).scores == record.suites["reranking"].metrics
    with pytest.raises(ModelError, match="outputs, and a reranker has one"):
        CrossEncoder.load(two_outputs(folders["bert"], tmp_path / "two"))
    with pytest.raises(ConfigError, match="positions"):
        trained(settings(folders, max_length=999), tmp_path)


def two_outputs(base: Path, folder: Path) -> Path:
    models.save(models.load(base, "classifier", num_labels=2), models.load_tokenizer(base), folder)
    return folder


def test_a_budget_buys_steps(folders: dict[str, Path]) -> None:
    config = settings(folders)
    ten, hundred = (steps_for_budget(config, flops) for flops in (2e8, 2e9))
    assert 1 <= ten < hundred and steps_for_budget(config, 1e15, epochs=2) == 6


def test_an_arm_pays_for_what_it_reads_again(folders: dict[str, Path], tmp_path: Path) -> None:
    files = TaskFiles(folders["set"], *(tmp_path / f"{part}.jsonl" for part in ("train", "dev", "test")))
    given = {"name": "find", "kind": "retrieve", "depth": 8, "train": {"files": [str(files.folder)]}}
    task = TaskConfig.model_validate(given)
    work = replace(work_on(task, files, folders["bert"], "generic+rerank", tmp_path), flops=6e8)
    work = replace(work, task=task.model_copy(update={"max_length": 32, "max_epochs": 2}))
    run = task.task_kind.train(work)
    record, cost = read_record(run), read_sealed(run.cost_path)
    assert record.suites["find"].num_items == 8 and set(record.suites["find"].metrics) == set(
        task.task_kind.metrics
    )
    assert 0 < cost["scoring_flops"] < cost["flops"] <= work.flops and record.num_steps >= 1
    size = task.task_kind.size_for(work.task, task.task_kind.size(work.task), Adaptation.RERANK)
    assert cost["tokens_per_item"] == pytest.approx(8 * size.text_tokens, rel=0.5)
    assert (
        size.test_tokens == pytest.approx(8 * 8 * size.text_tokens)
        and size.row_tokens == 8 * size.text_tokens
    )
    plain = task.task_kind.size(work.task)
    assert task.task_kind.size_for(work.task, plain, Adaptation.FULL) == plain
    deeper = replace(work, task=work.task.model_copy(update={"depth": 100}), flops=cost["scoring_flops"])
    with pytest.raises(BudgetError, match="scoring on development data takes"):
        task.task_kind.train(deeper)
    assert task.task_kind.learns_by(Adaptation.RERANK) and Adaptation.RERANK.trains
    assert not task.model_copy(update={"kind": "classify"}).task_kind.learns_by(Adaptation.RERANK)


def test_reading_counts_tokens_without_padding_and_flops_with_it(folders: dict[str, Path]) -> None:
    cost = ReadingCost()
    cost.model = models.load(folders["bert"], "encoder")
    cost.count_reading(torch.tensor([[1, 1, 0], [1, 1, 1]]))
    cost.count_reading(torch.tensor([[1, 0]]))
    assert cost.num_tokens == 6
    three, two = (models.flops_per_token(cost.model, length).forward for length in (3, 2))
    assert cost.flops == pytest.approx(6 * three + 2 * two)
