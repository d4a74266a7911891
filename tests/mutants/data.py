"""Faults in how rows are sampled, split, deduplicated and kept apart from test text."""

from __future__ import annotations

from mutants import Mutant

OVERLAP = ("tests/test_data_overlap.py",)
READERS = (
    "tests/test_data_readers.py::test_split_and_take_follow_content_not_order",
    "tests/test_data_readers.py::test_a_byte_limit_takes_the_same_rows_whatever_the_order",
)

MUTANTS = [
    Mutant("adaptkit/data/overlap.py", "COVERED = 0.1", "COVERED = 0.12", OVERLAP),
    Mutant("adaptkit/data/overlap.py", "COVERED = 0.1", "COVERED = 0.08", OVERLAP),
    Mutant("adaptkit/data/overlap.py", "if share >= COVERED]", "if share > COVERED]", OVERLAP),
    Mutant(
        "adaptkit/data/overlap.py",
        "if any(self._covered(item, hit) >= COVERED for",
        "if any(self._covered(item, hit) > 0 for",
        OVERLAP,
    ),
    Mutant(
        "adaptkit/data/overlap.py",
        'ids = set(report.contaminated if side == "test" else report.train_ids)',
        "ids = set(report.contaminated)",
        OVERLAP,
    ),
    Mutant("adaptkit/data/dedup.py", "THRESHOLD = 0.75", "THRESHOLD = 0.9", OVERLAP),
    Mutant("adaptkit/data/dedup.py", "THRESHOLD = 0.75", "THRESHOLD = 0.6", OVERLAP),
    Mutant("adaptkit/data/dedup.py", "row.text.strip()", "row.text", OVERLAP),
    Mutant("adaptkit/data/dedup.py", "\\0{row.values.get('label', '')}", "", OVERLAP),
    Mutant(
        "adaptkit/data/dedup.py",
        "rows = sorted(dataset.rows, key=lambda row: (row.id, row.where))",
        "rows = dataset.rows",
        OVERLAP,
    ),
    Mutant("adaptkit/data/readers.py", "{row.values.get('group') or row.text}", "{row.text}", READERS),
    Mutant("adaptkit/data/readers.py", 'f"{seed}:{row.values', 'f"{row.values', READERS),
    Mutant(
        "adaptkit/data/readers.py",
        "ids = sorted(row.id for row in dataset.rows)",
        "ids = [row.id for row in dataset.rows]",
        READERS,
    ),
    Mutant(
        "adaptkit/data/readers.py",
        "key, size = -int(row.id, 16), len(row.text.encode())",
        "key, size = -self.num_seen, len(row.text.encode())",
        READERS,
    ),
    Mutant(
        "adaptkit/data/readers.py",
        "        while self.num_bytes > self.max_bytes and",
        "        if self.num_bytes > self.max_bytes and",
        READERS,
    ),
]
