"""The ladder of distillation: what each step up costs and brings, over seeds, with intervals.

    python benchmarks/distill_ladder.py classify --data DATA --encoder MODEL --out benchmarks/results/distill_classify.json
    python benchmarks/distill_ladder.py language --data DATA --out benchmarks/results/distill_language.json

`classify`: a half-depth student of a classifier on sentence roles of trial reports, from truncation to module
replacing. `language`: a half-depth student of a small language model on trial reports; the student's own text
(on-policy reverse KL) against the data's (forward KL) by what it then writes; and a pruned student against
one from scratch with three times the tokens.

`tune`: what was tried for `classify`, on other rows and another seed.

All rungs of a task share the start, the rows in their order and the number of steps; only the losses differ,
and where it is said the learning rate. Runs are resumable: give the same --root again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.data.readers import DataConfig
from adaptkit.data.score_table import ScoreTable
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.recipe import distill
from adaptkit.environment import environment
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, read_json, read_jsonl, write_json, write_jsonl
from adaptkit.run_record import read_record
from adaptkit.study.scores import score_table
from adaptkit.study.statistics import resample

SEEDS = (0, 1, 2)
TUNE_SEED, TUNED, TESTED = 100, 400, 600


@dataclass(frozen=True)
class Rung:
    """The losses of a step of the ladder, and its learning rate."""

    losses: dict[str, float]
    rate: float = 3e-4


KD = {"forward_kl": 0.9, "cross_entropy": 0.1}
CLASSIFY = {
    "truncated + fine-tuned": Rung({"cross_entropy": 1.0}),
    "logits": Rung(KD),
    "logits + hidden states": Rung({**KD, "hidden": 0.1}),
    "replacing, constant rate": Rung({"replacing_constant": 1.0}),
    "replacing, curriculum": Rung({"replacing": 1.0}),
    "logits + replacing": Rung({**KD, "replacing": 0.3}),
}
TRIED = {
    "logits": Rung(KD),
    "logits + hidden states": Rung({**KD, "hidden": 0.1}),
    "replacing, curriculum": Rung({"replacing": 1.0}),
}
AGAINST = [
    ("replacing, curriculum", "truncated + fine-tuned"),
    ("replacing, curriculum", "logits"),
    ("logits + replacing", "logits"),
    ("logits + hidden states", "truncated + fine-tuned"),
    ("logits", "teacher"),
    ("logits + hidden states", "teacher"),
]
LANGUAGE = {
    "truncated + trained on": {"cross_entropy": 1.0},
    "logits": KD,
    "logits + hidden states": {**KD, "hidden": 1.0},
    "replacing, constant rate": {"replacing_constant": 1.0},
    "replacing, curriculum": {"replacing": 1.0},
}
TEACHER_STEPS = 1080


class Ladder:
    """Runs of one task below a root, each found again when it was made before."""

    def __init__(self, options: argparse.Namespace):
        self.root, self.data, self.threads = options.root / options.task, options.data, options.threads
        self.texts = self.root / "texts"

    def run(self, recipe: Any, schema: Any, name: str, fields: dict[str, Any]) -> Run:
        config = schema.model_validate({"name": name, **fields})
        run = Run.open(self.root, name, config.model_dump(mode="json"))
        recipe(config, run)
        return run

    def rows(self, name: str, source: str, keep: int) -> dict[str, Any]:
        """The first `keep` rows of a file, spread over it, as a file of their own."""
        path = self.texts / f"{name}.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(self.data / source, "rt", encoding="utf-8") as file:
                lines = file.readlines()
            path.write_text(
                "".join(lines[i] for i in np.linspace(0, len(lines) - 1, min(keep, len(lines))).astype(int))
            )
        return {"files": [str(path)]}

    def trainer(self, **fields: Any) -> dict[str, Any]:
        return {"threads": self.threads, "log_every": 20, "checkpoint_every": 0, **fields}


def told(
    name: str,
    tables: dict[str, list[ScoreTable]],
    pairs: Sequence[tuple[str, str]],
    higher: bool,
    **more: Any,
) -> dict[str, Any]:
    """Intervals of each rung and of differences between rungs on the same items."""
    replicates = resample(tables, seed=0)
    scores = {
        arm: {**asdict(replicates.interval(arm)), "seeds": replicates.scores[arm].tolist()} for arm in tables
    }
    margin = {"margin": 0.0, "higher_is_better": higher}
    differences = [{"of": a, "minus": b, **asdict(replicates.compare(a, b, **margin))} for a, b in pairs]
    head = {"metric": name, "higher_is_better": higher, "num_items": replicates.num_items}
    return {**head, "scores": scores, "differences": differences, **more}


RATE = {
    "learning_rate": 1e-4,
    "schedule": "linear",
    "weight_decay": 0.01,
    "beta2": 0.99,
    "global_batch_size": 16,
}
ROLES = "biomed/tasks/rct_role"


def roles(ladder: Ladder, options: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """The classifier that teaches, and what all its students share."""
    train = ladder.rows("train", f"{ROLES}/train.jsonl.gz", 6000)
    dev, test = (
        ladder.rows("dev", f"{ROLES}/train.jsonl.gz", 97),
        ladder.rows("test", f"{ROLES}/dev.jsonl.gz", TESTED),
    )
    fields = {
        "base": str(options.encoder),
        "task": "roles",
        "train": train,
        "dev": dev,
        "test": test,
        "max_length": 64,
    }
    teacher = ladder.run(
        finetune, FinetuneConfig, "teacher", {**fields, "trainer": ladder.trainer(num_steps=120, **RATE)}
    )
    return teacher, {
        "teacher": str(teacher.model),
        "data": train,
        "dev": dev,
        "test": test,
        "size": {"seq_len": 64},
    }


def student_of(ladder: Ladder, shared: dict[str, Any], rung: Rung, steps: int, seed: int) -> Run:
    """A student, its answers to the test rows beside it: the recipe would ask the teacher about them again
    each time."""
    from adaptkit import data, models
    from adaptkit.data.labels import classify_rows

    test, fields = shared["test"], {**shared, "test": None}
    trainer = ladder.trainer(
        num_steps=steps, seed=seed, microbatch_size=8, **{**RATE, "learning_rate": rung.rate}
    )
    made = ladder.run(
        distill, DistillConfig, "student", {**fields, "losses": rung.losses, "trainer": trainer}
    )
    if not made.items("test").exists():
        model = models.load(made.model, "classifier").eval()
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        rows = data.read(DataConfig.model_validate(test), "labelled")
        write_jsonl(
            made.items("test"), classify_rows(model, models.load_tokenizer(made.model), rows, names, 64)
        )
    return made


def classify(options: argparse.Namespace) -> dict[str, Any]:
    ladder = Ladder(options)
    teacher, shared = roles(ladder, options)
    tables = {"teacher": [score_table("accuracy", list(read_jsonl(teacher.items("roles"))))] * len(SEEDS)}
    costs = {"teacher": read_json(teacher.cost_path)}
    for seed in SEEDS:
        for name, rung in CLASSIFY.items():
            made = student_of(ladder, shared, rung, options.steps or 60, seed)
            tables.setdefault(name, []).append(score_table("accuracy", list(read_jsonl(made.items("test")))))
            costs[name] = read_json(made.cost_path)
    rungs = [*CLASSIFY, "teacher"]
    pairs = [*zip(rungs[1:], rungs, strict=False), *(pair for pair in AGAINST if set(pair) <= set(rungs))]
    kept = {
        rung: float(np.mean([t.value for t in tables[rung]]) / tables["teacher"][0].value)
        for rung in CLASSIFY
    }
    return told(
        "accuracy", tables, pairs, True, share_kept=kept, costs=costs, rows=6000, rungs=asdicts(CLASSIFY)
    )


def tune(options: argparse.Namespace) -> dict[str, Any]:
    """One student of each setting in TRIED, scored on rows and drawn from a seed that no ladder sees."""
    ladder = Ladder(argparse.Namespace(**{**vars(options), "task": "classify"}))
    _, shared = roles(ladder, options)
    path = ladder.texts / "tune.jsonl"
    if not path.exists():
        with gzip.open(ladder.data / ROLES / "dev.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = file.readlines()
        tested = {*np.linspace(0, len(lines) - 1, TESTED).astype(int)}
        others = [line for i, line in enumerate(lines) if i not in tested]
        path.write_text("".join(others[i] for i in np.linspace(0, len(others) - 1, TUNED).astype(int)))
    found = {}
    for name, rung in TRIED.items():
        made = student_of(
            ladder, {**shared, "test": {"files": [str(path)]}}, rung, options.steps or 60, TUNE_SEED
        )
        found[name] = {
            **asdict(rung),
            "accuracy": score_table("accuracy", list(read_jsonl(made.items("test")))).value,
        }
        print(name, json.dumps(found[name]), flush=True)
    return {
        "scores": {name: {"mean": row["accuracy"], "low": 0.0, "high": 0.0} for name, row in found.items()},
        "tried": found,
    }


def asdicts(rungs: dict[str, Rung]) -> dict[str, Any]:
    return {name: asdict(rung) for name, rung in rungs.items()}


TINY = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
ROW, BATCH, WRITTEN = 96, 8, 48
SHORT = {"student": {"layers": 2}}
PRUNED = {"student": {"layers": 2, "width": 96}}


def passages(ladder: Ladder, name: str, source: str, articles: int, keep: int) -> dict[str, Any]:
    """Passages of about 1,200 characters from the first articles."""
    path = ladder.texts / f"{name}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(ladder.data / source, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line, _ in zip(file, range(articles), strict=False)]
        cut = [text[i : i + 1200] for text in texts for i in range(0, len(text) - 1200, 1200)]
        chosen = np.linspace(0, len(cut) - 1, min(keep, len(cut))).astype(int)
        path.write_text("".join(json.dumps({"text": cut[i]}) + "\n" for i in chosen))
    return {"files": [str(path)]}


def start_model(ladder: Ladder, name: str, train: dict[str, Any], **shape: int) -> Path:
    """A folder with random weights and a tokenizer of the training text."""
    from transformers import LlamaConfig

    from adaptkit import models
    from adaptkit.data.tokenizers import train_tokenizer

    folder = ladder.root / name
    if not folder.exists():
        texts = [row["text"] for row in read_jsonl(train["files"][0])]
        tokenizer = train_tokenizer(texts, "bpe", TINY["vocab_size"])
        ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        fixed = {"max_position_embeddings": ROW, "tie_word_embeddings": True, "initializer_range": 0.05}
        config = LlamaConfig(**{**TINY, **shape}, **ids, **fixed)
        models.save(models.build(config, "causal", seed=0), tokenizer, folder)
    return folder


def written(folder: Path, teacher: Path, dev: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """What a model writes after the first quarter of held-out passages: the teacher's nats on it, and its
    ROUGE-L."""
    import torch

    from adaptkit import models, ops
    from adaptkit.study.scores import rouge_l
    from adaptkit.trainer.distillation import targets
    from adaptkit.trainer.sampling import continued

    model, judge = (models.load(path, "causal").eval() for path in (folder, teacher))
    tokenizer = models.load_tokenizer(teacher)
    texts = [row["text"] for row in read_jsonl(dev["files"][0])][:WRITTEN]
    ids = torch.tensor([tokenizer(text)["input_ids"][:ROW] for text in texts])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        own = continued(model, {"input_ids": ids, "labels": ids})
        backbone, weight, bias = models.split(judge)
        hidden = backbone(
            input_ids=own["input_ids"], attention_mask=own["attention_mask"], position_ids=own["position_ids"]
        )
        labels = targets(own, "causal")
        nats = ops.token_nll(hidden.flatten(0, 1), weight, labels.flatten(), bias_V=bias).view_as(labels)
    kept = own["labels"] != ops.IGNORE_INDEX
    prompt = ROW // 4
    said = [
        tokenizer.decode(row[mask], skip_special_tokens=True)
        for row, mask in zip(own["input_ids"], kept, strict=True)
    ]
    truth = [tokenizer.decode(row[prompt:], skip_special_tokens=True) for row in ids]
    return [
        {"nats": float(n), "tokens": int(k), "rouge_l": rouge_l([a], [b])}
        for n, k, a, b in zip(nats.sum(1), kept.sum(1), said, truth, strict=True)
    ]


def ratio_table(rows: Sequence[dict[str, float]], top: str, bottom: str | None = None) -> ScoreTable:
    sums = np.array([[row[top], row[bottom] if bottom else 1.0] for row in rows])
    return ScoreTable(sums, lambda totals: totals[..., 0] / totals[..., 1])


def language(options: argparse.Namespace) -> dict[str, Any]:
    ladder, source, steps = Ladder(options), "biomed/corpus", options.steps or 60
    train = passages(ladder, "train", f"{source}/train.jsonl.gz", 90, 1500)
    dev = passages(ladder, "dev", f"{source}/dev.jsonl.gz", 12, 48)
    shared = {"data": train, "dev": dev, "size": {"seq_len": ROW}}
    quick = {"global_batch_size": BATCH, "learning_rate": 3e-3}

    def scratch(name: str, seed: int, num_steps: int, **shape: int) -> Run:
        fields: dict[str, Any] = {**shared, "base": str(start_model(ladder, f"{name}-start", train, **shape))}
        fields["trainer"] = ladder.trainer(num_steps=num_steps, seed=seed, **quick)
        return ladder.run(pretrain, PretrainConfig, name, fields)

    teacher = scratch("teacher", 0, TEACHER_STEPS)
    runs: dict[str, list[Run]] = {"teacher": [teacher] * len(SEEDS)}

    def taught(rung: str, losses: dict[str, float], more: dict[str, Any], rate: float) -> None:
        for seed in SEEDS:
            trainer = ladder.trainer(num_steps=steps, seed=seed, global_batch_size=BATCH, learning_rate=rate)
            fields = {**shared, **more, "teacher": str(teacher.model), "losses": losses, "trainer": trainer}
            runs.setdefault(rung, []).append(ladder.run(distill, DistillConfig, "student", fields))

    for rung, losses in LANGUAGE.items():
        taught(rung, losses, SHORT, 1e-3)
    taught("pruned in depth and width, logits", {"forward_kl": 0.9, "cross_entropy": 0.1}, PRUNED, 3e-3)
    small = {"num_hidden_layers": 2, "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 3}
    runs["the same shape from scratch, 3 x the tokens"] = [
        scratch("small", seed, 3 * steps, **small) for seed in SEEDS
    ]
    taught("on-policy reverse KL", {"on_policy": 1.0}, SHORT, 1e-3)
    tables = {
        rung: [score_table("bits_per_byte", list(read_jsonl(run.items("language")))) for run in made]
        for rung, made in runs.items()
    }
    rungs = [*LANGUAGE, "teacher"]
    pairs = [*zip(rungs[1:], rungs, strict=False), ("replacing, curriculum", "truncated + trained on")]
    pairs.append(("pruned in depth and width, logits", "the same shape from scratch, 3 x the tokens"))
    pairs.append(("replacing, curriculum", "logits"))
    generation = {}
    wrote = {
        rung: [
            written(run.model, teacher.model, dev, seed) for seed, run in zip(SEEDS, runs[rung], strict=True)
        ]
        for rung in ("truncated + trained on", "logits", "on-policy reverse KL", "teacher")
    }
    compared = [
        ("on-policy reverse KL", "logits"),
        ("logits", "truncated + trained on"),
        ("on-policy reverse KL", "teacher"),
    ]
    for metric, columns, higher in (
        ("teacher's nats per token", ("nats", "tokens"), False),
        ("rouge_l", ("rouge_l", None), True),
    ):
        by_rung = {rung: [ratio_table(rows, *columns) for rows in seeds] for rung, seeds in wrote.items()}
        generation[metric] = told(metric, by_rung, compared, higher)
    costs = {rung: read_json(made[0].cost_path) for rung, made in runs.items()}
    params = {rung: read_record(made[0]).params for rung, made in runs.items()}
    kept = {
        rung: float(tables["teacher"][0].value / np.mean([t.value for t in tables[rung]]))
        for rung in LANGUAGE
    }
    found = told("bits_per_byte", tables, pairs, False, share_kept=kept, costs=costs, params=params)
    return {**found, "generation": generation}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds biomed/")
    parser.add_argument(
        "--encoder", type=Path, help="classify: the pretrained encoder that the teacher is tuned from"
    )
    parser.add_argument("--root", type=Path, default=Path("runs/distill-ladder"))
    parser.add_argument("--steps", type=int, default=0, help="steps of each student; 0 takes the task's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    began, cpu = time.time(), time.process_time()
    found = TASKS[options.task](options)
    spent = {"wall_s": round(time.time() - began), "cpu_s": round(time.process_time() - cpu)}
    encoder = " --encoder MODEL" if options.encoder else ""
    command = f"python benchmarks/distill_ladder.py {options.task} --data DATA{encoder} --out benchmarks/results/{options.out.name}"
    write_json(
        options.out,
        {
            "command": command,
            "date": time.strftime("%Y-%m-%d"),
            **spent,
            "environment": environment(),
            **found,
        },
    )
    for arm, score in found["scores"].items():
        print(f"{arm}: {score['mean']:.4f} [{score['low']:.4f}, {score['high']:.4f}]")


TASKS = {"classify": classify, "language": language, "tune": tune}

if __name__ == "__main__":
    main()
