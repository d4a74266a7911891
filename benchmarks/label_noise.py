"""Plant wrong labels, find them, and measure what removing or correcting the suspects is worth.

    python benchmarks/label_noise.py DATA/tasks/rct_role --rows 4000 > benchmarks/results/label_noise.json

Labels of random training rows become another label at random. Of the suspects: how many were planted
(precision), how many of the planted are among them (recall). The score is that of word counts on development
rows whose labels stay as they are: with all rows, without the suspects, without as many rows at random, and
with planted labels among the suspects set right, as a reviewer would. Differences to the noisy rows are
paired and clustered by article. Labels that were wrong before count as falsely found, so precision is a
lower bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np

from adaptkit.audit.out_of_fold import out_of_fold
from adaptkit.audit.suspect_labels import find_suspects
from adaptkit.data.readers import DataConfig, Row, read
from adaptkit.data.score_table import ScoreTable, accuracy_table
from adaptkit.study.statistics import resample
from adaptkit.study.tasks.classify import WordCountClassifier

SHARES = (0.0, 0.05, 0.1, 0.2)
NUM_FIRST = 200
COLUMNS = {"text": "text", "label": "label", "group": "article"}


def main() -> None:
    """Measure every share of noise and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with train.jsonl.gz and dev.jsonl.gz")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    train, dev = (
        read(DataConfig(files=[str(options.folder / f"{part}.jsonl.gz")], columns=COLUMNS), "labelled").rows
        for part in ("train", "dev")
    )
    results = [measure(train[: options.rows], dev, share, options.seeds if share else 1) for share in SHARES]
    facts = {"task": options.folder.name, "rows": options.rows, "dev_rows": len(dev), "seeds": options.seeds}
    print(json.dumps({**facts, "results": results}, indent=1))


def measure(train: list[Row], dev: list[Row], share: float, num_seeds: int) -> dict[str, object]:
    """One share of planted noise, over several draws of it."""
    tables: dict[str, list[ScoreTable]] = {}
    found: list[dict[str, float]] = []
    for seed in range(num_seeds):
        begun = time.perf_counter()
        noisy, planted = plant(train, share, seed)
        answered = out_of_fold(noisy)
        ranked = find_suspects(answered.probabilities_NC, answered.given_N)
        suspects = set(ranked)
        found.append(quality(ranked, planted))
        at_random = set(np.random.default_rng(seed).choice(len(noisy), len(suspects), replace=False).tolist())
        sets = {
            "noisy": noisy,
            "without suspects": [row for number, row in enumerate(noisy) if number not in suspects],
            "without as many at random": [row for i, row in enumerate(noisy) if i not in at_random],
            "suspects corrected": [train[i] if i in suspects else row for i, row in enumerate(noisy)],
            "no noise": train,
        }
        for name, rows in sets.items():
            tables.setdefault(name, []).append(scored(rows, dev))
        print(share, seed, found[-1], round(time.perf_counter() - begun), "s", file=sys.stderr, flush=True)
    replicates = resample(tables, [row.cluster for row in dev])
    scores = {}
    for name in tables:
        interval = dataclasses.asdict(replicates.interval(name))
        against = replicates.compare(name, "noisy", margin=0.0, higher_is_better=True)
        scores[name] = {**interval, "minus_noisy": [against.difference, against.low, against.high]}
    return {"planted_share": share, "found": found, "accuracy": scores}


def quality(ranked: list[int], planted: set[int]) -> dict[str, float]:
    """Precision of all suspects and of the most doubtful ones, and recall."""
    hits, first = len(set(ranked) & planted), ranked[:NUM_FIRST]
    return {
        "suspects": len(ranked),
        "precision": hits / max(1, len(ranked)),
        "recall": hits / max(1, len(planted)),
        f"precision_of_first_{NUM_FIRST}": len(set(first) & planted) / max(1, len(first)),
    }


def plant(rows: list[Row], share: float, seed: int) -> tuple[list[Row], set[int]]:
    """Give a share of the rows another label at random; the rows, and the places of those."""
    rng = np.random.default_rng(seed)
    labels = sorted({row.values["label"] for row in rows})
    planted = set(rng.choice(len(rows), round(share * len(rows)), replace=False).tolist())
    noisy = list(rows)
    for number in planted:
        others = [label for label in labels if label != rows[number].values["label"]]
        values = {**rows[number].values, "label": str(rng.choice(others))}
        noisy[number] = dataclasses.replace(rows[number], values=values)
    return noisy, planted


def scored(train: list[Row], dev: list[Row]) -> ScoreTable:
    """Accuracy of word counts on the development rows."""
    model = WordCountClassifier([(row.text, row.values["label"]) for row in train])
    predicted = model.rows([(row.id, row.text, row.values["label"]) for row in dev])
    return accuracy_table([row["prediction"] for row in predicted], [row["label"] for row in predicted])


if __name__ == "__main__":
    main()
