"""A study's folder, as its stages read it: config, budget, prepared data, and what earlier stages left."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.compare.executor import result
from adaptkit.compare.stages.data import folder_digest
from adaptkit.config import load
from adaptkit.run import Run, read_json
from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig


class StudyFolder:
    """What a stage needs to know about its study."""

    def __init__(self, path: Path):
        self.path, self.root = path, path.parent

    @cached_property
    def config(self) -> StudyConfig:
        return load(StudyConfig, self.path / "config.yaml").config

    @cached_property
    def budget(self) -> Budget:
        return Budget(**read_json(self.path / "plan.json")["budget"])

    def result(self, stage: str) -> dict[str, Any]:
        """What a finished stage returned."""
        return result(self.path, stage)

    @cached_property
    def data(self) -> Path:
        """The folder of prepared data."""
        return self.root / self.result("prepare")["run"]

    @cached_property
    def data_digest(self) -> str:
        return folder_digest(self.data)

    @cached_property
    def base(self) -> Path:
        """The generic model's folder."""
        return Path(self.result("base")["model"])

    @cached_property
    def base_params(self) -> int:
        """Parameters of the generic model: the size that learning rates are scaled from."""
        import torch
        from transformers import AutoConfig

        shape = AutoConfig.from_pretrained(self.base, local_files_only=True)
        with torch.device("meta"):
            return models.param_count(models.build(shape, models.model_kind(self.base), seed=0)).total

    def open(self, name: str, settings: Any) -> Run:
        """The run of a recipe's settings; how many threads it may use is no part of its identity."""
        fields = settings.model_dump(mode="json")
        fields["trainer"].pop("threads")
        return Run.open(self.root, name, fields, {"data": self.data_digest})


def tidy(run: Run, *, keep_model: bool) -> None:
    """A finished run needs no checkpoints; a trial's model is never used again."""
    for folder in [run.checkpoints] + ([] if keep_model else [run.model]):
        shutil.rmtree(folder, ignore_errors=True)


def with_trainer(config: Any, **changed: Any) -> Any:
    """A recipe's config with other trainer settings."""
    return config.model_copy(update={"trainer": config.trainer.model_copy(update=changed)})
