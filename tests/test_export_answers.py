"""Answers of a model on held-out text: the same figures as the trainer and other libraries give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_exports import write_models

from adaptkit import models
from adaptkit.export.driver import Options, export
from adaptkit.export.parity.answers import ask, embed
from adaptkit.export.parity.evaluation_data import find_evaluation_data
from adaptkit.export.resolve import resolve
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.models.sentence.layout import read_layout
from adaptkit.run import Run, read_json, write_json


def test_bits_per_byte_of_the_gate_is_the_trainers_own_figure(notes: Run) -> None:
    source, data = resolve(notes.path), find_evaluation_data(resolve(notes.path))
    assert data.seq_len == 64
    model, tokenizer = models.load(source.folder, "causal"), models.load_tokenizer(source.folder)
    answers = ask(source, model, tokenizer, data)
    assert answers.bits_per_byte == bits_per_byte(
        score_documents(model, tokenizer, data.passages, seq_len=64)
    )
    assert answers.bits_per_byte == pytest.approx(
        read_json(notes.scores("language"))["metrics"]["bits_per_byte"], abs=1e-5
    )
    assert len(answers.greedy) == 8 and answers.logprobs is not None and len(answers.logprobs) > 100


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_embeddings_are_pooled_as_the_folder_says(tmp_path: Path, tiny_text: list[str], mode: str) -> None:
    folder = write_models(tmp_path, tiny_text)["bert"]
    (folder / "1_Pooling").mkdir()
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        folder / "modules.json",
        [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds],
    )
    key = {
        "mean": "pooling_mode_mean_tokens",
        "cls": "pooling_mode_cls_token",
        "lasttoken": "pooling_mode_lasttoken",
    }[mode]
    write_json(folder / "1_Pooling" / "config.json", {key: True})
    model, tokenizer = models.load(folder, "encoder").eval(), models.load_tokenizer(folder)
    texts = ["the nurse reads", "every old library forgets the missing page in room 12"]
    vectors = embed(model, tokenizer, texts, read_layout(folder, model.config, tokenizer))
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double()
        alone = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[mode]
        assert float(torch.nn.functional.normalize(alone, dim=0) @ vector) > 1 - 1e-6


def test_sentence_transformers_embeds_as_the_gate_does(model_folders, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from adaptkit.export.parity.answers import embed
    from adaptkit.models.sentence.layout import read_layout

    folder = export(resolve(model_folders["bert"]), "fp32", Options(out=tmp_path / "out")).folder
    texts = ["the nurse reads", "every old library forgets the missing page in room 12"]
    theirs = torch.tensor(
        sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)
    ).double()
    model, tokenizer = models.load(folder, "encoder").eval(), models.load_tokenizer(folder)
    ours = embed(model, tokenizer, texts, read_layout(folder, model.config, tokenizer))
    assert float((theirs * ours).sum(-1).min()) > 1 - 1e-6
