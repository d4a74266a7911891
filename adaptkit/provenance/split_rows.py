"""Read the rows of a run's data again, and say whether they are the very rows that the run recorded.

rows = rows_of_split(run, record, "train")
rows.exact, rows.rows[0].text, rows.origins[0]     # "corpus.jsonl:17"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar, cast, get_args

from adaptkit import notices
from adaptkit.config import load
from adaptkit.data.readers import DataConfig, Dataset, Row, Want, read
from adaptkit.distill.config import DistillConfig
from adaptkit.errors import AdaptkitError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run, digest, read_jsonl
from adaptkit.run_record import RecipeKind, RunRecord, SplitRecord

T = TypeVar("T")
ORIGIN = "from"
"""The field of prepared rows that says `file:line` of their source."""


@dataclass(frozen=True)
class SplitRows:
    """Rows of one part of a run's data.

    Attributes:
        origins: `file:line` of each row in the user's own file, without its folder.
        digest: sha256 over the rows, as records state it.
        num_bytes: UTF-8 bytes of their text.
        exact: whether these are the rows that were recorded; else they are all rows of its files, of which it
            may have held some out or sampled.
    """

    rows: Sequence[Row]
    origins: tuple[str, ...]
    digest: str
    num_bytes: int
    exact: bool = True


def prepared_rows(path: Path, kind: str) -> SplitRows | None:
    """The rows of a file that a study prepared; None where it is not there, damaged or holds another kind."""
    if not path.is_file():
        return None
    return _tried(lambda: _prepared_rows(path.absolute(), kind, path.stat().st_mtime_ns))


@cache
def _prepared_rows(path: Path, kind: str, changed: int) -> SplitRows:
    dataset = _read([str(path)], kind, {})
    lines = [str(line.get(ORIGIN, "")) for line in read_jsonl(path)]
    if len(lines) != len(dataset.rows):  # rows over several lines: no file of a study has any
        lines = [""] * len(dataset.rows)
    origins = tuple(line or _place(row) for line, row in zip(lines, dataset.rows, strict=True))
    return SplitRows(dataset.rows, origins, dataset.digest, dataset.num_bytes)


def rows_of_split(run: Run, record: RunRecord, part: str) -> SplitRows | None:
    """The rows of one part of a run's data; None where they are not here any more, or have changed.

    Rows of a study lie in its prepared data; those of other runs are read as their recipe reads them.
    """
    split = record.splits[part]
    places = [located(run, str(entry["name"])) for entry in split.files]
    if not places or None in places:
        return None
    paths = [path for path in places if path is not None]
    if len(paths) == 1 and paths[0].suffix == ".jsonl":
        rows = prepared_rows(paths[0], split.kind)
        if rows is not None and rows.digest == split.digest:
            return rows
    dataset = _tried(lambda: _as_the_recipe(run, record, part))
    if dataset is not None and dataset.digest == split.digest:
        return _split_rows(dataset, exact=True)
    dataset = _tried(lambda: _read([str(path) for path in paths], split.kind, split.roles))
    return None if dataset is None else _split_rows(dataset, exact=dataset.digest == split.digest)


def located(run: Run, name: str) -> Path | None:
    """Where a file that a run read is now: below the root of all runs, which may have moved, or as named."""
    path = Path(name).expanduser()
    beside = run.path.absolute().parent
    for place in (*(beside.joinpath(*path.parts[-depth:]) for depth in (3, 2)), path):
        if place.is_file():
            return place
    return None


def token_counts(run: Run, record: RunRecord, split: SplitRecord) -> dict[str, int] | None:
    """Tokens of each row of a pretraining's text, by content id, as its token shards have them.

    None where they are not here.
    """
    vocabulary = record.facts.get("tokenizer", {}).get("digest")
    folder = run.shards(digest([split.digest, vocabulary]))
    if vocabulary is None or not folder.is_dir():
        return None
    from adaptkit.data.shards import TokenShards  # loads torch, which all else does without

    shards = _tried(lambda: TokenShards.open(folder))
    return None if shards is None else {each.id: each.num_tokens for each in shards.documents}


def _tried(action: Callable[[], T]) -> T | None:
    """What an action gives; None where it fails for a reason of the data's."""
    try:
        return action()
    except AdaptkitError:
        return None


def _as_the_recipe(run: Run, record: RunRecord, part: str) -> Dataset | None:
    """A part of the data as its recipe reads it; None of a recipe that does not read rows."""
    if record.recipe is RecipeKind.PRETRAIN:
        from adaptkit.pretrain.starting_point import read_splits as pretraining_text

        return pretraining_text(load(PretrainConfig, run.config_path).config).get(part)
    if record.recipe is RecipeKind.FINETUNE:
        from adaptkit.finetune.recipe import read_splits as labelled_rows

        return labelled_rows(load(FinetuneConfig, run.config_path).config).get(part)
    if record.recipe is RecipeKind.DISTILL and record.model_kind is not None:
        from adaptkit.distill.start import read_data as distillation_rows
        from adaptkit.trainer.distillation import Kind

        config = load(DistillConfig, run.config_path).config
        return distillation_rows(config, cast(Kind, record.model_kind.value)).get(part)
    return None


def _read(files: list[str], kind: str, columns: dict[str, str]) -> Dataset:
    """The rows of files, as their kind is read: conversations and prompts are read as instructions."""
    want = cast(Want, kind if kind in get_args(Want) else "sft")
    return read(DataConfig(files=files, columns=columns), want, tell=notices.silent)


def _split_rows(dataset: Dataset, *, exact: bool) -> SplitRows:
    origins = tuple(map(_place, dataset.rows))
    return SplitRows(dataset.rows, origins, dataset.digest, dataset.num_bytes, exact)


def _place(row: Row) -> str:
    return Path(row.where).name
