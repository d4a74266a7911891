"""Write the model card, README.md of a trained model's folder, from its record; it says what is unknown.

It holds counts, digests, scores and limits; never a local path, a time or a line of anybody's text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from adaptkit.adapters import base_name
from adaptkit.errors import ModelError
from adaptkit.model_origin import UNKNOWN_LICENCE, hub_id, licence_files, stated_licence
from adaptkit.models import find
from adaptkit.run import Run, read_json, write_text
from adaptkit.run_record import ModelKind, RunRecord

PURPOSES = {
    ModelKind.CAUSAL: (
        "text-generation",
        "continues text",
        "Drafts and completions that a person reads: it writes plausible text that can be wrong, and it can "
        "repeat parts of its training text word for word.",
    ),
    ModelKind.MASKED: (
        "fill-mask",
        "fills gaps in a text",
        "A base for classifiers and encoders: fine-tune it before use; its guesses for a gap are no facts.",
    ),
    ModelKind.CLASSIFIER: (
        "text-classification",
        "labels or scores a text",
        "Texts like those it was trained on: it must choose among the outputs it knows, also for a text that "
        "fits none.",
    ),
    ModelKind.TAGGER: (
        "token-classification",
        "marks spans of a text, each with a label",
        "Texts like those it was trained on: it misses names, and marks some that are none.",
    ),
    ModelKind.ENCODER: (
        "sentence-similarity",
        "turns text into vectors that are close for related texts",
        "Search and comparison of texts like those it was trained on: near does not mean correct.",
    ),
    ModelKind.RERANKER: (
        "text-ranking",
        "scores how well a text answers a question",
        "The second stage of a search: it sorts what a first stage has found, and finds nothing by itself. "
        "Its scores order texts, they are no probabilities.",
    ),
}
"""Kind of model -> its pipeline on the hub, what it does, and what it is meant for."""
SNIPPETS = {
    "text-generation": (
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
        'written = model.generate(**tokenizer("The", return_tensors="pt"), max_new_tokens=20)',
        "print(tokenizer.decode(written[0], skip_special_tokens=True))",
    ),
    "fill-mask": (
        "from transformers import pipeline",
        'fill = pipeline("fill-mask", ".")',
        'print(fill(f"a {fill.tokenizer.mask_token} text"))',
    ),
    "text-classification": (
        "from transformers import pipeline",
        'label = pipeline("text-classification", ".", top_k=None)',
        'print(label("a text"))',
    ),
    "text-ranking": (
        "from transformers import pipeline",
        'score = pipeline("text-classification", ".", function_to_apply="none")',
        'print(score({"text": "a question", "text_pair": "a text"}))',
    ),
    "regression": (
        "from transformers import pipeline",
        'score = pipeline("text-classification", ".", function_to_apply="none")',
        'print(score("a text"))',
    ),
    "token-classification": (
        "from transformers import pipeline",
        'find = pipeline("token-classification", ".", aggregation_strategy="first")',
        'print(find("a text"))',
    ),
    "sentence-similarity": (
        "from sentence_transformers import SentenceTransformer",
        'model = SentenceTransformer(".")',
        'print(model.similarity(model.encode(["a question"]), model.encode(["a text", "another text"])))',
    ),
}
"""Pipeline on the hub, or `regression` -> Python that loads the working directory as a model and asks it."""


def write_card(run: Run, record: RunRecord, more: Mapping[str, str]) -> None:
    """Write README.md and the licence texts of the base into the folder of a run's model.

    Args:
        more: further lines of the card's first table, by name.
    """
    if record.model_kind is None or not (run.model / "config.json").is_file():
        return
    origin = record.base or record.teacher
    origin_folder = _folder(origin)
    if origin_folder is not None:
        for path in licence_files(origin_folder):
            shutil.copyfile(path, run.model / path.name)
    tag, purpose, intended = PURPOSES[record.model_kind]
    licence, in_words = _licence(record, origin_folder)
    facts = {
        "began with": _named(record.base) or "random weights",
        "learnt from": _named(record.teacher),
        "trained": _trained(record),
        "parameters": f"{record.params:,}" if record.params else "",
        "longest training text": f"{record.seq_len:,} tokens" if record.seq_len else "",
        **more,
        "licence": in_words,
    }
    lines = [
        *_header(tag, licence, hub_id(record.base)),
        f"# {run.path.resolve().name}",
        "",
        f"This model {purpose}.",
        "",
        *_table(("", ""), facts.items()),
        *("", "## Intended use", "", intended),
        "It was measured on the data below and on nothing else; bias, toxicity and memorised personal data "
        "were not audited.",
        *("", "## Use", "", "In this folder:", "", "```python", *snippet(run.model, tag), "```"),
        *("", "## Data", "", *_data(record)),
        *("", "## Scores", "", *_scores(record)),
        "",
    ]
    write_text(run.model / "README.md", "\n".join(lines))


def snippet(folder: Path, tag: str) -> tuple[str, ...]:
    """Python that asks this model, to be run in its folder."""
    if tag == "sentence-similarity" and not (folder / "modules.json").is_file():
        return (
            "from transformers import AutoModel, AutoTokenizer",
            'model, tokenizer = AutoModel.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
            'print(model(**tokenizer("a text", return_tensors="pt")).last_hidden_state.mean(1))',
        )
    if tag == "text-classification" and read_json(folder / "config.json").get("problem_type") == "regression":
        return SNIPPETS["regression"]
    return SNIPPETS[tag]


def _folder(model: str) -> Path | None:
    """Where a model lies; None for no model, one behind HTTP, or one that is not here any more."""
    if not model or "://" in model:
        return None
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    try:
        return find(model)
    except ModelError:
        return None


def _named(model: str) -> str:
    """A model as a card may name it: its hub id, else its folder's name with a digest, never a place."""
    if not model:
        return ""
    if "://" in model:
        return "a model behind HTTP"
    return hub_id(model) or base_name(model)


