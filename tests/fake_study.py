"""Finished studies that never ran: run directories with the files `compare` leaves, drawn from a known truth.

    arms = ["generic+lora", "scratch+full"]
    study = write_study(tmp_path, arms=arms, bpb={"generic": 2.80, "scratch": 1.72})

The report and the verdict are pure functions of these files, so tests can set the truth and look at what is
said.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.run import Run, read_jsonl, write_json, write_jsonl, write_sealed
from adaptkit.run_record import SplitRecord
from adaptkit.study import record
from adaptkit.study.data_record import CorpusRecord, CutRecord, DataRecord, TestSetRecord, TokenizerRecord
from adaptkit.study.forecast import FROM_SCRATCH, KEPT_ON, Measured, predict
from adaptkit.study.forecast_record import ForecastRecord, LabelForecastRecord, LabelledArmRecord, Portion
from adaptkit.study.label_forecast import Reading, predict_with_all
from adaptkit.study.law import Place
from adaptkit.study.record import (
    ArmRecord,
    BaseRecord,
    BudgetRecord,
    ForgettingRecord,
    ScoreRecord,
    StudyRecord,
    TaskRecord,
    TrialRecord,
    TuningRecord,
    read_study,
)
from adaptkit.study.scores import score_table

LABELS = ("background", "objective", "methods", "results", "conclusions")
FULL = (
    "generic+prompt",
    "generic+probe",
    "generic+lora",
    "generic+full",
    "continued+lora",
    "continued+full",
    "scratch+probe",
    "scratch+full",
    "placebo+full",
)
TEXTS = ("generic", "continued", "continued-lora", "scratch", "placebo")
SENTENCE = [
    "the",
    "trial",
    "of",
    "a",
    "drug",
    "in",
    "adults",
    "with",
    "asthma",
    "shows",
    "no",
    "effect",
    "on",
    "lung",
    "function",
]
QUESTION = "Fine-tune a generic model, keep pretraining it, or pretrain a small one of our own?"
BPB = {"generic": 2.71, "continued": 1.79, "continued-lora": 1.93, "scratch": 1.71, "placebo": 1.96}
BPB |= {"mixed": 1.76, "distilled": 1.84}
SKILL = {"prompt": 0.42, "probe": 0.66, "lora": 0.745, "qlora": 0.74, "full": 0.75}
ORIGIN_SKILL = {"generic": 0.0, "continued": 0.018, "scratch": 0.004, "placebo": 0.001, "tapt": 0.006}
TFIDF = "tfidf"
DAMAGE = {"generic": 0.0, "continued": 0.12, "continued-lora": 0.35, "scratch": 1.10, "placebo": -0.03}
DOMAIN_BYTES, PASSES = 8_200_000, 4.0
TRANSFERS = {"scratch": 0.0, "mixed": 0.0}
PORTIONS = ((1.0, 1 / 16), (1 / 16, 1 / 8), (1.0, 1 / 8), (1.0, 1 / 4))
"""Smaller trainings of a study that forecasts."""
LABEL_SHARES, NUM_LABELS = (1 / 16, 1 / 8, 1 / 4), 4000
"""Of trainings with fewer labels, and the labels of the others."""
DAMAGE |= {"mixed": 0.4, "distilled": 0.5}


class Writer:
    """Writes the runs of one study below `root`."""

    def __init__(self, root: Path, rng: np.random.Generator, num_documents: int, num_rows: int):
        self.root, self.rng = root, rng
        self.num_bytes = rng.integers(600, 4000, num_documents)
        self.hardness = rng.normal(0, 0.22, num_documents)
        self.labels = rng.choice(LABELS, num_rows, p=[0.12, 0.08, 0.33, 0.32, 0.15])
        self.difficulty = rng.normal(0, 1.0, num_rows)

    def run(
        self, name: str, seconds: float = 0.0, flops: float = 0.0, tokens: float = 0.0, memory: float = 0.0
    ) -> Run:
        run = Run(self.root / name)
        run.path.mkdir(parents=True, exist_ok=True)
        run.update_manifest(
            name=name,
            status="finished",
            finished="2026-11-21T09:00:00Z",
            python="3.11.9",
            cores=2,
            platform="Linux x86_64",
            versions={"adaptkit": "0.1.0", "torch": "2.13.0", "transformers": "5.19.0"},
            code={"commit": "d22fab8ed0c123b2ea29903a9bca81d4893a46ab", "modified": False},
        )
        write_sealed(
            run.cost_path,
            {
                "flops": flops,
                "seconds": seconds,
                "tokens": tokens,
                "peak_memory_bytes": memory,
                "tokens_per_s": tokens / seconds if seconds else 0.0,
                "device": "cpu",
                "threads": 1,
            },
        )
        return run

    def language(self, run: Run, suite: str, bpb: float, seed_noise: float, dev: bool = True) -> None:
        values = (bpb + self.rng.normal(0, seed_noise)) * (1 + self.hardness) + self.rng.normal(
            0, 0.03, len(self.hardness)
        )
        nats = values * self.num_bytes * math.log(2)
        write_jsonl(
            run.items(suite),
            (
                {"id": f"doc{i}", "nats": float(n), "num_bytes": int(b), "num_tokens": int(b / 3.1)}
                for i, (n, b) in enumerate(zip(nats, self.num_bytes, strict=True))
            ),
        )
        mean = float(nats.sum() / self.num_bytes.sum() / math.log(2))
        write_json(
            run.scores(suite),
            {
                "suite": suite,
                "metrics": {"bits_per_byte": mean},
                "num_items": len(nats),
                "dev": {"bits_per_byte": bpb} if dev else {},
            },
        )

    def classify(
        self, run: Run, suite: str, skill: float, seed_noise: float, sharpness: float, dev: bool = True
    ) -> None:
        skill = float(np.clip(skill + self.rng.normal(0, seed_noise), 0.05, 0.99))
        threshold = np.quantile(self.difficulty, skill)
        right = self.difficulty + self.rng.normal(0, 0.35, len(self.labels)) < threshold
        rows = [
            self._row(i, label, ok, skill, sharpness)
            for i, (label, ok) in enumerate(zip(self.labels, right, strict=True))
        ]
        write_jsonl(run.items(suite), rows)
        write_json(
            run.scores(suite),
            {
                "suite": suite,
                "metrics": {},
                "num_items": len(rows),
                "dev": {"accuracy": skill, "macro_f1": skill} if dev else {},
            },
        )

    def _row(self, index: int, label: str, right: bool, skill: float, sharpness: float) -> dict[str, Any]:
        others = [name for name in LABELS if name != label]
        prediction = str(label) if right else str(self.rng.choice(others))
        top = float(np.clip(self.rng.beta(8 * skill * sharpness, 8 * (1 - skill)), 0.21, 0.999))
        rest = self.rng.dirichlet(np.ones(len(LABELS) - 1)) * (1 - top)
        chances = dict(zip([name for name in LABELS if name != prediction], rest.tolist(), strict=True))
        return {
            "id": f"row{index}",
            "label": str(label),
            "prediction": prediction,
            "probabilities": {prediction: top, **chances},
        }

    def generate(self, run: Run, suite: str, skill: float, num_rows: int = 120) -> None:
        rows = []
        for i in range(num_rows):
            kept = [word for word in SENTENCE if self.rng.random() < skill]
            rows.append(
                {"id": f"gen{i}", "reference": " ".join(SENTENCE), "prediction": " ".join(kept) or "none"}
            )
        write_jsonl(run.items(suite), rows)
        write_json(
            run.scores(suite),
            {"suite": suite, "metrics": {}, "num_items": num_rows, "dev": {"rouge_l": skill}},
        )

    def curves(self, run: Run, final: float, steps: int = 300, tokens_per_step: int = 2048) -> None:
        rows = []
        for step in range(10, steps + 1, 10):
            loss = final + 3.2 * (step / 10) ** -0.8 + self.rng.normal(0, 0.05)
            rows.append(
                {"step": step, "loss": loss, "learning_rate": 1e-3, "tokens_seen": step * tokens_per_step}
            )
            if step % 50 == 0:
                rows.append(
                    {
                        "step": step,
                        "eval_loss": final + 3.3 * (step / 10) ** -0.8,
                        "tokens_seen": step * tokens_per_step,
                    }
                )
        write_jsonl(run.metrics_path, rows)


def write_bench(study: Path) -> None:
    """What `adaptkit bench` leaves beside a study: a speed, and the lengths of the requests that it sent."""
    load = {"input_tokens": 500, "output_tokens": 150}
    models = [{"name": "own", "levels": [{"concurrency": 8, "requests_per_s": 5.0}]}]
    write_json(study / "bench.json", {"date": "2026-11-20", "load": load, "models": models})


PRICES = """\
server: {usd_per_hour: 0.4, source: "a.example", date: "2026-11-01"}
api:
  {name: An API, usd_per_million_in: 0.15, usd_per_million_out: 0.6, source: "b.example", date: "2026-11-02"}
