"""What a study reads: every file's digest is part of it, under the name of its data set."""

from __future__ import annotations

from pathlib import Path

from tiny_study import study_config, write_texts

from adaptkit.study.inputs import corpora, data_configs, input_digests


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
    assert {name for name in before if before[name] != after[name]} == {"mood.train"}
    assert "base" not in before, "it is made on the spot"
