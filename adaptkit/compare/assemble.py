"""study.json: what the report needs to find everything, written once all stages are done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from adaptkit.compare.arms import TRAINABLE, Arm, language_jobs
from adaptkit.compare.executor import result
from adaptkit.compare.plan import Plan, language_id, task_id
from adaptkit.compare.study import StudyConfig
from adaptkit.run import Run, write_json

HELD_EQUAL = [
    "every arm may spend the same FLOPs per seed, its tuning trials included",
    "every arm gets the same number of trials: learning rates for trained arms, prompt formats and regularisations for the others",
    "all arms see the same held-out documents and rows; intervals are paired on them",
    "bits per byte are counted on the raw text, so vocabularies do not matter",
    "arms are picked on development data and judged on test data",
]
QUESTION = "Fine-tune a generic model, keep pretraining it, or pretrain a small one of our own?"


def write_study(config: StudyConfig, plan: Plan, run: Run) -> None:
    """Write study.json, the report's only way in."""
    study = run.path
    prepared = result(study, "prepare")
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
                {"name": a.name, "origin": a.origin, "adaptation": a.adaptation, "describe": a.describe} for a in config.parsed_arms
            ],
            "seeds": list(range(config.seeds)),
            "fractions": config.fractions,
            "tasks": _tasks(config, prepared),
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
            "results": _language_results(config, study) + _task_results(config, study),
            "tuning": _tuning(config, plan, study),
            "forgetting": _forgetting(config, study),
            "baselines": [
                {"task": t.name, **found} for t in config.tasks if (found := _reference(result(study, f"baseline.{t.name}")))
            ],
            "base": {"model": config.base or "made on the spot from the general text", "run": result(study, "base")["run"]},
            "price": config.budget.price.model_dump() if config.budget.price else None,
        },
    )


def _command() -> str:
    return "adaptkit " + " ".join(arg for arg in sys.argv[1:]) if len(sys.argv) > 1 else "adaptkit compare"


def _tasks(config: StudyConfig, prepared: dict[str, Any]) -> list[dict[str, Any]]:
    language = {"name": "language", "kind": "language", "metric": "bits_per_byte", "higher_is_better": False}
    labels = prepared["labels"]
    return [language] + [
        {
            "name": t.name,
            "kind": "generate" if t.kind == "generate" else "classify",
            "metric": t.score,
            "higher_is_better": True,
            "labels": labels.get(t.name, []),
        }
        for t in config.tasks
    ]


def _reference(outcome: dict[str, Any]) -> dict[str, Any]:
    return {key: outcome[key] for key in ("run", "suite", "name") if key in outcome}


def _language_outcome(study: Path, arm: Arm, seed: int, fraction: float) -> dict[str, Any]:
    stage = language_id(arm.language_job, seed, fraction) if arm.language_job else "base"
    return result(study, stage)


def _language_results(config: StudyConfig, study: Path) -> list[dict[str, Any]]:
    rows = []
    for arm in config.parsed_arms:
        varies = arm.language_job not in (None, "placebo")
        for fraction in config.fractions if varies else [1.0]:
            for seed in range(config.seeds):
                outcome = _language_outcome(study, arm, seed, fraction)
                paid = [outcome["run"]] if arm.language_job else []
                rows.append(
                    {
                        "arm": arm.name,
                        "seed": seed,
                        "fraction": fraction,
                        "task": "language",
                        "run": outcome["score_run"],
                        "suite": "language",
                        "paid_by": paid,
                    }
                )
    return rows


def _task_results(config: StudyConfig, study: Path) -> list[dict[str, Any]]:
    rows = []
    for task in config.tasks:
        for arm in config.parsed_arms:
            for seed in range(config.seeds):
                outcome = result(study, task_id(task.name, arm.name, seed))
                origin = [result(study, language_id(arm.origin_job, seed, 1.0))["run"]] if arm.origin_job else []
                rows.append(
                    {
                        "arm": arm.name,
                        "seed": seed,
                        "fraction": 1.0,
                        "task": task.name,
                        "run": outcome["run"],
                        "suite": task.name,
                        "paid_by": [*origin, outcome["run"]],
                    }
                )
    return rows


def _tuning(config: StudyConfig, plan: Plan, study: Path) -> dict[str, list[dict[str, Any]]]:
    """Per language job and per task+arm: each trial's learning rate and dev score."""
    if plan.budget.trials < 2:
        return {}
    trials = range(plan.budget.trials)
    keys = {job: f"tune.{job}" for job in language_jobs(config.parsed_arms)}
    keys |= {
        f"{arm.name} on {t.name}": f"tune.{t.name}.{arm.name}"
        for t in config.tasks
        for arm in config.parsed_arms
        if arm.adaptation in TRAINABLE
    }
    picked = ("run", "learning_rate", "dev")
    return {key: [{k: result(study, f"{stage}.{i}")[k] for k in picked} for i in trials] for key, stage in keys.items()}


def _forgetting(config: StudyConfig, study: Path) -> list[dict[str, Any]]:
    return [
        {"arm": arm.name, "seed": seed, "run": _language_outcome(study, arm, seed, 1.0)["score_run"], "suite": "general"}
        for arm in config.parsed_arms
        for seed in range(config.seeds)
    ]