"""
"""A file of prices."""


def write_study(
    root: Path,
    *,
    arms: Sequence[str] = FULL,
    texts: Sequence[str] = TEXTS,
    tasks: Sequence[str] = ("language", "rct_role"),
    seeds: int = 3,
    portions: Sequence[tuple[float, float]] = (),
    bpb: dict[str, float] | None = None,
    skill: dict[str, float] | None = None,
    seed_noise: float = 0.008,
    num_documents: int = 150,
    num_rows: int = 600,
    primary: str = "language",
    dev: bool = True,
    baselines: bool = True,
    transfers: dict[str, float] | None = None,
    label_curves: dict[str, MadeCurve] | None = None,
    rng_seed: int = 0,
) -> Path:
    """Write a study below `root` and return its run directory.

    Args:
        arms: of the jobs ledger.
        texts: arms of the text ledger.
        portions: shares of text and compute of the smaller trainings, by which is forecast.
        bpb: bits per byte of the largest run, by arm of the text ledger.
        skill: accuracy by arm; the default adds the origin's gain to the adaptation's.
        label_curves: by arm, how its accuracy on the first task follows from labels; trained with fewer too.
        transfers: by origin, what the start is worth, in texts that the largest run reads.
    """
    skill = {**(skill or {}), **{arm: curve(1.0) for arm, curve in (label_curves or {}).items()}}
    writer = Writer(root, np.random.default_rng(rng_seed), num_documents, num_rows)
    table = {**BPB, **(bpb or {})}
    scores: list[ScoreRecord] = []
    forgetting: list[ForgettingRecord] = []
    models: dict[tuple[str, int], str] = {}
    for origin in texts:
        for seed in range(seeds):
            law = MadeLaw(table[origin], {**TRANSFERS, **(transfers or {})}.get(origin, 3.0))
            language = _language(writer, origin, seed, portions, law, seed_noise, dev)
            scores += language
            models[origin, seed] = language[-1].run
            forgetting.append(ForgettingRecord(arm=origin, seed=seed, run=language[-1].run, suite="general"))
    for task in tasks[1:]:
        for arm in arms:
            for seed in range(seeds):
                model = models.get((arm.partition("+")[0], seed), "base")
                level = {
                    **(skill or {}),
                    **{name: curve(1.0) for name, curve in (label_curves or {}).items()},
                }
                scores.append(_task(writer, task, arm, seed, model, level, seed_noise, dev))
    scores += _fewer_labels(writer, tasks, label_curves or {}, seeds, seed_noise)
    named = [_arm(name) for name in [*texts, *(arms if tasks[1:] else ())]]
    if baselines and (counted := [task for task in tasks[1:] if not task.startswith("title")]):
        scores += [_baseline(writer, task) for task in counted]
        named.append(ArmRecord(name=TFIDF, origin="baseline", ledger="jobs", describe="word counts"))
    study = writer.run("study-fake0001")
    record.write_study(
        study.path,
        StudyRecord(
            name="clinical-trials",
            question=QUESTION,
            command="adaptkit compare study.yaml budget.amount=3.1e14",
            primary=primary,
            confidence=0.95,
            arms=tuple(named),
            seeds=tuple(range(seeds)),
            shares=tuple(sorted({1.0, *(text for text, _ in portions)})),
            tasks=tuple(_task_record(task) for task in tasks),
            data=_data(tasks),
            budget=_budget(),
            scores=tuple(scores),
            forecast=_forecast(root, scores, portions),
            label_forecasts=_label_forecasts(root, scores, tasks, label_curves or {}),
            tuning=tuple(_tuning(origin) for origin in texts if origin != "generic"),
            forgetting=tuple(forgetting),
            base=BaseRecord(model="made on the spot", run="base"),
            prepared_run="prepared",
        ),
    )
    return study.path


def edit_study(study: Path, **fields: Any) -> StudyRecord:
    """Replace fields of a written study."""
    edited = read_study(study).model_copy(update=fields)
    record.write_study(study, edited)
    return edited


@dataclass(frozen=True)
class MadeLaw:
    """How the score of a made arm follows from what its trainings had.

    Attributes:
        level: at the largest run, which reads the text PASSES times.
        transfer: what the start is worth, in texts that the largest run reads.
    """

    level: float
    transfer: float

    def __call__(self, text: float, compute: float) -> float:
        read, floor = PASSES * compute, 0.6 * self.level
        worth = min(text, read)
        worth *= 1 + 15.4 * (1 - math.exp(-(read / worth - 1) / 15.4))
        most = 1 + 15.4 * (1 - math.exp(-(PASSES - 1) / 15.4))
        share = (worth / most + self.transfer) / (1 + self.transfer)
        return floor + (self.level - floor) * share**-0.35


@dataclass(frozen=True)
class MadeCurve:
    """How the accuracy of a made arm follows from its share of the labels.

    Attributes:
        floor, scale: what lacks with very many labels, and how much more with all of the study's.
        transfer: what the start is worth, in labels of the study.
    """

    floor: float
    scale: float
    transfer: float = 0.1
    exponent: float = 0.4

    def __call__(self, share: float) -> float:
        worth = (share + self.transfer) / (1 + self.transfer)
        return 1 - self.floor - self.scale * worth**-self.exponent


def _fewer_labels(
    writer: Writer, tasks: Sequence[str], curves: dict[str, MadeCurve], seeds: int, noise: float
) -> list[ScoreRecord]:
    """The trainings of arms on shares of the first task's labels."""
    scores = []
    for arm, curve in curves.items():
        for share in LABEL_SHARES:
            for seed in range(seeds):
                name = f"{tasks[1]}-{arm}-s{seed}-l{share:g}".replace("+", "-")
                run = writer.run(name, seconds=20.0 * share, flops=2e13 * share)
                writer.classify(run, tasks[1], curve(share), noise, 1.0)
                where = {"arm": arm, "seed": seed, "share": 1.0, "labels": share, "task": tasks[1]}
                read = 8 * share * NUM_LABELS
                scores.append(
                    ScoreRecord(**where, run=name, suite=tasks[1], paid_by=(name,), read_labels=read)
                )
    return scores


