"""A study's trained classifiers as the judge of new texts. Home of labelling.study_judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_study import write_study
from transformers import BertConfig

from adaptkit import models
from adaptkit.data import DataConfig, train_tokenizer
from adaptkit.errors import DataError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.labelling.study_judge import study_judge
from adaptkit.run import Run
from adaptkit.study.results import Results, collect
from adaptkit.trainer.config import TrainerConfig

TASK = "rct_role"
TEXTS = [f"{word} {number}" for number in range(12) for word in ("apple", "saw")]


def trained(folder: Path, seed: int) -> Run:
    """A tiny classifier, trained for two steps."""
    tokenizer = train_tokenizer(TEXTS * 4, "bpe", 300, masked=True)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    models.save(models.build(shape, "masked", seed=seed), tokenizer, folder / "base")
    rows = [{"text": text, "label": text.split()[0]} for text in TEXTS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainerConfig(num_steps=2, global_batch_size=4, learning_rate=0.01, seed=seed, threads=1)
    config = FinetuneConfig(
        name=f"tiny{seed}",
        base=str(folder / "base"),
        train=DataConfig(files=[str(folder / "rows.jsonl")]),
        max_length=16,
        trainer=settings,
    )
    run = Run.open(folder / "runs", config.name, config.model_dump(mode="json"))
    finetune(config, run)
    return run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A study of which one arm is a trained classifier: one model for seed 0, another for the others."""
    root = tmp_path_factory.mktemp("judge")
    study = write_study(root, num_documents=20, num_rows=40, arms=("generic+full", "scratch+full"))
    runs = [trained(root / str(seed), seed) for seed in (0, 1)]
    for cell in collect(study).of(TASK, "generic+full"):
        run = runs[min(cell.seed, 1)]
        shutil.copytree(run.model, Run(cell.run).model)
        Run(cell.run).update_manifest(record=run.manifest()["record"])
    for cell in collect(study).of(TASK, "scratch+full"):
        words = {**runs[0].manifest()["record"]}
        words["facts"] = {**words["facts"], "kind": "label_words"}
        Run(cell.run).update_manifest(record=words)
    return collect(study)


def test_it_is_the_mean_over_the_seeds_models(results: Results) -> None:
    judge = study_judge(results, TASK)
    assert (judge.task, judge.arm, len(judge.cells)) == (TASK, "generic+full", len(results.record.seeds))
    chances_NC = judge(["apple 3", "saw 40"])
    each = []
    for cell in judge.cells:
        model = models.load(Run(cell.run).model, "classifier").eval()
        tokenizer = models.load_tokenizer(Run(cell.run).model)
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in ("apple 3", "saw 40")]
        each.append([one.softmax(-1).tolist() for one in logits])
    assert chances_NC == pytest.approx(np.mean(each, axis=0), abs=1e-5)
    assert each[0] != pytest.approx(np.array(each[1]), abs=1e-3)


def test_what_is_no_trained_classifier_is_refused(results: Results) -> None:
    with pytest.raises(DataError, match="did you mean 'rct_role'"):
        study_judge(results, "rct_rule")
    with pytest.raises(DataError, match=f"'scratch.full' is no trained classifier on {TASK}"):
        study_judge(results, TASK, "scratch+full")
