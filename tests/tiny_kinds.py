"""Made rows for every kind of task that is no plain classification, learnable from single words."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from tiny_study import write_texts

TOPICS = {"cost": ("invoice", "price"), "speed": ("slow", "delay"), "care": ("friendly", "polite")}
PEOPLE, PLACES = ("ann lee", "bob", "carol king", "dan"), ("rome", "new york", "oslo", "lima")
FILLERS = ("the report of", "a long day with", "we heard that", "again about", "yesterday")
GRADES = {"awful": 1.0, "weak": 2.0, "fair": 3.0, "good": 4.0, "superb": 5.0}


def made_rows(kind: str, count: int, seed: int = 0) -> list[dict]:
    """Rows of a kind of task."""
    rng = random.Random(f"{kind} {seed}")
    return [_ROWS[kind](rng) for _ in range(count)]


def _noise(rng: random.Random) -> str:
    return f"{rng.choice(FILLERS)} {rng.randrange(1000)}"


def _multi_label(rng: random.Random) -> dict:
    labels = [name for name in TOPICS if rng.random() < 0.4]
    words = [rng.choice(TOPICS[name]) for name in labels]
    return {"text": " ".join([_noise(rng), *words, _noise(rng)]), "labels": labels}


def _offsets(rng: random.Random) -> dict:
    text, spans = _noise(rng), []
    for label, names in (("person", PEOPLE), ("place", PLACES)):
        if rng.random() < 0.7:
            name = rng.choice(names)
            spans.append({"start": len(text) + 1, "end": len(text) + 1 + len(name), "label": label})
            text += f" {name} {rng.choice(FILLERS)}"
    return {"text": text, "spans": spans}


def _tagged(rng: random.Random) -> dict:
    row = _offsets(rng)
    tokens, tags, at = [], [], 0
    for word in row["text"].split():
        start = row["text"].index(word, at)
        at = start + len(word)
        span = next((s for s in row["spans"] if s["start"] <= start < s["end"]), None)
        tokens.append(word)
        tags.append("O" if span is None else f"{'B' if span['start'] == start else 'I'}-{span['label']}")
    return {"tokens": tokens, "tags": tags}


def _scored(rng: random.Random) -> dict:
    word = rng.choice(sorted(GRADES))
    return {"text": f"{_noise(rng)} {word} {_noise(rng)}", "score": 100 + 10 * GRADES[word]}


def _bill(rng: random.Random) -> dict:
    fields = {"vendor": rng.choice(("ames", "bolt", "carr")), "total": rng.randrange(10, 999)}
    if rng.random() < 0.5:
        fields["status"] = rng.choice(("open", "paid"))
    return {"text": f"{_noise(rng)} bill of {' euro '.join(map(str, fields.values()))}", "fields": fields}


def _pairs(rng: random.Random) -> dict:
    first, other = rng.sample(sorted(GRADES), 2)
    same = rng.random() < 0.5
    second = first if same else other
    label = "same" if same else "other"
    return {"text_a": f"{_noise(rng)} {first}", "text_b": f"{_noise(rng)} {second}", "label": label}


def _preference(rng: random.Random) -> dict:
    answers = [f"{rng.choice(('awful', 'superb'))} {_noise(rng)}" for _ in range(2)]
    good, bad = f"superb {answers[0]}", f"awful {answers[1]}"
    return {"prompt": f"how was {_noise(rng)}?", "chosen": good, "rejected": bad}


_ROWS = {
    "multi_label": _multi_label,
    "offsets": _offsets,
    "tagged": _tagged,
    "scored": _scored,
    "bill": _bill,
    "pairs": _pairs,
    "preference": _preference,
}


def write_rows(path: Path, kind: str, count: int, seed: int = 0) -> Path:
    """A .jsonl file of rows of a kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in made_rows(kind, count, seed)))
    return path


SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "kinds.yaml"
ROWS = {
    "topics": "multi_label",
    "entities": "tagged",
    "bill": "bill",
    "rating": "scored",
    "duplicate": "pairs",
    "preferred": "preference",
}
SMALL = (
    *('base=""', "base_flops=1e10", "seeds=1", "jobs=2", "budget.amount=1e11", "budget.trials=1"),
    *("budget.trial_share=0.15", "budget.task_share=0.3", "size.params=130k", "size.seq_len=128"),
    *("tokenizer.vocab_size=512", "trainer.global_batch_size=8", "arms=[generic+full]"),
)


def write_data(folder: Path) -> Path:
    """The files that the shipped config names, and a copy of it beside them."""
    write_texts(folder)
    for name in ("domain", "general"):
        target = folder / "data" / name
        target.mkdir(parents=True)
        shutil.copy(folder / f"{name}.jsonl", target / "rows.jsonl.gz")  # packing is seen in the bytes
    for task, kind in ROWS.items():
        write_rows(folder / "data" / f"{task}.jsonl", kind, 300)
    return Path(shutil.copy(SHIPPED, folder / "kinds.yaml"))
