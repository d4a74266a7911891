"""What exports are measured on: rows that the run kept, given files, or built-in sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_exports import check_named as check

from adaptkit.data.heldout import MAX_PASSAGES, read_held_out
from adaptkit.errors import DataError
from adaptkit.export.driver import export
from adaptkit.export.parity.evaluation_data import BUILT_IN, DEFAULT_LENGTH, find_evaluation_data
from adaptkit.export.resolve import resolve
from adaptkit.run import Run
from adaptkit.run_record import read_record


def test_held_out_and_calibration_rows_are_those_that_the_run_kept(notes: Run, mood: Run) -> None:
    data, splits = find_evaluation_data(resolve(notes.path)), read_record(notes).splits
    assert data.origin == "held-out rows of the run (dev)" and data.digest == splits["dev"].digest
    assert data.passages == read_held_out(notes).passages and len(data.passages) == splits["dev"].documents
    assert data.calibration.digest == splits["train"].digest and data.calibration_file is None
    assert (data.seq_len, data.items, data.num_items) == (64, None, 0)
    data = find_evaluation_data(resolve(mood.path))
    assert (data.items_origin, data.num_items, data.seq_len) == ("test rows of the run", 40, 48)


def test_a_moved_run_needs_no_file_that_it_read(notes: Run, tmp_path: Path) -> None:
    moved = shutil.copytree(notes.path, tmp_path / "runs" / notes.path.name)
    (moved / "config.yaml").write_text("data: {files: [gone.jsonl]}\n")
    Run(moved).finish()
    assert find_evaluation_data(resolve(moved)) == find_evaluation_data(resolve(notes.path))


def test_a_run_without_kept_rows_is_measured_on_built_in_sentences(notes: Run, tmp_path: Path) -> None:
    moved = Run(shutil.copytree(notes.path, tmp_path / "runs" / notes.path.name))
    moved.heldout_path.unlink()
    moved.finish()
    data = find_evaluation_data(resolve(moved.path))
    assert "built-in sentences, as the run kept no held-out text" in data.origin and "--eval" in data.origin
    assert data.texts == list(BUILT_IN) and data.digest == "" and data.calibration is not None
    moved.calibration_path.unlink()
    moved.finish()
    assert find_evaluation_data(resolve(moved.path)).calibration is None


def test_rows_of_another_format_are_refused(notes: Run, tmp_path: Path) -> None:
    moved = Run(shutil.copytree(notes.path, tmp_path / "runs" / notes.path.name))
    moved.heldout_path.write_text('{"format": 1, "digest": "", "items": null}\n')
    moved.finish()
    with pytest.raises(DataError, match="older release"):
        find_evaluation_data(resolve(moved.path))


def test_given_files_take_the_place_of_the_runs_own_rows(
    notes: Run, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    lines = [f"document {number} tells of the ward" for number in range(100)]
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    of_run = find_evaluation_data(resolve(notes.path), calibration=file)
    assert of_run.origin == "held-out rows of the run (dev)"
    assert (of_run.calibration_origin, of_run.calibration_file) == ("the file text.jsonl", "text.jsonl")
    assert len(of_run.calibration.rows.rows) == 100
    plain = find_evaluation_data(resolve(model_folders["llama"]), calibration=file)
    assert plain.origin == "a tenth of text.jsonl, held out" and plain.seq_len == DEFAULT_LENGTH
    assert 0 < len(plain.passages) < 30 and len(plain.calibration.rows.rows) == 100 - len(plain.passages)
    assert not set(plain.texts) & {row.text for row in plain.calibration.rows.rows}
    measured = find_evaluation_data(resolve(model_folders["llama"]), evaluation=file)
    assert measured.origin == "the file text.jsonl" and len(measured.texts) == MAX_PASSAGES
    assert set(measured.texts) <= set(lines) and set(measured.texts) & set(lines[-30:]), "not the first ones"
    assert measured.calibration is None


def test_an_embedding_run_is_measured_on_its_own_examples(tmp_path: Path) -> None:
    import tiny_embed

    from adaptkit.embed.config import EmbedConfig
    from adaptkit.embed.recipe import embed

    rows = tiny_embed.write(tmp_path / "pairs.jsonl", tiny_embed.pairs())
    base = tiny_embed.bert(tmp_path / "bert")
    config = EmbedConfig.model_validate(
        {
            "base": str(base),
            "train": {"files": [str(rows)]},
            "trainer": {"num_steps": 3, "global_batch_size": 8, "learning_rate": 5e-2, "threads": 1},
            "adapter": {"kind": "lora", "rank": 4},
        }
    )
    run = Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json"))
    embed(config, run)
    rows.unlink()
    done = export(resolve(run.path), "fp32")
    assert done.parity.data.origin == "held-out examples of the run (dev)"
    assert len(done.parity.data.passages) > 4
    assert done.parity.merge.startswith("base and adapter as trained")
    assert check(done.parity, "merging the adapter").ok
    assert "adaptkit embed train runs/" in (done.folder / "README.md").read_text()
