"""Write the model card, README.md of an exported folder, from its run and study; it says what is unknown.

It holds counts, digests, scores and limits, and never a line of anybody's text.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from adaptkit.data.json_fields import Schema
from adaptkit.export.abstention import confidence_note
from adaptkit.export.formats import GROUP_SIZES
from adaptkit.export.papers.compute_thresholds import NO_ADVICE, check_thresholds, training_compute
from adaptkit.export.papers.lineage import Lineage, Training
from adaptkit.export.papers.provenance import Provenance, code
from adaptkit.export.record import ExportRecord, ServedKind
from adaptkit.export.source import LABEL_SET, REGRESSION, SERVED_TAGGERS, Source, problem_type
from adaptkit.finetune.prompt_words import EXTRACTION_PROMPT, PASSAGES_HEAD
from adaptkit.models.generation_settings import HARMLESS, SAMPLING
from adaptkit.run import Run, read_json, read_sealed, write_text
from adaptkit.run_record import RecipeKind, SplitRecord, read_record
from adaptkit.study.record import read_study
from adaptkit.study.verdict_record import ArmScoreRecord, read_verdict
from adaptkit.trainer.card import snippet

if TYPE_CHECKING:
    from adaptkit.export.parity.measure import ParityReport

TEMPLATES = Path(__file__).parent / "templates"
USES: dict[ServedKind, tuple[str, str]] = {
    "generate": ("text-generation", "continues text"),
    "classify": ("text-classification", "gives each class a probability"),
    "tag": ("token-classification", "marks spans of a text, each with a label"),
    "rerank": ("text-ranking", "scores how well a text answers a query"),
    "embed": ("sentence-similarity", "turns text into vectors that are close for related texts"),
}
OTHER_USES = {
    LABEL_SET: "gives each label a probability of its own: any number of them may apply",
    REGRESSION: "gives a text a number",
}
"""Of classifiers whose outputs are no classes of which one is right."""
UNSERVED = ("distilbert",)
"""By vLLM 0.32: its layers do not go through transformers' attention interface."""
COMMANDS = {
    RecipeKind.PRETRAIN: "pretrain",
    RecipeKind.FINETUNE: "finetune",
    RecipeKind.EMBED: "embed train",
    RecipeKind.RERANK: "embed rerank",
    RecipeKind.DISTILL: "distill",
}
NEEDS = {"any": "every CPU and GPU", "gpu or avx512": "a GPU, or a CPU with AVX512", "gpu": "a GPU"}
ONE_RUN = "one training: no interval over seeds (a study trains several)"
SAME_FOLDER = "# the same config on the same data finds the same folder"


@dataclass(frozen=True)
class ScoreRow:
    """A line of the card's table of scores."""

    task: str
    metric: str
    split: str
    value: float
    interval: str
    items: int | str


def write_card(folder: Path, source: Source, provenance: Provenance, parity: ParityReport) -> None:
    """Write README.md."""
    config = read_json(folder / "config.json")
    tag, use = USES[source.kind]
    problem = problem_type(folder)
    if source.kind == "classify" and problem in OTHER_USES:
        use = OTHER_USES[problem]
    lineage, export = provenance.lineage, provenance.export
    context = {
        "export": export,
        "tag": tag,
        "use": use,
        "rounding": _rounding(export),
        "licence": provenance.licence,
        "architecture": (config.get("architectures") or ["not stated"])[0],
        "base": lineage.base,
        "trainings": ", then ".join(training.run for training in reversed(lineage.trainings)) or "none known",
        "teachers": ", ".join(training.teacher for training in lineage.trainings if training.teacher),
        "runs_on": NEEDS[export.needs],
        "data": [row for training in lineage.trainings for row in _data_rows(training)],
        "budget": _budget(source),
        "thresholds": _thresholds(source, lineage),
        "no_advice": NO_ADVICE,
        "scores": scores(source),
        "verdict": verdict_sentence(source),
        "parity": parity,
        "limits": [
            *limits(provenance, config["model_type"]),
            *head_notes(folder, export),
            *confidence_note(export.confidence),
            *generation_notes(folder, source),
        ],
        "reproduce": _reproduce(source, provenance),
        "load": snippet(folder, tag),
        "served": source.kind != "tag" or config["architectures"][0] in SERVED_TAGGERS,
        "code": code(),
    }
    write_text(folder / "README.md", _template().render(context))