def _label_forecasts(
    root: Path, scores: Sequence[ScoreRecord], tasks: Sequence[str], curves: dict[str, MadeCurve]
) -> tuple[LabelForecastRecord, ...]:
    """What these predict of the trainings with all labels, as a study would write it down."""
    if not curves:
        return ()
    reading = Reading(8, 1e6)
    predictions = []
    for arm in curves:
        cells = []
        for share in LABEL_SHARES:
            runs = [s.run for s in scores if (s.arm, s.task, s.labels) == (arm, tasks[1], share)]
            rows = [list(read_jsonl(Run(root / run).items(tasks[1]))) for run in runs]
            values = np.array([score_table("accuracy", of_run).value for of_run in rows])
            cells.append(Measured(reading.place(share * NUM_LABELS), values))
        predictions.append(predict_with_all(arm, "accuracy", cells, reading.place(NUM_LABELS), 0.95))
    return (
        LabelForecastRecord(
            task=tasks[1],
            num_labels=NUM_LABELS,
            max_epochs=8,
            portions=tuple(Portion(labels=share) for share in LABEL_SHARES),
            flops=9e12,
            arms=tuple(LabelledArmRecord(arm=arm, affordable_rows=1e6) for arm in curves),
            predicted=1e9,
            largest_begun=1e9 + 60,
            predictions=tuple(predictions),
        ),
    )


