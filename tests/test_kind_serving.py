"""Models with several labels, numbers and tags, exported and served: what they are called, how their answers
are checked, what their cards say, and who is asked where vLLM cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adaptkit.errors import ModelError, ServerError
from adaptkit.export.papers.model_card import head_notes
from adaptkit.export.parity.answers import Answers
from adaptkit.export.parity.gate import Limits, compare
from adaptkit.export.parity.http_check import check_answers
from adaptkit.export.parity.reference import activated
from adaptkit.export.record import ExportRecord
from adaptkit.export.source import LABEL_SET, ONE_CLASS, REGRESSION, Source, of_model
from adaptkit.serve.engine.first_answers import check_answer
from adaptkit.serve.gateway.routes import routes_of_kind
from adaptkit.serve.preflight import check_tagger
from adaptkit.trainer.card import SNIPPETS


def folder_of(path: Path, architecture: str, names: list[str], **fields: object) -> Source:
    path.mkdir()
    config = {"architectures": [architecture], "id2label": dict(enumerate(names)), **fields}
    (path / "config.json").write_text(json.dumps(config))
    return of_model(path)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Source]:
    classes, tags = "BertForSequenceClassification", "BertForTokenClassification"
    threshold = {"problem_type": LABEL_SET, "decision_threshold": 0.35}
    return {
        "labels": folder_of(tmp_path / "labels", classes, ["a", "b"], **threshold),
        "number": folder_of(tmp_path / "number", classes, ["score"], problem_type=REGRESSION),
        "tags": folder_of(tmp_path / "tags", tags, ["O", "B-p", "I-p"]),
        "reranker": folder_of(tmp_path / "reranker", classes, ["LABEL_0"]),
        "llama": folder_of(tmp_path / "llama", "LlamaForTokenClassification", ["O", "B-p", "I-p"]),
    }


def test_each_is_served_as_what_it_answers(models: dict[str, Source]) -> None:
    kinds = {name: source.kind for name, source in models.items()}
    assert kinds == {
        "labels": "classify",
        "number": "classify",
        "tags": "tag",
        "reranker": "rerank",
        "llama": "tag",
    }
    assert models["tags"].labels == ("O", "B-p", "I-p") and models["number"].labels == ("score",)
    assert routes_of_kind("tag") == ["/pooling", "/tokenize", "/detokenize"]


def test_a_tagger_that_vllm_lacks_is_refused_with_what_answers_instead(models: dict[str, Source]) -> None:
    check_tagger(models["tags"])
    check_tagger(models["labels"])
    with pytest.raises(ModelError, match="vLLM 0.32 serves no LlamaForTokenClassification") as error:
        check_tagger(models["llama"])
    assert "transformers.pipeline('token-classification', '" in str(error.value)


class Says:
    """A client that gives one answer."""

    def __init__(self, answer: object):
        self.answer = answer

    def classify(self, *_: object, **__: object) -> object:
        return self.answer

    tag = classify


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("labels", [("a", [0.9, 0.8])], [("a", [0.9])]),
        ("number", [("score", [132.5])], [("score", [float("nan")])]),
        ("tags", [[[0.5, 0.25, 0.25]]], [[[0.5, 0.5]]]),
    ],
)
def test_the_first_answer_is_checked_by_what_it_means(
    models: dict[str, Source], name: str, good: object, bad: object
) -> None:
    check_answer(Says(good), models[name], "m")  # type: ignore[arg-type]
    with pytest.raises(ServerError, match="its first answer is none"):
        check_answer(Says(bad), models[name], "m")  # type: ignore[arg-type]


def test_tags_of_other_weights_or_of_other_tokens_are_refused() -> None:
    reference = {"kind": "tag", "texts": ["x"], "probabilities": [[[0.9, 0.1], [0.2, 0.8]]]}
    check_answers(Says([[[0.9, 0.1], [0.2, 0.8]]]), "m", reference, exact=True)  # type: ignore[arg-type]
    for other in ([[[0.5, 0.5], [0.2, 0.8]]], [[[0.9, 0.1]]]):
        with pytest.raises(ServerError, match="does not answer as transformers does"):
            check_answers(Says(other), "m", reference, exact=True)  # type: ignore[arg-type]


def test_a_number_is_held_against_its_size() -> None:
    reference = {"kind": "classify", "texts": ["x"], "probabilities": [[200.0]]}
    check_answers(Says([("score", [200.5])]), "m", reference, exact=True)  # type: ignore[arg-type]
    with pytest.raises(ServerError):
        check_answers(Says([("score", [210.0])]), "m", reference, exact=True)  # type: ignore[arg-type]


def test_answers_go_through_the_function_of_their_problem() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    assert torch.equal(activated(logits, REGRESSION), logits)
    assert torch.equal(activated(logits, LABEL_SET), logits.sigmoid())
    assert torch.equal(activated(logits, ONE_CLASS), logits.softmax(-1))


def test_a_grown_error_is_a_loss() -> None:
    before, after = (
        Answers(scores={"spearman": 0.9, "mae": 1.0}),
        Answers(scores={"spearman": 0.8, "mae": 1.5}),
    )
    losses = {check.name: check.loss for check in compare(before, after, Limits(0.1, 0.2), 10)}
    assert losses == pytest.approx({"spearman": 0.1, "mae": 0.5})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("labels", "chosen on development data on, which is 0.35 (decision_threshold in config.json)"),
        ("number", "Its one output is the number itself"),
        ("tags", "It knows the tags O, B-p, I-p: B- begins a span"),
    ],
)
def test_a_card_says_how_outputs_are_read(models: dict[str, Source], name: str, said: str) -> None:
    source = models[name]
    export = ExportRecord(
        name="m",
        kind=source.kind,
        format="fp32",
        stores="",
        needs="any",
        serving_dtype={},
        licence="",
        labels=source.labels,
    )
    assert said in head_notes(source.folder, export)[0]
    assert 'pipeline("token-classification"' in "\n".join(SNIPPETS["token-classification"])
