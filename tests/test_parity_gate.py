"""The gate: what is compared, what is refused, and that a broken export of any kind does not get through."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_exports import finetuned, pretrained, write_models

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.export import model_folder
from adaptkit.export.export import Options, export
from adaptkit.export.formats import FORMATS
from adaptkit.export.parity.answers import Answers, ask, embed
from adaptkit.export.parity.gate import Limits, compare, merge_checks, passed, refuse, token_checks
from adaptkit.export.parity.heldout import find_heldout
from adaptkit.export.source import resolve
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.models.sentence.layout import read_layout
from adaptkit.run import Run, read_json, write_json

BF16, FP32, INT8 = FORMATS["bf16"], FORMATS["fp32"], FORMATS["int8"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def notes(root: Path, tiny_text: list[str]) -> Run:
    return pretrained(root, tiny_text)


@pytest.fixture(scope="module")
def mood(root: Path, notes: Run) -> Run:
    return finetuned(root, notes.model, adapter="none")


def generated(
    bpb: float = 1.0, nudge: float = 0.0, tokens: tuple[int, ...] = (1, 2, 3), **scores: float
) -> Answers:
    return Answers(
        [list(tokens)], torch.tensor([-1.0, -2.0 + nudge], dtype=torch.float64), bpb, scores=scores
    )


def failed(checks: list[dict]) -> list[str]:
    return [check["name"] for check in checks if not check["ok"]]


def test_float32_must_be_equal_and_others_may_lose_what_is_stated() -> None:
    limits = Limits.of(FP32, None, None)
    assert passed(compare(generated(), generated(), FP32, limits))
    assert failed(compare(generated(), generated(nudge=1e-4), FP32, limits)) == [
        "largest change of a token's log-probability, nats"
    ]
    assert failed(compare(generated(), generated(tokens=(1, 2, 4)), FP32, limits)) == [
        "greedy tokens that differ, share"
    ]
    assert failed(compare(generated(), generated(tokens=(1, 2)), FP32, limits)) == [
        "greedy tokens that differ, share"
    ]
    assert passed(compare(generated(), generated(1.004, 0.1, (1, 2, 4)), BF16, Limits.of(BF16, None, None)))
    assert failed(compare(generated(), generated(1.006), BF16, Limits.of(BF16, None, None))) == [
        "bits per byte"
    ]
    assert passed(compare(generated(), generated(1.3), INT8, Limits.of(INT8, 0.5, None)))
    assert passed(compare(generated(), generated(0.5), INT8, Limits.of(INT8, 0.0, None))), "a gain is no loss"


def test_one_item_may_flip_unless_the_user_states_a_limit() -> None:
    before, after = generated(accuracy=0.80), generated(accuracy=0.76)
    assert passed(compare(before, after, INT8, Limits.of(INT8, None, None), num_items=25))
    assert failed(compare(before, after, INT8, Limits.of(INT8, None, None), num_items=200)) == ["accuracy"]
    assert failed(compare(before, after, INT8, Limits.of(INT8, None, 0.01), num_items=25)) == ["accuracy"]
    assert failed(compare(before, after, FP32, Limits.of(FP32, None, None), num_items=25)) == ["accuracy"]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_no_number_never_passes(broken: float) -> None:
    assert failed(compare(generated(), generated(broken), INT8, Limits.of(INT8, None, None))) == [
        "bits per byte"
    ]


def test_classifiers_without_items_are_held_to_their_predictions() -> None:
    outputs = torch.eye(4, dtype=torch.float64).repeat(10, 1)
    flipped = outputs.clone()
    flipped[:4] = flipped[:4].roll(1, 1)
    limits = Limits.of(INT8, None, None)
    assert passed(compare(Answers(outputs=outputs), Answers(outputs=outputs + 0.1), INT8, limits))
    assert failed(compare(Answers(outputs=outputs), Answers(outputs=flipped), INT8, limits)) == [
        "predictions that differ, share"
    ]
    moved = compare(
        Answers(outputs=outputs), Answers(outputs=outputs + 0.1), FP32, Limits.of(FP32, None, None)
    )
    assert failed(moved) == ["largest change of a logit, relative to the largest"]


def test_rerankers_are_held_to_the_order_of_their_scores() -> None:
    scores = torch.linspace(-4, 4, 20, dtype=torch.float64)[:, None]
    limits, name = Limits.of(INT8, None, None), "correlation of scores with the source's"
    before = Answers(outputs=scores)
    assert passed(compare(before, Answers(outputs=0.9 * scores + 0.5), INT8, limits)), (
        "the order is what counts"
    )
    for broken in (
        scores.flip(0),
        scores.roll(5, 0),
        torch.zeros_like(scores),
        torch.full_like(scores, math.nan),
    ):
        assert failed(compare(before, Answers(outputs=broken), INT8, limits)) == [name]
    assert failed(compare(Answers(outputs=scores * math.nan), before, INT8, limits)) == [name]
    assert failed(compare(before, Answers(outputs=0.9 * scores), FP32, Limits.of(FP32, None, None)))
    same = torch.ones_like(scores)
    assert passed(compare(Answers(outputs=same), Answers(outputs=1.01 * same), INT8, limits)), (
        "it tells no texts apart"
    )


def test_embeddings_are_held_to_their_cosine() -> None:
    vectors = torch.nn.functional.normalize(
        torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    near, far = (
        torch.nn.functional.normalize(vectors + scale * torch.roll(vectors, 1, 0), dim=-1)
        for scale in (0.05, 0.3)
    )
    before = Answers(vectors=vectors)
    assert passed(compare(before, Answers(vectors=near), INT8, Limits.of(INT8, None, None)))
    assert not passed(compare(before, Answers(vectors=near), BF16, Limits.of(BF16, None, None))), (
        "0.999 in floating point"
    )
    assert not passed(compare(before, Answers(vectors=far), INT8, Limits.of(INT8, None, None)))


def test_a_merge_that_moves_anything_is_seen() -> None:
    assert passed(merge_checks(generated(), generated(nudge=5e-6)))
    assert not passed(merge_checks(generated(), generated(nudge=1e-3)))
    assert not passed(merge_checks(generated(), generated(tokens=(1, 9, 3))))
    logits = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    assert passed(merge_checks(Answers(outputs=logits), Answers(outputs=logits + 1e-6)))
    assert not passed(merge_checks(Answers(outputs=logits), Answers(outputs=logits + 1e-3)))


def test_the_refusal_names_the_figure_its_change_and_what_to_do() -> None:
    checks = compare(generated(), generated(1.5), INT8, Limits.of(INT8, None, None))
    with pytest.raises(
        ModelError,
        match=r"int8 export .* bits per byte: 1.0000 became 1.5000; a loss of 0.5, 0.02 is allowed",
    ) as refused:
        refuse({"format": "int8", "checks": checks}, "here", "parity.json")
    assert (
        "--max-loss-bpb" in refused.value.fix
        and "parity.json" in refused.value.fix
        and refused.value.where == "here"
    )
    refuse(
        {"format": "int8", "checks": compare(generated(), generated(), INT8, Limits.of(INT8, None, None))},
        "here",
        "parity.json",
    )


def test_a_tokenizer_that_changed_doubles_bos_or_prompts_otherwise_is_seen(
    notes: Run, tiny_text: list[str]
) -> None:
    from tokenizers.processors import TemplateProcessing

    def fresh():
        return models.load_tokenizer(notes.model)

    texts = tiny_text[:5]
    assert passed(token_checks(fresh(), fresh(), texts))
    doubled = fresh()
    bos = doubled.bos_token
    doubled.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} {bos} $A", special_tokens=[(bos, doubled.bos_token_id)]
    )
    assert "texts that begin with more than one BOS" in failed(token_checks(doubled, doubled, texts))
    assert "texts that get other token ids" in failed(token_checks(fresh(), doubled, texts))
    reworded = fresh()
    reworded.chat_template = str(reworded.chat_template).replace("user", "human") + "!"
    assert failed(token_checks(fresh(), reworded, texts)) == ["chat prompt: text, token ids, or a second BOS"]


def test_bits_per_byte_of_the_gate_is_the_trainers_own_figure(notes: Run) -> None:
    source, heldout = resolve(notes.path), find_heldout(resolve(notes.path))
    assert heldout.seq_len == 64
    model, tokenizer = models.load(source.folder, "causal"), models.load_tokenizer(source.folder)
    answers = ask(source, model, tokenizer, heldout)
    assert answers.bits_per_byte == bits_per_byte(
        score_documents(model, tokenizer, heldout.texts, seq_len=64)
    )
    assert answers.bits_per_byte == pytest.approx(
        read_json(notes.scores("language"))["metrics"]["bits_per_byte"], abs=1e-5
    )
    assert len(answers.greedy) == 8 and answers.logprobs is not None and len(answers.logprobs) > 100


@pytest.mark.parametrize("damage", ["zeroed", "noisy", "swapped"])
@pytest.mark.parametrize("format", ["fp32", "bf16", "int8"])
def test_damaged_weights_do_not_get_through(
    notes: Run, tmp_path: Path, monkeypatch, format: str, damage: str
) -> None:
    real = model_folder.write

    def damaged(source, model, tokenizer, folder: Path) -> None:
        name = "model.layers.0.self_attn.o_proj.weight"
        weight = model.get_submodule(name.removesuffix(".weight")).weight
        other = model.model.layers[1].self_attn.o_proj.weight
        real(source, model, tokenizer, folder)
        state = load_file(folder / "model.safetensors")
        generator = torch.Generator().manual_seed(0)
        noisy = weight + weight.std() * torch.randn(weight.shape, generator=generator).to(weight.dtype)
        state[name] = (
            {"zeroed": torch.zeros_like(weight), "noisy": noisy, "swapped": other}[damage]
            .detach()
            .clone()
            .contiguous()
        )
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    if format == "int8":
        monkeypatch.setattr("adaptkit.export.quantise.compressed_tensors.stored", _shrunk(damage))
    else:
        monkeypatch.setattr(model_folder, "write", damaged)
    with pytest.raises(ModelError, match="too far from its source"):
        export(resolve(notes.path), format, Options(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def _shrunk(damage: str):
    from adaptkit.export.quantise.compressed_tensors import stored

    factor = {"zeroed": 0.0, "noisy": 3.0, "swapped": -1.0}[damage]

    def wrong(rounded, format):
        tensors = stored(rounded, format)
        return {**tensors, "weight_scale": tensors["weight_scale"] * factor}

    return wrong


def test_the_task_score_is_measured_on_items_nobody_trained_on(mood: Run) -> None:
    done = export(resolve(mood.path), "int8")
    accuracy = next(check for check in done.parity["checks"] if check["name"] == "accuracy")
    assert accuracy["before"] == read_json(mood.scores("mood"))["metrics"]["accuracy"] and accuracy[
        "limit"
    ] == pytest.approx(1 / 40)
    assert done.parity["merge"].startswith("no adapter")


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_embeddings_are_pooled_as_the_folder_says(tmp_path: Path, tiny_text: list[str], mode: str) -> None:
    folder = write_models(tmp_path, tiny_text)["bert"]
    (folder / "1_Pooling").mkdir()
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        folder / "modules.json",
        [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds],
    )
    key = {
        "mean": "pooling_mode_mean_tokens",
        "cls": "pooling_mode_cls_token",
        "lasttoken": "pooling_mode_lasttoken",
    }[mode]
    write_json(folder / "1_Pooling" / "config.json", {key: True})
    model, tokenizer = models.load(folder, "encoder").eval(), models.load_tokenizer(folder)
    texts = ["the nurse reads", "every old library forgets the missing page in room 12"]
    vectors = embed(model, tokenizer, texts, read_layout(folder, model.config, tokenizer))
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double()
        alone = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[mode]
        assert float(torch.nn.functional.normalize(alone, dim=0) @ vector) > 1 - 1e-6
