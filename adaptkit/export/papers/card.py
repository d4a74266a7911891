"""The model card: README.md of an exported folder, filled from the run and the study; what is unknown is said
in words.

It holds counts, digests, scores and limits, and never a line of anybody's text.
"""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.export.formats import GROUP_SIZES
from adaptkit.export.source import EXPORTED, Source, run_config
from adaptkit.run import Run, read_json, write_text

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
USES = {
    "generate": ("text-generation", "continues text"),
    "classify": ("text-classification", "gives each class a probability"),
    "rerank": ("text-ranking", "scores how well a text answers a query"),
    "embed": ("sentence-similarity", "turns text into vectors that are close for related texts"),
}
UNSERVED = ("distilbert",)  # by vLLM 0.32: its layers do not go through transformers' attention interface
TRAINED_BY = {
    "teacher": "distill",
    "objective": "pretrain",
    "loss": "embed train",
}  # field of a run's config -> command
ONE_RUN = "one training: no interval over seeds (a study trains several)"


def write_card(
    folder: Path,
    source: Source,
    record: dict[str, Any],
    parity: dict[str, Any],
    licence: str,
    licence_words: str,
) -> None:
    """Write README.md from the manifest's record and the parity report."""
    told = record[EXPORTED]
    runs = [facts for facts in record["lineage"] if "run" in facts]
    base = next((facts for facts in record["lineage"] if "base" in facts), None)
    config = read_json(folder / "config.json")
    tag, use = USES[source.kind]
    context = {
        "told": told,
        "tag": tag,
        "use": use,
        "rounding": _rounding(told),
        "licence": licence,
        "licence_words": licence_words,
        "architecture": (config.get("architectures") or ["not stated"])[0],
        "base": base,
        "trainings": ", then ".join(facts["run"] for facts in reversed(runs)) or "none known",
        "teachers": ", ".join(facts["teacher"] for facts in runs if facts["teacher"]),
        "data": [
            _data_row(facts["run"], name, part) for facts in runs for name, part in facts["data"].items()
        ],
        "budget": _budget(source),
        "scores": scores(source),
        "verdict": _verdict(source),
        "parity": parity,
        "limits": limits(source, record, config["model_type"]),
        "reproduce": _reproduce(source, told, runs),
        "load": _load_lines(source),
        "code": record["code"],
    }
    write_text(folder / "README.md", _template().render(context))


def scores(source: Source) -> list[dict[str, Any]]:
    """The scores of this model: task, metric, value, interval in words, items.

    With a study, the arm's mean over seeds and its interval; without, what the run's held-out items gave.
    """
    if source.study is not None:
        answer = read_json(Run(source.study).report / "verdict.json")
        mine = [
            row for row in answer.get("scores", []) if (row["arm"], row["task"]) == (source.arm, source.task)
        ]
        if mine:
            return [_study_row(row, answer["confidence"]) for row in mine]
    if source.scores is None or source.suite is None:
        return []
    found = read_json(Run(source.scores).scores(source.suite))
    tested = found.get("metrics") or {}
    kept, where = (
        (tested, "test") if tested and found.get("num_items") else (found.get("dev") or {}, "development")
    )
    if source.suite == "language" and source.scores == source.run:
        where = "development"  # a pretraining's own suite is its dev set
    items = found.get("num_items") if kept is tested else None
    return [
        {
            "task": source.suite,
            "metric": name,
            "value": value,
            "interval": ONE_RUN,
            "items": items or "not recorded",
            "split": where,
        }
        for name, value in kept.items()
    ]


def limits(source: Source, record: dict[str, Any], model_type: str) -> list[str]:
    """What a user must know before relying on the model."""
    told = record[EXPORTED]
    found = [
        "It was measured on the held-out data named above and on nothing else: other text may go worse, and was not tried."
    ]
    if source.kind == "generate":
        found.append(
            "It writes plausible text that can be wrong, and it can repeat parts of its training text word for word."
        )
    if source.kind == "classify":
        found.append(
            f"It knows the classes {', '.join(source.labels) or 'in config.json'} and must choose one of them."
        )
    if told["needs"] != "any":
        found.append(
            f"This format needs a {told['needs'].replace('gpu', 'GPU').replace('avx512', 'CPU with AVX512')}."
        )
    if told["group_size"] not in (None, GROUP_SIZES[0]):
        found.append(
            f"Its groups are of {told['group_size']} inputs: {GROUP_SIZES[0]} do not divide its widths."
        )
    if model_type in UNSERVED:
        found.append(f"vLLM does not serve {model_type} models; transformers does.")
    if told["method"]:
        found.append("Its weights are rounded; what that cost is in the table of the parity gate.")
    if source.seed is not None:
        found.append(
            "The scores above are means over the study's seeds; this folder holds one of the models behind them."
        )
    if not any(facts.get("data") for facts in record["lineage"]):
        found.append(
            "What it was trained on is not known to the tool that exported it: look at the model it was made from."
        )
    found.append("Bias, toxicity and memorised personal data were not audited for this export.")
    return found


