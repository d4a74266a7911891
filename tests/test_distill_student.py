"""Students made from a teacher's weights: blocks, widths and vocabularies, for every shape that is served.
Home of distill.depth, distill.shape, distill.student, distill.vocabulary and distill.width."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from adaptkit import models
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.distill import depth, student, width
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.shape import student_shape
from adaptkit.distill.vocabulary import prune_tokenizer
from adaptkit.errors import ConfigError, ModelError

VOCAB = 97
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SHAPES: dict[str, tuple[Any, str]] = {
    "llama": (lambda: transformers.LlamaConfig(**SIZES, **IDS, head_dim=16, num_key_value_heads=2), "causal"),
    "qwen3": (lambda: transformers.Qwen3Config(**SIZES, **IDS, head_dim=16, num_key_value_heads=2), "causal"),
    "bert": (lambda: transformers.BertConfig(**SIZES, pad_token_id=2), "masked"),
    "bert classifier": (lambda: transformers.BertConfig(**SIZES, pad_token_id=2, num_labels=3), "classifier"),
    "modernbert": (
        lambda: transformers.ModernBertConfig(
            **SIZES, **IDS, cls_token_id=0, sep_token_id=1, global_attn_every_n_layers=2, local_attention=8
        ),
        "masked",
    ),
}
TEXTS = [
    f"the {a} {b} measures the dose of {c} in patients"
    for a in "abcdefg"
    for b in ("old", "new")
    for c in ("salt", "iron")
]


def built(name: str) -> tuple[nn.Module, str]:
    shape, kind = SHAPES[name]
    return models.build(shape(), kind, seed=0).eval(), kind


def tokens() -> torch.Tensor:
    return torch.randint(3, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))


def asked(**fields: Any) -> DistillConfig:
    return DistillConfig.model_validate({"teacher": "t", "data": {"files": ["f"]}, "student": fields})


@pytest.mark.parametrize("name", SHAPES)
def test_all_blocks_of_a_teacher_are_the_teacher(name):
    teacher, kind = built(name)
    whole = depth.copy_blocks(teacher, kind, [0, 1, 2, 3], seed=5).eval()
    torch.testing.assert_close(whole(tokens()).logits, teacher(tokens()).logits)


@pytest.mark.parametrize("name", SHAPES)
def test_a_student_of_fewer_blocks_is_the_teacher_without_the_others(name):
    teacher, kind = built(name)
    picks = depth.follow_pattern(teacher.config, [0, 3])
    half = depth.copy_blocks(teacher, kind, picks, seed=5).eval()
    out = [i for i in range(4) if i not in picks]
    with depth.replaced(teacher, {i: [] for i in out}):
        torch.testing.assert_close(half(tokens()).logits, teacher(tokens()).logits)
    assert half.config.num_hidden_layers == 2


def test_picks_follow_the_pattern_of_global_and_local_blocks():
    config = transformers.ModernBertConfig(**{**SIZES, "num_hidden_layers": 9}, global_attn_every_n_layers=3)
    picks = depth.follow_pattern(config, [0, 3, 6, 8])
    assert picks == [0, 2, 5, 6] and [config.layer_types[i] for i in picks] == config.layer_types[:4]
    with pytest.raises(ModelError, match="pattern of global and local"):
        depth.follow_pattern(config, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8])


def test_even_and_last_blocks():
    assert (
        depth.evenly_spaced(3, 6) == [0, 2, 5]
        and depth.evenly_spaced(6, 12) == [0, 2, 4, 7, 9, 11]
        and depth.evenly_spaced(1, 4) == [3]
    )
    assert depth.last_blocks(3, 6) == [3, 4, 5]


def narrow(teacher: nn.Module, kind: str, shape: Any) -> nn.Module:
    found = width.importance(teacher, [tokens()], lambda model, batch: model(batch))
    kept = width.most_important(found, shape, [0, 1, 2, 3], torch.arange(VOCAB))
    return depth.copy_blocks(
        teacher, kind, [0, 1, 2, 3], 5, shape, width.weight_cutter(kept, width.key_heads(teacher.config))
    ).eval()


@pytest.mark.parametrize("name", SHAPES)
def test_units_that_do_nothing_can_be_cut_without_a_trace(name):
    """Half of the feed-forward units, and where heads may be fewer than the width holds, half of the
    heads."""
    teacher, kind = built(name)
    shape = depth.copy_config(teacher.config)
    shape.intermediate_size = 48
    ffn, heads = [], []
    for part, module in teacher.named_modules():
        ffn += (
            [module]
            if part.endswith(("down_proj", "mlp.Wo")) or (".output.dense" in part and "attention" not in part)
            else []
        )
        heads += [module] if part.endswith("o_proj") else []
    with torch.no_grad():
        for part, module in teacher.named_modules():  # dead units: nothing comes out of them
            if part.endswith(("gate_proj", "up_proj")) or part.endswith("intermediate.dense"):
                module.weight[::2] = 0
                if module.bias is not None:
                    module.bias[::2] = 0
            if part.endswith("mlp.Wi"):
                module.weight[::2] = 0
            if heads and part.endswith("v_proj"):
                module.weight[:16] = 0
    if heads:
        shape.num_attention_heads, shape.num_key_value_heads = 2, 1
    smaller = narrow(teacher, kind, shape)
    torch.testing.assert_close(smaller(tokens()).logits, teacher(tokens()).logits, rtol=1e-4, atol=1e-4)
    assert models.param_count(smaller).total < 0.9 * models.param_count(teacher).total


@pytest.mark.parametrize("name", SHAPES)
def test_a_narrower_student_keeps_the_widest_channels(name):
    teacher, kind = built(name)
    shape = student_shape(asked(width=32, layers=4), teacher.config, kind)
    assert (shape.hidden_size, shape.intermediate_size, shape.num_attention_heads) == (32, 64, 2)
    smaller = narrow(teacher, kind, shape)
    assert smaller(tokens()).logits.isfinite().all() and smaller.config.hidden_size == 32
    channels = width.importance(teacher, [tokens()], lambda model, batch: model(batch)).hidden
    kept = width.most_important(
        SimpleNamespace(hidden=channels, heads=[], ffn=[]), shape, [], torch.arange(VOCAB)
    ).hidden
    dropped = torch.tensor([i for i in range(64) if i not in kept.tolist()])
    assert channels[kept].min() >= channels[dropped].max()


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"width": 48}, "48 is no multiple of 32"),
        ({"width": 128}, "the teacher has 64, not 128"),
        ({"layers": 5}, "the teacher has 4, not 5"),
        ({"vocab_size": 500}, "the teacher has 97, not 500"),
    ],
)
def test_impossible_sizes_are_refused(fields, what):
    with pytest.raises(ConfigError, match=what):
        student_shape(asked(**fields), SHAPES["llama"][0](), "causal")


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_pruned_vocabulary_encodes_everything_with_the_teachers_tokens(algorithm, tmp_path):
    teacher = train_tokenizer(
        TEXTS, algorithm, 90 if algorithm == "wordpiece" else 300, masked=algorithm == "wordpiece"
    )
    size = {"bpe": 296, "wordpiece": 60, "unigram": 296}[algorithm]
    pruned, ids = prune_tokenizer(teacher, TEXTS[:4], size)
    assert len(pruned) == len(ids) <= size and ids == sorted(ids)
    assert pruned.convert_ids_to_tokens(range(len(ids))) == teacher.convert_ids_to_tokens(ids)
    assert pruned.special_tokens_map == teacher.special_tokens_map
    pruned.save_pretrained(tmp_path)
    again = models.load_tokenizer(tmp_path)
    for text in [*TEXTS, "The zebra's dose"]:
        own = again(text)["input_ids"]
        assert own == pruned(text)["input_ids"]
        if algorithm != "wordpiece":
            assert again.decode(own, skip_special_tokens=True) == text
        assert (
            again.convert_ids_to_tokens(own)[0]
            == teacher.convert_ids_to_tokens(teacher(text)["input_ids"])[0]
        )
    for text in TEXTS[:4]:
        assert len(pruned(text)["input_ids"]) <= 1.5 * len(teacher(text)["input_ids"])


def test_a_vocabulary_below_its_alphabet_is_refused():
    teacher = train_tokenizer(TEXTS, "bpe", 300)
    with pytest.raises(ModelError, match="special or single characters, more than 100"):
        prune_tokenizer(teacher, TEXTS, 100)


def test_projections_put_each_channel_where_the_teacher_has_it():
    teacher, kind = built("llama")
    shape = student_shape(asked(width=32, layers=4), teacher.config, kind)
    smaller, channels = narrow(teacher, kind, shape), torch.arange(1, 64, 2)
    student.add_projections(smaller, 64, 4, channels)
    hidden = torch.randn(3, 32)
    lifted = smaller.distillation_projections[2](hidden)
    assert torch.equal(lifted[:, 1::2], hidden) and not lifted[:, ::2].any()
    assert all(weight.requires_grad for weight in smaller.distillation_projections.parameters())
    student.add_projections(smaller, 16, 4)
    assert torch.equal(smaller.distillation_projections[0](hidden), hidden[:, :16])
    student.remove_projections(smaller)
    assert not hasattr(smaller, "distillation_projections")


def test_an_encoders_blocks_are_searched_by_how_far_its_vectors_turn():
    torch.manual_seed(0)
    teacher = transformers.BertModel(
        transformers.BertConfig(**SIZES, pad_token_id=2, initializer_range=0.2)
    ).eval()
    with torch.no_grad():
        for block in (teacher.encoder.layer[1], teacher.encoder.layer[3]):
            for part in (block.attention.output.dense, block.output.dense):
                part.weight.zero_()
    batch = {"input_ids": tokens(), "attention_mask": torch.ones(2, 12, dtype=torch.int64)}
    reading = student.ablation_loss(teacher, "encoder", VOCAB, batch)
    assert reading(teacher, batch) == pytest.approx(0, abs=1e-5)
    assert depth.search_blocks(2, teacher, lambda model: reading(model, batch)) == [0, 2]


@pytest.mark.parametrize(("ids", "ends"), [(None, [1, 7]), ([0, 7, 1, 9], [1, 2])])
def test_a_student_stops_at_all_ends_of_its_teacher(ids, ends):
    teacher, _ = built("llama")
    teacher.generation_config.eos_token_id = [1, 7]
    pupil, _ = built("llama")
    pupil.generation_config.eos_token_id = None
    student.stop_as_teacher(student.NewStudent(pupil, None, {}, ids), teacher)
    assert sorted(pupil.generation_config.eos_token_id) == ends