def scores(source: Source) -> list[ScoreRow]:
    """Collect the scores of this model.

    With a study, the arm's mean over seeds and its interval; without, what the run's held-out items gave.
    """
    if source.study is not None:
        verdict = read_verdict(source.study)
        of_arm = [row for row in verdict.scores if (row.arm, row.task) == (source.arm, source.task)]
        if of_arm:
            return [_study_row(row, verdict.confidence) for row in of_arm]
    if source.scored_run is None or source.suite is None:
        return []
    suite = read_record(Run(source.scored_run)).suites[source.suite]
    metrics, split, items = suite.dev, "development", "not recorded"
    if suite.metrics and suite.num_items:
        metrics, items = suite.metrics, str(suite.num_items)
        split = {"test": "test", "dev": "development"}[suite.judged_on]
    return [ScoreRow(source.suite, name, split, value, ONE_RUN, items) for name, value in metrics.items()]


def limits(provenance: Provenance, model_type: str) -> list[str]:
    """List what a user must know before relying on the model."""
    export = provenance.export
    sentences = [
        "It was measured on the held-out data named above and on nothing else: other text may go worse, and "
        "was not tried."
    ]
    if export.kind == "generate":
        sentences.append(
            "It writes plausible text that can be wrong, and it can repeat parts of its training text "
            "word for word."
        )
    if export.needs != "any":
        needs = export.needs.replace("gpu", "GPU").replace("avx512", "CPU with AVX512")
        sentences.append(f"This format needs a {needs}.")
    if export.group_size not in (None, GROUP_SIZES[0]):
        sentences.append(
            f"Its groups are of {export.group_size} inputs: {GROUP_SIZES[0]} do not divide its widths."
        )
    if model_type in UNSERVED:
        sentences.append(f"vLLM does not serve {model_type} models; transformers does.")
    if export.method:
        sentences.append("Its weights are rounded; what that cost is in the table of the parity gate.")
    if export.seed is not None:
        sentences.append(
            "The scores above are means over the study's seeds; this folder holds one of the models behind "
            "them."
        )
    if not any(training.splits for training in provenance.lineage.trainings):
        sentences.append(
            "What it was trained on is not known to the tool that exported it: look at the model it was made "
            "from."
        )
    sentences.append("Bias, toxicity and memorised personal data were not audited for this export.")
    return sentences


def head_notes(folder: Path, export: ExportRecord) -> list[str]:
    """Say how the outputs of a classifier or tagger are to be read."""
    if export.kind not in ("classify", "tag"):
        return []
    names, problem = ", ".join(export.labels) or "in config.json", problem_type(folder)
    if export.kind == "tag":
        spans = "B- begins a span, I- goes on with it, O is outside"
        return [f"It knows the tags {names}: {spans}. A word goes by the tag of its first token."]
    if problem == REGRESSION:
        return ["Its one output is the number itself, in the units of the training scores."]
    if problem == LABEL_SET:
        threshold = read_json(folder / "config.json").get("decision_threshold")
        told = "" if threshold is None else f", which is {threshold:g} (decision_threshold in config.json)"
        chosen = f"a label applies from the probability that was chosen on development data on{told}"
        return [f"It knows the labels {names}: {chosen}."]
    return [f"It knows the classes {names} and must choose one of them."]


def generation_notes(folder: Path, source: Source) -> list[str]:
    """Say which settings of its base's generation config stand in this folder, and which were left out."""
    if source.kind != "generate":
        return []
    written, before = (_generation_config(place) for place in (folder, source.folder))
    left_out = {name: value for name, value in before.items() if name not in written and name not in HARMLESS}
    if source.record is not None:
        left_out |= source.record.facts.get("generation_settings_left_out", {})
    kept = {name: written[name] for name in SAMPLING if name in written}
    sentences = [*looked_up_notes(source), *field_notes(source)]
    if kept:
        settings = ", ".join(f"{name} {value}" for name, value in kept.items())
        what = f"generation_config.json keeps how its base samples ({settings})"
        sentences.append(f"{what}; scores here are of greedy answers.")
    if left_out:
        settings = ", ".join(f"{name} {value}" for name, value in left_out.items())
        sentences.append(
            f"What would change greedy answers of its base is left out of generation_config.json: {settings}."
        )
    return sentences


def field_notes(source: Source) -> list[str]:
    """Say which fields a model extracts, how it is asked, and how a server holds it to them."""
    described = source.record.facts.get("fields") if source.record is not None else None
    if not described:
        return []
    schema = Schema.of(described)
    ending = EXTRACTION_PROMPT.replace("{text}", "").strip()
    constraint = json.dumps({"structured_outputs": {"json": schema.json_schema}})
    return [
        f"It answers a text and a line '{ending}' behind it with one JSON object of these fields, as far as "
        f"the text gives them: {schema.sentence}. Scores are of free answers; vLLM holds it to the schema "
        f"where a request has `{constraint}` beside its prompt."
    ]


