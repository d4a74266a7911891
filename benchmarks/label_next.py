"""Simulate labelling: how many labels does choosing rows save against drawing them at random?

    python benchmarks/label_next.py DATA/tasks/rct_role > benchmarks/results/label_next.json

The training rows' labels are hidden but for 100 drawn at random, the same for all ways of one seed. Each way
then asks for 100 more at a time, up to 1,200; the model is trained anew on all that are labelled, and tested
on the development rows. The model is that of `adaptkit labels next`, word counts. Differences to random are
paired and clustered by article. Labels saved at equal accuracy: how many fewer a way needs for what random
labels reach, by monotone mean curves; seeds and articles are drawn together, and intervals widened for few
seeds.

Predicted before any run (2026-11-27), word counts: uncertainty is ahead of random at 1,000 labels by .010 to
.030 and saves 25 to 45 % of them; both within .008 of uncertainty, saving 20 to 40 %; diversity alone no
better than random at any size; at 200 labels no way ahead of random by more than .020.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import t as student
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from adaptkit.data.readers import DataConfig, Row, read
from adaptkit.data.score_table import mean_table
from adaptkit.labelling.selection import STRATEGIES, Pool, Strategy, select
from adaptkit.study.statistics import resample
from adaptkit.study.tasks.classify import WordCountClassifier
from adaptkit.study.tasks.word_counts import word_counts

COLUMNS = {"text": "text", "label": "label", "group": "article"}
BATCH, MOST, NUM_SEEDS = 100, 1200, 5
SIZES = list(range(BATCH, MOST + 1, BATCH))
SHOWN = (200, 500, 1000)
TARGETS = (300, 500, 1000)
"""Labels drawn at random whose accuracy the others are to reach."""
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Learnt:
    """A model of some labelled rows: its labels, and its probabilities of the training and the test rows."""

    names: list[str]
    of_train: Callable[[], np.ndarray]
    of_test: Callable[[], np.ndarray]

    def hits(self, test: list[Row]) -> np.ndarray:
        """1.0 for each test row whose label is predicted."""
        said = [self.names[place] for place in self.of_test().argmax(axis=1)]
        return np.array([float(name == row.values["label"]) for name, row in zip(said, test, strict=True)])


def main() -> None:
    """Run every way with every seed and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with train.jsonl.gz and dev.jsonl.gz")
    parser.add_argument("--jobs", type=int, default=2, help="simulations at once")
    options = parser.parse_args()
    train, test = (
        read(DataConfig(files=[str(options.folder / f"{part}.jsonl.gz")], columns=COLUMNS), "labelled").rows
        for part in ("train", "dev")
    )
    counts = Counts(train, test)
    counts.check(list(range(0, len(train), len(train) // 50)))
    vectors = word_counts().fit_transform([row.text for row in train])
    jobs = [(way, seed) for way in STRATEGIES for seed in range(NUM_SEEDS)]
    work = partial(simulate, train=train, test=test, vectors=vectors, counts=counts)
    with ThreadPoolExecutor(options.jobs) as pool:
        done = dict(zip(jobs, pool.map(lambda job: work(*job), jobs), strict=True))
    hits = {way: np.stack([done[way, seed] for seed in range(NUM_SEEDS)]) for way in STRATEGIES}
    everything = counts.learn(list(range(len(train)))).hits(test).mean()
    facts = {
        "task": options.folder.name,
        "model": "word counts",
        "rows": len(train),
        "test_rows": len(test),
        "seeds": NUM_SEEDS,
        "all_labels_accuracy": round(float(everything), 4),
    }
    clusters = [row.cluster for row in test]
    print(json.dumps({**facts, **curves(hits, clusters), "saved": saved(hits, clusters)}, indent=1))


class Counts:
    """`WordCountClassifier` for many small parts of the same texts, whose words are counted once.

    `check` holds it against the classifier itself.
    """

    def __init__(self, train: list[Row], test: list[Row]):
        self.texts, self.asked = ([row.text for row in rows] for rows in (train, test))
        self.labels = np.array([str(row.values["label"]) for row in train])
        settings = word_counts().get_params()
        shared = ("ngram_range", "lowercase", "tokenizer", "token_pattern")
        counter = CountVectorizer(**{name: settings[name] for name in shared})
        self.train, self.test = counter.fit_transform(self.texts), counter.transform(self.asked)

    def learn(self, places: list[int]) -> Learnt:
        counted = self.train[places]
        seen = np.unique(counted.indices)
        weights = TfidfTransformer(sublinear_tf=True)
        features = weights.fit_transform(counted[:, seen])
        model = LogisticRegression(C=10.0, solver="sag", tol=3e-3, max_iter=1000, random_state=0)
        model.fit(features, self.labels[places])

        def answer(counts: csr_matrix) -> np.ndarray:
            return model.predict_proba(weights.transform(counts[:, seen]))

        return Learnt(list(model.classes_), partial(answer, self.train), partial(answer, self.test))

    def check(self, places: list[int]) -> None:
        """Fail where the classifier itself gives the test rows other probabilities."""
        model = WordCountClassifier([(self.texts[place], self.labels[place]) for place in places])
        learnt = self.learn(places)
        assert learnt.names == model.labels
        np.testing.assert_allclose(learnt.of_test(), model.probabilities(self.asked), atol=1e-6)


def simulate(
    way: Strategy, seed: int, *, train: list[Row], test: list[Row], vectors: csr_matrix, counts: Counts
) -> np.ndarray:
    """Whether each test row is right at each number of labels [sizes, test rows]."""
    begun = time.perf_counter()
    labelled = [int(i) for i in np.random.default_rng(seed).permutation(len(train))[:BATCH]]
    hits = []
    for size in SIZES:
        learnt = counts.learn(labelled)
        hits.append(learnt.hits(test))
        if size == MOST:
            break
        left = np.setdiff1d(np.arange(len(train)), labelled)
        chances = learnt.of_train()[left] if way in ("both", "uncertainty") else None
        pool = Pool(vectors[left], vectors[labelled], chances)
        labelled += [int(left[place]) for place in select(way, pool, BATCH, seed * len(SIZES) + len(hits))]
    took = round(time.perf_counter() - begun)
    print(way, seed, np.mean(hits, axis=1).round(3).tolist(), took, "s", file=sys.stderr, flush=True)
    return np.stack(hits)


def curves(hits: dict[Strategy, np.ndarray], clusters: list[str]) -> dict[str, object]:
    """Mean accuracies by number of labels, and differences to random at some of them."""
    means = {way: of_way.mean(axis=(0, 2)).round(4).tolist() for way, of_way in hits.items()}
    differences = []
    for size in SHOWN:
        tables = {
            way: [mean_table(seed[SIZES.index(size)].tolist()) for seed in of_way]
            for way, of_way in hits.items()
        }
        replicates = resample(tables, clusters)
        row: dict[str, object] = {"labels": size, "random": dataclasses.asdict(replicates.interval("random"))}
        for way in STRATEGIES:
            if way != "random":
                against = replicates.compare(way, "random", margin=0.0, higher_is_better=True)
                row[f"{way}_minus_random"] = [against.difference, against.low, against.high]
        differences.append(row)
    return {"labels": SIZES, "accuracy": means, "differences": differences}


def saved(hits: dict[Strategy, np.ndarray], clusters: list[str]) -> list[dict[str, object]]:
    """Labels saved at the accuracy of so many random ones: estimate, and ends of a 95 % interval.

    A way that does not get there with all its labels is counted as if it did with the last, so that it saves
    at most so many: `never_reached` is the share of replicates where that was so.
    """
    names = sorted(set(clusters))
    place = {name: i for i, name in enumerate(names)}
    member = np.zeros((len(names), len(clusters)))
    member[[place[name] for name in clusters], np.arange(len(clusters))] = 1.0
    sums = {way: of_way @ member.T for way, of_way in hits.items()}  # [seeds, sizes, clusters]
    rng = np.random.default_rng(0)
    drawn: dict[tuple[Strategy, int], list[tuple[float, bool]]] = {}
    for number in range(NUM_RESAMPLES + 1):
        weights, seeds = np.ones(len(names)), np.arange(NUM_SEEDS)
        if number:
            weights = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)) * 1.0
            seeds = rng.integers(0, NUM_SEEDS, NUM_SEEDS)
        total = float(weights @ member.sum(axis=1))
        curve = {way: monotone(of_way[seeds].mean(axis=0) @ weights / total) for way, of_way in sums.items()}
        for way in STRATEGIES:
            for target in TARGETS:
                needed = labels_for(curve[way], float(np.interp(target, SIZES, curve["random"])))
                drawn.setdefault((way, target), []).append((target - needed[0], needed[1]))
    return [interval_of(way, target, values) for (way, target), values in drawn.items() if way != "random"]


def interval_of(way: Strategy, target: int, values: list[tuple[float, bool]]) -> dict[str, object]:
    """Percentiles, their distance from the estimate widened for few seeds: t for normal, and S / (S - 1)."""
    numbers = np.array([value for value, _ in values])
    estimate, replicates = numbers[0], numbers[1:]
    stretch = student.ppf(0.975, NUM_SEEDS - 1) / 1.96 * np.sqrt(NUM_SEEDS / (NUM_SEEDS - 1))
    ends = estimate + stretch * (np.quantile(replicates, [0.025, 0.975]) - estimate)
    low, high = np.clip(ends, target - MOST, target - BATCH)
    never = float(np.mean([not reached for _, reached in values[1:]]))
    saving = {"saved": round(estimate), "low": round(low), "high": round(high)}
    return {"way": way, "random_labels": target, **saving, "never_reached": round(never, 3)}


def monotone(accuracies: np.ndarray) -> np.ndarray:
    """The nearest curve that never falls."""
    return IsotonicRegression().fit_transform(SIZES, accuracies)


def labels_for(curve: np.ndarray, accuracy: float) -> tuple[float, bool]:
    """The fewest labels at which a curve reaches an accuracy, and whether it does."""
    above = np.flatnonzero(curve >= accuracy)
    if not len(above):
        return float(MOST), False
    first = int(above[0])
    if first == 0:
        return float(SIZES[0]), True
    rise = curve[first] - curve[first - 1]
    return SIZES[first] - BATCH * float((curve[first] - accuracy) / rise), True


if __name__ == "__main__":
    main()
