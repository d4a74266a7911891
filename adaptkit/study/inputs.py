"""What configs name: a study's data sets, and the digests that the identity of any run depends on."""

from __future__ import annotations

from pathlib import Path

from adaptkit.config import Config, places
from adaptkit.data.files import find_files
from adaptkit.data.readers import DataConfig
from adaptkit.run import digest, file_digest, model_digest
from adaptkit.study.config import StudyConfig
from adaptkit.study.rag import COLLECTION
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
    if config.rag is not None and config.rag.collection is not None:
        named[COLLECTION] = config.rag.collection
    return named


def data_digest(data: DataConfig) -> str:
    """sha256 over the bytes of a data set's files, in order, and over the formats that their names say."""
    files, _ = find_files(data.files)
    return digest([["".join(file.suffixes), file_digest(file)] for file in files])


def prepared_digests(config: StudyConfig) -> dict[str, str]:
    """sha256 of every data set of a study, by its name: what its prepared data depends on."""
    return {name: data_digest(data) for name, data in data_configs(config).items()}


def input_digests(config: Config) -> dict[str, str]:
    """sha256 of what a config names, by dotted key: of data (`train`) and models (`base`)."""
    digests = {}
    for key, value in places(config).items():
        if key.endswith("metric_file"):
            digests[key] = file_digest(Path(value)) if Path(value).is_file() else ""
        elif isinstance(value, list):
            digests[key.removesuffix(".files")] = data_digest(DataConfig(files=value))
        else:
            from adaptkit.models import find

            digests[key] = model_digest(find(value))
    return digests