def looked_up_notes(source: Source) -> list[str]:
    """Say that a model was trained with passages in its prompts, and how they stand there."""
    facts = source.record.facts.get("looked_up") if source.record is not None else None
    if not facts:
        return []
    count = facts["passages"]
    passages = "one passage" if count == 1 else f"up to {count} passages"
    retriever = {"bm25": "BM25", "encoder": "an encoder", "fused": "BM25 and an encoder, fused"}
    return [
        f"It expects passages: it was trained and scored with {passages} before each question, found by "
        f"{retriever[facts['retriever']]}. They stand under the line '{PASSAGES_HEAD}', numbered [1], [2], "
        "before an empty line and the question. It finds none by itself, and was not scored without them."
    ]


def _generation_config(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def _rounding(export: ExportRecord) -> str:
    if export.calibration is not None:
        return f"; rounded by GPTQ on {export.calibration.origin}"
    if export.method:
        return "; each rounded to the nearest"
    return ""


def _study_row(row: ArmScoreRecord, confidence: float) -> ScoreRow:
    seeds = "1 seed" if row.num_seeds == 1 else f"{row.num_seeds} seeds"
    interval = f"[{row.low:.4f}, {row.high:.4f}] at {confidence:.0%}, {seeds}"
    return ScoreRow(row.task, row.metric, "test", row.mean, interval, row.num_items)


def verdict_sentence(source: Source) -> str | None:
    """Write the study's answer on this model's task in one sentence; None outside a study."""
    if source.study is None or source.task is None:
        return None
    return read_verdict(source.study).of(source.task).line


def _data_rows(training: Training) -> list[dict[str, Any]]:
    return [_data_row(training.run, part, split) for part, split in training.splits.items()]


def _data_row(run: str, part: str, split: SplitRecord) -> dict[str, Any]:
    licences = ", ".join(f"{licence} ({count:,} rows)" for licence, count in split.licences.items())
    return {"run": run, "part": part, "split": split, "licences": licences or "not stated"}


def _budget(source: Source) -> list[tuple[str, str]]:
    """List what the training took, and what the study allowed."""
    rows = []
    if source.study is not None:
        budget = read_study(source.study).budget
        allowed = f"{budget.flops_per_seed:.3g} FLOPs, {budget.trials} tuning trials included"
        rows.append(("allowed by the study, per arm and seed", allowed))
    if source.run is None or not Run(source.run).cost_path.is_file():
        return [*rows, ("the training", "not recorded in this folder")]
    cost = read_sealed(Run(source.run).cost_path)
    figures = [
        ("training FLOPs", "flops", "{:.3g}"),
        ("training tokens", "tokens", "{:,}"),
        ("seconds", "seconds", "{:.1f}"),
    ]
    rows += [(title, form.format(cost[key])) for title, key, form in figures if cost.get(key) is not None]
    return [*rows, ("device", str(cost.get("device") or "not recorded"))]


def _thresholds(source: Source, lineage: Lineage) -> list[tuple[str, ...]]:
    """List regulators' thresholds and whether what made this model reaches them."""
    compute = training_compute(lineage, generates=source.kind == "generate", study=source.study)
    return [check.cells() for check in check_thresholds(compute)]


def _reproduce(source: Source, provenance: Provenance) -> list[str]:
    """List the commands that make it again; the configs are those whose digests stand in manifest.json."""
    export = provenance.export
    options = ["--format", export.format]
    if export.method == "gptq":
        options += ["--method", "gptq"]
    if export.calibration is not None and export.calibration.file is not None:
        options += ["--calibration", export.calibration.file]
    if source.study is not None:
        study = source.study.resolve().name
        choice = ["--arm", str(source.arm), "--task", str(source.task), "--seed", str(source.seed)]
        return [
            f"adaptkit compare runs/{study}/config.yaml   {SAME_FOLDER}",
            shlex.join(["adaptkit", "export", f"runs/{study}", *options, *choice]),
        ]
    if source.record is None:
        return [shlex.join(["adaptkit", "export", "FOLDER", *options, "--out", "NEW-FOLDER"])]
    run = provenance.lineage.trainings[0].run
    return [
        f"adaptkit {COMMANDS[source.record.recipe]} runs/{run}/config.yaml   {SAME_FOLDER}",
        shlex.join(["adaptkit", "export", f"runs/{run}", *options]),
    ]


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2")
