"""Which way a training step takes on a GPU, seen on fake CUDA tensors: on any torch from 2.11 on, without a
GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from adaptkit_kernels import launch
from adaptkit_kernels.fuse import fuse
from fake_cuda import batch_on_fake_cuda, fake_cuda, to_fake_cuda

from adaptkit import models
from adaptkit.models import packed
from adaptkit.models.head import Backbone, split
from adaptkit.study.tasks.rows import own_model
from adaptkit.trainer import device
from adaptkit.trainer.objective import BOUNDS, LONGEST, WHOLE, CausalLM, packed_inputs

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
cuda_build = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="whole models need a torch built for CUDA, no GPU"
)
HALF = torch.bfloat16


class Calls(list):
    """Stands in for torch's `varlen_attn` and keeps what it is given."""

    def __call__(self, query, key, value, bounds, _, longest, __, **options):
        self.append(
            {
                "dtypes": {query.dtype, key.dtype, value.dtype},
                "rows": len(query),
                "bounds": len(bounds),
                "longest": longest,
                **options,
            }
        )
        return torch.empty_like(query)


@pytest.fixture
def calls(monkeypatch) -> Calls:
    made = Calls()
    monkeypatch.setattr(packed, "varlen_attn", made)
    return made


def attend(
    monkeypatch, dtype=HALF, *, rotated=HALF, heads: int = 4, rows: int = 2, **options: Any
) -> torch.Tensor:
    """One call of the attention: queries and keys of the dtype that a rotation left them in, autocast to
    `dtype`."""
    with fake_cuda(monkeypatch), torch.no_grad(), torch.autocast("cuda", HALF, enabled=dtype == HALF):
        query, key = (torch.empty(rows, n, 512, 16, device="cuda", dtype=rotated) for n in (4, heads))
        value = torch.empty(rows, heads, 512, 16, device="cuda", dtype=dtype)
        bounds = torch.empty(64, dtype=torch.int32, device="cuda")
        mask = torch.empty(1, 1, 512, 512, dtype=torch.bool, device="cuda")
        return packed.attention(
            torch.nn.Module(), query, key, value, mask, cu_seq_lens_q=bounds, is_causal=True, **options
        )[0]


@pytest.mark.parametrize(
    "rotated", [HALF, torch.float32], ids=["by our kernel", "by transformers under autocast"]
)
def test_flash_attention_is_taken_whoever_rotates(monkeypatch, calls, rotated):
    out = attend(monkeypatch, rotated=rotated)
    assert calls[0]["dtypes"] == {HALF} and out.dtype == HALF and out.shape == (2, 512, 4, 16)


def test_full_precision_and_dropout_go_under_a_mask_instead(monkeypatch, calls):
    masked: list[torch.dtype] = []

    def sdpa(query, key, value, **options):
        masked.append(query.dtype)
        return query.new_empty(2, 512, 4, 16).transpose(1, 2)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", sdpa)
    attend(monkeypatch, torch.float32, rotated=torch.float32)
    attend(monkeypatch, dropout=0.1)
    assert not calls and masked == [torch.float32, HALF]


@pytest.mark.parametrize("asks", [False, True], ids=["as torch 2.11", "as torch 2.13"])
@pytest.mark.parametrize("heads", [4, 2])
def test_fewer_key_heads_are_only_told_to_a_torch_that_asks(monkeypatch, calls, asks, heads):
    monkeypatch.setattr(packed, "_ASKS_FOR_GROUPS", asks)
    attend(monkeypatch, heads=heads)
    assert ("enable_gqa" in calls[0]) is (asks and heads == 2)


def test_this_torch_takes_the_arguments_that_it_is_given(monkeypatch):
    """Its own operator, up to the kernel: what a version does not know it refuses."""
    for heads in (4, 2):
        for longest in (None, 128):
            assert attend(monkeypatch, heads=heads, max_length_q=longest, sliding_window=100).dtype == HALF


