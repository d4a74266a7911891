"""Medical search: questions that find their leaflet, by an encoder trained on pairs.

python -m examples.medical_search

The leaflets are made; nothing here is medical advice.
"""

from __future__ import annotations

import random

from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.index import Index
from examples.steps import Example, model_of, start, write_rows

DRUGS = tuple(
    f"{first}{last}"
    for first in ("alo", "bena", "cori", "dexa", "ela")
    for last in ("mine", "pril", "zol", "tane")
)
ASKED = "coripril"
EFFECTS = ("headache", "a dry cough", "dizziness", "a rash", "tiredness", "nausea")
USES = ("high blood pressure", "asthma", "stomach pain", "joint pain", "an infection", "hay fever")


def leaflets(seed: int) -> list[dict[str, object]]:
    """One leaflet for each drug: what it is for, how it is taken, what may happen."""
    draw = random.Random(seed)
    made: list[dict[str, object]] = []
    for drug in DRUGS:
        use, tablets, effects = draw.choice(USES), draw.randint(1, 3), " and ".join(draw.sample(EFFECTS, 2))
        text = (
            f"{drug.capitalize()} is given for {use}. Take {tablets} tablets a day. It may cause {effects}."
        )
        made.append({"_id": drug, "text": text})
    return made


def pairs(documents: list[dict[str, object]], count: int, seed: int) -> list[dict[str, object]]:
    """Questions with the leaflet that answers them."""
    draw = random.Random(seed)
    asked = (
        "what is {} for?",
        "how many tablets of {} a day?",
        "side effects of {}",
        "does {} make me tired?",
    )
    chosen = [draw.choice(documents) for _ in range(count)]
    return [
        {"question": draw.choice(asked).format(document["_id"]), "answer": document["text"]}
        for document in chosen
    ]


def main(example: Example) -> None:
    """Make data and an encoder, train it on pairs, index the leaflets, search them, compare with words."""
    documents = leaflets(seed=1)
    write_rows("leaflets.jsonl", documents)
    write_rows("pairs.jsonl", pairs(documents, example.count(1200, 160), seed=2))
    example.adaptkit("data", "check", "pairs.jsonl")
    example.train("pretrain", "base.yaml", steps=200)
    config = str(example.here / "embed.yaml")
    example.adaptkit("embed", "train", config, f"base={model_of('medical-base')}", example.steps(200))
    encoder = str(model_of("medical-search"))
    example.adaptkit("embed", "encode", encoder, "leaflets.jsonl", "--out", "vectors")
    example.adaptkit("embed", "index", "vectors", "--out", "index")
    example.adaptkit("embed", "search", "index", encoder, f"what is {ASKED} for?", "-k", "3")
    compare(documents, encoder)


def compare(documents: list[dict[str, object]], folder: str) -> None:
    """Ask for each leaflet in new words; say how often the encoder and a search by words find it first."""
    names, texts = [str(row["_id"]) for row in documents], [str(row["text"]) for row in documents]
    questions = [f"why do people take {name}?" for name in names]
    found = Index.open("index").search(Encoder.load(folder), questions, k=1)
    by_encoder = sum(hits[0][0] == name for hits, name in zip(found, names, strict=True))
    words = Bm25(texts)
    best = [names[int(words.scores(content_terms(question)).argmax())] for question in questions]
    by_words = sum(one == name for one, name in zip(best, names, strict=True))
    print(f"\nfound first, of {len(names)} leaflets: encoder {by_encoder}, search by words (BM25) {by_words}")
    print(f"by words: {best[names.index(ASKED)]}  for '{questions[names.index(ASKED)]}'")
    if by_encoder < by_words:
        print(
            "The encoder is not yet worth having: it is small, learnt from nothing but these pairs, and names"
        )
        print(
            "are what a search by words is best at. Take BM25 here, or begin with a base that has read more."
        )


if __name__ == "__main__":
    main(start(__file__))
