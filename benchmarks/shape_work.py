"""What a worker of benchmarks/shapes.py does: train one model by a public recipe, or score one on a test."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from shape_config import DIVERGED, TestConfig

from adaptkit import models
from adaptkit.compare.workspace import tidy
from adaptkit.config import Config
from adaptkit.data.beir import read_set, scored_split
from adaptkit.data.readers import read
from adaptkit.disk import whole_folder
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.recipe import embed
from adaptkit.embed.retrieval import retrieval_rows
from adaptkit.errors import NonFiniteError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.models.bits_per_byte import score_documents
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, read_json, read_jsonl, write_json, write_jsonl
from adaptkit.run_record import read_record
from adaptkit.trainer.device import default_device, placed

RECIPES: dict[str, tuple[type[Config], Any]] = {
    "pretrain": (PretrainConfig, pretrain),
    "finetune": (FinetuneConfig, finetune),
    "embed": (EmbedConfig, embed),
}
LESS_IS_BETTER = ("bits_per_byte", "nats_per_masked_token", "loss")


def train(recipe: str, settings: dict[str, Any], dropout: float, root: Path) -> dict[str, Any]:
    """Train one model: its run, its loss on development data, and how long that took."""
    begun = time.monotonic()
    if dropout:
        settings = {**settings, "base": str(_with_dropout(Path(settings["base"]), dropout))}
    schema, execute = RECIPES[recipe]
    config: Any = schema(**settings)
    run = Run.open(root, config.name, config)
    try:
        execute(config, run)
    except NonFiniteError as error:
        return {"diverged": str(error)[:200], "dev": DIVERGED, "seconds": time.monotonic() - begun}
    tidy(run, keep_model=True)
    record = read_record(run)
    dev = record.suites[record.suite].dev
    least = next((dev[metric] for metric in LESS_IS_BETTER if metric in dev), 0.0)
    return {"run": str(run.path), "dev": least, "seconds": round(time.monotonic() - begun, 1)}


def _with_dropout(folder: Path, dropout: float) -> Path:
    """A copy of a model's folder whose config states a dropout."""
    copy = folder.with_name(f"{folder.name}-dropout-{dropout:g}")
    if not copy.exists():
        with whole_folder(copy, replace=False) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
            config = read_json(temporary / "config.json")
            stated = {key: dropout for key in config if key.endswith("_dropout")}
            write_json(temporary / "config.json", config | stated)
    return copy


def score(test: TestConfig, folder: Path, run: Path | None, out: Path) -> dict[str, Any]:
    """Score a model on a test: where the item rows were written."""
    begun = time.monotonic()
    write_jsonl(out, _rows(test, folder, run))
    return {"items": str(out), "seconds": round(time.monotonic() - begun, 1)}


def _rows(test: TestConfig, folder: Path, run: Path | None) -> list[dict[str, Any]]:
    if test.data is None:
        raise ValueError("a test needs data")
    if test.kind == "labels":
        if run is None:
            raise ValueError("labels are judged by the items of a fine-tuning, and a folder has none")
        groups = {row.id: row.cluster for row in read(test.data, want="labelled").rows}
        rows = read_jsonl(Run(run).items(read_record(Run(run)).suite))
        return [{**row, "group": groups[row["id"]]} for row in rows]
    if test.kind == "search":
        place = test.data.files[0]
        found = read_set(place, scored_split(place), test.data.max_bytes, test.data.on_bad_row)
        return retrieval_rows(Encoder.load(folder, device=default_device()), found)
    texts = [(row.id, row.text) for row in read(test.data, want="text").rows]
    model, tokenizer = placed(models.load(folder, "causal")), models.load_tokenizer(folder)
    return score_documents(model, tokenizer, texts, seq_len=test.seq_len, batch_size=32)