def test_attention_is_as_long_as_the_longest_document(monkeypatch, calls):
    attend(monkeypatch, max_length_q=128)
    attend(monkeypatch)
    assert [call["longest"] for call in calls] == [128, 512]


@pytest.mark.parametrize(("whole", "by_cudnn", "by_bounds"), [(0, 0, 4), (2, 2, 2), (4, 4, 0)])
def test_rows_that_are_one_document_go_to_cudnn(monkeypatch, calls, whole, by_cudnn, by_bounds):
    dense: list[int] = []

    def cudnn(query, key, value, scaling, causal):
        dense.append(len(query))
        return query.transpose(1, 2)

    monkeypatch.setattr(packed, "_cudnn", cudnn)
    assert attend(monkeypatch, rows=4, whole_rows=whole).shape == (4, 512, 4, 16)
    assert dense == [by_cudnn] * (by_cudnn > 0)
    assert [call["rows"] for call in calls] == [by_bounds * 512] * (by_bounds > 0)
    assert [call["bounds"] for call in calls] == [64 - by_cudnn] * (by_bounds > 0)
    attend(monkeypatch, rows=4, whole_rows=whole, sliding_window=100)
    assert calls[-1]["rows"] == 4 * 512 and len(dense) <= 1


@pytest.mark.parametrize(("capability", "whole"), [((9, 0), 2), ((8, 0), 0)])
def test_only_hopper_and_later_are_told_of_whole_rows(monkeypatch, capability, whole):
    for owner, name, value in (
        (torch.cuda, "is_available", True),
        (torch.backends.cudnn, "is_available", True),
        (torch.cuda, "get_device_capability", capability),
    ):
        monkeypatch.setattr(owner, name, lambda value=value: value)
    positions = torch.stack([torch.arange(8) % 5, *[torch.arange(8)] * 2, torch.arange(8) % 3])
    tokens = torch.arange(4)[:, None].expand(4, 8)
    batch = CausalLM().prepare({"input_ids": tokens, "position_ids": positions, "labels": tokens})
    assert batch[WHOLE] == whole
    assert batch["input_ids"][:, 0].tolist() == ([1, 2, 0, 3] if whole else [0, 1, 2, 3])
    assert torch.equal(batch["labels"], batch["input_ids"])


def test_whole_rows_come_first_and_are_counted_in_quarters():
    positions = torch.arange(8).expand(5, 8).clone()
    positions[1, 5:], positions[3, 7:] = torch.arange(3), torch.arange(1)
    order = packed.whole_rows_first(positions)
    assert order.tolist() == [0, 2, 4, 1, 3]
    bounds = packed.document_bounds(positions[order])
    assert [packed.whole_rows(bounds, 5, 8), packed.whole_rows(bounds[1:] - 8, 4, 8)] == [3, 2]
    assert packed.whole_rows(torch.arange(0, 57, 7), 7, 8) == 0
    assert packed.whole_rows(torch.arange(0, 97, 8), 12, 8) == 12
    assert packed.whole_rows(torch.tensor([0, *range(8, 81, 8), 84, 88, 96]), 12, 8) == 9


def batch_of(document: int) -> dict[str, Any]:
    positions = torch.arange(512).remainder(document).expand(2, 512)
    ids = torch.zeros(2, 512, dtype=torch.long)
    return CausalLM().prepare(
        {"input_ids": ids, "position_ids": positions, "labels": ids.masked_fill(positions == 0, -100)}
    )


@pytest.mark.parametrize(("document", "longest"), [(40, 128), (130, 256), (512, 512)])
def test_the_host_knows_the_longest_document_rounded_up(document, longest):
    batch = batch_of(document)
    assert batch[LONGEST] == longest and isinstance(batch[LONGEST], int) and batch[BOUNDS][-1] == 1024


def test_lengths_are_no_longer_than_a_row_and_bounds_end_in_empty_documents():
    assert packed.longest_document(torch.tensor([0, 3, 160]), 160) == 160
    padded = packed.padded_bounds(torch.arange(66), 65)
    assert (
        len(padded) == 128
        and (padded[66:] == 65).all()
        and len(packed.padded_bounds(torch.arange(3), 2)) == 64
    )


