"""Find the text that a run was trained on, and the text that it held out, as the run itself read them.

text = text_of_run(Run("runs/pretrain-1a2b3c4d"))   # DataError where they are no longer there
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.config import load
from adaptkit.data.canaries import CanaryConfig, canaries
from adaptkit.data.readers import Dataset
from adaptkit.errors import AdaptkitError, DataError
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.starting_point import read_splits
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, read_record

MIN_DOCUMENTS = 5
"""Of either part: fewer tell nothing."""


@dataclass(frozen=True)
class AuditedText:
    """What models are audited on.

    Attributes:
        train: documents that were learnt from, without the planted canaries.
        held_out: documents that were not.
        train_digest: of what was read, canaries included.
        seq_len: tokens of a training row.
    """

    train: Dataset
    held_out: Dataset
    train_digest: str
    seq_len: int
    canaries: CanaryConfig | None = None


def audited_text(
    train: Dataset, held_out: Dataset, seq_len: int, planted: CanaryConfig | None, where: str
) -> AuditedText:
    """Training text as it was read, with its canaries told from its documents.

    Raises: DataError where either part has too few documents.
    """
    texts = {canary.text for canary in canaries(planted)} if planted else set()
    own = train.with_rows(row for row in train.rows if row.text not in texts)
    for name, part in (("training", own), ("held-out", held_out)):
        if len(part.rows) < MIN_DOCUMENTS:
            what = f"{len(part.rows)} {name} documents; an audit of memorisation needs {MIN_DOCUMENTS}"
            raise DataError(what, where=where, fix="train on, and hold out, more documents")
    return AuditedText(own, held_out, train.digest, seq_len, planted)


def text_of_run(run: Run) -> AuditedText:
    """The text of a finished pretraining.

    Raises: DataError for a run of another kind, and where the text is gone or not what the run read.
    """
    record = read_record(run)
    if record.recipe is not RecipeKind.PRETRAIN or record.model_kind is not ModelKind.CAUSAL:
        kind = f"{record.recipe} of a {record.model_kind} model"
        what = f"memorisation is told from the likelihood of whole texts, and this is a {kind}"
        raise DataError(what, where=str(run.path), fix="audit a pretraining of a causal language model")
    config = load(PretrainConfig, run.config_path).config
    try:
        splits = read_splits(config)
    except AdaptkitError as error:
        what = f"the text that this run learnt cannot be read any more: {error}"
        fix = "put it back, and run from the folder that it was trained from"
        raise DataError(what, where=str(run.path), fix=fix) from None
    for name in ("train", "dev"):
        if splits[name].digest != record.splits[name].digest:
            what = f"the {name} text has changed since this run read it"
            raise DataError(what, where=str(run.path), fix="put back the files that its manifest lists")
    return audited_text(splits["train"], splits["dev"], record.seq_len, config.canaries, str(run.path))


def passes_of(run: Run, record: RunRecord) -> float | None:
    """How often a pretraining read its training text; None where its cost does not say."""
    tokens = read_sealed(run.cost_path).get("tokens")
    num_bytes, facts = record.splits["train"].num_bytes, record.facts
    bytes_per_token = facts.get("tokenizer", {}).get("bytes_per_token")
    if not tokens or not num_bytes or bytes_per_token is None:
        return None
    return float(tokens * (1 - facts.get("replay_share", 0.0)) * bytes_per_token / num_bytes)
