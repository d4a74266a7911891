"""Contrastive training: exact at any microbatch, dropout included; losses against plain torch; data in,
folder out. Home of trainer.grad_cache, embed.objective and embed.rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_embed
import torch
import torch.nn.functional as F
from tiny_embed import gradients, relative_error

from adaptkit import ops
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.examples import hold_out
from adaptkit.embed.objective import Contrastive, Scored, vectors
from adaptkit.embed.recipe import embed
from adaptkit.embed.rows import Example, TextRows, groups_of
from adaptkit.embed.start import base_encoder
from adaptkit.embed.start import objective as objective_of
from adaptkit.errors import DataError, ModelError
from adaptkit.run import Run, read_json, read_jsonl
from adaptkit.run_record import read_record
from adaptkit.trainer import grad_cache
from adaptkit.trainer.parallel import Ranks


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("embed")
    return {
        "bert": tiny_embed.bert(root / "bert"),
        "dropout": tiny_embed.bert(root / "dropout", dropout=0.2),
        "qwen": tiny_embed.qwen(root / "qwen"),
        "pairs": tiny_embed.write(root / "pairs.jsonl", tiny_embed.pairs()),
        "set": tiny_embed.write_set(root / "set"),
    }


def rows(encoder: Encoder, num: int = 16, negatives: bool = False) -> TextRows:
    pairs = tiny_embed.pairs(num)
    examples = [
        Example(
            (row["anchor"], row["positive"], *([pairs[i - 3]["positive"]] if negatives else [])),
            f"pairs.jsonl:{i + 1}",
        )
        for i, row in enumerate(pairs)
    ]
    return TextRows(examples, encoder, ("", ""), groups_of(examples))


def cached_gradients(
    encoder: Encoder, objective: Contrastive, source: TextRows, size: int, seed: int = 0
) -> tuple[float, dict]:
    """Loss and gradients of 16 examples in microbatches of `size`, as the trainer accumulates them."""
    encoder.model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    batches = [source.collate(list(range(i, i + size)), seed=0, epoch=0) for i in range(0, 16, size)]

    def module(batch, features):
        return objective.features(encoder.model, batch)

    total = grad_cache.accumulate(module, objective, batches, 1 / 16, Ranks())
    return float(total), gradients(encoder.model)


@pytest.mark.parametrize("base", ["bert", "qwen"])
@pytest.mark.parametrize(
    "options",
    [{}, {"symmetric": True}, {"dimensions": (32, 16, 8)}, {"margin": 0.05}],
    ids=["plain", "symmetric", "sizes", "margin"],
)
def test_any_microbatch_gives_the_gradient_of_the_whole_batch(folders, base, options):
    encoder = Encoder.load(folders[base])
    encoder.model.double().train()
    source, objective = rows(encoder, negatives=True), Contrastive(encoder.layout.pooling, **options)
    batch = source.collate(list(range(16)), seed=0, epoch=0)
    out = objective.loss(encoder.model, batch)
    (out.total / 16).backward()
    whole = gradients(encoder.model)
    for size in (1, 4, 16):
        total, split = cached_gradients(encoder, objective, source, size)
        assert total == pytest.approx(float(out.total), rel=1e-9)
        assert relative_error(split, whole) < 1e-9


def test_any_microbatch_gives_the_gradient_of_the_whole_batch_in_float32(folders):
    encoder = Encoder.load(folders["bert"])
    encoder.model.train()
    source, objective = rows(encoder), Contrastive()
    whole = cached_gradients(encoder, objective, source, 16)[1]
    assert all(
        relative_error(cached_gradients(encoder, objective, source, size)[1], whole) < 1e-6
        for size in (1, 2, 8)
    )


def test_dropout_is_the_same_in_both_passes(folders):
    encoder = Encoder.load(folders["dropout"])
    encoder.model.double().train()
    source, objective = rows(encoder), Contrastive()
    total, found = cached_gradients(encoder, objective, source, 4, seed=3)
    encoder.model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    parts = [
        objective.features(encoder.model, source.collate(list(range(i, i + 4)), seed=0, epoch=0))
        for i in range(0, 16, 4)
    ]
    features, about = (torch.cat(side) for side in zip(*parts, strict=True))
    loss = objective.contrast(features, about, slice(None)).total
    (loss / 16).backward()
    assert (
        total == pytest.approx(float(loss), rel=1e-9)
        and relative_error(found, gradients(encoder.model)) < 1e-9
    )
    assert cached_gradients(encoder, objective, source, 4, seed=4)[0] != pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("implementation", ["chunked", "reference"])
@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_leaves_out_the_known_and_likely_positives(monkeypatch, implementation, margin, symmetric):
    from adaptkit_kernels import head

    monkeypatch.setattr(head, "CPU_ROWS", 4)
    monkeypatch.setattr(head, "CPU_LOGITS", 1)
    torch.manual_seed(0)
    queries, candidates = (
        F.normalize(torch.randn(n, 8, dtype=torch.float64)).requires_grad_() for n in (11, 30)
    )
    labels, groups = torch.randperm(30)[:11], torch.randint(12, (30,))

    def one_way(scores, labels, groups):
        total = 0.0
        for row, label in zip(scores, labels, strict=True):
            kept = [
                row[c]
                for c in range(len(row))
                if c == label or (groups[c] != groups[label] and not 0 < margin < row[c] - row[label])
            ]
            total = total + torch.stack(kept).div(0.07).logsumexp(0) - row[label] / 0.07
        return total

    scores = queries @ candidates.T
    wanted = one_way(scores, labels, groups)
    if symmetric:
        wanted = (wanted + one_way(scores[:, labels].T, torch.arange(11), groups[labels])) / 2
    options = {"groups_C": groups, "margin": margin, "symmetric": symmetric, "implementation": implementation}
    found = ops.info_nce(queries, candidates, labels, temperature=0.07, **options)
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(
        *(torch.autograd.grad(3 * loss, (queries, candidates)) for loss in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_texts_that_hang_together_are_no_negatives_of_each_other():
    told = [("a", "x"), ("b", "x"), ("b", "y"), ("c", "z", "n"), ("d", "w", "x")]
    groups = groups_of([Example(texts, "f:1") for texts in told])
    assert groups["a"] == groups["x"] == groups["b"] == groups["y"]
    assert len({groups[text] for text in ("a", "c", "n", "d")}) == 4 and groups["c"] == groups["z"]


def test_one_answer_to_many_questions_is_not_what_is_held_out():
    many = [Example((f"question {i}", "it is inherited"), f"f:{i}") for i in range(60)]
    others = [Example((f"what is {i}?", f"{i} is a number"), f"f:{i}") for i in range(100)]
    for swapped in ("it is inherited", "it is not", "nobody knows", "ask a doctor"):
        rest, held = hold_out([Example((row.texts[0], swapped), row.where) for row in many] + others, 0.1)
        assert (
            2 < len(held) < 30
            and swapped not in {row.texts[1] for row in held}
            and len(rest) + len(held) == 160
        )


def test_an_example_stands_at_its_place_whatever_the_lengths(folders):
    encoder = Encoder.load(folders["bert"])
    source = rows(encoder, negatives=True)
    with torch.no_grad():
        together = vectors(encoder.model, source.collate(list(range(16)), seed=0, epoch=0), "mean")
        alone = [vectors(encoder.model, source.collate([i], seed=0, epoch=0), "mean")[0] for i in range(16)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_scored_losses_are_their_definitions(folders):
    encoder = Encoder.load(folders["bert"])
    pairs = tiny_embed.pairs(6)
    examples = [
        Example((row["anchor"], row["positive"], pairs[i - 1]["positive"]), "f:1", i % 2)
        for i, row in enumerate(pairs)
    ]
    batch = TextRows(examples, encoder, ("", ""), groups_of(examples)).collate(
        list(range(6)), seed=0, epoch=0
    )
    cos = F.cosine_similarity(
        *(vectors(encoder.model, batch, "mean")[:, [i, j]] for i, j in ((0, 0), (1, 2))), dim=-1
    )
    target, near = batch["targets"], cos[:, 0]
    wanted = {
        "cosine": (near - target).square().sum(),
        "margin": sum(
            (1 - c) ** 2 if t else F.relu(0.4 - (1 - c)) ** 2 for c, t in zip(near, target, strict=True)
        ),
        "triplet": F.relu(0.4 + cos[:, 1] - near).sum(),
    }
    for kind, value in wanted.items():
        torch.testing.assert_close(
            Scored(kind, margin=0.4).loss(encoder.model, batch).total, value, rtol=1e-5, atol=1e-6
        )


def train(root: Path, folders: dict[str, Path], **changes) -> tuple[EmbedConfig, Run]:
    trainer = {
        "num_steps": 20,
        "global_batch_size": 16,
        "learning_rate": 5e-3,
        "threads": 1,
        "log_every": 5,
        "checkpoint_every": 5,
    }
    data = {"base": str(folders["bert"]), "train": {"files": [str(folders["set"])]}}
    config = EmbedConfig.model_validate(
        {**data, **changes, "trainer": {**trainer, **changes.get("trainer", {})}}
    )
    return config, Run.open(root, config.name, config.model_dump(mode="json"))


@pytest.mark.parametrize("base", ["bert", "qwen"])
@pytest.mark.parametrize("kind", ["none", "lora"])
def test_training_makes_the_dev_answers_found(folders, tmp_path, base, kind):
    config, run = train(
        tmp_path,
        folders,
        base=str(folders[base]),
        adapter={"kind": kind},
        dimensions=[16],
        hard_negatives=1,
        test={"files": [str(folders["set"])]},
        trainer={"microbatch_size": 4, "num_steps": 40},
    )
    result = embed(config, run)
    before = Encoder.load(folders[base])
    assert result.dev_scores["ndcg_at_10"] > 0.6 and result.scores["ndcg_at_10"] > 0.3
    items = list(read_jsonl(run.items("retrieval")))
    assert len(items) == 8 and len(items[0]["ranking"]) == 10
    loaded = Encoder.load(run.model)
    assert loaded.layout.dimensions == (32, 16) and loaded.layout.pooling == before.layout.pooling
    assert loaded.digest != before.digest and (run.adapter.exists() == (kind == "lora"))
    assert "matryoshka_dimensions" in read_json(run.model / "config.json")
    card = (run.model / "README.md").read_text()
    assert "| ndcg at 10 |" in card and str(tmp_path) not in card
    assert embed(config, run) == result


def test_sizes_count_what_they_are_given(folders):
    encoder = Encoder.load(folders["bert"])
    batch = rows(encoder).collate(list(range(16)), seed=0, epoch=0)
    alone = {
        size: float(Contrastive(dimensions=(size,)).loss(encoder.model, batch).total) for size in (32, 8)
    }
    found = Contrastive(dimensions=(32, 8), weights=(1.0, 3.0)).loss(encoder.model, batch).total
    assert float(found) == pytest.approx((alone[32] + 3 * alone[8]) / 4, rel=1e-5)
    scored = [
        float(Scored("cosine", dimensions=(size,)).loss(encoder.model, batch).total) for size in (32, 8)
    ]
    both = Scored("cosine", dimensions=(32, 8), weights=(1.0, 3.0)).loss(encoder.model, batch).total
    assert float(both) == pytest.approx((scored[0] + 3 * scored[1]) / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "sizes", "weights"),
    [
        ([8, 16], (32, 16, 8), ()),
        ({"16": 0.5, "8": 2}, (32, 16, 8), (1.0, 0.5, 2.0)),
        ({32: 4}, (32,), (4.0,)),
        ([], (), ()),
    ],
)
def test_sizes_are_a_list_or_have_weights(folders, tmp_path, given, sizes, weights):
    config, run = train(tmp_path, folders, dimensions=given)
    encoder = base_encoder(config)
    made = objective_of(config, encoder)
    assert (made.dimensions, made.weights, encoder.layout.dimensions) == (sizes, weights, sizes)
    assert EmbedConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValueError, match="above 0"):
        train(tmp_path, folders, dimensions={8: 0})


@pytest.mark.parametrize("loss", ["cosine", "margin", "triplet", "simcse"])
def test_every_loss_trains(folders, tmp_path, loss):
    pairs = tiny_embed.pairs(40)
    kinds = {
        "cosine": [
            {"text1": r["anchor"], "text2": pairs[i - i % 2]["positive"], "score": 5.0 - 5 * (i % 2)}
            for i, r in enumerate(pairs)
        ],
        "margin": [
            {"text1": r["anchor"], "text2": pairs[i - i % 2]["positive"], "label": 1 - i % 2}
            for i, r in enumerate(pairs)
        ],
        "triplet": [{**r, "negative": pairs[i - 1]["positive"]} for i, r in enumerate(pairs)],
        "simcse": [{"text": text} for text in tiny_embed.texts(60)],
    }
    path = tiny_embed.write(tmp_path / "rows.jsonl", kinds[loss])
    config, run = train(
        tmp_path,
        folders,
        base=str(folders["dropout"]),
        loss=loss,
        train={"files": [str(path)]},
        trainer={"log_every": 1, "num_steps": 30},
    )
    result = embed(config, run)
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert set(result.dev_scores) == {
        "loss",
        *({"cosine": ["spearman"], "margin": ["spearman"], "simcse": []}.get(loss, result.dev_scores)),
    }


def test_pairs_come_from_the_structure_of_text(folders, tmp_path):
    article = (
        "A title of study {0}\nThe body of study {0} is longer than its title by far.\n"
        "## How dose {0} was found\nDose {0} was found by trying, in many steps.\n\nMore.\n"
        "## Results\nToo short a heading."
    )
    code = 'def area(r):\n    """Area of circle {0} of radius r."""\n    return 3.14{0} * r * r\n'
    documents = [{"text": form.format(i)} for form, num in ((article, 12), (code, 6)) for i in range(num)]
    path = tiny_embed.write(tmp_path / "text.jsonl", documents)
    config, run = train(tmp_path, folders, train={"files": [str(path)]}, trainer={"num_steps": 2})
    embed(config, run)
    splits = read_record(run).splits
    counts = {"title to body": 12, "heading to paragraph": 12, "docstring to code": 6}
    assert {kind: splits["train"].facts[kind] for kind in counts} == counts
    assert splits["train"].documents == 18 and splits["train"].files[0]["name"] == str(path)
    assert splits["train"].facts["examples"] + splits["dev"].facts["examples"] == 30
    assert splits["dev"].kind == "held out of train"


def test_a_killed_training_goes_on_where_it_was(folders, tmp_path):
    config, run = train(tmp_path / "whole", folders, hard_negatives=1, base=str(folders["dropout"]))
    embed(config, run)
    config, again = train(tmp_path / "cut", folders, hard_negatives=1, base=str(folders["dropout"]))
    embed(config, again)
    shutil.rmtree(again.checkpoints / "step-000020")
    again.update_manifest(status="running")
    embed(config, again)
    assert again.manifest()["training"]["train"]["resumed_from_step"] == 15
    assert (again.model / "model.safetensors").read_bytes() == (run.model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "rows", "error", "match"),
    [
        ({"loss": "cosine"}, [{"anchor": "a b", "positive": "c d"}], DataError, "needs scored pairs"),
        (
            {"loss": "triplet"},
            [{"anchor": "a b", "positive": "c d"}],
            DataError,
            "needs anchor, positive and negative",
        ),
        ({}, [{"text": "no structure here"}], DataError, "no document has a title"),
        ({"loss": "simcse"}, [{"text": f"some text {i}"} for i in range(30)], ModelError, "no dropout"),
        ({"dimensions": [64]}, [{"anchor": "a b", "positive": "c d"}], ModelError, "32 dimensions"),
        ({"hard_negatives": 99}, tiny_embed.pairs(30), DataError, "can be negatives"),
    ],
)
def test_what_cannot_be_learnt_is_told(folders, tmp_path, changes, rows, error, match):
    path = tiny_embed.write(tmp_path / "rows.jsonl", rows)
    config, run = train(tmp_path, folders, train={"files": [str(path)]}, **changes)
    with pytest.raises(error, match=match):
        embed(config, run)
    assert run.manifest()["status"] == "failed"
    assert json.dumps(run.manifest())
