"""A model stops where its folder says; nothing else of its generation config bends greedy answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import CHATML, tokenizer_of
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.generation import generate
from adaptkit.finetune.recipe import finetune
from adaptkit.models.generation_settings import bending_settings, end_ids, stop_at
from adaptkit.run import Run, read_json
from adaptkit.run_record import read_record

BENDING = {
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 2,
    "num_beams": 3,
    "min_length": 30,
    "min_new_tokens": 9,
    "forced_eos_token_id": 5,
    "suppress_tokens": [9, 10, 11],
    "length_penalty": 2.0,
}
SAMPLING = {"do_sample": True, "temperature": 0.3, "top_p": 0.5}


def model_of(tokenizer: Any, seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0, **settings
    )
    return model.eval()


def greedy(model: Any, prompt: list[int], num_new: int) -> list[int]:
    """The likeliest token again and again, by hand."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(num_new):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", list(BENDING))
def test_greedy_answers_are_the_likeliest_tokens_whatever_the_folder_says(name: str) -> None:
    tokenizer = tokenizer_of("byte_bpe")
    model = model_of(tokenizer, **{name: BENDING[name]}, **SAMPLING)
    prompts = [tokenizer("the printer").input_ids, tokenizer("nobody").input_ids]
    wanted = [greedy(model, prompt, 12) for prompt in prompts]
    ends = end_ids(model, tokenizer)
    assert not any(token in ends for ids in wanted for token in ids), "else an end hides what follows"
    assert generate(model, tokenizer, prompts, 12) == wanted
    assert getattr(model.generation_config, name) == BENDING[name], "the model itself stays as it was"


def test_writing_stops_at_every_end_that_the_config_names() -> None:
    tokenizer = tokenizer_of("byte_bpe")
    model = model_of(tokenizer)
    prompt = tokenizer("the printer").input_ids
    wanted = greedy(model, prompt, 12)
    first = {token: place for place, token in reversed(list(enumerate(wanted)))}
    for token, place in first.items():
        model.generation_config.eos_token_id = [tokenizer.pad_token_id, token]
        assert generate(model, tokenizer, [prompt], 12) == [wanted[:place]]
    model.generation_config.eos_token_id = None
    assert end_ids(model, tokenizer) == [model.config.eos_token_id, tokenizer.eos_token_id]


def test_each_prompt_may_have_its_own_limit() -> None:
    tokenizer = tokenizer_of("byte_bpe")
    model = model_of(tokenizer)
    prompts = [tokenizer(text).input_ids for text in ("the", "printer in room", "is")]
    wanted = [greedy(model, prompt, limit) for prompt, limit in zip(prompts, (5, 2, 5), strict=True)]
    assert generate(model, tokenizer, prompts, [5, 2, 5]) == wanted


def test_a_saved_folder_ends_where_turns_were_taught_and_bends_nothing(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("byte_bpe", CHATML)
    model = model_of(tokenizer, **BENDING, **SAMPLING)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert bending_settings(model) == BENDING
    stop_at(model, [end])
    stop_at(model, [end])
    models.save(model, tokenizer, tmp_path / "model")
    saved = read_json(tmp_path / "model" / "generation_config.json")
    assert saved["eos_token_id"] == [tokenizer.eos_token_id, end]
    assert not saved.keys() & BENDING.keys() and saved["temperature"] == 0.3 and saved["do_sample"] is True
    assert bending_settings(model) == BENDING, "only the folder goes without"
    again = models.load(tmp_path / "model", "causal")
    assert end_ids(again, tokenizer) == [tokenizer.eos_token_id, end]
    assert bending_settings(again) == {}


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.6}, {"top_p": 0.9, "do_sample": False}, {"pad_token_id": -1}, {"top_k": "x"}],
)
def test_settings_that_transformers_reads_but_does_not_write_stop_no_training_at_its_end(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """A temperature without do_sample stands in many folders, and has no effect there."""
    tokenizer = tokenizer_of("byte_bpe")
    model = model_of(tokenizer)
    models.save(model, tokenizer, tmp_path / "base")
    written = {"eos_token_id": [1, 2], **settings}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(written))
    base = models.load(tmp_path / "base", "causal")
    with pytest.raises(ValueError, match="invalid"):
        base.generation_config.save_pretrained(tmp_path)
    models.save(base, tokenizer, tmp_path / "saved")
    saved = read_json(tmp_path / "saved" / "generation_config.json")
    assert saved["eos_token_id"] == [1, 2] and saved.get(next(iter(settings))) != next(
        iter(settings.values())
    )


def test_settings_that_cannot_be_read_are_named_by_their_file(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("byte_bpe")
    models.save(model_of(tokenizer), tokenizer, tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text('{"max_new_tokens": 0}')
    with pytest.raises(ModelError, match=r"generation_config.json: .*max_new_tokens") as refused:
        models.load(tmp_path / "base", "causal")
    assert "remove the file" in str(refused.value.fix)


def test_a_fine_tuning_stops_where_its_turns_end_and_says_what_it_left_out(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("byte_bpe", CHATML)
    models.save(model_of(tokenizer), tokenizer, tmp_path / "base")
    settings = read_json(tmp_path / "base" / "generation_config.json") | {"repetition_penalty": 1.3}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings))
    rows = [{"prompt": f"ask {i}", "completion": "</s> is text"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"files": [str(tmp_path / "rows.jsonl")]}
    config = FinetuneConfig(
        name="t",
        base=str(tmp_path / "base"),
        kind="sft",
        train=data,
        dev=data,
        max_length=64,
        max_new_tokens=24,
        trainer={"num_steps": 60, "global_batch_size": 8, "learning_rate": 1e-2, "threads": 1},
    )
    run = Run(tmp_path / "run")
    result = finetune(config, run)
    assert result.dev_scores["exact_match"] == 1, "the answer holds EOS as text, and ends with another token"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert read_json(run.model / "generation_config.json")["eos_token_id"] == [tokenizer.eos_token_id, end]
    assert read_record(run).facts["generation_settings_left_out"] == {"repetition_penalty": 1.3}
