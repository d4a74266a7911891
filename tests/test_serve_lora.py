"""Adapters: which vLLM can serve, over which base, and that a merged one answers as the adapter does."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from tiny_served import QLORA, write_adapter, write_bases, write_run

from adaptkit.client.identity import ModelIdentity
from adaptkit.errors import ModelError
from adaptkit.serve.engine import lora


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"r": 256}, None),
        ({"r": 257}, "rank 257"),
        ({"rank_pattern": {"q_proj": 512}}, "rank 512"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "token rows"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_known(tmp_path: Path, settings: dict, said: str | None) -> None:
    why = lora.cannot_be_served(write_adapter(tmp_path / "a", **settings))
    assert (said in why) if said else why is None


def test_what_is_no_lora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no LoRA adapter"):
        lora.cannot_be_served(write_adapter(tmp_path / "a", peft_type="IA3"))


def test_an_adapter_finds_its_base_by_digest(tmp_path: Path) -> None:
    one, two = write_bases(tmp_path)
    assert lora.base_of(write_adapter(tmp_path / "a", two.folder), [one, two]) == two
    with pytest.raises(ModelError, match="not among the models given"):
        lora.base_of(write_adapter(tmp_path / "b", two.folder), [one])
    with pytest.raises(ModelError, match="not among the models given"):
        lora.base_of(write_adapter(tmp_path / "c"), [one, two])
    assert lora.base_of(write_adapter(tmp_path / "d"), [one]) == one


def test_a_merged_adapter_answers_as_the_adapter_does(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from tiny_training import llama
    from transformers import PreTrainedTokenizerFast

    from adaptkit import adapters, models

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), bos_token="<s>", eos_token="</s>")
    models.save(llama(tied=False), tokenizer, tmp_path / "base")
    tuned = adapters.attach(
        models.load(tmp_path / "base", "causal"), adapters.AdapterConfig(kind="dora", rank=2), seed=0
    )
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    adapters.save_adapter(tuned, tmp_path / "dora", base=str(tmp_path / "base"))
    lora.merge(tmp_path / "base", tmp_path / "dora", tmp_path / "merged")
    ids = torch.tensor([[0, 5, 9]])
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(models.load(tmp_path / "base", "causal"), str(tmp_path / "dora"))(
            input_ids=ids
        ).logits
        merged = models.load(tmp_path / "merged", "causal")(input_ids=ids).logits
        plain = models.load(tmp_path / "base", "causal")(input_ids=ids).logits
    assert torch.allclose(merged, wanted, atol=1e-5) and not torch.allclose(merged, plain, atol=1e-2)


def _tokenizer():
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))


def test_a_qlora_adapter_is_known_by_the_record_of_its_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run", adapter=QLORA)
    folder = write_adapter(tmp_path / "run" / "adapter")
    assert "QLoRA" in (lora.cannot_be_served(folder) or "")


def test_an_adapter_is_what_its_base_is_and_its_run_says(tmp_path: Path) -> None:
    base, _ = write_bases(tmp_path)
    run = write_run(tmp_path / "run", task="intent")
    trained = lora.adapter_over(base, "x", write_adapter(run.adapter, rank_pattern={"q_proj": 12}))
    assert trained.rank == 12 and trained.identity == ModelIdentity(
        origin="generic", adaptation="lora", task="intent", role="finetuned", kind="generate"
    )
    asked = write_run(tmp_path / "asked", facts={"looked_up": {"passages": 3}})
    with_passages = lora.adapter_over(base, "z", write_adapter(asked.adapter)).identity
    assert (with_passages.adaptation, with_passages.role) == ("rag-lora", "finetuned")
    foreign = lora.adapter_over(base, "y", write_adapter(tmp_path / "foreign"))
    assert foreign.identity.task is None and foreign.identity.role == "finetuned"


def test_an_adapter_that_ends_its_turns_otherwise_than_its_base_is_served_merged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", facts={"new_ends": ["<|im_end|>"]})
    why = lora.cannot_be_served(write_adapter(run.adapter))
    assert why is not None and "<|im_end|>" in why
    same = write_run(tmp_path / "same", facts={"new_ends": []})
    assert lora.cannot_be_served(write_adapter(same.adapter)) is None
