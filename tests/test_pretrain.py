"""The pretraining recipe on small folders: from scratch, continued, with adapters, masked, resumed. Home of
pretrain.recipe, pretrain.config, pretrain.language_scores and pretrain.starting_point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig, default_learning_rate
from adaptkit.config import load
from adaptkit.data.heldout import read_calibration, read_held_out
from adaptkit.data.packing import PackedTokens
from adaptkit.data.readers import DataConfig
from adaptkit.errors import BudgetError, ConfigError, DataError, ModelError
from adaptkit.models.separation import separation
from adaptkit.pretrain.config import PretrainConfig, TokenizerConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run
from adaptkit.run_record import read_record
from adaptkit.trainer.config import TrainerConfig

SEQ = 32
TRAINER = {"num_steps": 12, "global_batch_size": 8, "threads": 1, "log_every": 4, "learning_rate": 3e-3}
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> dict[str, DataConfig]:
    folder = tmp_path_factory.mktemp("corpus")
    for name, texts in (
        ("train", tiny_text[:150]),
        ("dev", tiny_text[150:170]),
        ("general", [t.upper() for t in tiny_text[170:]]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {name: DataConfig(files=[str(folder / f"{name}.jsonl")]) for name in ("train", "dev", "general")}


def small(corpus: dict[str, DataConfig], trainer: dict | None = None, **fields: object) -> PretrainConfig:
    defaults = {
        "data": corpus["train"],
        "dev": corpus["dev"],
        "size": SizeConfig(params=150_000, seq_len=SEQ),
        "tokenizer": TokenizerConfig(vocab_size=384),
        "trainer": TrainerConfig(**{**TRAINER, **(trainer or {})}),
    }
    return PretrainConfig(**{**defaults, **fields})


def run_of(config: PretrainConfig, root: Path) -> Run:
    return Run.open(root, config.name, config.model_dump(mode="json"))


def first_and_last_loss(run: Run) -> tuple[float, float]:
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    return losses[0], losses[-1]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, DataConfig]) -> dict[str, Path]:
    """A folder of random weights per architecture; causal ones share a tokenizer, masked ones another."""
    from adaptkit.data import train_tokenizer

    folder = tmp_path_factory.mktemp("bases")
    texts = [json.loads(line)["text"] for line in Path(corpus["train"].files[0]).read_text().splitlines()]
    causal, masked = (train_tokenizer(texts, "bpe", 384, masked=flag) for flag in (False, True))
    ids = {"vocab_size": len(causal), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    encoder = {"vocab_size": len(masked), "pad_token_id": masked.pad_token_id}
    ends = {"cls_token_id": 0, "sep_token_id": 1, "bos_token_id": 0, "eos_token_id": 1}
    configs = {
        "llama": transformers.LlamaConfig(**SHAPE, **ids, tie_word_embeddings=True),
        "qwen3": transformers.Qwen3Config(**SHAPE, **ids, num_key_value_heads=1, head_dim=32),
        "gpt_neox": transformers.GPTNeoXConfig(**SHAPE, **ids),
        "bert": transformers.BertConfig(**SHAPE, **encoder),
        "modernbert": transformers.ModernBertConfig(**SHAPE, **encoder, **ends),
        "roberta": transformers.RobertaConfig(**SHAPE, **encoder, max_position_embeddings=SEQ + 16),
    }
    for name, config in configs.items():
        kind = "causal" if name in ("llama", "qwen3", "gpt_neox") else "masked"
        models.save(models.build(config, kind, seed=0), causal if kind == "causal" else masked, folder / name)
    return {name: folder / name for name in configs}


# ---- whole small runs
# --------------------------------------------------------------------------------------------------
def test_scratch_learns_and_leaves_a_complete_run(corpus, tmp_path):
    config = small(corpus, {"num_steps": 30})
    run = run_of(config, tmp_path)
    result = pretrain(config, run)
    first, last = first_and_last_loss(run)
    assert last < first - 0.5 and 0 < result.scores["bits_per_byte"] < 7
    assert run.finished and result.num_steps == 30 and 0.85 < result.params / 150_000 < 1.15
    assert {p.name for p in run.model.iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    rows = [json.loads(line) for line in run.items("language").read_text().splitlines()]
    assert len(rows) == 20 and rows[0].keys() == {"id", "nats", "num_bytes", "num_tokens", "lost_bytes"}
    assert {
        "flops",
        "seconds",
        "tokens",
        "peak_memory_bytes",
        "tokens_per_s",
        "device",
        "threads",
    } <= result.cost.keys()
    splits = read_record(run).splits
    assert splits["train"].documents == 150 and splits["dev"].digest and splits["train"].files[0]["sha256"]
    record, held = read_record(run), read_held_out(run)
    assert (record.recipe, record.model_kind, record.suite) == ("pretrain", "causal", "language")
    assert (record.base, record.adapter, record.seq_len) == ("", None, SEQ)
    assert record.suites["language"].metrics == result.scores and record.suites["language"].judged_on == "dev"
    assert record.facts["tokenizer"]["vocab_size"] == 384 and record.facts["merge_difference"] == 0
    assert held.digest == record.splits["dev"].digest and held.items is None
    assert [name for name, _ in held.passages] == [row["id"] for row in rows]
    assert read_calibration(run).digest == record.splits["train"].digest
    model = transformers.AutoModelForCausalLM.from_pretrained(run.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model)
    assert (
        model.config.vocab_size == len(tokenizer) == 384
        and model.config.eos_token_id == tokenizer.eos_token_id
    )
    assert tokenizer("hello").input_ids.count(tokenizer.bos_token_id) == 1


def test_finished_runs_are_returned_as_they_are(corpus, tmp_path, monkeypatch):
    config = small(corpus, {"num_steps": 2})
    run = run_of(config, tmp_path)
    result = pretrain(config, run)
    monkeypatch.setattr("adaptkit.pretrain.recipe._train", lambda *_: pytest.fail("trained again"))
    assert pretrain(config, run_of(config, tmp_path)) == result


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_continued_causal_bases_learn(name, adapter, corpus, bases, tmp_path):
    config = small(corpus, base=str(bases[name]), adapter=AdapterConfig(kind=adapter, rank=8))
    run = run_of(config, tmp_path)
    pretrain(config, run)
    first, last = first_and_last_loss(run)
    assert last < first - 0.05
    before, after = (
        models.load(bases[name], "causal").state_dict(),
        models.load(run.model, "causal").state_dict(),
    )
    assert before.keys() == after.keys()  # merged: no adapter is left
    record = read_record(run)
    assert record.base == str(bases[name]) and record.facts["merge_difference"] < 1e-4
    assert record.adapter == (AdapterConfig(kind="lora", rank=8) if adapter == "lora" else None)
    table = "embed_in.weight" if name == "gpt_neox" else "embed_tokens.weight"
    unchanged = [key for key in before if key.endswith(table) and torch.equal(before[key], after[key])]
    assert bool(unchanged) == (adapter == "lora")


def test_qlora_ends_as_a_plain_model(corpus, bases, tmp_path):
    config = small(corpus, base=str(bases["llama"]), adapter=AdapterConfig(kind="qlora", rank=8))
    pretrain(config, run := run_of(config, tmp_path))
    assert not hasattr(models.load(run.model, "causal").config, "quantization_config")


@pytest.mark.parametrize("name", ["bert", "modernbert", "roberta", ""])
def test_masked_models_learn(name, corpus, bases, tmp_path):
    base = str(bases[name]) if name else ""
    config = small(corpus, {"num_steps": 20}, base=base, objective="masked")
    run = run_of(config, tmp_path)
    result = pretrain(config, run)
    first, last = first_and_last_loss(run)
    assert last < first - 0.2 and 0 < result.scores["nats_per_masked_token"] < 6
    assert models.model_kind(run.model) == "masked"
    assert models.load_tokenizer(run.model).mask_token is not None


def test_new_vocabulary_shortens_text_and_stays_tied(corpus, bases, tmp_path):
    config = small(
        corpus,
        base=str(bases["llama"]),
        tokenizer=TokenizerConfig(new_tokens=40),
        adapter=AdapterConfig(kind="lora", rank=4),
    )
    pretrain(config, run := run_of(config, tmp_path))
    old, new = models.load_tokenizer(bases["llama"]), models.load_tokenizer(run.model)
    text = "the engine reads the dose in room 12. our patient improves a long report."
    assert len(new) > len(old) and len(new(text).input_ids) < len(old(text).input_ids)
    model = models.load(run.model, "causal")
    assert model.config.tie_word_embeddings and model.get_input_embeddings().weight.shape[
        0
    ] == model.config.vocab_size >= len(new)


def test_replay_lends_its_share(corpus, tmp_path, monkeypatch):
    from adaptkit.trainer import trainer as trainer_module

    seen: list[str] = []
    original = trainer_module.Trainer.__init__

    def spy(self, model, objective, train, config, **rest):
        seen.extend(train.where(index) for index in range(len(train)))
        original(self, model, objective, train, config, **rest)

    monkeypatch.setattr(trainer_module.Trainer, "__init__", spy)
    config = small(corpus, {"num_steps": 2}, replay=corpus["general"], replay_share=0.25)
    pretrain(config, run_of(config, tmp_path))
    share = sum("general.jsonl" in where for where in seen) / len(seen)
    assert share == pytest.approx(0.25, abs=0.02)


def test_interrupted_run_resumes_to_the_same_weights(corpus, tmp_path, monkeypatch):
    from adaptkit.trainer import trainer as trainer_module

    config = small(corpus, {"checkpoint_every": 3})
    pretrain(config, whole := run_of(config, tmp_path / "whole"))
    original = PackedTokens.collate
    calls = {"left": 8}

    def killed(self, indices, **noise):
        calls["left"] -= 1
        if calls["left"] < 0:
            raise KeyboardInterrupt
        return original(self, indices, **noise)

    cut = run_of(config, tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(PackedTokens, "collate", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, cut)
    assert not cut.finished and trainer_module
    tokenizer = (cut.path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns
    pretrain(config, cut)
    assert (cut.path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == tokenizer
    assert (cut.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()
    assert cut.items("language").read_text() == whole.items("language").read_text()


# ---- budget and settings
# -----------------------------------------------------------------------------------------------
def test_flops_set_the_steps_and_are_not_exceeded(corpus, tmp_path):
    config = small(corpus, flops=3e9)
    result = pretrain(config, run_of(config, tmp_path))
    per_step = result.cost["flops"] / result.num_steps
    assert result.num_steps > 3 and 3e9 - per_step < result.cost["flops"] <= 3e9


def test_a_budget_below_one_step_is_refused_and_said_in_the_manifest(corpus, tmp_path):
    config = small(corpus, flops=1e6)
    run = run_of(config, tmp_path)
    with pytest.raises(BudgetError, match="buy 0 steps"):
        pretrain(config, run)
    assert run.manifest()["status"] == "failed" and "buy 0 steps" in run.manifest()["error"]


def test_learning_rate_follows_the_rule_only_from_scratch_and_only_if_unset(tmp_path):
    def rate(text: str) -> float:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return load(PretrainConfig, path).config.trainer.learning_rate

    data = "data: {files: [x.txt]}\n"
    assert rate(data + "size: {params: 1M}") == default_learning_rate(1_000_000)
    assert rate(data + "size: {params: 1M}\ntrainer: {learning_rate: 1e-4}") == 1e-4
    assert rate(data + "base: some/model") == TrainerConfig().learning_rate
    assert rate(data + "size: {params: 0}\nflops: 1.2e14") == default_learning_rate(1_000_000)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"adapter": {"kind": "lora"}}, "adapter needs a base"),
        ({"tokenizer": {"new_tokens": 5}}, "new_tokens"),
        ({"base": "b", "tokenizer": {"path": "t"}}, "tokenizer.path"),
        ({"tokenizer": {"kind": "wordpiece"}}, "wordpiece"),
        ({"stretch": "yarn"}, "stretch is for a base"),
        ({"base": "b", "stretch": "yarn", "adapter": {"kind": "lora"}}, "not in an adapter"),
        ({"size": {"params": 0}}, "size.params"),
        ({"replay": {"files": ["y.txt"]}, "replay_share": 0}, "replay_share is 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, word, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"data": {"files": ["x.txt"]}, **fields}))
    with pytest.raises(ConfigError, match=word):
        load(PretrainConfig, path)


# ---- refusals
# ----------------------------------------------------------------------------------------------------------
def test_base_out_of_reach_too_short_or_of_another_kind(corpus, bases, tmp_path):
    for fields, error, word in (
        ({"base": "some-org/some-model"}, ModelError, "hf download"),
        ({"base": str(bases["bert"])}, ModelError, "asked for a causal"),
        ({"base": str(bases["llama"]), "objective": "masked"}, ModelError, "asked for a masked"),
        (
            {"base": str(bases["roberta"]), "objective": "masked", "size": SizeConfig(seq_len=512)},
            ConfigError,
            "512 tokens, and roberta has 45 positions",
        ),
        ({"data": DataConfig(files=[str(tmp_path / "none.txt")])}, DataError, "none.txt"),
    ):
        config = small(corpus, **fields)
        with pytest.raises(error, match=word):
            pretrain(config, run_of(config, tmp_path))


def test_packing_is_tried_not_assumed(bases):
    kinds = {name: models.model_kind(path) for name, path in bases.items()}
    found = {name: separation(models.load(bases[name], kind), kind, 24) for name, kind in kinds.items()}
    ours = dict.fromkeys(("llama", "qwen3", "gpt_neox", "bert", "modernbert"), "positions")
    assert found == {**ours, "roberta": "rows"}
    recurrent = transformers.MambaConfig(vocab_size=384, hidden_size=64, num_hidden_layers=2, state_size=4)
    assert separation(models.build(recurrent, "causal", seed=0), "causal", 24) == "rows"
