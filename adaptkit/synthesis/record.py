"""What a folder of synthetic rows was made from, by whom, and what became of every answer."""

from __future__ import annotations

from adaptkit.run_record import Record

FORMAT = 1


class SynthesisRecord(Record):
    """The content of synthesis.json."""

    format: int = FORMAT
    kind: str
    """questions, rows or instructions."""
    generator: str
    """A folder's name with the digest of its model, or a served model's name with its host."""
    prompt: str
    """The request, before its parts stood in it."""
    count: int
    """Rows asked for per passage."""
    judge: str
    """How the round trip was made."""
    files: dict[str, str]
    """File of the text, of training and of held-out rows -> its sha256."""
    date: str
    """YYYY-MM-DD."""
    counts: dict[str, int]
    """What became of documents, passages, answers and rows."""
    num_rows: int
    """Rows that were written."""