def _rounding(told: dict[str, Any]) -> str:
    if told["method"] == "gptq":
        return f"; rounded by GPTQ on {told['calibration']['origin']}"
    return "; each rounded to the nearest" if told["method"] else ""


def _study_row(row: dict[str, Any], confidence: float) -> dict[str, Any]:
    seeds = f"{row['num_seeds']} seed{'s' if row['num_seeds'] > 1 else ''}"
    interval = f"[{row['low']:.4f}, {row['high']:.4f}] at {confidence:.0%}, {seeds}"
    return {key: row[key] for key in ("task", "metric")} | {
        "value": row["mean"],
        "interval": interval,
        "items": row["num_items"],
        "split": "test",
    }


def _verdict(source: Source) -> str | None:
    if source.study is None:
        return None
    answer = read_json(Run(source.study).report / "verdict.json")
    if source.task == answer["primary"]:
        return answer["line"]
    found = next(task for task in answer["tasks"] if task["task"] == source.task)
    pair = found["versus_generic"]
    if pair is None:
        return f"{found['title']}: {found['reason']}"
    ended = {
        "pretrained": f"{found['candidate']} wins",
        "generic": f"{found['generic']} wins",
        "tie": "a tie",
    }[found["outcome"]]
    interval = f"{pair['difference']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]"
    return f"{found['title']}: {ended}; {found['candidate']} minus {found['generic']} {interval}"


def _data_row(run: str, name: str, part: dict[str, Any]) -> dict[str, Any]:
    licences = ", ".join(
        f"{licence} ({count:,} rows)" for licence, count in (part.get("licences") or {}).items()
    )
    return {**part, "run": run, "part": name, "licences": licences or "not stated"}


def _budget(source: Source) -> list[tuple[str, str]]:
    """What the training took, and what the study allowed."""
    rows = []
    if source.study is not None:
        budget = read_json(source.study / "study.json")["budget"]
        rows.append(
            (
                "allowed by the study, per arm and seed",
                f"{budget['flops_per_seed']:.3g} FLOPs, {budget['trials']} tuning trials included",
            )
        )
    if source.run is None or not Run(source.run).cost_path.is_file():
        return [*rows, ("the training", "not recorded in this folder")]
    cost = read_json(Run(source.run).cost_path)
    told = [
        ("training FLOPs", "flops", "{:.3g}"),
        ("training tokens", "tokens", "{:,}"),
        ("seconds", "seconds", "{:.1f}"),
    ]
    rows += [(title, form.format(cost[key])) for title, key, form in told if cost.get(key) is not None]
    return [*rows, ("device", str(cost.get("device") or "not recorded"))]


def _reproduce(source: Source, told: dict[str, Any], runs: list[dict[str, Any]]) -> list[str]:
    """Commands, in order; the configs are those whose digests stand in manifest.json."""
    method = ["--method", told["method"]] if told["method"] == "gptq" else []
    if told["calibration"] and told["calibration"]["origin"].startswith("the file "):
        method += ["--calibration", told["calibration"]["origin"].removeprefix("the file ")]
    if source.study is not None:
        choice = ["--arm", str(source.arm), "--task", str(source.task), "--seed", str(source.seed)]
        study = source.study.resolve().name
        return [
            f"adaptkit compare runs/{study}/config.yaml   # the same config on the same data finds the same folder",
            shlex.join(["adaptkit", "export", f"runs/{study}", "--format", told["format"], *method, *choice]),
        ]
    if not runs:
        return [
            shlex.join(
                ["adaptkit", "export", "FOLDER", "--format", told["format"], *method, "--out", "NEW-FOLDER"]
            )
        ]
    run, config = runs[0]["run"], run_config(source.run) if source.run is not None else {}
    command = next((words for field, words in TRAINED_BY.items() if field in config), "finetune")
    return [
        f"adaptkit {command} runs/{run}/config.yaml   # the same config on the same data finds the same folder",
        shlex.join(["adaptkit", "export", f"runs/{run}", "--format", told["format"], *method]),
    ]


def _load_lines(source: Source) -> list[str]:
    """Python that loads the folder."""
    if source.kind == "embed":
        return [
            "from sentence_transformers import SentenceTransformer",
            'model = SentenceTransformer("this folder")',
        ]
    auto = {"generate": "AutoModelForCausalLM"}.get(source.kind, "AutoModelForSequenceClassification")
    return [
        f"from transformers import {auto}, AutoTokenizer",
        f'model, tokenizer = {auto}.from_pretrained("this folder"), AutoTokenizer.from_pretrained("this folder")',
    ]


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    return Environment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("card.md.j2")
