"""How much domain text a finished training read."""

from __future__ import annotations

from adaptkit.compare.workspace import Workspace
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import read_record
from adaptkit.study.arms import Origin


def domain_bytes_read(workspace: Workspace, origin: Origin, run: str) -> float:
    """Bytes of domain text that a training on text read, repeats counted; none by one on other text."""
    if not origin.learns_domain:
        return 0.0
    trained = Run(workspace.root / run)
    tokens = read_sealed(trained.cost_path)["tokens"]
    facts = read_record(trained).facts
    replayed = facts.get("replay_share", workspace.config.replay_share if origin.replays else 0.0)
    return tokens * (1 - replayed) * facts["tokenizer"]["bytes_per_token"]
