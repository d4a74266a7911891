"""Sizes, shapes and learning rates that come from the one size dial."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit import models
from adaptkit.architecture import (
    SizeConfig,
    architecture,
    choose_shape,
    compute_optimal_params,
    default_learning_rate,
)
from adaptkit.errors import ConfigError

SIZES = [500_000, 1_000_000, 3_000_000, 5_000_000, 20_000_000, 124_000_000, 350_000_000, 1_000_000_000]


def build(size: SizeConfig, vocab_size: int, kind: str) -> torch.nn.Module:
    with torch.device("meta"):
        return models.build(architecture(size, vocab_size, kind=kind), kind, seed=0)


@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("params", SIZES)
def test_size_is_hit_within_15_percent(params, tied, kind):
    vocab_size = 2048 if params < 3_000_000 else 4096 if params < 20_000_000 else 32_768
    model = build(SizeConfig(params=params, tied=tied, seq_len=128), vocab_size, kind)
    assert abs(models.param_count(model).total / params - 1) <= 0.15
    config = model.config
    assert config.hidden_size % (32 if config.hidden_size < 256 else 128) == 0
    assert config.intermediate_size % (32 if config.hidden_size < 256 else 128) == 0
    assert config.hidden_size // config.num_attention_heads in (32, 64, 128)
    assert config.hidden_size % config.num_attention_heads == 0
    assert config.num_hidden_layers >= 2 and config.max_position_embeddings == 128
    assert config.tie_word_embeddings == tied


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("params", SIZES[:5])
def test_shape_counts_its_own_parameters_exactly(params, tied):
    shape = choose_shape(params, 2048, tied=tied)
    assert (
        models.param_count(build(SizeConfig(params=params, tied=tied), 2048, "causal")).total
        == shape.parameters
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(400_000, 2_000_000_000), st.sampled_from([384, 1024, 2048, 4096]))
def test_any_size_in_range_has_a_sensible_shape(params, vocab_size):
    shape = choose_shape(params, vocab_size)
    assert abs(shape.parameters / params - 1) <= 0.15 and 12 <= shape.width / shape.layers <= 128


def test_larger_asks_give_larger_models():
    counts = [choose_shape(params, 2048).parameters for params in SIZES]
    assert counts == sorted(set(counts))


def test_a_vocabulary_too_large_for_the_size_is_refused_with_a_size_that_works():
    with pytest.raises(ConfigError, match="vocabulary of 32,768") as caught:
        choose_shape(1_000_000, 32_768)
    offered = int(re.search(r"ask for ([\d,]+)", caught.value.fix)[1].replace(",", ""))
    assert choose_shape(offered, 32_768).parameters == pytest.approx(offered, rel=0.15)


def test_compute_optimal_size_is_20_tokens_per_parameter_until_text_runs_out():
    assert compute_optimal_params(6 * 20 * 1e6**2) == 1_000_000
    assert compute_optimal_params(6 * 20 * 1e6**2, unique_tokens=5_000_000) == 1_000_000
    assert compute_optimal_params(6 * 20 * 1e6**2, unique_tokens=1_000_000) == 5_000_000
    with pytest.raises(ConfigError, match="needs a size"):
        compute_optimal_params(0)


def test_flops_choose_the_size_when_params_do_not():
    config = architecture(SizeConfig(params=0, seq_len=128), 2048, flops=6 * 20 * 3e6**2)
    with torch.device("meta"):
        assert 0.85 < models.param_count(models.build(config, "causal", seed=0)).total / 3e6 < 1.15


def test_special_ids_reach_the_config():
    ids = {"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 5}
    causal = architecture(SizeConfig(params=1_000_000), 2048, special_ids=ids)
    masked = architecture(SizeConfig(params=1_000_000), 2048, kind="masked", special_ids=ids)
    for config in (causal, masked):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (3, 4, 5)
    assert (masked.cls_token_id, masked.sep_token_id) == (3, 4) and set(masked.layer_types) == {
        "full_attention"
    }


def test_learning_rate_falls_with_size_and_is_bounded():
    rates = [default_learning_rate(params) for params in SIZES]
    assert rates == sorted(rates, reverse=True) and rates[0] <= 1e-2 and 1e-4 < rates[-1] < 1e-3


def test_small_models_start_with_larger_weights():
    wide, narrow = (
        architecture(SizeConfig(params=100_000_000), 8192),
        architecture(SizeConfig(params=1_000_000), 2048),
    )
    assert narrow.initializer_range == pytest.approx((0.4 / narrow.hidden_size) ** 0.5)
    assert narrow.initializer_range > wide.initializer_range > 0.02
    weight = models.build(narrow, "causal", seed=0).model.layers[0].self_attn.q_proj.weight
    assert weight.std().item() == pytest.approx(narrow.initializer_range, rel=0.05)