def _licence(record: RunRecord, folder: Path | None) -> tuple[str, str]:
    """The tag for the card's header, and the same in words."""
    if not record.base and not record.teacher:
        return "other", "no base model: whoever owns the training text decides"
    role = "base" if record.base else "teacher"
    stated = UNKNOWN_LICENCE if folder is None else stated_licence(folder)
    if stated in (UNKNOWN_LICENCE, "other", "see-below"):
        return "other", f"not stated for its {role}: look it up before you pass this on"
    return stated, f"{stated}, carried over from its {role}"


def _trained(record: RunRecord) -> str:
    if record.adapter is None:
        return f"all weights, {record.num_steps:,} steps"
    return f"{record.adapter.kind} of rank {record.adapter.rank}, merged; {record.num_steps:,} steps"


def _header(tag: str, licence: str, base: str) -> list[str]:
    library = "sentence-transformers" if tag == "sentence-similarity" else "transformers"
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {tag}", f"license: {licence}"]
    if licence == "other":
        lines.append("license_name: see-below")
    if base:
        lines.append(f"base_model: {base}")
    return [*lines, "tags: [adaptkit]", "---"]


def _data(record: RunRecord) -> list[str]:
    rows = []
    for part, split in record.splits.items():
        licences = ", ".join(f"{name} ({count:,} rows)" for name, count in split.licences.items())
        size = f"{split.num_bytes:,}"
        digest = f"`{split.digest[:16]}`"
        rows.append((part, f"{split.documents:,}", size, licences or "not stated", digest))
    return _table(("part", "documents", "bytes", "licences", "sha256"), rows)


def _scores(record: RunRecord) -> list[str]:
    rows = []
    for name, suite in record.suites.items():
        values, split = suite.metrics, suite.judged_on
        if not suite.metrics or not suite.num_items:
            values, split = suite.dev, "dev"
        where = {"test": "test", "dev": "development"}[split]
        rows += [(name, metric.replace("_", " "), where, f"{value:.4f}") for metric, value in values.items()]
    if not rows:
        return ["Unknown: none were recorded."]
    return [*_table(("task", "metric", "data", "score"), rows), "", "One training: no interval over seeds."]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table, without the rows whose last cell is empty."""
    lines = [head, ("---",) * len(head), *(row for row in rows if row[-1])]
    return [f"| {' | '.join(cells)} |" for cells in lines]
