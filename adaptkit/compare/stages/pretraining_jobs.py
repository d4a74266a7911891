"""Pretraining in a study: from scratch, or a base that keeps training on domain or general text."""

from __future__ import annotations

from typing import Any, Literal

from adaptkit.compare.stages.language_job import JobOrder, LanguageJob, adapted_rate, files
from adaptkit.compare.workspace import Workspace
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run
from adaptkit.study.arms import Adaptation
from adaptkit.study.base_model import text_kind
from adaptkit.study.config import StudyConfig
from adaptkit.trainer.config import TrainerConfig


class Scratch(LanguageJob):
    """Random weights and the domain tokenizer."""

    def rate_share(self, weights: Adaptation) -> float:
        return 1.0

    def train(self, order: JobOrder) -> tuple[Run, float]:
        workspace = order.workspace
        vocabulary = workspace.tokenizer.path
        settings = from_scratch(
            workspace, order.job.name, self.text, vocabulary, order.flops, order.trainer, order.share
        )
        return pretrained(workspace, settings)


class KeepTraining(LanguageJob):
    """The base, fully or by adapters: `continued`, and the untouched base's own adapters."""

    def rate_share(self, weights: Adaptation) -> float:
        return adapted_rate(weights)

    def train(self, order: JobOrder) -> tuple[Run, float]:
        workspace, config = order.workspace, order.workspace.config
        base = workspace.base_folder
        settings = PretrainConfig(
            name=order.job.name,
            objective="masked" if text_kind(base) == "masked" else scratch_objective(config),
            base=str(base),
            data=files(workspace.files.train(self.text, order.share)),
            dev=files(workspace.files.dev(self.text)),
            flops=order.flops,
            size=config.size,
            tokenizer=config.tokenizer.model_copy(update={"path": ""}),
            adapter=config.adapter_of(order.weights),
            trainer=order.trainer,
            **self.replay(workspace),
        )
        return pretrained(workspace, settings)

    def replay(self, workspace: Workspace) -> dict[str, Any]:
        """General text that is mixed in."""
        return {}


class Continued(KeepTraining):
    """The base on domain text, with general text mixed in against forgetting."""

    def replay(self, workspace: Workspace) -> dict[str, Any]:
        share = workspace.config.replay_share
        return {"replay": files(workspace.files.train("general")), "replay_share": share} if share else {}


class Placebo(KeepTraining):
    """The base on as much more general text.

    It is tuned on the text it learns: it must be as good at general text as trials can make it.
    """

    text = "general"


def from_scratch(
    workspace: Workspace,
    name: str,
    text: str,
    tokenizer: str,
    flops: float,
    trainer: TrainerConfig,
    share: float = 1.0,
) -> PretrainConfig:
    """The pretraining of random weights on a corpus of the study."""
    config = workspace.config
    return PretrainConfig(
        name=name,
        objective=scratch_objective(config),
        data=files(workspace.files.train(text, share)),
        dev=files(workspace.files.dev(text)),
        flops=flops,
        size=config.size,
        tokenizer=config.tokenizer.model_copy(update={"path": tokenizer}),
        adapter=config.adapter.model_copy(update={"kind": "none"}),
        trainer=trainer,
    )


def pretrained(workspace: Workspace, settings: PretrainConfig) -> tuple[Run, float]:
    """The finished run of a pretraining and its score on development text."""
    run = workspace.open(settings.name, settings)
    return run, min(pretrain(settings, run).scores.values())


def scratch_objective(config: StudyConfig) -> Literal["causal", "masked"]:
    """Scratch models are of the base's kind, so that arms are compared like with like."""
    return "masked" if config.base and text_kind(config.base) == "masked" else "causal"
