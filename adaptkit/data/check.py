"""Check data before anything trains on it: `adaptkit data check FILES`.

report = check(["train.jsonl", "test.jsonl"])
report.ok, report.as_json(); rich.print(report.render())
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.data.beir import read_set, retrieval_folder, splits
from adaptkit.data.check_report import CheckReport, DatasetReport
from adaptkit.data.check_taught import check_taught
from adaptkit.data.dedup import deduplicate
from adaptkit.data.overlap import overlap
from adaptkit.data.readers import DataConfig, Dataset, Row, describe_files, read
from adaptkit.data.tokenizers import bytes_per_token, train_tokenizer
from adaptkit.errors import DataError
from adaptkit.models import load_tokenizer
from adaptkit.notices import silent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HELD_OUT = {"test", "dev", "valid", "validation", "heldout", "eval"}
"""A set is not for training if its name holds one of these as a whole word."""
DOCUMENTS = " documents"
"""How the documents of a retrieval set are named: what queries are about, and nothing to be kept apart."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
SAMPLE_BYTES = 1_000_000  # text on which bytes per token are estimated
VOCAB_SIZE = 8192


def check(
    configs: Mapping[str, DataConfig] | Sequence[str | DataConfig],
    *,
    tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
) -> CheckReport:
    """Read and count everything, and estimate tokens; nothing but a throw-away tokenizer is trained.

    Args:
        configs: name -> config; or a list of files, folders or configs, named by their files. Bad rows are
            collected whatever `on_bad_row` says. A folder in BEIR's layout is read as its documents and the
            queries of each split. Sets whose name has the word test, dev, valid, validation, heldout or eval
            are compared with all others.
        tokenizer: a base's, to estimate tokens with and to say what training on it would refuse; by default
            an 8k BPE is trained on a sample of the training sets, for the estimate alone.
    Raises: DataError for files that cannot be read at all or show no known roles.
    """
    read_sets: dict[str, Dataset] = {}
    guessed, by_layout = list[str](), list[str]()
    unreadable: list[DataError] = []
    for name, config in _named(configs).items():
        skipping = config.model_copy(update={"on_bad_row": "skip"})
        folder = retrieval_folder(skipping)
        if folder is None:
            try:
                read_sets[name] = _read(config, skipping)
            except DataError as error:
                unreadable.append(error)
                continue
            guessed += [name] if is_held_out(name) else []
        else:
            parts = _retrieval_parts(name, folder)
            read_sets |= parts
            by_layout += [part for part in parts if part.rpartition(" ")[2] in HELD_OUT]
    if unreadable:
        raise _together(unreadable)
    held_out = [*guessed, *by_layout]
    training = [name for name in read_sets if name not in held_out] or list(read_sets)
    measure, label = _tokenizer(tokenizer, [read_sets[name] for name in training])
    base = None if tokenizer is None else measure
    reports = [_describe(name, dataset, measure, label, base) for name, dataset in read_sets.items()]
    overlaps = {
        f"{test} in {train}": overlap(read_sets[train], read_sets[test])
        for test in held_out
        for train in training
        if test != train and not (test in by_layout and train.endswith(DOCUMENTS))
    }
    taught = {label for name in training for label in read_sets[name].labels}
    untaught = {name: [label for label in read_sets[name].labels if label not in taught] for name in held_out}
    return CheckReport(
        reports, overlaps, guessed, {name: labels for name, labels in untaught.items() if labels}
    )


def _read(config: DataConfig, skipping: DataConfig) -> Dataset:
    """All rows that can be used. Where there are none, the error is that of a run, which stops at the
    first."""
    try:
        return read(skipping, tell=silent)
    except DataError:
        read(config, tell=silent)
        raise


def _together(errors: Sequence[DataError]) -> DataError:
    """Put what is wrong with several files into one error, so that all are mended at once."""
    if len(errors) == 1:
        return errors[0]
    what = f"{len(errors)} files cannot be read: " + "; ".join(f"{e.where}: {e.what}" for e in errors)
    fixes = dict.fromkeys(error.fix for error in errors if error.fix)
    return DataError(what, fix="; or, ".join(fixes))


