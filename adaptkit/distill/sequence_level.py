"""Let the teacher write the student's training text: sequence-level distillation (arXiv 1606.07947).

Each document's beginning is continued by the teacher. The two need no tokenizer in common: what passes
between them is text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from adaptkit.data.readers import Dataset, Row, content_id
from adaptkit.disk import writing
from adaptkit.distill.http_teacher import ServedTeacher
from adaptkit.models.control_tokens import encode_prompt
from adaptkit.ops import IGNORE_INDEX
from adaptkit.run import read_jsonl, write_text
from adaptkit.trainer.row_source import mix
from adaptkit.trainer.sampling import PROMPT_SHARE, continued

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS_AT_ONCE = 16
CHARACTERS_PER_TOKEN = 4
"""Of the beginnings sent to a server, whose tokens are not known here."""
WAIT_S = 1.0
"""Between two looks of a rank that waits for the first to write."""
Writer = Callable[[list[str], int], list[str]]
"""(the texts of some documents, a seed) -> what the teacher makes of them, beginning and continuation."""


def teacher_texts(dataset: Dataset, write: Writer, path: Path, first: bool = True) -> Dataset:
    """The documents as the teacher would have written them, from `path`, where a killed writing goes on.

    Of several ranks the first writes, and the others wait: for longer than a collective would let them.
    """
    while not first and _num_lines(path) < len(dataset.rows):
        time.sleep(WAIT_S)
    done = []
    if path.exists():
        done = list(read_jsonl(path))
    if len(done) < len(dataset.rows):
        _write_rest(dataset, write, path, done)
    values = [({"text": entry["text"]}, entry["where"]) for entry in done if entry["text"].strip()]
    return dataset.with_rows(Row(value, where, content_id(value)) for value, where in values)


def _write_rest(dataset: Dataset, write: Writer, path: Path, done: list[dict[str, str]]) -> None:
    """Append what is missing to `path` and to `done`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _keep_whole_lines(path, len(done))
    with writing(path), path.open("a", encoding="utf-8") as file:
        for start in range(len(done), len(dataset.rows), TEXTS_AT_ONCE):
            rows = dataset.rows[start : start + TEXTS_AT_ONCE]
            texts = write([row.text for row in rows], mix(0, start))
            done += [{"text": text, "where": row.where} for text, row in zip(texts, rows, strict=True)]
            file.write("".join(json.dumps(entry) + "\n" for entry in done[start:]))
            file.flush()
            event = {"event": "the teacher wrote", "texts": len(done), "of": len(dataset.rows)}
            print(json.dumps(event), file=sys.stderr, flush=True)


def _num_lines(path: Path) -> int:
    if not path.exists():
        return 0
    return path.read_bytes().count(b"\n")


def _keep_whole_lines(path: Path, count: int) -> None:
    """Cut off a line that a kill left half written."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[:count]))


def local_writer(teacher: nn.Module, tokenizer: PreTrainedTokenizerFast, seq_len: int) -> Writer:
    """Samples from a model that is here."""

    def write(texts: list[str], seed: int) -> list[str]:
        rows = [encode_prompt(tokenizer, text)[:seq_len] for text in texts]
        ids = torch.tensor([[*row, *[tokenizer.pad_token_id] * (seq_len - len(row))] for row in rows])
        prompts = [max(1, min(len(row), seq_len // PROMPT_SHARE)) for row in rows]
        labels = ids.where(torch.arange(seq_len)[None] >= torch.tensor(prompts)[:, None], IGNORE_INDEX)
        device = next(teacher.parameters()).device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            own = continued(teacher, {"input_ids": ids.to(device), "labels": labels.to(device)})
        masks = own["attention_mask"].bool()
        return [
            str(tokenizer.decode(row[mask], skip_special_tokens=True))
            for row, mask in zip(own["input_ids"], masks, strict=True)
        ]

    return write


def served_writer(teacher: ServedTeacher, seq_len: int) -> Writer:
    """Asks a server."""
    begin = seq_len // PROMPT_SHARE

    def write(texts: list[str], seed: int) -> list[str]:
        starts = [text[: begin * CHARACTERS_PER_TOKEN] for text in texts]
        written = teacher.write(starts, seq_len - begin, seed % (1 << 31))
        return [start + more for start, more in zip(starts, written, strict=True)]

    return write
