"""Studies on bases that users bring: any causal or masked architecture from a local folder, every kind of
task."""

import json

import pytest
from tiny_study import backwards, study_config, write_texts
from transformers import BertConfig, GPTNeoXConfig, Qwen3Config

from adaptkit import models
from adaptkit.compare.driver import compare
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import ConfigError, ModelError
from adaptkit.run import read_json, read_jsonl
from adaptkit.study.record import read_study

SIZE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SHAPES = {
    "qwen3": ("causal", Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=16, max_position_embeddings=128)),
    "gpt_neox": ("causal", GPTNeoXConfig(**SIZE, max_position_embeddings=128)),
    "bert": ("masked", BertConfig(**SIZE, max_position_embeddings=128)),
}
SMALL = ("budget.amount=6e10", "budget.trials=1", "seeds=1", "tasks.0.max_epochs=1")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def save_base(folder, name, texts):
    """A randomly initialised model with a tokenizer of its own, as a HF folder."""
    kind, shape = SHAPES[name]
    prose = [row["text"] for row in read_jsonl(texts / "general.jsonl")]
    tokenizer = train_tokenizer(
        prose, "wordpiece" if kind == "masked" else "bpe", SIZE["vocab_size"], masked=kind == "masked"
    )
    models.save(models.build(shape, kind, seed=0), tokenizer, folder)
    return folder


def study_on(base, texts, *overrides):
    return study_config(texts, f"base={base}", "base_flops=0", *SMALL, *overrides)


def scores_of(outcome, root, task):
    scores = [score for score in read_study(outcome.study_path).scores if score.task == task]
    return {
        score.arm: read_json(root / score.run / "eval" / f"{score.suite}.json")["metrics"] for score in scores
    }


def test_a_qwen3_folder_with_labels_in_words(texts, tmp_path):
    base = save_base(tmp_path / "base", "qwen3", texts)
    arms = "arms=[generic+prompt, generic+full, continued-lora+lora]"
    config = study_on(base, texts, "tasks.0.kind=label_words", arms)
    outcome = compare(config, tmp_path / "runs")
    language = scores_of(outcome, tmp_path / "runs", "language")
    assert language["continued-lora"]["bits_per_byte"] < language["generic"]["bits_per_byte"]
    assert scores_of(outcome, tmp_path / "runs", "mood").keys() == {
        "generic+prompt",
        "generic+full",
        "continued-lora+lora",
        "tfidf",
    }


def test_a_gpt_neox_folder_with_free_text(texts, tmp_path):
    words = ("engine", "model", "nurse", "dose", "sample") * 30
    rows = [{"prompt": f"turn {word} {i}", "completion": backwards(word)} for i, word in enumerate(words)]
    (texts / "turn.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"files": [str(texts / "turn.jsonl")]}
    task = {"name": "turn", "kind": "generate", "metric": "exact_match", "max_epochs": 2, "train": train}
    base = save_base(tmp_path / "base", "gpt_neox", texts)
    config = study_on(
        base, texts, f"tasks={json.dumps([task])}", "arms=[generic+prompt, generic+probe, generic+qlora]"
    )
    outcome = compare(config, tmp_path / "runs")
    scores = scores_of(outcome, tmp_path / "runs", "turn")
    assert scores.keys() == {"generic+prompt", "generic+qlora"}, "a probe gives labels, not text"
    assert all({"rouge_l", "exact_match"} <= found.keys() for found in scores.values())


def test_a_masked_base_is_judged_on_its_task(texts, tmp_path):
    base = save_base(tmp_path / "base", "bert", texts)
    arms = "arms=[generic+prompt, generic+probe, continued+full, scratch+full]"
    with pytest.raises(ConfigError, match="masked base gives no bits per byte"):
        compare(study_on(base, texts, arms, "primary=language"), tmp_path / "refused")
    with pytest.raises(ConfigError, match="arm 'scratch': a masked base gives no bits per byte"):
        compare(study_on(base, texts, "arms=[scratch, generic+full]"), tmp_path / "refused")
    outcome = compare(study_on(base, texts, arms, "tokenizer.kind=wordpiece"), tmp_path / "runs")
    assert [task.name for task in read_study(outcome.study_path).tasks] == ["mood"]


def test_an_unreachable_hub_id_says_what_to_do(texts, tmp_path):
    with pytest.raises(ModelError, match="hf download acme/base"):
        compare(study_on("acme/base", texts), tmp_path)


@pytest.mark.parametrize("headless", [False, True])
def test_a_masked_base_learns_the_text_of_the_rows_and_entries_of_the_domain(texts, tmp_path, headless):
    base = save_base(tmp_path / "base", "bert", texts)
    arms = ["tapt+full", "mixed+full", *([] if headless else ["continued-vocabulary+full"])]
    if headless:
        encoder = models.load(base, "encoder")
        models.save(encoder, models.load_tokenizer(base), tmp_path / "encoder")
        base = tmp_path / "encoder"
    entries = "extend_vocabulary=20"
    config = study_on(base, texts, "tasks.0.max_epochs=2", entries, f"arms=[{', '.join(arms)}]")
    outcome = compare(config, tmp_path / "runs")
    assert scores_of(outcome, tmp_path / "runs", "mood").keys() == {*arms, "tfidf"}
    spends = {row.arm: row for row in read_study(outcome.study_path).spends}
    assert 0 < spends["tapt+full"].spent <= spends["tapt+full"].granted
