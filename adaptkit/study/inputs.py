"""What a study reads: its data sets by name, and the digests that its identity depends on."""

from __future__ import annotations

from adaptkit.data.files import find_files
from adaptkit.data.readers import DataConfig
from adaptkit.run import digest, file_digest, model_digest
from adaptkit.study.config import StudyConfig
from adaptkit.study.task import CorpusConfig


def corpora(config: StudyConfig) -> dict[str, CorpusConfig]:
    """`domain`, `general` and every task by its name."""
    return {"domain": config.domain, "general": config.general, **{task.name: task for task in config.tasks}}


def data_configs(config: StudyConfig) -> dict[str, DataConfig]:
    """Every data set that is named, by `<name>.train` or `<name>.test`."""
    named = {}
    for name, corpus in corpora(config).items():
        named[f"{name}.train"] = corpus.train
        if corpus.test is not None:
            named[f"{name}.test"] = corpus.test
    return named


def input_digests(config: StudyConfig) -> dict[str, str]:
    """sha256 of every file a study reads, and of its base's weights."""
    digests = {}
    for label, data in data_configs(config).items():
        files, _ = find_files(data.files)
        digests[label] = digest([file_digest(file) for file in files])
    if config.base:
        from adaptkit.models import find

        digests["base"] = model_digest(find(config.base))
    return digests
