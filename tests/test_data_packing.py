"""Shards and packing: nothing lost, nothing leaked, nothing read that was altered. Home of data.shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from adaptkit.data.packing import MixedSource, PackedTokens, Source, packed_rows
from adaptkit.data.readers import Dataset, Row, content_id
from adaptkit.data.shards import TokenShards, write_shards
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import DataError
from adaptkit.models import build
from adaptkit.models.separation import kept_apart
from adaptkit.ops import IGNORE_INDEX
from adaptkit.trainer.objective import CausalLM


def dataset(texts: list[str]) -> Dataset:
    rows = [
        Row({"text": text}, f"x.jsonl:{i + 1}", content_id({"text": text})) for i, text in enumerate(texts)
    ]
    return Dataset(rows, "text", {"text": "text"})


@pytest.fixture(scope="module")
def texts(tiny_text: list[str]) -> list[str]:
    return tiny_text[:40]


@pytest.fixture(scope="module")
def shards(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    return write_shards(
        dataset(texts),
        train_tokenizer(texts, "bpe", 300),
        tmp_path_factory.mktemp("causal") / "s",
        shard_tokens=700,
    )


@pytest.fixture(scope="module")
def masked_shards(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    return write_shards(
        dataset(texts),
        train_tokenizer(texts, "bpe", 300, masked=True),
        tmp_path_factory.mktemp("masked") / "s",
    )


def documents(shards: TokenShards) -> list[np.ndarray]:
    return np.split(shards.read(0, shards.num_tokens), shards.ends[:-1])


def test_shards_hold_each_document_once_with_one_bos_and_eos(shards: TokenShards, texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, "bpe", 300)
    by_where = {d.where: (d, ids) for d, ids in zip(shards.documents, documents(shards), strict=True)}
    assert len(shards.index["shards"]) > 1 and shards.num_bytes == sum(len(t.encode()) for t in texts)
    for i, text in enumerate(texts):
        document, ids = by_where[f"x.jsonl:{i + 1}"]
        assert ids.tolist() == [*tokenizer(text).input_ids, tokenizer.eos_token_id]
        assert ids.tolist().count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert document.num_bytes == len(text.encode()) and document.num_tokens == len(ids)
    assert [d.id for d in shards.documents] == sorted(d.id for d in shards.documents)


def test_shards_are_reused_only_for_the_same_text_and_tokenizer(tmp_path: Path, texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, "bpe", 300)
    first = write_shards(dataset(texts), tokenizer, tmp_path / "s")
    stamp = (tmp_path / "s" / "index.json").stat().st_mtime_ns
    write_shards(dataset(texts), tokenizer, tmp_path / "s")
    assert (tmp_path / "s" / "index.json").stat().st_mtime_ns == stamp
    assert write_shards(dataset(texts[:5]), tokenizer, tmp_path / "s").num_tokens < first.num_tokens
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="not a token shard folder"):
        write_shards(dataset(texts), tokenizer, tmp_path / "mine")


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
@pytest.mark.parametrize("file", ["shard-00000.bin", "documents.jsonl", "index.json"])
def test_a_damaged_shard_folder_is_refused_by_name(
    tmp_path: Path, texts: list[str], file: str, damage: str
) -> None:
    write_shards(dataset(texts), train_tokenizer(texts, "bpe", 300), tmp_path / "s")
    path = tmp_path / "s" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[:-2] if damage == "cut" else content + b" x" if damage == "grow" else content)
    if damage == "remove":
        path.unlink()
    with pytest.raises(DataError) as error:
        TokenShards.open(tmp_path / "s")
    assert file in str(error.value)


@pytest.mark.parametrize("seq_len", [7, 64, 5000])
def test_rows_hold_every_token_in_order(shards: TokenShards, seq_len: int) -> None:
    rows = PackedTokens(shards, seq_len)
    batch = rows.collate(list(range(len(rows))), seed=0, epoch=0)
    stream = batch["input_ids"].flatten().numpy()
    assert (stream[: shards.num_tokens] == shards.read(0, shards.num_tokens)).all()
    assert 0 <= len(stream) - shards.num_tokens < seq_len
    labels, positions = batch["labels"].flatten().numpy(), batch["position_ids"].flatten().numpy()
    kept = labels != IGNORE_INDEX
    assert (labels[kept] == stream[kept]).all() and not kept[shards.num_tokens :].any()
    starts = np.union1d(np.concatenate([[0], shards.ends[:-1]]), np.arange(0, shards.num_tokens, seq_len))
    assert (np.flatnonzero(positions[: shards.num_tokens] == 0) == starts).all()
    assert (np.flatnonzero(~kept[: shards.num_tokens]) == starts).all()


def test_where_names_the_document_a_row_begins_in(shards: TokenShards) -> None:
    rows = PackedTokens(shards, 50)
    for index in range(len(rows)):
        assert (
            rows.where(index)
            == shards.documents[int(np.searchsorted(shards.ends, index * 50, side="right"))].where
        )


def tiny(kind: str, vocab_size: int) -> torch.nn.Module:
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        LlamaConfig,
        LlamaForCausalLM,
        ModernBertConfig,
        ModernBertForMaskedLM,
    )

    torch.manual_seed(0)
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, use_cache=False))
    elif kind == "bert":
        model = BertForMaskedLM(
            BertConfig(
                **shape, max_position_embeddings=512, hidden_dropout_prob=0, attention_probs_dropout_prob=0
            )
        )
    else:
        config = ModernBertConfig(
            **shape,
            pad_token_id=2,
            local_attention=512,
            cls_token_id=0,
            sep_token_id=1,
            bos_token_id=0,
            eos_token_id=1,
        )
        model = ModernBertForMaskedLM(config)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)  # random models hardly attend: make leaks visible
    return model


def summed(logits: torch.Tensor, labels: torch.Tensor, shift: int) -> torch.Tensor:
    logits, labels = logits[:, : logits.shape[1] - shift], labels[:, shift:]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORE_INDEX
    )


def segments(batch: dict[str, torch.Tensor], row: int) -> list[slice]:
    starts = [
        *torch.nonzero(batch["position_ids"][row] == 0).flatten().tolist(),
        batch["position_ids"].shape[1],
    ]
    return [slice(a, b) for a, b in zip(starts, starts[1:], strict=False)]


@pytest.mark.parametrize("kind", ["llama", "bert", "modernbert"])
def test_packed_loss_and_gradients_equal_separate_documents(
    shards: TokenShards, masked_shards: TokenShards, kind: str
) -> None:
    source = (
        PackedTokens(shards, 384)
        if kind == "llama"
        else PackedTokens(masked_shards, 384, "masked", separate="mask")
    )
    shift = int(kind == "llama")
    model = tiny(kind, source.shards.index["vocab_size"])
    batch = source.collate([0, 1, len(source) - 1], seed=0, epoch=0)
    labels = batch.pop("labels")
    packed = summed(model(**batch).logits, labels, shift)
    packed.backward()
    packed_grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    apart = torch.zeros(())
    for row in range(3):
        for part in segments(batch, row):
            apart = apart + summed(
                model(input_ids=batch["input_ids"][row : row + 1, part]).logits,
                labels[row : row + 1, part],
                shift,
            )
    apart.backward()
    assert abs(packed.item() - apart.item()) <= 1e-5 * apart.item() and apart.item() > 10
    for ours, theirs in zip(
        packed_grads, (p.grad for p in model.parameters() if p.grad is not None), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_no_gradient_crosses_documents(shards: TokenShards, masked_shards: TokenShards, kind: str) -> None:
    source = (
        PackedTokens(shards, 384)
        if kind == "llama"
        else PackedTokens(masked_shards, 384, "masked", separate="mask")
    )
    model = tiny(kind, source.shards.index["vocab_size"])
    batch = source.collate([0], seed=0, epoch=0)
    parts = segments(batch, 0)
    assert len(parts) >= 2
    inputs = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    rest = {k: v for k, v in batch.items() if k not in ("input_ids", "labels")}
    model(inputs_embeds=inputs, **rest).logits[0, parts[1]].square().sum().backward()
    reached = inputs.grad[0].abs().sum(dim=-1)
    assert (reached[parts[0]] == 0).all() and (reached[parts[1]] > 0).any()
    assert (reached[parts[1].stop :] == 0).all()


def test_masking_is_a_function_of_seed_epoch_and_index(masked_shards: TokenShards) -> None:
    source = PackedTokens(masked_shards, 64, "masked")
    one, other = source.collate([1, 3], seed=5, epoch=2), source.collate([3, 0, 1], seed=5, epoch=2)
    assert torch.equal(one["input_ids"][0], other["input_ids"][2]) and torch.equal(
        one["labels"][1], other["labels"][0]
    )
    for seed, epoch in ((6, 2), (5, 3)):
        assert not torch.equal(source.collate([1, 3], seed=seed, epoch=epoch)["labels"], one["labels"])


def test_masking_rates_and_special_tokens(masked_shards: TokenShards) -> None:
    source, index = PackedTokens(masked_shards, 64, "masked"), masked_shards.index
    plain = masked_shards.read(0, 64 * (len(source) - 1)).reshape(-1, 64)
    special = np.isin(plain, index["special_ids"])
    chosen = masks = kept = ordinary = 0
    for epoch in range(40):
        batch = {
            k: v.numpy() for k, v in source.collate(list(range(len(plain))), seed=0, epoch=epoch).items()
        }
        picked = batch["labels"] != IGNORE_INDEX
        assert (
            not (picked & special).any()
            and (batch["labels"][picked] == plain[picked]).all()
            and picked.any(axis=1).all()
        )
        assert (batch["input_ids"][~picked] == plain[~picked]).all()
        changed = batch["input_ids"][picked]
        assert not np.isin(changed[changed != index["mask_id"]], index["special_ids"]).any()
        chosen, ordinary = chosen + picked.sum(), ordinary + (~special).sum()
        masks, kept = masks + (changed == index["mask_id"]).sum(), kept + (changed == plain[picked]).sum()
    assert (
        abs(chosen / ordinary - 0.15) < 0.01
        and abs(masks / chosen - 0.8) < 0.02
        and abs(kept / chosen - 0.1) < 0.02
    )


def test_without_a_block_mask_each_row_is_one_document(masked_shards: TokenShards) -> None:
    source = PackedTokens(masked_shards, 40, "masked", separate="rows")
    batch = source.collate(list(range(len(source))), seed=0, epoch=0)
    assert batch["attention_mask"].shape == (len(source), 40)
    assert int(batch["attention_mask"].sum()) == masked_shards.num_tokens
    begins = {d.where for d in masked_shards.documents}
    assert {source.where(i) for i in range(len(source))} == begins


def test_masking_needs_a_mask_token(shards: TokenShards) -> None:
    with pytest.raises(DataError, match="no mask token"):
        PackedTokens(shards, 64, "masked")


class FirstRows:
    """The first rows of a source."""

    def __init__(self, source: Source, count: int):
        self.where, self.collate, self.count = source.where, source.collate, count

    def __len__(self) -> int:
        return self.count


def test_a_mixture_goes_once_through_its_first_source(shards: TokenShards) -> None:
    domain = PackedTokens(shards, 32)
    general = FirstRows(domain, int(0.3 * len(domain)))  # fewer rows than it lends: some come twice
    mix = MixedSource([(domain, 0.75), (general, 0.25)], seed=3)
    assert len(mix) == len(domain) + round(len(domain) / 3)
    assert [mix.where(i) for i in range(len(domain))] == [domain.where(i) for i in range(len(domain))]
    borrowed = [mix.where(i) for i in range(len(domain), len(mix))]
    assert len(set(borrowed)) > 1 and borrowed == [
        MixedSource([(domain, 3), (general, 1)], seed=3).where(i) for i in range(len(domain), len(mix))
    ]
    order = [len(mix) - 1, 0, len(domain), 5]
    batch = mix.collate(order, seed=0, epoch=0)
    for row, index in enumerate(order):
        assert torch.equal(batch["input_ids"][row], mix.collate([index], seed=0, epoch=0)["input_ids"][0])
    with pytest.raises(DataError):
        MixedSource([(domain, 1.0), (general, 0.0)])


def test_a_mixture_lends_other_rows_in_every_pass_until_a_source_is_used_up(shards: TokenShards) -> None:
    rows = PackedTokens(shards, 32)
    domain, general = FirstRows(rows, 4), FirstRows(rows, 10)
    mix = MixedSource([(domain, 0.5), (general, 0.5)], seed=3)
    every = range(len(domain), len(mix))
    lent = [[mix._place(i, epoch)[1] for i in every] for epoch in range(5)]
    assert sorted(row for epoch in lent for row in epoch) == sorted([*range(10)] * 2), "two rounds of ten"
    assert sorted([*lent[0], *lent[1], *lent[2][:2]]) == list(range(10))
    texts = [mix.collate([4], seed=0, epoch=epoch)["input_ids"] for epoch in (0, 1)]
    assert not torch.equal(*texts)
    expected = rows.collate([lent[1][0]], seed=0, epoch=1)["input_ids"]
    assert torch.equal(texts[1], expected)


def test_index_is_plain_json(shards: TokenShards) -> None:
    index = json.loads((shards.folder / "index.json").read_text())
    assert index["dtype"] == "<u2" and index["format"] == 1


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_where_packed_documents_see_each_other_each_has_rows_of_its_own(
    shards: TokenShards, name: str
) -> None:
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = {
        "bloom": lambda: transformers.BloomConfig(vocab_size=300, hidden_size=32, n_layer=1, n_head=2, **ids),
        "mamba": lambda: transformers.MambaConfig(
            vocab_size=300, hidden_size=32, num_hidden_layers=1, state_size=4, **ids
        ),
    }[name]()
    model = build(config, "causal", seed=0)
    separate = kept_apart(model, "causal", 24, "base")
    source = packed_rows(shards, 24, "causal", separate)
    ids_of = documents(shards)
    assert len(source) == sum(-(-len(document) // 24) for document in ids_of)
    batch = source.collate(list(range(6)), seed=0, epoch=0)
    assert separate == "rows" and set(batch) == {"input_ids", "labels", "attention_mask"}
    told = CausalLM().loss(model, CausalLM().prepare(batch)).total
    pieces = [document[at : at + 24] for document in ids_of for at in range(0, len(document), 24)][:6]
    alone = torch.zeros(())
    for piece in map(torch.from_numpy, pieces):
        logits = model(input_ids=piece[None].long()).logits[0, :-1]
        alone = alone + torch.nn.functional.cross_entropy(logits, piece[1:].long(), reduction="sum")
    torch.testing.assert_close(told, alone, rtol=1e-4, atol=1e-4)
