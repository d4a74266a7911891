"""Ask a trained model in this process, without a server: load it once, then give it text after text.

    model = load(resolve("runs/finetune-1a2b3c4d"))
    model.answer("the printer is out of paper").lines      # what people read
    model.answer("the printer is out of paper").data       # the same for programs

What a model answers follows from its kind: labels, numbers, names in a text, written text, or the nearest of
some documents. A fine-tuned model sees a text as it saw those that it was scored on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from adaptkit import models
from adaptkit.data.files import find_files
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.supervised import prompt_ids
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import beginning, documents
from adaptkit.embed.retrieval_metrics import ranked
from adaptkit.errors import ConfigError, DataError
from adaptkit.export.parity import answers
from adaptkit.export.record import ConfidenceRecord
from adaptkit.export.source import LABEL_SET, REGRESSION, Source, problem_type
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_template import context_length
from adaptkit.finetune.tasks import Task, task_of
from adaptkit.models.control_tokens import encode_prompt
from adaptkit.run_record import RecipeKind
from adaptkit.trainer.device import default_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SHOWN_LABELS = 5
SMALL_WRITER = 50_000_000
"""Parameters below which a model writes broken sentences whatever it learnt."""


@dataclass(frozen=True)
class LocalAnswer:
    """What a model answered to one text."""

    lines: tuple[str, ...]
    data: dict[str, Any]


class LocalModel(Protocol):
    """A model in memory."""

    def answer(self, text: str) -> LocalAnswer:
        """Answer one text."""


def load(
    source: Source, *, search_in: Sequence[str] = (), max_new_tokens: int = 64, k: int = 5
) -> LocalModel:
    """Load the model of a run, study or folder.

    Args:
        search_in: files with the documents that an encoder or a reranker chooses from.
        max_new_tokens: what a writing model writes at most.
        k: documents shown.
    Raises: ModelError, DataError; ConfigError for a model that searches without documents.
    """
    if source.kind in ("embed", "rerank"):
        if not search_in:
            what = f"{source.name} finds texts, and there are none to look through"
            fix = "name files with text: --in FILE"
            raise ConfigError(what, where="command line", fix=fix)
        files, _ = find_files(list(search_in))
        texts = [(name, text) for name, text in documents(files)]
        if source.kind == "embed":
            return _Searcher(source, texts, k)
        return _Reranker(source, texts, k)
    if search_in:
        what = f"{source.name} does not search: it answers with {_ANSWERS_WITH[source.kind]}"
        raise ConfigError(what, where="--in", fix="leave --in out")
    model, tokenizer = _load(source)
    if source.record is not None and source.record.recipe is RecipeKind.FINETUNE:
        task = task_of(source.record, tokenizer)
        return _TaskModel(task, source.record.facts["kind"], model)
    if source.kind == "classify":
        return _Classifier(source, model, tokenizer)
    if source.kind == "tag":
        what = "names of a text can be tried with models that `adaptkit finetune` or a study trained"
        raise ConfigError(what, where=str(source.folder), fix="give such a run, or serve this folder")
    return _Writer(model, tokenizer, max_new_tokens)


def describe(source: Source) -> list[str]:
    """Say what is being tried, honestly: what was picked and why, how large it is, and what it scored."""
    lines = [f"{source.name}: {source.why}"]
    record = source.record
    if record is not None and record.params:
        lines.append(f"{record.params:,} parameters, {record.num_steps:,} training steps")
    if record is not None and source.suite in record.suites:
        suite = record.suites[source.suite]
        scores, rows = suite.metrics, f"{suite.num_items:,} {suite.judged_on} items"
        if not scores:
            scores, rows = suite.dev, "development items"
        words = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items() if name != "loss"]
        if words:
            lines.append(f"scored {', '.join(words)} on {rows}: it is as good, and as bad, on your text")
    if source.adaptation in ("prompt", "rag"):
        lines.append("the study asked it through a prompt of its own; here it sees your text alone")
    if source.kind == "generate" and record is not None and 0 < record.params < SMALL_WRITER:
        lines.append("a model this small writes broken sentences, whatever it learnt")
    return lines


_ANSWERS_WITH: Mapping[str, str] = {
    "generate": "text that it writes",
    "classify": "a label",
    "tag": "names in the text",
}
_HEADS: Mapping[str, models.Kind] = {
    "generate": "causal",
    "classify": "classifier",
    "rerank": "classifier",
    "tag": "tagger",
}


def _load(source: Source) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    model = models.load(source.folder, _HEADS[source.kind])
    model.to(default_device())  # type: ignore[arg-type]  # transformers' wrapper hides torch's signature
    model.eval()
    return model, models.load_tokenizer(source.folder)


class _TaskModel:
    """A fine-tuned model with its task: text goes in as in training."""

    def __init__(self, task: Task, kind: str, model: PreTrainedModel):
        self.task, self.kind, self.model = task, kind, model

    def answer(self, text: str) -> LocalAnswer:
        row = Row(_values(self.kind, text, self.task.label_names), "", "text")
        dataset = Dataset([row], str(self.task.want), {})
        with torch.inference_mode():
            item = self.task.rows(self.model, dataset)[0]
        return _shown_item(item, text)


def _values(kind: str, text: str, labels: Sequence[str]) -> dict[str, Any]:
    """A row of this kind of task: the text, and in place of the true answer something that does not count.

    Raises: DataError for one text where two are compared.
    """
    if kind == "sft":
        return {"prompt": text, "completion": "-"}
    if kind == "multi_label":
        return {"text": text, "labels": []}
    if kind == "spans":
        return {"text": text, "spans": []}
    if kind == "regression":
        return {"text": text, "score": 0.0}
    if kind == "pairs":
        first, tab, second = text.partition("\t")
        if not tab:
            fix = "write both, with a tab between them"
            raise DataError("this model compares two texts, and one was given", where="TEXT", fix=fix)
        return {"text1": first, "text2": second, "label": labels[0]}
    return {"text": text, "label": labels[0]}


def _shown_item(item: Mapping[str, Any], text: str) -> LocalAnswer:
    """What an item row says of an answer; the row's own label means nothing here."""
    if "predicted_spans" in item:
        spans = [(int(start), int(end), str(label)) for start, end, label in item["predicted_spans"]]
        lines = tuple(f"{label}: {text[start:end]}" for start, end, label in spans) or ("nothing named",)
        rows = [{"label": label, "start": s, "end": e, "text": text[s:e]} for s, e, label in spans]
        return LocalAnswer(lines, {"spans": rows})
    if "predicted_score" in item:
        return LocalAnswer((f"{item['predicted_score']:.3f}",), {"score": item["predicted_score"]})
    if "predicted_labels" in item:
        chosen = list(item["predicted_labels"])
        data = {"labels": chosen, "probabilities": item.get("probabilities", {})}
        return LocalAnswer((", ".join(chosen) or "no label applies",), data)
    if "probabilities" in item:
        return _shown_labels(dict(item["probabilities"]))
    return LocalAnswer((str(item["prediction"]),), {"text": item["prediction"]})