def _language(
    writer: Writer,
    origin: str,
    seed: int,
    portions: Sequence[tuple[float, float]],
    law: MadeLaw,
    noise: float,
    dev: bool,
) -> list[ScoreRecord]:
    """All trainings of one arm of the text ledger and one seed, the largest last."""
    untouched, has_law = origin == "generic", origin in (*FROM_SCRATCH, *KEPT_ON)
    scores = []
    for text, compute in (*(portions if has_law else ()), (1.0, 1.0)):
        name = f"{origin}-s{seed}-f{text:g}" + ("" if compute == 1 else f"-c{compute:g}")
        name = "base" if untouched else name
        if not (writer.root / name).exists():
            size = {"scratch": 0.9e9, "continued-lora": 1.4e9}.get(origin, 1.8e9)
            seconds = (0 if untouched else 400 * compute) * float(writer.rng.uniform(0.9, 1.3))
            run = writer.run(
                name,
                seconds=seconds,
                flops=0 if untouched else 3.0e14 * compute,
                tokens=seconds * 1900,
                memory=size,
            )
            writer.language(run, "language", law(text, compute), 0.0 if untouched else noise, dev)
            writer.language(run, "general", 2.2 + DAMAGE[origin], noise / 2)
            if not untouched:
                writer.curves(run, law.level * 1.9)
        paid_by = () if untouched else (name,)
        where = {"arm": origin, "seed": seed, "share": text, "compute": compute, "task": "language"}
        read = PASSES * compute * DOMAIN_BYTES
        scores.append(
            ScoreRecord(
                **where, run=name, suite="language", paid_by=paid_by, read_bytes=read if has_law else 0
            )
        )
    return scores


