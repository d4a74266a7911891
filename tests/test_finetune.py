"""Fine-tuning end to end on tiny models: what is learnt, what is saved, what a server would compute,
resuming. Home of finetune.recipe, finetune.config, finetune.generation and finetune.tasks."""

from __future__ import annotations

import json
import random

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
)

from adaptkit import models
from adaptkit.adapters import AdapterConfig, attach, merge, save_adapter
from adaptkit.data import DataConfig, SupervisedRows, read, train_tokenizer
from adaptkit.data.heldout import read_calibration, read_held_out
from adaptkit.data.supervised import prompt_ids
from adaptkit.errors import DataError, ModelError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.generation import generate
from adaptkit.finetune.recipe import finetune
from adaptkit.finetune.tasks import task_of
from adaptkit.run import Run, read_json, read_jsonl
from adaptkit.run_record import read_record
from adaptkit.trainer.config import TrainerConfig

CUES = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "zinc", "tin"], "animal": ["cat", "dog", "cow"]}
FILLERS = ["the old", "some", "a very large", "one more", "this"]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TRAINER = TrainerConfig(
    num_steps=40,
    global_batch_size=16,
    learning_rate=5e-3,
    schedule="linear",
    checkpoint_every=10,
    log_every=5,
    threads=1,
    select="best",
)


