"""study.json: what the report needs to find everything, written once all stages are done."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from adaptkit.compare.executor import result
from adaptkit.compare.plan import Plan, arms_on, language_id, language_trainings, task_id
from adaptkit.run import Run, read_json, write_json
from adaptkit.study.arms import TRAINABLE, Arm
from adaptkit.study.config import StudyConfig

HELD_EQUAL = [
    "every arm may spend the same FLOPs per seed, its tuning trials included",
    "every arm gets the same number of trials: learning rates for trained arms, prompt formats and regularisations for the others",
    "all arms see the same held-out documents and rows; intervals are paired on them",
    "bits per byte are counted on the raw text, so vocabularies do not matter",
    "arms are picked on development data and judged on test data, against the best there of the other side",
]
QUESTION = "Fine-tune a generic model, keep pretraining it, or pretrain a small one of our own?"


def write_study(config: StudyConfig, plan: Plan, run: Run) -> None:
    """Write study.json, the report's only way in."""
    study = run.path
    prepared, tuning = result(study, "prepare"), _tuning(config, plan, study)
    write_json(
        study / "study.json",
        {
            "name": config.name,
            "question": QUESTION,
            "command": _command(),
            "primary": config.primary,
            "margin": {name: config.margin for name in ["language", *(t.name for t in config.tasks)]},
            "confidence": config.confidence,
            "arms": [
                {"name": a.name, "origin": a.origin, "adaptation": a.adaptation, "describe": a.describe}
                for a in config.parsed_arms
            ],
            "seeds": list(range(config.seeds)),
            "fractions": config.fractions,
            "tasks": _tasks(config, study),
            "data": {
                **prepared["facts"],
                "tokenizers": result(study, "tokenizer")["tokenizers"] | result(study, "base")["tokenizers"],
            },
            "budget": {
                "flops_per_seed": plan.budget.flops,
                "unit": config.budget.unit,
                "asked": f"{config.budget.amount:g}",
                "task_share": config.budget.task_share if config.tasks else 0.0,
                "trials": plan.budget.trials,
                "held_equal": HELD_EQUAL,
            },
            "results": _language_results(config, study, tuning) + _task_results(config, study, tuning),
            "tuning": tuning,
            "forgetting": _forgetting(config, study),
            "baselines": [
                {"task": t.name, **found}
                for t in config.tasks
                if (found := _reference(result(study, f"baseline.{t.name}")))
            ],
            "base": {
                "model": config.base or "made on the spot from the general text",
                "run": result(study, "base")["run"],
            },
            "price": config.budget.price.model_dump() if config.budget.price else None,
        },
    )


def _command() -> str:
    return shlex.join(["adaptkit", *(sys.argv[1:] or ["compare"])])


def _tasks(config: StudyConfig, study: Path) -> list[dict[str, Any]]:
    labels = result(study, "prepare")["labels"]
    language = {"name": "language", "kind": "language", "metric": "bits_per_byte", "higher_is_better": False}
    return ([language] if _scores_language(study) else []) + [
        {
            "name": task.name,
            "kind": task.kind if task.kind in ("generate", "retrieve") else "classify",
            "metric": task.score,
            "higher_is_better": True,
            "labels": labels.get(task.name, []),
        }
        for task in config.tasks
    ]


def _scores_language(study: Path) -> bool:
    """Masked models give no bits per byte."""
    return result(study, "base")["kind"] == "causal"


def _reference(outcome: dict[str, Any]) -> dict[str, Any]:
    return {key: outcome[key] for key in ("run", "suite", "name") if key in outcome}


def _language_outcome(study: Path, arm: Arm, seed: int, fraction: float) -> dict[str, Any]:
    stage = language_id(arm.language_job, seed, fraction) if arm.language_job else "base"
    return result(study, stage)


Tuning = dict[str, list[dict[str, Any]]]


def _language_results(config: StudyConfig, study: Path, tuning: Tuning) -> list[dict[str, Any]]:
    rows = []
    for arm in config.parsed_arms if _scores_language(study) else []:
        for fraction in [1.0] if arm.language_job in (None, "placebo") else config.fractions:
            for seed in range(config.seeds):
                outcome = _language_outcome(study, arm, seed, fraction)
                paid_by = [outcome["run"]] if arm.language_job else []
                tuned_by = tuning.get(arm.language_job or "", []) if fraction == 1 else []
                row = _row(arm, seed, fraction, outcome["score_run"], "language", paid_by, tuned_by)
                rows.append(row | {"text_bytes": _text_bytes(config, study, arm, outcome["run"], fraction)})
    return rows


def _text_bytes(config: StudyConfig, study: Path, arm: Arm, run: str | None, fraction: float) -> float:
    """Bytes of domain text a language model read, each counted once: what its tokens hold, at most all there
    was."""
    if arm.language_job is None or arm.origin == "placebo":
        return 0.0
    made = Run(study.parent / run)
    manifest = made.manifest()
    facts = manifest["record"]["facts"] if "record" in manifest else manifest
    tokens, held = read_json(made.cost_path)["tokens"], facts["tokenizer"]["bytes_per_token"]
    replayed = config.replay_share if arm.origin == "continued" else 0.0
    there = fraction * result(study, "prepare")["facts"]["domain"]["train"]["num_bytes"]
    return min(there, tokens * (1 - replayed) * held)


def _task_results(config: StudyConfig, study: Path, tuning: Tuning) -> list[dict[str, Any]]:
    rows = []
    for task in config.tasks:
        for arm in arms_on(config, task):
            tuned_by = tuning.get(arm.origin_job or "", []) + tuning.get(f"{arm.name} on {task.name}", [])
            for seed in range(config.seeds):
                outcome = result(study, task_id(task.name, arm.name, seed))
                origin = (
                    [result(study, language_id(arm.origin_job, seed, 1.0))["run"]] if arm.origin_job else []
                )
                rows.append(
                    _row(arm, seed, 1.0, outcome["run"], task.name, [*origin, outcome["run"]], tuned_by)
                )
    return rows


def _row(
    arm: Arm,
    seed: int,
    fraction: float,
    run: str,
    task: str,
    paid_by: list[str],
    tuned_by: list[dict[str, Any]],
) -> dict[str, Any]:
    """One score: where it is, the runs that paid for it, and the trials whose cost all seeds share."""
    row = {"arm": arm.name, "seed": seed, "fraction": fraction, "task": task, "run": run, "suite": task}
    return row | {"paid_by": paid_by, "tuned_by": [trial["run"] for trial in tuned_by]}


def _tuning(config: StudyConfig, plan: Plan, study: Path) -> Tuning:
    """Per language job and per task+arm: each trial's learning rate and what it was judged by on dev data,
    lower is better."""
    if plan.budget.trials < 2:
        return {}
    trials = range(plan.budget.trials)
    keys = {job: f"tune.{job}" for job in language_trainings(config)}
    keys |= {
        f"{arm.name} on {t.name}": f"tune.{t.name}.{arm.name}"
        for t in config.tasks
        for arm in config.parsed_arms
        if arm.adaptation in TRAINABLE
    }
    picked = ("run", "learning_rate", "dev")
    return {
        key: [{k: result(study, f"{stage}.{i}")[k] for k in picked} for i in trials]
        for key, stage in keys.items()
    }


def _forgetting(config: StudyConfig, study: Path) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm.name,
            "seed": seed,
            "run": _language_outcome(study, arm, seed, 1.0)["score_run"],
            "suite": "general",
        }
        for arm in config.parsed_arms
        if _scores_language(study)
        for seed in range(config.seeds)
    ]