def _forecast(
    root: Path, scores: Sequence[ScoreRecord], portions: Sequence[tuple[float, float]]
) -> ForecastRecord | None:
    """What the smaller trainings predict of the largest, as a study would write it down."""
    if not portions:
        return None
    named = tuple(Portion(text=text, compute=compute) for text, compute in portions)
    predictions = []
    for arm in dict.fromkeys(score.arm for score in scores if score.compute < 1):
        cells = [_measured(root, scores, arm, portion) for portion in named]
        whole = Place(DOMAIN_BYTES, PASSES * DOMAIN_BYTES)
        predictions.append(predict(arm, cells, whole, 0.95, from_base=arm in KEPT_ON))
    flops = 2.4e14 * sum(portion.compute for portion in named)
    return ForecastRecord(
        portions=named, flops=flops, predicted=1e9, largest_begun=1e9 + 60, predictions=tuple(predictions)
    )


def _measured(root: Path, scores: Sequence[ScoreRecord], arm: str, portion: Portion) -> Measured:
    runs = [score.run for score in scores if (score.arm, score.portion) == (arm, portion)]
    tables = [
        score_table("bits_per_byte", list(read_jsonl(Run(root / run).items("language")))) for run in runs
    ]
    place = Place(portion.text * DOMAIN_BYTES, portion.compute * PASSES * DOMAIN_BYTES)
    return Measured(place, np.array([table.value for table in tables]))


def _task(
    writer: Writer,
    task: str,
    arm: str,
    seed: int,
    origin_run: str,
    skill: dict[str, float],
    noise: float,
    dev: bool,
) -> ScoreRecord:
    origin, _, adaptation = arm.partition("+")
    name = f"{task}-{arm}-s{seed}".replace("+", "-")
    seconds = 0.0 if adaptation == "prompt" else float(writer.rng.uniform(40, 70))
    run = writer.run(name, seconds=seconds, flops=seconds * 8e11, tokens=seconds * 1500, memory=1.1e9)
    level = skill.get(arm, SKILL[adaptation] + ORIGIN_SKILL[origin])
    if task.startswith("title"):
        writer.generate(run, task, level)
    else:
        writer.classify(run, task, level, noise, {"prompt": 1.8, "lora": 1.3}.get(adaptation, 1.0), dev)
    paid_by = (name,) if origin_run == "base" else (origin_run, name)
    where = {"arm": arm, "seed": seed, "share": 1.0, "task": task}
    return ScoreRecord(**where, run=name, suite=task, paid_by=paid_by, read_labels=8.0 * NUM_LABELS)