def _examples(count: int, seed: int) -> list[dict]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.choice(sorted(CUES))
        text = " ".join([*rng.choices(FILLERS, k=rng.randint(1, 4)), rng.choice(CUES[label])])
        rows.append({"text": f"{text} {rng.randrange(100)}", "label": label})
    return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data files and random bases: llama (causal) and bert (masked)."""
    root = tmp_path_factory.mktemp("world")
    for name, count, seed in (("train", 240, 1), ("dev", 40, 2), ("test", 60, 3)):
        rows = _examples(count, seed)
        asked = [{"prompt": f"What is {r['text']}?", "completion": r["label"]} for r in rows]
        chats = [
            {"messages": [_turn("user", r["prompt"]), _turn("assistant", r["completion"])]} for r in asked
        ]
        for kind, lines in (("labelled", rows), ("sft", asked), ("chat", chats)):
            (root / f"{kind}.{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = [f"What is {r['text']}? {r['label']} \nLabel: " for r in _examples(200, 9)]
    for kind, config in (("causal", LlamaConfig), ("masked", BertConfig)):
        tokenizer = train_tokenizer(texts, "bpe", 400, masked=kind == "masked")
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        model = models.build(
            config(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZES, **ids), kind, seed=0
        )
        models.save(model, tokenizer, root / kind)
    return root


def _turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def _config(world, kind: str, adapter: str = "none", base: str = "causal", **changes) -> FinetuneConfig:
    rows = {"classify": "labelled", "label_words": "labelled"}.get(kind, kind)
    files = {
        name: DataConfig(files=[str(world / f"{rows}.{name}.jsonl")]) for name in ("train", "dev", "test")
    }
    fields = {
        "base": str(world / base),
        "kind": "sft" if kind == "chat" else kind,
        "max_length": 48,
        "max_new_tokens": 4,
    }
    adapter_config = AdapterConfig(kind=adapter, rank=8, alpha=12.0 if adapter == "rslora" else 32.0)
    return FinetuneConfig(
        **fields, **files, adapter=adapter_config, trainer=TRAINER.model_copy(update=changes)
    )


def _run(tmp_path, config: FinetuneConfig) -> Run:
    return Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json"))


def _accuracy(rows: list[dict]) -> float:
    return sum(row["prediction"] == row.get("label", row.get("reference")) for row in rows) / len(rows)


@pytest.mark.parametrize("adapter", ["none", "lora", "rslora", "dora", "qlora"])
def test_each_adaptation_learns_and_delivers_a_servable_classifier(world, tmp_path, adapter):
    config = _config(world, "classify", adapter)
    run = _run(tmp_path, config)
    result = finetune(config, run)
    rows = list(read_jsonl(run.items("task")))
    assert len(rows) == 60 and all(abs(sum(r["probabilities"].values()) - 1) < 1e-4 for r in rows)
    assert result.scores["accuracy"] == pytest.approx(_accuracy(rows)) and _accuracy(rows) > 0.8
    logged = [row["loss"] for row in run.metrics() if "loss" in row]
    assert logged[-1] < 0.7 * logged[0]
    assert result.dev_scores["accuracy"] > 0.8 and result.cost["flops"] > 0 and run.finished
    assert (
        read_record(run).facts["labels"] == ["animal", "fruit", "metal"]
        and read_record(run).facts["merge_difference"] <= 1e-5
    )
    assert (result.adapter_folder is not None) == (adapter != "none")

    # what a server loads gives the same probabilities as the stored rows
    served = AutoModelForSequenceClassification.from_pretrained(run.model)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    assert served.config.id2label == {0: "animal", 1: "fruit", 2: "metal"}
    texts = [row["text"] for row in map(json.loads, (world / "labelled.test.jsonl").read_text().splitlines())]
    with torch.no_grad():
        for text, row in list(zip(texts, rows, strict=True))[:10]:
            chances = served(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
            assert {
                served.config.id2label[i]: round(float(p), 4) for i, p in enumerate(chances)
            } == pytest.approx(row["probabilities"], abs=2e-4)
    before = run.manifest()
    assert finetune(config, run) == result and run.manifest() == before


@pytest.mark.parametrize(
    ("kind", "base", "adapter"), [("classify", "masked", "none"), ("label_words", "causal", "none")]
)
def test_encoder_heads_and_label_words_learn_too(world, tmp_path, kind, base, adapter):
    config = _config(world, kind, adapter, base, num_steps=60)
    run = _run(tmp_path, config)
    result = finetune(config, run)
    assert result.scores["accuracy"] > 0.8
    kind = "BertForSequenceClassification" if base == "masked" else "LlamaForCausalLM"
    assert read_json(run.model / "config.json")["architectures"] == [kind]


@pytest.mark.parametrize("kind", ["classify", "label_words", "sft"])
def test_a_record_and_the_rows_that_are_kept_are_enough_to_answer_the_items_again(world, tmp_path, kind):
    config = _config(world, kind, num_steps=8)
    run = _run(tmp_path, config)
    result = finetune(config, run)
    record, held, calibration = read_record(run), read_held_out(run), read_calibration(run)
    assert (record.recipe, record.task, record.suite) == ("finetune", "task", "task")
    assert (record.base, record.seq_len, record.adapter) == (config.base, 48, None)
    assert record.suites["task"].metrics == result.scores and record.suites["task"].dev == result.dev_scores
    assert record.num_steps == 8 and record.model_kind == ("classifier" if kind == "classify" else "causal")
    assert held.digest == record.splits["dev"].digest and held.items_split == "test"
    assert calibration.digest == record.splits["train"].digest and len(calibration.rows.rows) == 240
    model = models.load(run.model, record.model_kind)
    task = task_of(record, models.load_tokenizer(run.model))
    rows = {row["id"]: row for row in read_jsonl(run.items("task"))}
    assert task.rows(model, held.items) == [rows[row.id] for row in held.items.rows]
    assert len(held.items.rows) == (32 if kind == "sft" else 60)


def test_qlora_on_an_encoder_trains_the_head_that_its_checkpoint_lacks(world, tmp_path):
    config = _config(world, "classify", "qlora", "masked", num_steps=4)
    run = _run(tmp_path, config)
    finetune(config, run)
    assert read_record(run).facts["merge_difference"] <= 1e-5
    assert any(
        "pooler" in name and "modules_to_save" not in name
        for name in _names(run.adapter / "adapter_model.safetensors")
    )
    assert "quantization_config" not in read_json(run.model / "config.json")


def _names(path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


@pytest.mark.parametrize("kind", ["sft", "chat"])
def test_sft_answers_as_taught_and_serves_the_ids_it_was_trained_on(world, tmp_path, kind):
    config = _config(world, kind, "none", num_steps=80)
    run = _run(tmp_path, config)
    result = finetune(config, run)
    assert result.scores["exact_match"] > 0.8 and _accuracy(list(read_jsonl(run.items("task")))) > 0.8
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    data = read(config.test, "sft")
    trained = SupervisedRows(data, tokenizer, 48).collate([0], seed=0, epoch=0)
    ids, labels = trained["input_ids"][0].tolist(), trained["labels"][0].tolist()
    first = next(i for i, label in enumerate(labels) if label != -100)
    row = data.rows[0]
    if kind == "chat":
        served = tokenizer.apply_chat_template(
            row.values["messages"][:-1], add_generation_prompt=True, tokenize=False
        )
        asked = tokenizer(served, add_special_tokens=False)["input_ids"]
        assert tokenizer.chat_template and read_record(run).facts["new_tokens"] == 3
    else:
        asked = tokenizer(row.values["prompt"] + "\n")["input_ids"]
    assert ids[:first] == asked == prompt_ids(row, tokenizer)
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert [i for i in labels if i != -100][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_greedy_tokens_and_logprobs_are_those_of_the_adapter_model_after_merge_and_reload(
    world, tmp_path, kind
):
    tokenizer = models.load_tokenizer(world / "causal")
    config = AdapterConfig(kind=kind, rank=4)
    model = attach(models.load(world / "causal", "causal", quantization=config.quantization), config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1
                )
    prompts = [tokenizer(text)["input_ids"] for text in ("What is", "the old apple and some iron", "a")]

    def answers(model):
        model.eval()
        with torch.no_grad():
            chances = [model(input_ids=torch.tensor([ids])).logits.log_softmax(-1) for ids in prompts]
        return generate(model, tokenizer, prompts, 12), chances

    tokens, chances = answers(model)
    save_adapter(model, tmp_path / "adapter", base=str(world / "causal"))
    if kind == "lora":
        again = PeftModel.from_pretrained(models.load(world / "causal", "causal"), tmp_path / "adapter")
        assert answers(again)[0] == tokens
    merged = merge(model)
    models.save(merged, tokenizer, tmp_path / "merged")
    for other in (merged, AutoModelForCausalLM.from_pretrained(tmp_path / "merged")):
        found, close = answers(other)
        assert found == tokens
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(close, chances, strict=True))


def test_batched_generation_equals_one_prompt_at_a_time_and_stops_at_eos(world):
    tokenizer = models.load_tokenizer(world / "causal")
    model = models.load(world / "causal", "causal").eval()
    prompts = [
        tokenizer(text)["input_ids"]
        for text in ("What is this?", "one more", "a very large dog and the old cat", "tin")
    ]
    together = generate(model, tokenizer, prompts, 10)
    assert together == [generate(model, tokenizer, [prompt], 10)[0] for prompt in prompts]
    by_hand = list(prompts[0])
    for _ in range(10):
        with torch.no_grad():
            by_hand.append(int(model(input_ids=torch.tensor([by_hand])).logits[0, -1].argmax()))
    assert together[0] == by_hand[len(prompts[0]) :]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(together[0][2])
    stopped = generate(model, tokenizer, prompts[:1], 10)[0]
    assert stopped == together[0][: together[0].index(together[0][2])]


class _Killed(Exception):
    pass


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_killed_run_resumes_to_the_same_model(world, tmp_path, monkeypatch, adapter):
    config = _config(world, "classify", adapter, num_steps=24)
    whole = _run(tmp_path / "a", config)
    finetune(config, whole)

    from adaptkit.trainer.trainer import Trainer

    original, calls = Trainer._advance, [0]

    def dies(self, *args):
        calls[0] += 1
        if calls[0] == 17:
            raise _Killed
        return original(self, *args)

    broken = _run(tmp_path / "b", config)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", dies)
        with pytest.raises(_Killed):
            finetune(config, broken)
    assert not broken.finished
    finetune(config, broken)
    assert (whole.model / "model.safetensors").read_bytes() == (
        broken.model / "model.safetensors"
    ).read_bytes()
    assert list(read_jsonl(whole.items("task"))) == list(read_jsonl(broken.items("task")))


def test_dev_rows_are_held_out_when_not_named_and_epochs_count_steps(world, tmp_path):
    config = _config(world, "classify").model_copy(update={"dev": None, "test": None, "epochs": 1.0})
    run = _run(tmp_path, config)
    result = finetune(config, run)
    splits = read_record(run).splits
    held = splits["dev"].documents
    assert 0 < held < 60 and splits["train"].documents == 240 - held
    assert max(row["step"] for row in run.metrics()) == round((240 - held) / 16)
    assert result.scores == {} and "accuracy" in result.dev_scores


def test_new_tokens_of_the_chat_template_keep_ties_under_lora(world, tmp_path):
    folder = tmp_path / "tied"
    tokenizer = models.load_tokenizer(world / "causal")
    config = LlamaConfig(
        vocab_size=len(tokenizer), tie_word_embeddings=True, max_position_embeddings=128, **SIZES
    )
    models.save(models.build(config, "causal", seed=0), tokenizer, folder)
    settings = _config(world, "chat", "lora", num_steps=4).model_copy(update={"base": str(folder)})
    run = _run(tmp_path, settings)
    finetune(settings, run)
    merged = AutoModelForCausalLM.from_pretrained(run.model)
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert (
        merged.get_input_embeddings().num_embeddings
        == len(AutoTokenizer.from_pretrained(run.model))
        == len(tokenizer) + 3
    )


def test_mistakes_are_named(world, tmp_path):
    with pytest.raises(ModelError, match="masked"):
        config = _config(world, "label_words", base="masked")
        finetune(config, _run(tmp_path, config))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a cat", "label": "animal"}\n{"text": "a wall", "label": "house"}\n')
    config = _config(world, "classify").model_copy(update={"test": DataConfig(files=[str(bad)])})
    run = _run(tmp_path, config)
    with pytest.raises(DataError, match=r"bad.jsonl:2: .*house"):
        finetune(config, run)
    assert run.manifest()["status"] == "failed"
