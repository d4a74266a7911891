"""Many spoilt YAML files: each is read, or refused at file:line:column in a few lines; never a traceback,
never a hang."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from soak import count, soaked

from adaptkit.cli import app, console

NUM_FILES = soaked(200, 5000)
SOUND = {
    "compare": """\
name: trials
base: models/general
domain:
  train: {files: [corpus/train.jsonl], max_bytes: 10M}
  test: {files: [corpus/test.jsonl]}
general:
  train:
    files: ["general/*.txt"]
  test:
    files: [general/test.txt]
tasks:
  - name: role
    kind: classify
    train: {files: [role/train.csv], columns: {text: sentence, label: role}}
    test: {files: [role/test.csv]}
arms: [generic+lora, continued+full, scratch+full]
budget:
  amount: 3e14
  trials: 3
seeds: 3  # each with its own data order
margin: 0.01
""",
    "pretrain": """\
name: tiny
data:
  files: [text.jsonl]
  on_bad_row: skip
objective: causal
size: {params: 5M, seq_len: 128, tied: true}
tokenizer:
  kind: bpe
  vocab_size: 4096
trainer:
  num_steps: 1k
  learning_rate: 3e-3
  schedule: wsd
  report_to: [tensorboard]
""",
    "finetune": """\
name: triage
base: &base models/general
kind: label_words
train: {files: [train.jsonl]}
dev:
  files:
    - dev.jsonl
adapter:
  kind: lora
  rank: 8
  targets: [q_proj, v_proj]
epochs: 2.5
""",
}
JUNK = [
    "!!python/object/apply:os.system [id]",
    "!!python/object:os.system {}",
    "!!binary aGk=",
    "&a [*a]",
    "*nowhere",
    "<<: *base",
    "{",
    "]",
    "[[",
    "? ",
    "- ",
    ": ",
    "\t",
    "%YAML 9.9",
    "---",
    "...",
    "|",
    ">",
    "'",
    '"',
    '"\\ud800"',
    '"\\UFFFFFFFF"',
    '"\\0"',
    "\0",
    "\x07",
    "\ufeff",
    "\u2028",
    "\U0001f600",
    ".nan",
    "-.inf",
    "1e999",
    "9" * 500,
    "0x1f",
    "1_000",
    "no",
    "~",
    "true",
    "-1",
    "2.5",
    "2026-11-21",
    "12:30:45",
    "a: b: c",
    "@x",
    "`x`",
    "[" * 2000,
    "k" * 5000,
    "{a: " * 300,
]
Mutation = Callable[[random.Random, str], str]  # bytes that are no UTF-8 travel as surrogates


def put_junk_for_a_value(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    at = rng.choice([i for i, line in enumerate(lines) if ": " in line])
    lines[at] = re.sub(r": .*", lambda match: f": {rng.choice(JUNK)}", lines[at], count=1)
    return "".join(lines)


def insert_junk(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(JUNK) + text[at:]


def misspell_a_key(rng: random.Random, text: str) -> str:
    match = rng.choice(list(re.finditer(r"(\w{4,}):", text)))
    at = rng.randrange(match.start(1), match.end(1))
    return text[:at] + text[at + 1 :] if rng.random() < 0.5 else text[:at] + rng.choice("xyz") + text[at:]


def repeat_a_line(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "".join(lines)


def swap_two_lines(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    i, j = rng.sample(range(len(lines)), 2)
    lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def shift_a_line(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = rng.choice([" ", "   ", "\t"]) + lines[at] if rng.random() < 0.6 else lines[at].lstrip()
    return "".join(lines)


def drop_a_character(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + text[at + 1 :]


def cut_short(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text) // 2, len(text))]


def flip_a_byte(rng: random.Random, text: str) -> str:
    raw = bytearray(text.encode("utf-8", "surrogateescape"))
    raw[rng.randrange(len(raw))] = rng.randrange(256)
    return raw.decode("utf-8", "surrogateescape")


MUTATIONS: list[Mutation] = [
    put_junk_for_a_value,
    insert_junk,
    misspell_a_key,
    repeat_a_line,
    swap_two_lines,
    shift_a_line,
    drop_a_character,
    cut_short,
    flip_a_byte,
]


def spoilt(number: int) -> tuple[str, bytes]:
    """Kind and content of the file `number`: one to three mutations of a sound config."""
    rng = random.Random(number)
    kind = rng.choice(list(SOUND))
    text = SOUND[kind]
    for _ in range(rng.choice([1, 1, 2, 3])):
        text = rng.choice(MUTATIONS)(rng, text)
    return kind, text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("kind", SOUND)
def test_the_sound_files_are_read(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sound.yaml"
    path.write_text(SOUND[kind])
    assert console.run(app.app, ["config", "show", str(path), "--for", kind]) == 0, capsys.readouterr().err


def test_spoilt_files_are_read_or_refused_by_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused, unnamed = 0, []
    for number in range(NUM_FILES):
        kind, content = spoilt(number)
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(content)
        code = console.run(app.app, ["config", "show", str(path), "--for", kind])
        told = capsys.readouterr().err
        assert code in (0, 2), f"{number}: exit {code}: {told}"
        if code == 2:
            refused += 1
            good = re.match(rf"error: {re.escape(str(path))}:\d+:\d+: \S", told) and "\n  fix: " in told
            if not good or "Traceback" in told or len(told.splitlines()) > 12 or len(told) > 3000:
                unnamed.append(f"{number} ({kind}): {told}")
    assert not unnamed, f"{len(unnamed)} of {refused}:\n" + "\n".join(unnamed[:5])
    count("spoilt configs, read or refused at file:line:column", NUM_FILES)
    count("of them refused", refused)
    assert NUM_FILES * 0.5 < refused < NUM_FILES


def test_a_place_named_is_the_place_spoilt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, text in SOUND.items():
        lines = text.splitlines(keepends=True)
        for at, line in enumerate(lines, 1):
            if not re.match(r"\s*\w+:", line):
                continue
            path = tmp_path / f"{kind}-{at}.yaml"
            path.write_text(
                "".join([*lines[: at - 1], re.sub(r"\w+:", "kolour:", line, count=1), *lines[at:]])
            )
            assert console.run(app.app, ["config", "show", str(path), "--for", kind]) == 2
            assert f"{path}:{at}:{len(line) - len(line.lstrip()) + 1}: unknown key" in capsys.readouterr().err