def is_held_out(name: str) -> bool:
    """Whether a name has a word for held-out data: `dev.jsonl`, `ticket-test.csv`, but not `attest.csv`."""
    words = re.findall(r"[^\W_]+", Path(name).name.lower())
    return bool(HELD_OUT & {*words, *map("".join, pairwise(words))})


def _retrieval_parts(name: str, folder: Path) -> dict[str, Dataset]:
    """The documents of a retrieval set, and the queries of each split, with the lines that cannot be used."""
    parts: dict[str, Dataset] = {}
    listed: set[str] = set()
    for split in splits(folder):
        chosen = read_set(folder, split, on_bad_row="skip")
        bad = [line for line in chosen.skipped if line not in listed]
        listed |= set(bad)
        if not parts:
            files = describe_files(path for path in sorted(folder.rglob("*")) if path.is_file())
            parts[f"{name}{DOCUMENTS}"] = _texts(chosen.documents, chosen.where, files=files)
        parts[f"{name} queries {split}"] = _texts(chosen.queries, chosen.where, skipped=bad)
    if not parts:
        raise DataError("no qrels/*.tsv", where=str(folder), fix="lay the set out as BEIR does")
    return parts


def _texts(texts: Mapping[str, str], where: Mapping[str, str], **facts: Any) -> Dataset:
    rows = [Row({"text": text}, where[name], name) for name, text in texts.items()]
    return Dataset(rows, "text", {"text": "text"}, **facts)


def _named(configs: Mapping[str, DataConfig] | Sequence[str | DataConfig]) -> dict[str, DataConfig]:
    if isinstance(configs, Mapping):
        return dict(configs)
    if not configs:
        raise DataError("no files are named", where="FILES", fix="give files, folders or globs")
    listed = [DataConfig(files=[c]) if isinstance(c, str) else c for c in configs]
    short = [Path(c.files[0]).name for c in listed]
    return {name if short.count(name) == 1 else c.files[0]: c for name, c in zip(short, listed, strict=True)}


def _tokenizer(
    tokenizer: PreTrainedTokenizerFast | str | Path | None, datasets: list[Dataset]
) -> tuple[PreTrainedTokenizerFast, str]:
    """The tokenizer to estimate tokens with, and what the report calls it."""
    if tokenizer is None:
        trained = train_tokenizer(_sample(datasets, 0), "bpe", VOCAB_SIZE)
        return trained, f"BPE {VOCAB_SIZE}, trained on a sample for this estimate"
    if isinstance(tokenizer, str | Path):
        return load_tokenizer(str(tokenizer)), str(tokenizer)
    return tokenizer, tokenizer.name_or_path or "given"


def _sample(datasets: list[Dataset], half: int) -> list[str]:
    """At most SAMPLE_BYTES of text, in hash order.

    Half 0 trains the estimate's tokenizer, which is tried on half 1.
    """
    rows = sorted((row for dataset in datasets for row in dataset.rows), key=lambda row: row.id)
    texts: list[str] = []
    room = SAMPLE_BYTES
    for row in rows[half::2] or rows:
        texts.append(row.text[:room])
        room -= len(texts[-1])
        if room <= 0:
            break
    return texts


def _describe(
    name: str,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    label: str,
    base: PreTrainedTokenizerFast | None,
) -> DatasetReport:
    lengths = np.quantile([len(row.text.encode()) for row in dataset.rows], QUANTILES, method="nearest")
    ratio = bytes_per_token(tokenizer, _sample([dataset], 1))
    labels = Counter(label for row in dataset.rows for label in row.labels)
    return DatasetReport(
        name=name,
        kind=dataset.kind,
        roles=dataset.roles,
        files=dataset.files,
        ignored_files=dataset.ignored,
        rows=len(dataset.rows),
        num_bytes=dataset.num_bytes,
        digest=dataset.digest,
        lengths={f"{q:g}": int(length) for q, length in zip(QUANTILES, lengths, strict=True)},
        labels=dict(labels.most_common()),
        licences=dataset.licences,
        bad_rows=dataset.skipped,
        guesses=dataset.notes,
        duplicates=deduplicate(dataset)[1],
        bytes_per_token=round(ratio, 3),
        tokens=round(dataset.num_bytes / ratio),
        tokenizer=label,
        taught=check_taught(dataset, base),
    )
