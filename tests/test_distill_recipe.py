"""Whole small distillations: what is learnt, saved, counted, refused and resumed. Home of distill.recipe,
distill.config, distill.estimate, distill.scores and distill.start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_teachers
import torch
from pydantic import ValidationError

from adaptkit import models
from adaptkit.cli import app, console
from adaptkit.config import dump
from adaptkit.data.drawing import draw_from
from adaptkit.data.heldout import MAX_ITEMS, MAX_PASSAGES, read_calibration, read_held_out
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.estimate import plan
from adaptkit.distill.recipe import DistillResult, distill
from adaptkit.distill.start import read_data
from adaptkit.errors import AdaptkitError, ConfigError, ModelError
from adaptkit.export.source import of_run
from adaptkit.export.weights import load_unmerged
from adaptkit.run import Run, read_json, read_jsonl
from adaptkit.run_record import read_record as record_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    tiny_teachers.write_files(folder)
    return folder


@pytest.fixture(scope="module")
def llama(world: Path) -> Path:
    return tiny_teachers.causal_teacher(world)


@pytest.fixture(scope="module")
def bert(world: Path) -> Path:
    return tiny_teachers.classifier_teacher(world)


def run_of(config: DistillConfig, root: Path) -> Run:
    return Run.open(root, config.name, config.model_dump(mode="json"))


def done(config: DistillConfig, root: Path) -> tuple[DistillResult, Run]:
    run = run_of(config, root)
    return distill(config, run), run


def test_a_half_depth_student_comes_close_to_its_causal_teacher(world, llama, tmp_path):
    config = tiny_teachers.config(world, llama, {"num_steps": 25})
    result, run = done(config, tmp_path)
    start = next(row["eval_loss"] for row in run.metrics() if "eval_loss" in row)
    assert result.scores["bits_per_byte"] < 1.1 * result.teacher["bits_per_byte"] and start
    student = models.load(result.model_folder, "causal")
    assert student.config.num_hidden_layers == 2 and result.params == models.param_count(student).total
    assert models.load_tokenizer(result.model_folder).get_vocab() == models.load_tokenizer(llama).get_vocab()
    assert record_of(run).facts["student"] == {"start": "every", "blocks": [0, 3]} and run.finished
    cost = read_json(run.cost_path)
    assert 0.2 * cost["flops"] < cost["teacher_flops"] < 0.6 * cost["flops"]
    again = distill(config, run)
    assert again == result


def test_a_classifiers_student_knows_the_labels(world, bert, tmp_path):
    config = tiny_teachers.config(
        world, bert, {"num_steps": 25}, losses={"forward_kl": 1.0, "hidden": 1.0, "attention": 1.0}
    )
    result, run = done(config, tmp_path)
    assert result.scores["accuracy"] >= 0.9 and result.teacher["accuracy"] >= 0.9
    rows = list(read_jsonl(run.items("labels")))
    assert {"id", "label", "prediction", "probabilities"} <= rows[0].keys()
    assert models.load(result.model_folder, "classifier").config.id2label == {0: "bad", 1: "good"}


LORA = {"kind": "lora", "rank": 4}


def test_the_record_says_what_the_run_is_and_what_an_export_is_measured_on(world, bert, tmp_path):
    moods = {"files": [str(world / "moods.jsonl")]}
    config = tiny_teachers.config(world, bert, {"num_steps": 2}, adapter=LORA, test=moods)
    result, run = done(config, tmp_path)
    record = record_of(run)
    assert (record.recipe, record.model_kind, record.task) == ("distill", "classifier", "")
    names = (record.base, record.teacher, record.adapter_base)
    assert names == (str(bert), str(bert), f"{run.path.name}/base")
    assert record.adapter == config.adapter and record.seq_len == tiny_teachers.SEQ_LEN
    assert list(record.splits) == ["train", "dev", "test"] and record.splits["test"].documents == 160
    scores = record.suites[record.suite]
    assert (record.suite, scores.judged_on, scores.num_items) == ("labels", "test", 160)
    assert scores.metrics == result.scores and scores.teacher == result.teacher and "loss" in scores.dev
    assert record.facts["teacher"]["params"] > result.params == record.params
    splits = read_data(config, "classifier")
    held, calibration = read_held_out(run), read_calibration(run)
    assert held.items_split == "test" and held.items.rows == draw_from(splits["test"], MAX_ITEMS).rows
    assert held.passages == [(row.id, row.text) for row in splits["dev"].rows[:MAX_PASSAGES]]
    assert held.digest == splits["dev"].digest and calibration.digest == splits["train"].digest
    drawn, learnt = ({row.id for row in rows.rows} for rows in (calibration.rows, splits["train"]))
    assert drawn and drawn <= learnt


@pytest.mark.parametrize(
    ("student", "base"), [({"start": "last"}, "teacher"), ({"start": "fresh"}, ""), ({"start": "x/y"}, "x/y")]
)
def test_the_record_names_what_the_student_began_as(world, llama, student, base):
    config = tiny_teachers.config(world, llama, student=student)
    assert config.student_base == (str(llama) if base == "teacher" else base)


@pytest.mark.parametrize(
    "fields",
    [
        {"losses": {"replacing": 1.0}},
        {"losses": {"reverse_kl": 1.0, "hidden": 0.5}},
        {"losses": {"forward_kl": 1.0}, "adapter": {**LORA, "dropout": 0.1}},
    ],
)
def test_a_resumed_distillation_equals_an_uninterrupted_one(world, bert, tmp_path, fields, monkeypatch):
    config = tiny_teachers.config(world, bert, **fields)
    whole, _ = done(config, tmp_path / "whole")

    from adaptkit.trainer.trainer import Trainer

    save, saves = Trainer._save, []

    def dying(self: Trainer) -> None:
        save(self)
        saves.append(1)
        if len(saves) == 2:
            raise AdaptkitError("pulled the plug")

    monkeypatch.setattr(Trainer, "_save", dying)
    run = run_of(config, tmp_path / "killed")
    with pytest.raises(AdaptkitError, match="plug"):
        distill(config, run)
    resumed = distill(config, run)
    assert run.manifest()["training"]["train"]["resumed_from_step"] == 4
    pair = [
        models.load(folder, "classifier").state_dict()
        for folder in (whole.model_folder, resumed.model_folder)
    ]
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def outputs(model: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval()(input_ids=torch.randint(4, 200, (3, 9))).logits


@pytest.mark.parametrize("start", ["every", "folder"])
def test_an_adapter_learns_on_a_frozen_student_and_is_saved_and_merged(world, bert, tmp_path, start):
    from peft import PeftModel

    folder = {"every": "every", "folder": str(bert)}[start]
    losses = {"forward_kl": 1.0, "hidden": 0.1}
    fields = {"adapter": LORA, "losses": losses, "student": {"start": folder}}
    result, run = done(tiny_teachers.config(world, bert, {"num_steps": 25}, **fields), tmp_path)
    base = run.base if start == "every" else bert
    assert result.scores["accuracy"] >= 0.9 and run.base.exists() == (start == "every")
    frozen, merged = models.load(base, "classifier"), models.load(result.model_folder, "classifier")
    assert torch.equal(
        frozen.bert.embeddings.word_embeddings.weight, merged.bert.embeddings.word_embeddings.weight
    )
    tuned = PeftModel.from_pretrained(models.load(base, "classifier"), str(run.adapter))
    torch.testing.assert_close(outputs(tuned), outputs(merged), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs(frozen), outputs(merged), atol=1e-2)
    again = load_unmerged(of_run(run.path), len(models.load_tokenizer(run.model)))
    torch.testing.assert_close(outputs(again), outputs(merged), rtol=1e-4, atol=1e-4)
    assert (
        record_of(run).facts["merge_difference"] < 1e-4
        and record_of(run).facts["trained"] < 0.5 * result.params
    )


def test_an_adapter_on_four_bits_is_merged_into_the_weights_that_it_was_trained_on(world, llama, tmp_path):
    fields = {
        "adapter": {**LORA, "kind": "qlora"},
        "student": {"layers": 3},
        "losses": {"on_policy": 0.5, "reverse_kl": 0.5},
    }
    result, run = done(tiny_teachers.config(world, llama, **fields), tmp_path)
    assert (
        record_of(run).facts["merge_difference"] < 1e-3
        and result.scores["bits_per_byte"] < 1.3 * result.teacher["bits_per_byte"]
    )
    stood_on, merged = (
        models.load(folder, "causal").model.layers[0].mlp.up_proj.weight for folder in (run.base, run.model)
    )
    assert (stood_on - merged).abs().max() > 1e-3, "rounded to four bits"


def test_a_student_with_the_labels_in_another_order_is_refused(world, bert, tmp_path):
    model = models.load(bert, "classifier")
    model.config.id2label, model.config.label2id = {0: "good", 1: "bad"}, {"good": 0, "bad": 1}
    models.save(model, models.load_tokenizer(bert), tmp_path / "turned")
    with pytest.raises(ModelError, match="the student's labels are good, bad, the teacher's bad, good"):
        done(tiny_teachers.config(world, bert, student={"start": str(tmp_path / "turned")}), tmp_path)


def test_the_search_keeps_the_blocks_that_matter(world, llama, tmp_path):
    teacher, tokenizer = models.load(llama, "causal"), models.load_tokenizer(llama)
    with torch.no_grad():
        for block in (teacher.model.layers[1], teacher.model.layers[2]):
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    models.save(teacher, tokenizer, tmp_path / "idle")
    config = tiny_teachers.config(
        world, tmp_path / "idle", {"num_steps": 1, "learning_rate": 1e-6}, student={"start": "search"}
    )
    result, run = done(config, tmp_path)
    assert record_of(run).facts["student"]["blocks"] == [0, 3]
    assert result.scores["bits_per_byte"] == pytest.approx(result.teacher["bits_per_byte"], rel=0.02)


def test_a_fresh_student_has_the_size_that_was_asked_for(world, llama, tmp_path):
    config = tiny_teachers.config(
        world, llama, student={"start": "fresh"}, size={"params": 130_000, "seq_len": 32}
    )
    result, _ = done(config, tmp_path)
    assert abs(result.params / 130_000 - 1) < 0.15
    assert models.load(result.model_folder, "causal").config.model_type == "llama"


def test_narrower_fresh_students_learn_hidden_states_through_projections_that_are_not_saved(
    world, bert, tmp_path
):
    losses = {"forward_kl": 1.0, "hidden": 1.0}
    fields = {"student": {"start": "fresh"}, "size": {"params": 300_000, "seq_len": 32}, "losses": losses}
    result, _ = done(tiny_teachers.config(world, bert, **fields), tmp_path)
    student = models.load(result.model_folder, "classifier")
    assert student.config.model_type == "modernbert" and student.config.hidden_size != 64
    assert not [name for name in student.state_dict() if "projections" in name]


def test_width_and_vocabulary_are_pruned_and_the_teacher_reads_its_own_tokens(world, llama, tmp_path):
    config = tiny_teachers.config(
        world, llama, {"num_steps": 40}, student={"layers": 4, "width": 32, "vocab_size": 320}
    )
    result, run = done(config, tmp_path)
    student = models.load(result.model_folder, "causal")
    assert (student.config.hidden_size, student.config.vocab_size, student.config.num_hidden_layers) == (
        32,
        320,
        4,
    )
    tokenizer = models.load_tokenizer(result.model_folder)
    assert len(tokenizer) == 320 and student.config.eos_token_id == tokenizer.eos_token_id
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert result.scores["bits_per_byte"] < 3.5  # 384 tokens drawn alike: 4.2


def test_a_student_learns_from_what_it_writes_itself(world, llama, tmp_path):
    trainer = {"num_steps": 16, "learning_rate": 1e-3, "eval_every": 2}
    config = tiny_teachers.config(
        world, llama, trainer, losses={"on_policy": 1.0}, student={"start": "last", "layers": 1}
    )
    _, run = done(config, tmp_path)
    found = [row["eval_on_policy"] for row in run.metrics() if "eval_loss" in row]
    assert found[-1] < 0.8 * found[0]


@pytest.mark.parametrize(
    ("teacher", "fields", "what"),
    [
        ("bert", {"losses": {"on_policy": 1.0}}, "on_policy means nothing to a classifier model"),
        ("llama", {"losses": {"cosine": 1.0}}, "cosine means nothing to a causal model"),
        ("bert", {"signal": "offline"}, "offline speaks for causal teachers"),
        (
            "llama",
            {"losses": {"replacing": 1.0}, "student": {"width": 32}},
            "cannot stand among those of a llama of width 32",
        ),
    ],
)
def test_losses_that_do_not_fit_the_models_are_refused(world, teacher, fields, what, tmp_path, request):
    with pytest.raises((ConfigError, ModelError), match=what):
        done(tiny_teachers.config(world, request.getfixturevalue(teacher), **fields), tmp_path)


def test_other_tokenizers_are_refused_in_a_sentence(world, llama, tmp_path):
    other = train_tokenizer(["entirely different words here"] * 3, "bpe", 300)
    models.save(models.load(llama, "causal"), other, tmp_path / "other")
    config = tiny_teachers.config(world, llama, student={"start": str(tmp_path / "other")})
    with pytest.raises(
        ModelError, match="tokens, the teacher's 384.* cannot be compared\n  fix: .*signal=text"
    ):
        done(config, tmp_path)


def test_shapes_that_no_server_runs_are_refused(world, tmp_path):
    from transformers import DistilBertConfig

    tokenizer = train_tokenizer(["some words to know"] * 3, "wordpiece", 80)
    shape = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=2, n_heads=2, pad_token_id=0
    )
    models.save(models.build(shape, "masked", seed=0), tokenizer, tmp_path / "distilbert")
    with pytest.raises(
        ModelError, match="shape 'distilbert' is not served: only bert, modernbert, llama, qwen3"
    ):
        done(tiny_teachers.config(world, tmp_path / "distilbert"), tmp_path)


def test_a_plan_says_what_the_student_will_be(world, llama, tmp_path):
    config = tiny_teachers.config(world, llama)
    found = plan(config)
    result, _ = done(config, tmp_path)
    assert found["student"]["params"] == result.params and found["student"]["layers"] == 2
    assert 1.3 < found["expected_speed_up"]["reading"] < 2 and 1.2 < found["expected_speed_up"]["writing"] < 2
    assert found["flops"] == pytest.approx(result.cost["flops"], rel=1e-6)
    assert found["training_bytes"]["student"] == 16 * result.params and found["trained"] == result.params


def test_a_plan_counts_what_the_losses_ask_for_and_what_an_adapter_leaves_alone(world, llama, tmp_path):
    config = tiny_teachers.config(world, llama, losses={"on_policy": 1.0}, adapter={**LORA, "kind": "qlora"})
    found, (result, run) = plan(config), done(config, tmp_path)
    assert found["student"]["params"] == result.params and found["trained"] == record_of(run).facts["trained"]
    assert found["flops"] == pytest.approx(result.cost["flops"], rel=0.02)
    memory = found["training_bytes"]["student"]
    assert (
        memory == pytest.approx(16 * found["trained"] + 0.55 * result.params)
        and memory < 0.5 * 16 * result.params
    )
    assert found["stored_bytes_per_token"] == 0
    assert plan(tiny_teachers.config(world, llama, signal="offline"))["stored_bytes_per_token"] == 64 * 4
    with pytest.raises(ConfigError, match="cosine means nothing to a causal model"):
        plan(tiny_teachers.config(world, llama, losses={"cosine": 1.0}))
    with pytest.raises(ModelError, match="cannot stand among those of a llama of width 32"):
        plan(tiny_teachers.config(world, llama, losses={"replacing": 1.0}, student={"width": 32}))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"losses": {}}, "at least one loss"),
        ({"losses": {"replacing": 1.0, "replacing_constant": 1.0}}, "exclude each other"),
        ({"losses": {"hidden": 1.0}, "signal": "offline"}, "must be online"),
        ({"teacher": "http://127.0.0.1:1"}, "no weights here"),
        ({"student": {"start": "fresh", "layers": 2}}, "prune the teacher"),
        ({"student": {"start": "fresh"}, "adapter": LORA}, "fresh weights know nothing"),
        ({"losses": {"on_policy": 1.0}, "trainer": {"parallel": "fsdp"}}, "set trainer.parallel=ddp"),
    ],
)
def test_contradictions_are_refused(world, llama, fields, what):
    with pytest.raises((ValidationError, ConfigError), match=what):
        tiny_teachers.config(world, **{"teacher": llama, **fields})


def test_the_command_plans_and_then_makes_the_student(world, llama, tmp_path, capsys):
    path = tmp_path / "distill.yaml"
    path.write_text(
        dump(tiny_teachers.config(world, llama, {"num_steps": 2}).model_dump(mode="json", exclude_unset=True))
    )
    assert console.run(app.app, ["distill", str(path), "--plan"]) == 0
    shown = capsys.readouterr().out
    assert (
        "expected speed-up: 1." in shown
        and "layers          2        4" in shown
        and not (tmp_path / "runs").exists()
    )
    words = ["distill", str(path), "student.layers=1", "--json", "--root", str(tmp_path / "runs")]
    assert console.run(app.app, words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["suite"] == "language"
        and models.load(found["model_folder"], "causal").config.num_hidden_layers == 1
    )
    assert set(read_json(Path(found["run"]) / "manifest.json")["inputs"]) == {"data", "teacher"}
