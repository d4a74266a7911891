"""What a study reads: every file's digest is part of it, under the name of its data set."""

from __future__ import annotations

from pathlib import Path

from tiny_study import study_config, write_texts

from adaptkit.config import Config
from adaptkit.data.readers import DataConfig
from adaptkit.distill.config import DistillConfig
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.study.inputs import corpora, data_configs, data_digest, input_digests


def test_every_data_set_has_a_name(tmp_path: Path) -> None:
    write_texts(tmp_path)
    config = study_config(tmp_path, f"domain.test.files=[{tmp_path / 'general.jsonl'}]")
    assert list(corpora(config)) == ["domain", "general", "mood"]
    assert list(data_configs(config)) == ["domain.train", "domain.test", "general.train", "mood.train"]


def test_a_changed_file_changes_its_digest_and_no_other(tmp_path: Path) -> None:
    write_texts(tmp_path)
    config = study_config(tmp_path)
    before = input_digests(config)
    with (tmp_path / "mood.jsonl").open("a") as file:
        file.write('{"text": "one more", "label": "good"}\n')
    after = input_digests(config)
    assert {name for name in before if before[name] != after[name]} == {"tasks.0.train"}
    assert "base" not in before, "it is made on the spot"


def test_what_a_config_names_is_digested_whatever_it_is_called_and_wherever_it_stands(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / "config.json").write_text("{}")
        (tmp_path / folder / f"{folder}.jsonl").write_text('{"text": "one"}\n')

    def digests(folder: str) -> dict[str, str]:
        data = {"files": [str(tmp_path / folder / f"{folder}.jsonl")]}
        base = str(tmp_path / folder / "model")
        configs: list[Config] = [
            FinetuneConfig.model_validate({"base": base, "train": data, "dev": data}),
            DistillConfig.model_validate({"teacher": base, "data": data, "student": {"start": base}}),
            PretrainConfig.model_validate({"flops": 1e9, "data": data, "tokenizer": {"path": base}}),
        ]
        return {key: value for config in configs for key, value in input_digests(config).items()}

    assert digests("a") == digests("b")
    assert set(digests("a")) == {"base", "train", "dev", "teacher", "student.start", "data", "tokenizer.path"}


def test_the_format_that_a_name_says_is_part_of_its_digest(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_text("text\none\n")
    first, second = (data_digest(DataConfig(files=[str(tmp_path / name)])) for name in ("a.txt", "a.csv"))
    assert first != second