def _shown_labels(probabilities: dict[str, float]) -> LocalAnswer:
    best = sorted(probabilities, key=lambda name: -probabilities[name])
    lines = tuple(f"{probabilities[name]:.3f}  {name}" for name in best[:SHOWN_LABELS])
    return LocalAnswer(lines, {"label": best[0], "probabilities": probabilities})


def _sureness(judged: Mapping[str, Any], record: ConfidenceRecord) -> str:
    """How sure an exported classifier is, and whether it hands the text to a person: as its server says."""
    sure = f"confidence {judged['confidence']:.3f} after scaling"
    if record.threshold is None:
        return f"{sure}; no threshold was found below which it should abstain"
    if judged["abstain"]:
        return f"abstains: {sure}, below {record.threshold:.3f}; a person should decide"
    return f"{sure}, not below {record.threshold:.3f}: it does not abstain"


class _Classifier:
    """A classifier of any folder; an exported one says also whether it abstains."""

    def __init__(self, source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
        self.model, self.tokenizer, self.labels = model, tokenizer, source.labels
        self.problem = problem_type(source.folder)
        self.confidence = source.export.confidence if source.export is not None else None

    def answer(self, text: str) -> LocalAnswer:
        outputs = answers.logits(self.model, self.tokenizer, [text], context_length(self.model))[0]
        if self.problem == REGRESSION:
            return LocalAnswer((f"{float(outputs[0]):.3f}",), {"score": float(outputs[0])})
        values = outputs.sigmoid() if self.problem == LABEL_SET else outputs.softmax(-1)
        shown = _shown_labels(dict(zip(self.labels, values.tolist(), strict=True)))
        if self.confidence is None:
            return shown
        judged = self.confidence.judge(values.tolist())
        return LocalAnswer((*shown.lines, _sureness(judged, self.confidence)), {**shown.data, **judged})


class _Writer:
    """A language model: it answers where it has a chat template, and goes on with the text elsewhere."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_new_tokens: int):
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens

    def answer(self, text: str) -> LocalAnswer:
        if self.tokenizer.chat_template:
            prompt = prompt_ids(Row({"prompt": text, "completion": "-"}, "", "text"), self.tokenizer)
        else:
            prompt = encode_prompt(self.tokenizer, text)
        room = context_length(self.model) - len(prompt)
        if room < 1:
            what = f"{len(prompt)} tokens leave no room for an answer: this model reads {room + len(prompt)}"
            raise DataError(what, where="TEXT", fix="give a shorter text")
        written = generate(self.model, self.tokenizer, [prompt], min(self.max_new_tokens, room))[0]
        words = str(self.tokenizer.decode(written, skip_special_tokens=True))
        shown = words.strip() or "(nothing: it ends at once)"
        return LocalAnswer(tuple(shown.splitlines()), {"text": words})


class _Searcher:
    """An encoder with the vectors of some documents."""

    def __init__(self, source: Source, texts: Sequence[tuple[str, str]], k: int):
        self.encoder, self.texts, self.k = Encoder.load(source.folder), dict(texts), k
        self.encoder.check_products()
        prompt = self.encoder.layout.prompt_if_any("document")
        self.vectors_ND = self.encoder.encode(list(self.texts.values()), prompt=prompt)

    def answer(self, text: str) -> LocalAnswer:
        query_D = self.encoder.encode([text], prompt=self.encoder.layout.prompt_if_any("query"))[0]
        return _shown_documents(self.texts, (self.vectors_ND @ query_D).tolist(), self.k)


class _Reranker:
    """A model that scores how well a document answers a question, over some documents."""

    def __init__(self, source: Source, texts: Sequence[tuple[str, str]], k: int):
        self.model, self.tokenizer = _load(source)
        self.texts, self.k = dict(texts), k

    def answer(self, text: str) -> LocalAnswer:
        pairs = [(text, document) for document in self.texts.values()]
        scores = answers.pair_logits(self.model, self.tokenizer, pairs, context_length(self.model))
        return _shown_documents(self.texts, scores[:, 0].tolist(), self.k)


def _shown_documents(texts: Mapping[str, str], scores: Sequence[float], k: int) -> LocalAnswer:
    names, by_name = list(texts), dict(zip(texts, scores, strict=True))
    nearest = ranked(np.array(scores, np.float32), names, k)
    lines = tuple(f"{by_name[name]:.3f}  {name}  {beginning(texts[name])}" for name in nearest)
    rows = [{"id": name, "score": by_name[name], "text": texts[name]} for name in nearest]
    return LocalAnswer(lines, {"found": rows})
