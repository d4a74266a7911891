"""A study's folder: the names of its files, and what a stage reads there.

runs/<study>-<hash8>/
    plan.json            budget, arms, lengths, as decided at first    api_spent.json  what the API has cost
    stages/<stage>.json  what a finished stage left      stages/<stage>.error  why one failed
    logs/<stage>.log     what a stage printed            study.json            see study/record.py
    labels/<task>.*      shares of a task's labels, drawn for the trainings with fewer of them
runs/api-replies/        what APIs answered, by the digest of the request
runs/data-<hash8>/       the prepared data, see study/prepared_files.py
"""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from adaptkit import notices
from adaptkit.compare import ranks
from adaptkit.compare.fixed import Fixed, read_fixed
from adaptkit.config import Config, load, places
from adaptkit.data.readers import DataConfig, Dataset, read
from adaptkit.models.folder import find
from adaptkit.run import Run, digest, file_digest, read_json, within_root
from adaptkit.run_lock import hold
from adaptkit.seal import WRITTEN, check
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import WHOLE, Portion
from adaptkit.study.prepared_files import PREPARED, PreparedFiles
from adaptkit.study.rag import COLLECTION, Library, RagConfig
from adaptkit.study.record import is_study, read_study, runs_of
from adaptkit.study.stage_record import (
    BASE,
    PREPARE,
    TOKENIZER,
    BaseResult,
    LanguageResult,
    PreparedResult,
    StageKey,
    TaskResult,
    TokenizerResult,
    read_result,
    runs_of_result,
)


def plan_path(study: Path) -> Path:
    return study / "plan.json"


def result_path(study: Path, key: StageKey) -> Path:
    """What a finished stage left; the stage is finished when the file is there."""
    return study / "stages" / f"{key.name}.json"


def error_path(study: Path, key: StageKey) -> Path:
    return study / "stages" / f"{key.name}.error"


def log_path(study: Path, key: StageKey) -> Path:
    return study / "logs" / f"{key.name}.log"


def is_workspace(folder: Path) -> bool:
    """Whether a folder is a study's, finished or not."""
    return plan_path(folder).is_file() or is_study(folder)


def runs_needed(study: Path) -> set[str]:
    """The names of all runs that a study's record and its finished stages need.

    Raises: DataError where one of these records is damaged.
    """
    names = runs_of(read_study(study)) if is_study(study) else set()
    for path in (study / "stages").glob("*.json"):
        names |= runs_of_result(path)
    return names


def api_ledger(study: Path) -> Path:
    """What a study has spent on its API."""
    return study / "api_spent.json"


def api_replies(root: Path) -> Path:
    """The replies of APIs, each kept under the digest of its request, for all studies beside each other."""
    return root / "api-replies"


def forget_stages(study: Path) -> None:
    """Let every stage run again; finished trainings are still found."""
    shutil.rmtree(study / "stages", ignore_errors=True)


