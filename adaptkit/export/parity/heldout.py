"""The text that an export is measured on and, for GPTQ, calibrated on: found again from the run that made the
model.

Every set is checked against the digest in the run's manifest. What cannot be found again is said in words,
and a few built-in sentences stand in, so that an export is never unmeasured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.errors import DataError
from adaptkit.export.source import Source, run_config
from adaptkit.run import Run, digest

if TYPE_CHECKING:
    from adaptkit.data import Dataset

MAX_TEXTS, MAX_TEXT_CHARS, MAX_ITEMS, MAX_ANSWERS = 60, 1024, 200, 32
DEV_SHARE = 0.1  # of a file given for calibration, and of fine-tuning rows without dev data
DEFAULT_LENGTH = 256
BUILT_IN = (
    "The patient was given ten milligrams of the drug twice a day and felt better after a week.",
    "Revenue grew by four percent in the third quarter, mostly in the northern region.",
    "To reset the device, hold the power button for ten seconds and wait for the green light.",
    "The committee will meet on Tuesday to discuss the budget and the new building.",
    "def mean(values):\n    return sum(values) / len(values)",
    "The contract ends on the last day of March unless both parties agree in writing.",
    "Water boils at a lower temperature on a mountain because the air pressure is lower there.",
    "Please find attached the report that you asked for, with the figures of last year.",
)


@dataclass(frozen=True)
class HeldOut:
    """What an export is measured on.

    Attributes:
        texts: (id, text) of held-out documents, cut to a passage each.
        origin: where they come from, in words.
        digest: sha256 of the set they were taken from; empty for built-in text.
        training: rows to calibrate on; None where none are known.
        training_origin: where those come from.
        items: labelled rows or prompts with answers that no model was trained on; None without a task.
        items_origin: where those come from.
        config: the run's own settings.
    """

    texts: list[tuple[str, str]]
    origin: str
    digest: str = ""
    training: Dataset | None = None
    training_origin: str = "training rows of the run"
    items: Dataset | None = None
    items_origin: str = ""
    config: dict[str, Any] | None = None

    @property
    def seq_len(self) -> int:
        """Tokens per window: what the model was trained on."""
        config = self.config or {}
        return int((config.get("size") or {}).get("seq_len") or config.get("max_length") or DEFAULT_LENGTH)


def find_heldout(
    source: Source, *, evaluation: Path | None = None, calibration: Path | None = None
) -> HeldOut:
    """Held-out text and items of a source.

    Args:
        evaluation: a file of text to measure on instead.
        calibration: a file of text to calibrate on instead; a tenth of it is held out where nothing else is
            known.
    Raises: DataError for a given file that cannot be used.
    """
    found = (
        _of_run(source)
        if source.run is not None
        else HeldOut(_built_in(), _stand_in("the folder says nothing of its data"))
    )
    if calibration is not None:
        given = _read({"files": [str(calibration)]}, "text")
        if not found.digest and evaluation is None:
            from adaptkit.data import split

            given, dev = split(given, DEV_SHARE)
            found = replace(
                found,
                texts=_passages(dev),
                origin=f"a tenth of {calibration.name}, held out",
                digest=dev.digest,
            )
        found = replace(found, training=given, training_origin=f"the file {calibration.name}")
    if evaluation is not None:
        given = _read({"files": [str(evaluation)]}, "text")
        found = replace(
            found, texts=_passages(given), origin=f"the file {evaluation.name}", digest=given.digest
        )
    return found


def _of_run(source: Source) -> HeldOut:
    assert source.run is not None
    manifest = Run(source.run).manifest()
    config = run_config(source.run)
    recorded = manifest.get("record", {}).get("splits") or manifest.get("data") or {}
    if "loss" in config:
        return _of_embedding(source.run, config, recorded)
    want = _wanted(config, recorded)
    parts = _splits(source.run, config, want)
    checked = {
        name: part for name, part in parts.items() if part.digest == (recorded.get(name) or {}).get("digest")
    }
    dev = checked.get("dev")
    kept = HeldOut([], "", training=checked.get("train"), config=config)
    if dev is None:
        lost = "was not found where the run read it" if not parts else "has changed since the run"
        return replace(kept, texts=_built_in(), origin=_stand_in(f"the run's own held-out text {lost}"))
    kept = replace(kept, texts=_passages(dev), origin="held-out rows of the run (dev)", digest=dev.digest)
    if want == "text":
        return kept
    name = "test" if "test" in checked else "dev"
    return replace(kept, items=_some(checked[name]), items_origin=f"{name} rows of the run")


def _of_embedding(run: Path, config: dict[str, Any], recorded: dict[str, Any]) -> HeldOut:
    """Texts of the examples that an encoder's training held out."""
    from adaptkit.data import DataConfig
    from adaptkit.embed.examples import train_and_dev

    kept = HeldOut(
        _built_in(), _stand_in("the run's own examples were not found where the run read them"), config=config
    )
    parts = [_moved(run, config.get(part)) for part in ("train", "dev")]
    train, dev = (DataConfig.model_validate(part) if part else None for part in parts)
    try:
        learnt, held = train_and_dev(train, dev, config["loss"])
    except (DataError, OSError):
        return kept
    was = recorded.get("train") or {}
    if any(was.get(key) != learnt.facts.get(key) for key in ("digest", "documents", "queries")):
        return replace(kept, origin=_stand_in("the run's own examples have changed since the run"))
    texts = list(dict.fromkeys(text[:MAX_TEXT_CHARS] for row in held.rows for text in row.texts))[:MAX_TEXTS]
    named = [(f"held-out-{number}", text) for number, text in enumerate(texts)]
    return replace(kept, texts=named, origin="held-out examples of the run (dev)", digest=digest(texts))


