"""Contracts: parties, dates and amounts found in clauses, word by word.

python -m examples.contracts
"""

from __future__ import annotations

import random

from examples.steps import Example, model_of, start, write_rows

PARTIES = ("Alder Ltd", "Birch and Sons", "Cedar Holding", "Dune Works", "Elm Systems", "Fern Services")
MONTHS = ("January", "March", "May", "July", "October", "December")
CLAUSES = (
    ("{party} pays {amount} to {party} by {date}.", ("party", "amount", "party", "date")),
    ("This agreement between {party} and {party} begins on {date}.", ("party", "party", "date")),
    ("A delay after {date} costs {party} a penalty of {amount}.", ("date", "party", "amount")),
    ("Either side may end this contract in writing.", ()),
)


def rows(count: int, seed: int) -> list[dict[str, object]]:
    """Clauses with the places of what is named in them."""
    draw = random.Random(seed)
    return [_clause(draw, *draw.choice(CLAUSES)) for _ in range(count)]


def _clause(draw: random.Random, pattern: str, kinds: tuple[str, ...]) -> dict[str, object]:
    text, spans = "", []
    parts = pattern.replace("}", "{").split("{")
    for number, part in enumerate(parts):
        if number % 2 == 0:
            text += part
            continue
        value = _value(draw, part)
        spans.append({"start": len(text), "end": len(text) + len(value), "label": part})
        text += value
    assert tuple(span["label"] for span in spans) == kinds
    return {"text": text, "spans": spans}


def _value(draw: random.Random, kind: str) -> str:
    if kind == "party":
        return draw.choice(PARTIES)
    if kind == "date":
        return f"{draw.randint(1, 28)} {draw.choice(MONTHS)} {draw.randint(2026, 2030)}"
    return f"{draw.randint(1, 900)},000 euros"


def main(example: Example) -> None:
    """Make data, look at it, make an encoder, teach it the names, and ask it."""
    write_rows("clauses.jsonl", rows(example.count(1500, 200), seed=1))
    write_rows("test.jsonl", rows(example.count(300, 40), seed=2))
    example.adaptkit("data", "check", "clauses.jsonl", "test.jsonl")
    example.train("pretrain", "base.yaml", steps=200)
    config = str(example.here / "finetune.yaml")
    example.adaptkit("finetune", config, f"base={model_of('contracts-base')}", example.steps(300))
    example.adaptkit("try", "names", "Elm Systems pays 40,000 euros to Dune Works by 3 May 2027.")


if __name__ == "__main__":
    main(start(__file__))