class Workspace:
    """What a stage needs to know about its study."""

    def __init__(self, path: Path):
        self.path, self.root, self.labels = path, path.parent, path / "labels"

    @cached_property
    def fixed(self) -> Fixed:
        """What the plan decided for the whole study."""
        return read_fixed(plan_path(self.path))

    @cached_property
    def config(self) -> StudyConfig:
        """The study's config with the arms and lengths that the plan decided."""
        return self.fixed.applied_to(load(StudyConfig, Run(self.path).config_path).config)

    @property
    def budget(self) -> Budget:
        return self.fixed.budget

    @cached_property
    def prepared(self) -> PreparedResult:
        return read_result(result_path(self.path, PREPARE), PreparedResult)

    @property
    def domain_bytes(self) -> int:
        """Bytes of domain text to train on."""
        return self.prepared.data.corpora["domain"].train.num_bytes

    @cached_property
    def tokenizer(self) -> TokenizerResult:
        return read_result(result_path(self.path, TOKENIZER), TokenizerResult)

    @cached_property
    def base(self) -> BaseResult:
        return read_result(result_path(self.path, BASE), BaseResult)

    def language(
        self, origin: Origin, seed: int, portion: Portion = WHOLE, task: str | None = None, size: int = 0
    ) -> LanguageResult:
        key = StageKey.for_language(origin, seed=seed, portion=portion, task=task, size=size)
        return read_result(result_path(self.path, key), LanguageResult)

    def language_trials(self, origin: Origin, num: int, task: str | None = None) -> list[LanguageResult]:
        """The first trials of a training on text."""
        keys = [StageKey.for_language(origin, trial=i, task=task) for i in range(num)]
        return [read_result(result_path(self.path, key), LanguageResult) for key in keys]

    def task(self, name: str, arm: Arm, seed: int, portion: Portion = WHOLE) -> TaskResult:
        key = StageKey.for_task(name, arm, seed=seed, portion=portion)
        return read_result(result_path(self.path, key), TaskResult)

    def task_trials(self, name: str, arm: Arm, num: int) -> list[TaskResult]:
        """The first trials of an arm on a task."""
        keys = (StageKey.for_task(name, arm, trial=i) for i in range(num))
        return [read_result(result_path(self.path, key), TaskResult) for key in keys]

    @cached_property
    def files(self) -> PreparedFiles:
        folder = self.root / self.prepared.run
        check(folder)
        return PreparedFiles(folder)

    @cached_property
    def data_digest(self) -> str:
        return self.files.digest()

    @property
    def library(self) -> Library:
        """What passages are looked up in: a collection of the user's, or the domain's training text."""
        rag = self.config.rag or RagConfig()
        text = self.files.train("domain" if rag.collection is None else COLLECTION)
        return Library(text, find(rag.encoder) if rag.encoder else None)

    @cached_property
    def base_folder(self) -> Path:
        """The generic model's folder: made in the study, or where the config says that it is now."""
        return self.folder(self.base.model) if self.base.run else find(self.config.base)

    @property
    def tokenizer_folder(self) -> Path:
        """The domain tokenizer's folder."""
        return self.folder(self.tokenizer.path) if self.tokenizer.run else Path(self.config.tokenizer.path)

    def folder(self, name: str) -> Path:
        """What a stage's result names, below the root of all runs."""
        return self.root / name

    def name(self, folder: Path) -> str:
        """A folder's name below the root, as stages' results have it."""
        return within_root(folder, self.root)

    def content(self, folder: Path) -> str:
        """What tells a model from others wherever it stands: its run's name, or a given base's digest."""
        return self._given.get(str(folder)) or self.name(folder)

    @cached_property
    def _given(self) -> dict[str, str]:
        """Folder or name -> digest of each model that the study was given, as taken when it was opened."""
        config, digests = self.config, Run(self.path).manifest().get("inputs", {})
        given = {}
        if config.base and "base" in digests:
            given = dict.fromkeys((config.base, str(find(config.base))), digests["base"])
        if config.tokenizer.path and "tokenizer.path" in digests:
            given[config.tokenizer.path] = digests["tokenizer.path"]
        if config.rag is not None and config.rag.encoder and "rag.encoder" in digests:
            names = config.rag.encoder, str(find(config.rag.encoder))
            given |= dict.fromkeys(names, digests["rag.encoder"])
        return given

    def open(self, name: str, settings: Config) -> Run:
        """The run of a recipe's settings, for this process alone or for all of its stage's."""
        named = {key: value for key, value in places(settings).items() if isinstance(value, str)}
        given = {key: self._given[value] for key, value in named.items() if value in self._given}
        for key, value in places(settings).items():
            if isinstance(value, list) and value and all(Path(file).parent == self.labels for file in value):
                given[key.removesuffix(".files")] = digest([file_digest(Path(file)) for file in value])
        run = Run.open(self.root, name, settings, {**given, PREPARED: self.data_digest})
        self._hold(run)
        ranks.wait_for_first()
        return run

    def open_fields(self, name: str, fields: dict[str, Any], **inputs: str) -> Run:
        """The run of anything else that a stage does on the prepared data, and on what `inputs` name."""
        run = Run.open(self.root, name, fields, {**inputs, PREPARED: self.data_digest})
        self._hold(run)
        ranks.wait_until_finished(run)
        return run

    def _hold(self, run: Run) -> None:
        """Another study may be at the same run: this one waits, and then finds it finished."""
        if ranks.is_first() and not run.finished:
            hold(run, wait=True)
            if not run.finished:
                run.update_manifest(study=self.path.name)


def read_scores(run: Run, suite: str) -> dict[str, Any]:
    """The scores of a finished run, held against their digest.

    Raises: DataError where they are damaged.
    """
    check(run.scores(suite))
    return cast("dict[str, Any]", read_json(run.scores(suite)))


def rows_of(path: Path) -> Dataset:
    """Prepared text."""
    return read(DataConfig(files=[str(path)]), "text", tell=notices.silent)


def documents(path: Path) -> list[tuple[str, str]]:
    """(id, text) of prepared held-out passages."""
    return [(row.id, row.text) for row in rows_of(path).rows]


def tidy(run: Run, *, keep_model: bool) -> None:
    """A finished run needs no checkpoints; a trial's model is never used again."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if keep_model or not run.model.exists():
        return
    listed, prefix = run.manifest().get(WRITTEN, {}), f"{run.model.name}/"
    kept = {name: value for name, value in listed.items() if not name.startswith(prefix)}
    run.update_manifest(files_written=kept)
    shutil.rmtree(run.model, ignore_errors=True)