def _wanted(config: dict[str, Any], recorded: dict[str, Any]) -> str:
    """The kind of rows that a run read: a distillation's follows from its teacher, and its manifest tells."""
    if "teacher" in config:
        return "labelled" if (recorded.get("train") or {}).get("kind") == "labelled" else "text"
    return "text" if "objective" in config else "labelled" if config.get("kind") != "sft" else "sft"


def _splits(run: Path, config: dict[str, Any], want: str) -> dict[str, Dataset]:
    """Train, dev and test as the run read them; empty where files are gone."""
    from adaptkit.data import split

    train = _reread(run, config.get("data") or config.get("train"), want)
    if train is None:
        return {}
    dev, test = _reread(run, config.get("dev"), want), _reread(run, config.get("test"), want)
    if dev is None and config.get("dev") is None:
        share = float(config.get("dev_fraction", DEV_SHARE))
        seed = 0 if "data" in config else int(config["trainer"]["seed"])
        train, dev = split(train, share, seed)
    parts = {"train": train, "dev": dev, "test": test}
    return {name: part for name, part in parts.items() if part is not None}


def _reread(run: Path, settings: dict[str, Any] | None, want: str) -> Dataset | None:
    moved = _moved(run, settings)
    try:
        return _read(moved, want) if moved else None
    except (DataError, OSError):
        return None


def _moved(run: Path, settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """The settings of a data set with its files where they are now."""
    return {**settings, "files": [_located(run, name) for name in settings["files"]]} if settings else None


def _located(run: Path, name: str) -> str:
    """A file as the run named it, or under the run's own root if all runs have moved together."""
    if Path(name).exists():
        return name
    moved = run.parent / Path(name).parent.name / Path(name).name
    return str(moved) if moved.exists() else name


def _read(settings: dict[str, Any], want: str) -> Dataset:
    from adaptkit.data import read
    from adaptkit.data.readers import DataConfig

    return read(DataConfig.model_validate(settings), want)


def _passages(dataset: Dataset) -> list[tuple[str, str]]:
    return [(row.id, row.text[:MAX_TEXT_CHARS]) for row in dataset.rows[:MAX_TEXTS]]


def _some(dataset: Dataset) -> Dataset:
    return dataset.with_rows(
        dataset.rows[: MAX_ANSWERS if dataset.kind in ("sft", "messages", "prompts") else MAX_ITEMS]
    )


def _built_in() -> list[tuple[str, str]]:
    return [(f"built-in-{number}", text) for number, text in enumerate(BUILT_IN)]


def _stand_in(why: str) -> str:
    return f"{len(BUILT_IN)} built-in sentences, as {why}; give --eval FILE to measure on your own text"
