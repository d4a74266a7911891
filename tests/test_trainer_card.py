"""The card of each trained model: its base, licence, use, data and scores, and Python that runs."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

from adaptkit import model_origin
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.model_origin import UNKNOWN_LICENCE, front_matter, hub_id, stated_licence
from adaptkit.run import Run
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, read_record
from adaptkit.trainer.card import write_card


def run_snippet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the Python of a card in its folder, as a reader would; what it printed."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(code, {})
    return shown.getvalue()


def test_runs_leave_a_filled_card_that_runs(
    notes: Run, mood: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run, metric in ((notes, "bits per byte"), (mood, "accuracy")):
        card, record = (run.model / "README.md").read_text(), read_record(run)
        assert "## Intended use" in card and f"| {metric} |" in card and "| None" not in card
        for part, split in record.splits.items():
            assert re.search(rf"^\| {part} \|.*`{split.digest[:16]}` \|$", card, re.MULTILINE)
        assert str(run.path.parent) not in card and "/tmp" not in card
        assert "learnt from" not in card, "it had no teacher"
        assert "base_model" not in front_matter(run.model), "no hub knows what was trained here"
        assert run_snippet(run.model, monkeypatch).strip()
    assert "random weights" in (notes.model / "README.md").read_text()
    exported = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    assert "score" in run_snippet(exported, monkeypatch)


KINDS = {
    ModelKind.MASKED: ("BertForMaskedLM", "fill-mask", "score"),
    ModelKind.TAGGER: ("BertForTokenClassification", "token-classification", "["),
    ModelKind.ENCODER: ("BertModel", "sentence-similarity", "tensor"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_python_of_every_kind_runs(
    kind: ModelKind, model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    architecture, tag, shown = KINDS[kind]
    run = Run(tmp_path / "one")
    source = model_folders["bert"]
    config = transformers.AutoConfig.from_pretrained(source)
    getattr(transformers, architecture)(config).save_pretrained(run.model)
    for path in source.glob("*token*"):
        shutil.copyfile(path, run.model / path.name)
    write_card(run, RunRecord(recipe=RecipeKind.DISTILL, model_kind=kind, teacher="http://host/v1"), {})
    card = (run.model / "README.md").read_text()
    assert front_matter(run.model)["pipeline_tag"] == tag
    assert "a model behind HTTP" in card and "host" not in card
    assert shown in run_snippet(run.model, monkeypatch)


def test_licence_and_hub_name_are_carried_from_base_to_base(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    base = shutil.copytree(model_folders["llama"], tmp_path / "base")
    about = (
        "---\nlicense: mit\n---\nFrom the package some-model==0.1: a copy of owner/model-1, which reads.\n"
    )
    (base / "README.md").write_text(about)
    (base / "LICENSE").write_text("the terms")
    for name, start in (("first", str(base)), ("second", str(tmp_path / "first" / "model"))):
        run = Run(tmp_path / name)
        shutil.copytree(model_folders["llama"], run.model)
        record = RunRecord(recipe=RecipeKind.FINETUNE, model_kind=ModelKind.CAUSAL, base=start)
        write_card(run, record, {"loss": "its own"})
        fields = front_matter(run.model)
        assert (fields["license"], fields["base_model"]) == ("mit", "owner/model-1")
        assert (run.model / "LICENSE").read_text() == "the terms"
        assert "| loss | its own |" in (run.model / "README.md").read_text()


def test_a_base_without_a_hub_name_or_licence_has_none(tmp_path: Path) -> None:
    assert hub_id("") == "" and hub_id("owner/name") == "owner/name" and hub_id("name@sha256:0123") == ""
    assert hub_id(str(tmp_path)) == "" and stated_licence(tmp_path) == UNKNOWN_LICENCE
    (tmp_path / "README.md").write_text("---\nbase_model: owner/grandparent\n---\n")
    assert hub_id(str(tmp_path)) == "", "somebody else's card names its own base, not itself"
    assert model_origin.licence_files(tmp_path) == []
