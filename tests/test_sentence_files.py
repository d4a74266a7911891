"""Pooling files that go from a base or teacher to what is made from it. Home of
models.sentence.pooling_files."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptkit.errors import ModelError
from adaptkit.models.sentence.pooling_files import check_mean_pooling, copy_pooling_files
from adaptkit.run import read_json, write_json

MEAN = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}


def teacher(folder: Path, pooling: dict[str, object] = MEAN, *more: str) -> Path:
    """A folder with the files of sentence-transformers and `more` modules."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", **{f"2_{name}": name for name in more}}
    modules = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling/config.json", pooling)
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "find: "}})
    return folder


def test_a_folder_is_copied_with_its_modules_and_the_students_width(tmp_path):
    source = teacher(tmp_path / "teacher", MEAN, "Normalize")
    (tmp_path / "student").mkdir()
    copy_pooling_files(source, tmp_path / "student", 32)
    for name in ("modules.json", "config_sentence_transformers.json"):
        assert read_json(tmp_path / "student" / name) == read_json(source / name)
    pooling = read_json(tmp_path / "student/1_Pooling/config.json")
    assert pooling == {**MEAN, "word_embedding_dimension": 32}
    assert (tmp_path / "student/2_Normalize").is_dir(), "servers look for it, though it is empty"
    (tmp_path / "same").mkdir()
    copy_pooling_files(source, tmp_path / "same")
    assert read_json(tmp_path / "same/1_Pooling/config.json") == MEAN


def test_only_data_inside_the_folder_is_copied(tmp_path):
    source = teacher(tmp_path / "teacher", MEAN, "Normalize")
    write_json(tmp_path / "secret/config.json", {"key": 1})
    (source / "2_Normalize").mkdir()
    (source / "2_Normalize/code.py").write_text("print(1)")
    (source / "2_Normalize/link.json").symlink_to(tmp_path / "secret/config.json")
    modules = [*read_json(source / "modules.json"), {"idx": 3, "path": "../secret", "type": "x.Normalize"}]
    write_json(source / "modules.json", modules)
    (tmp_path / "out/student").mkdir(parents=True)
    copy_pooling_files(source, tmp_path / "out/student")
    copied = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert copied == {"modules.json", "config_sentence_transformers.json", "config.json"}
    assert not (tmp_path / "out/secret").exists()


def test_a_plain_folder_has_nothing_to_copy(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "student").mkdir()
    copy_pooling_files(tmp_path / "plain", tmp_path / "student", 32)
    assert not list((tmp_path / "student").iterdir())


@pytest.mark.parametrize(
    ("pooling", "more", "match"),
    [
        ({"pooling_mode_cls_token": True}, (), "otherwise than by the mean"),
        (MEAN, ("Dense", "Normalize"), "otherwise than by the mean"),
        ({**MEAN, "pooling_mode_cls_token": True}, (), "otherwise than by the mean"),
        ({**MEAN, "include_prompt": False}, (), "otherwise than by the mean"),
    ],
)
def test_other_vectors_than_means_are_refused(tmp_path, pooling, more, match):
    with pytest.raises(ModelError, match=match):
        check_mean_pooling(teacher(tmp_path / "teacher", pooling, *more))


def test_a_teacher_whose_texts_are_messages_is_refused(tmp_path):
    teacher(tmp_path / "chat")
    write_json(tmp_path / "chat/sentence_bert_config.json", {"modality_config": {"message": {}}})
    with pytest.raises(ModelError, match="otherwise than by the mean"):
        check_mean_pooling(tmp_path / "chat")


def test_means_are_accepted_and_silence_is_not(tmp_path):
    check_mean_pooling(teacher(tmp_path / "old", MEAN, "Normalize"))
    check_mean_pooling(teacher(tmp_path / "new", {"pooling_mode": "mean"}))
    (tmp_path / "plain").mkdir()
    with pytest.raises(ModelError, match="does not say how its hidden states become a vector"):
        check_mean_pooling(tmp_path / "plain")
