"""Tickets: which queue answers a message? A small model, fine-tuned, beside word counts.

python -m examples.tickets
"""

from __future__ import annotations

import random

from examples.steps import Example, model_of, start, write_rows

QUEUES = {
    "billing": ("the invoice is wrong", "my card was charged twice", "the refund has not come"),
    "network": ("the vpn drops", "the wifi is slow on every floor", "no page loads since the update"),
    "hardware": ("the laptop does not start", "the printer eats the paper", "the screen stays black"),
    "account": ("my password is refused", "the login asks for a code I never get", "I am locked out"),
}
OPENINGS = ("Hello,", "Good morning,", "Urgent:", "Hi team,", "Once more:")
ENDINGS = ("please help", "it began on Monday", "three of us have it", "thank you", "a customer is waiting")


def rows(count: int, seed: int) -> list[dict[str, object]]:
    """Tickets with their queue; one in ten is about two things and belongs to the first."""
    draw = random.Random(seed)
    made: list[dict[str, object]] = []
    for number in range(count):
        queue, other = draw.sample(sorted(QUEUES), 2)
        text = f"{draw.choice(OPENINGS)} {draw.choice(QUEUES[queue])}"
        if draw.random() < 0.1:
            text += f" and {draw.choice(QUEUES[other])}"
        made.append({"text": f"{text}; {draw.choice(ENDINGS)}. Room {number % 97}.", "label": queue})
    return made


def main(example: Example) -> None:
    """Make data, look at it, make a base, fine-tune it, and ask it."""
    write_rows("tickets.jsonl", rows(example.count(1200, 160), seed=1))
    write_rows("test.jsonl", rows(example.count(300, 40), seed=2))
    example.adaptkit("data", "check", "tickets.jsonl", "test.jsonl")
    example.train("pretrain", "base.yaml", steps=300)
    config = str(example.here / "finetune.yaml")
    example.adaptkit("finetune", config, f"base={model_of('tickets-base')}", example.steps(200))
    example.adaptkit("try", "queue", "Hi, the printer eats the paper", "my card was charged twice")


if __name__ == "__main__":
    main(start(__file__))
