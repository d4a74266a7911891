"""Log lines: a model that has read normal lines finds the odd ones, without a label.

python -m examples.log_lines
"""

from __future__ import annotations

import random

from adaptkit import models
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from examples.steps import Example, model_of, start, write_rows

SERVICES = ("gateway", "billing", "search", "mailer")
NORMAL = (
    "request {n} answered in {ms} ms",
    "cache hit for key {n}",
    "session {n} opened",
    "session {n} closed",
)
ODD = (
    "segmentation fault in worker {n}",
    "checksum mismatch in block {n}",
    "refused key {n} from unknown host",
)


def line(draw: random.Random, patterns: tuple[str, ...]) -> str:
    """One line of a log."""
    text = draw.choice(patterns).format(n=draw.randint(100, 999), ms=draw.randint(1, 90))
    return f"{draw.randint(10, 23)}:{draw.randint(10, 59)} {draw.choice(SERVICES)} {text}"


def main(example: Example) -> None:
    """Pretrain on normal lines, then rank new lines by how badly the model predicts them."""
    draw = random.Random(1)
    write_rows("normal.jsonl", ({"text": line(draw, NORMAL)} for _ in range(example.count(4000, 400))))
    example.adaptkit("data", "check", "normal.jsonl")
    example.train("pretrain", "pretrain.yaml", steps=200)
    new = [
        *((line(draw, NORMAL), "normal") for _ in range(20)),
        *((line(draw, ODD), "ODD") for _ in range(4)),
    ]
    folder = model_of("log-lines")
    model, tokenizer = models.load(folder, "causal"), models.load_tokenizer(folder)
    documents = [(str(number), text) for number, (text, _) in enumerate(new)]
    scored = score_documents(model, tokenizer, documents, seq_len=64)
    print("\nbits per byte, the worst predicted lines first:")
    for row in sorted(scored, key=lambda row: -bits_per_byte([row]))[:8]:
        text, kind = new[int(row["id"])]
        print(f"{bits_per_byte([row]):6.2f}  {kind:6}  {text}")


if __name__ == "__main__":
    main(start(__file__))