def _baseline(writer: Writer, task: str) -> ScoreRecord:
    run = writer.run(f"baseline-{task}")
    writer.classify(run, task, 0.82, 0.0, 1.0)
    return ScoreRecord(arm=TFIDF, seed=0, share=1.0, task=task, run=f"baseline-{task}", suite=task)


def _tuning(arm: str) -> TuningRecord:
    trials = tuple(
        TrialRecord(run="t", learning_rate=rate, dev=1.9 + 0.01 * i)
        for i, rate in enumerate((3e-4, 1e-3, 3e-3))
    )
    return TuningRecord(title=arm, arm=arm, task="language", trials=trials, rate=3e-4)


def _arm(arm: str) -> ArmRecord:
    origin, _, adaptation = arm.partition("+")
    words = f"{origin} weights" + (f"; {adaptation}" if adaptation else "")
    ledger = "jobs" if adaptation else "text"
    return ArmRecord(name=arm, origin=origin, adaptation=adaptation or None, ledger=ledger, describe=words)


def _task_record(task: str) -> TaskRecord:
    if task == "language":
        kind, metric, labels = "language", "bits_per_byte", ()
    elif task.startswith("title"):
        kind, metric, labels = "generate", "rouge_l", ()
    else:
        kind, metric, labels = "classify", "accuracy", LABELS
    higher = metric != "bits_per_byte"
    return TaskRecord(
        name=task, kind=kind, metric=metric, higher_is_better=higher, margin=0.01, labels=labels
    )


def _split(name: str, documents: int, num_bytes: int) -> SplitRecord:
    file = {"name": f"{name}.jsonl.gz", "bytes": num_bytes // 3, "sha256": "9f2c" * 16}
    return SplitRecord(
        kind="text",
        documents=documents,
        num_bytes=num_bytes,
        digest="0d5e" * 16,
        files=[file],
        licences={"CC BY 4.0": documents},
    )


def _corpus(name: str, train: tuple[int, int], test: tuple[int, int]) -> CorpusRecord:
    return CorpusRecord(train=_split(f"{name}.train", *train), test=_split(f"{name}.test", *test))


def _data(tasks: Sequence[str]) -> DataRecord:
    corpora = {
        "domain": _corpus("biomed", (1816, DOMAIN_BYTES), (150, 330_000)),
        "general": _corpus("generic", (2210, 8_000_000), (150, 330_000)),
    }
    corpora |= {task: _corpus(task, (6000, 1_100_000), (600, 112_000)) for task in tasks[1:]}
    cut = CutRecord(
        train="domain",
        test="domain",
        num_items=150,
        num_items_contaminated=2,
        num_documents_touched=3,
        whole_rows=False,
        bytes_cut=1_200,
        share_cut=0.0001,
    )
    test_set = TestSetRecord(
        num_rows=160, num_duplicates=4, num_items=150, num_clusters=150, drawn="by hash over all documents"
    )
    return DataRecord(
        corpora=corpora,
        cuts=(cut,),
        test_sets={"language": test_set},
        duplicates={"domain": {"exact": 14, "near": 31}, "general": {"exact": 0, "near": 5}},
        tokenizers={
            "generic": TokenizerRecord(bytes_per_token=3.41, vocab_size=8192),
            "domain": TokenizerRecord(bytes_per_token=4.12, vocab_size=8192),
        },
    )


def _budget() -> BudgetRecord:
    held_equal = (
        "every arm may spend the same FLOPs per seed, its tuning trials included",
        "every arm gets the same number of trials",
        "all arms see the same held-out documents and rows; intervals are paired on them",
    )
    return BudgetRecord(
        flops_per_seed=3.1e14,
        unit="flops",
        asked="3.1e14",
        task_share=0.2,
        text_flops_per_seed=2.48e14,
        trials=3,
        held_equal=held_equal,
    )


def main() -> None:
    """Write a large study into the folder named on the command line."""
    print(write_study(Path(sys.argv[1]), tasks=("language", "rct_role", "title_gen"), num_rows=1500))


if __name__ == "__main__":
    main()
