"""Train an encoder: contrast, scores, or plain text in; a folder that sentence-transformers and vLLM serve
out.

    result = embed(config, Run.open("runs", config.name, config.model_dump(mode="json")))

    model/  sentence-transformers and transformers folder, merged      eval/<suite>.jsonl, .json  items and
    scores adapter/  the peft adapter, if any      cost.json  manifest.json  metrics.jsonl  checkpoints/

Nothing heavy is imported until `embed` is called: the command line reads schemas from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.embed.config import EmbedConfig
from adaptkit.errors import AdaptkitError
from adaptkit.run import Run, read_json

SUITE = "retrieval"


@dataclass(frozen=True)
class EmbedResult:
    """Where a finished training lies and what it scored."""

    model_folder: Path
    adapter_folder: Path | None
    suite: str
    metrics: dict[str, float]
    dev: dict[str, float]
    cost: dict[str, Any] = field(default_factory=dict)


def embed(config: EmbedConfig, run: Run, *, suite: str = SUITE) -> EmbedResult:
    """Train, merge, save and score; a finished run is returned as it is and a killed one goes on.

    Args:
        suite: name of the scores under eval/.
    Raises: DataError, ModelError, NonFiniteError, DiskFullError; the run is marked failed.
    """
    if not run.finished:
        from adaptkit.embed.start import train
        from adaptkit.trainer.parallel import join

        first = join(config.trainer.parallel).rank == 0
        if first:
            run.start()
        try:
            train(config, run, suite)
        except AdaptkitError as error:
            if first:
                run.fail(str(error))
            raise
    scores = read_json(run.scores(suite))
    adapter = run.adapter if config.adapter.kind != "none" else None
    return EmbedResult(run.model, adapter, suite, scores["metrics"], scores["dev"], read_json(run.cost_path))