def forward_on_fake_cuda(monkeypatch, implementation: str) -> None:
    """One forward pass of a small Llama under autocast to bf16."""
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SHAPE, num_key_value_heads=2, use_cache=False)
    )
    packed.use(model)
    monkeypatch.setattr(launch, "fused_available", lambda device: True)
    monkeypatch.setattr(Backbone, "_check", lambda self, hidden, seen: None)
    fuse(model, implementation=implementation)
    batch = batch_of(40)
    with fake_cuda(monkeypatch), torch.no_grad(), torch.autocast("cuda", HALF):
        there = batch_on_fake_cuda(batch)
        split(to_fake_cuda(model))[0](**packed_inputs(model, there, causal=True))


@cuda_build
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_a_whole_model_attends_by_flash(monkeypatch, calls, implementation):
    forward_on_fake_cuda(monkeypatch, implementation)
    assert len(calls) == 2 and all(call["dtypes"] == {HALF} and call["longest"] == 128 for call in calls)


@cuda_build
def test_norms_write_what_the_products_after_them_take(monkeypatch, calls):
    """Otherwise five products of a block would each round the same float32 rows; the last norm's go to the
    loss."""
    wanted: list[torch.dtype | None] = []
    fuse_module = sys.modules["adaptkit_kernels.fuse"]
    for name in ("rms_norm", "add_rms_norm"):
        real = getattr(fuse_module, name)

        def noting(*args, real=real, **options):
            wanted.append(options["dtype"])
            return real(*args, **options)

        monkeypatch.setattr(fuse_module, name, noting)
    forward_on_fake_cuda(monkeypatch, "fused")
    assert wanted == [HALF] * 4 + [None]


@cuda_build
def test_a_compiled_block_is_one_graph_with_flash_attention_in_it(monkeypatch):
    graphs: list[torch.fx.GraphModule] = []
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SHAPE, num_key_value_heads=2, use_cache=False)
    )
    packed.use(model)
    monkeypatch.setattr(launch, "fused_available", lambda device: True)
    fuse(model, implementation="fused")
    with fake_cuda(monkeypatch), torch.no_grad(), torch.autocast("cuda", HALF):
        to_fake_cuda(model)
        block, x = model.model.layers[0], torch.empty(2, 512, 64, device="cuda")
        positions = torch.empty(2, 512, dtype=torch.int64, device="cuda")
        given = {
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device="cuda"),
            "position_ids": positions,
            "position_embeddings": model.model.rotary_emb(x, positions),
            "max_length_q": 128,
            "cu_seq_lens_q": torch.empty(64, dtype=torch.int32, device="cuda"),
        }
        block.compile(backend=lambda graph, inputs: graphs.append(graph) or graph, fullgraph=True)
        assert block(x, **given).dtype == torch.float32
    (calls,) = [
        [str(node.target) for node in graph.graph.nodes if node.op == "call_function"] for graph in graphs
    ]
    assert "torch_attn._varlen_attn" in calls
    assert not any("adaptkit" in name for name in calls), (
        "the compiler fuses norms, gates and rotations by itself"
    )


@pytest.fixture
def cudnn_by_default():
    """torch's own choice, whatever it was before."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.usefixtures("cudnn_by_default")
def test_torch_chooses_no_cudnn_attention_under_a_mask(monkeypatch):
    assert device.default_device().type == "cpu" and torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.default_device().type == "cuda" and not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_study_answers_with_its_models_where_they_are_trained(monkeypatch):
    model = torch.nn.Linear(2, 2)
    monkeypatch.setattr(device, "default_device", lambda: torch.device("meta"))
    monkeypatch.setattr(models, "load", lambda folder, kind: model)
    monkeypatch.setattr(models, "model_kind", lambda folder: "causal")
    assert own_model(SimpleNamespace(origin="a folder")) is model and model.weight.is_meta
