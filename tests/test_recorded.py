"""Recorded steps: what surrounds a CUDA graph is tested anywhere, with a graph that runs the step again; the
graph on a GPU. Home of trainer.recorded and trainer.run_checks."""

from __future__ import annotations

import contextlib
import types
import warnings

import pytest
import torch
import transformers

from adaptkit.models import packed
from adaptkit.models.batching import pad_right
from adaptkit.models.separation import takes_padding_as_documents
from adaptkit.run import Run
from adaptkit.trainer import recorded, run_checks
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.objective import BOUNDS, ROWS, CausalLM, Classification, LossModule, MaskedLM
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.trainer import Trainer

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
CPU = torch.device("cpu")
CAUSAL = CausalLM("fused")


class Graph:
    """Replays by running the recorded step again, into the same gradients: what a CUDA graph does, on a
    CPU."""

    def replay(self) -> None:
        self.run()


@pytest.fixture
def graphs(monkeypatch) -> list[Graph]:
    """Stands in for torch.cuda's graphs; lists those that were recorded."""
    made: list[Graph] = []
    record = recorded.Recorder._record

    def recording(self, batch, scale):
        found = record(self, batch, scale)
        inputs = {**batch, **found.inputs}

        def run() -> None:
            kept = [weight.grad for weight in self.weights]
            self._put([None] * len(kept))
            found.total.copy_(self._run(inputs, found.scale))
            for place, weight in zip(found.gradients, self.weights, strict=True):
                place.copy_(weight.grad)
            self._put(kept)

        found.graph.run = run
        made.append(found.graph)
        return found

    monkeypatch.setattr(recorded.Recorder, "_record", recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 1)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda where: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (90, 100))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda where: "the stream before")
    monkeypatch.setattr(
        recorded, "_generator", lambda where: types.SimpleNamespace(clone_state=lambda: "its state")
    )
    return made


def model_and_batches(number: int, document: int = 7) -> tuple[torch.nn.Module, list[dict]]:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SHAPE, use_cache=False, tie_word_embeddings=True)
    )
    packed.use(model)
    batches = []
    for seed in range(number):
        ids = torch.randint(64, (2, 32), generator=torch.Generator().manual_seed(seed))
        positions = torch.arange(32).remainder(document + seed % 2).expand(2, 32)
        labels = ids.masked_fill(positions == 0, -100)
        batches.append(CausalLM().prepare({"input_ids": ids, "position_ids": positions, "labels": labels}))
    return model, batches


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    found = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("number", [1, 3], ids=["one microbatch", "three microbatches"])
def test_losses_and_gradients_are_those_of_the_plain_step(graphs, number):
    model, batches = model_and_batches(8 * number)
    module = LossModule(model, CausalLM("chunked"), torch.float32)
    recorder = recorded.Recorder(module, list(model.parameters()), CPU)
    for step in range(8):
        given = batches[step * number : (step + 1) * number]
        expected = []
        for batch in given:
            total, _ = module(batch)
            (total * 0.25).backward()
            expected.append(total.detach())
        plain = gradients(model)
        found = recorder.accumulate(given, 0.25)
        torch.testing.assert_close(found, torch.stack(expected))
        for ours, theirs in zip(gradients(model), plain, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert len(graphs) == 1, "batches of different documents should have had the same shapes"


def test_seldom_shapes_and_too_many_of_them_run_as_ever(graphs, monkeypatch):
    monkeypatch.setattr(recorded, "MOST", 1)
    model, (batch, *_) = model_and_batches(1)
    recorder = recorded.Recorder(
        LossModule(model, CausalLM("chunked"), torch.float32), list(model.parameters()), CPU
    )
    halves = [{**batch, "other": torch.zeros(size)} for size in (1, 2)]
    for given in (halves[0], halves[1], halves[0], halves[0], halves[1], halves[1]):
        recorder.module = lambda batch: LossModule(model, CausalLM("chunked"), torch.float32)(
            {name: value for name, value in batch.items() if name != "other"}
        )
        recorder.accumulate([given], 1.0)
    assert len(graphs) == 1 and list(recorder.recordings) == [
        recorded.signature_of(recorded.fixed_shapes(halves[0]))
    ]


@pytest.mark.parametrize("how", ["fails", "too large"])
def test_what_cannot_be_recorded_runs_as_ever_and_says_why(graphs, monkeypatch, how):
    model, (batch, *_) = model_and_batches(1)
    recorder = recorded.Recorder(
        LossModule(model, CausalLM("chunked"), torch.float32), list(model.parameters()), CPU
    )
    recovered = []
    monkeypatch.setattr(recorder, "_recover", lambda *before: recovered.append(before))
    if how == "fails":

        @contextlib.contextmanager
        def refusing(graph, pool):
            try:
                raise RuntimeError("operation not permitted when stream is capturing")
                yield
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

        monkeypatch.setattr(torch.cuda, "graph", refusing)
    else:
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda where: 50)
    first = recorder.accumulate([batch], 1.0)
    before = gradients(model)
    for _ in range(4):
        assert torch.equal(recorder.accumulate([batch], 1.0), first)
        assert all(map(torch.equal, gradients(model), before))
    assert not graphs and ("not permitted" if how == "fails" else "40%") in recorder.refused
    assert recovered == ([("the stream before", "its state")] if how == "fails" else [])
    assert (recorder._failed is not None) is (how == "fails")


def test_rows_are_rounded_up_with_rows_that_have_no_label():
    labelled = torch.tensor([0, 3, 5, 6])
    found = recorded.padded_rows(labelled, 32)
    assert torch.equal(found, labelled)
    found = recorded.padded_rows(torch.cat([labelled, torch.tensor([31])]), 32)
    assert found.tolist() == [0, 3, 5, 6, 31, 1]
    assert sorted(recorded.padded_rows(torch.arange(31), 32).tolist()) == list(range(32))
    assert recorded.padded_rows(torch.arange(32), 32).tolist() == list(range(32))
    _, batches = model_and_batches(2)
    fixed = [recorded.fixed_shapes(batch) for batch in batches]
    assert fixed[0][ROWS].shape == fixed[1][ROWS].shape and fixed[0][BOUNDS].shape == fixed[1][
        BOUNDS
    ].shape == (64,)
    assert batches[0][BOUNDS].shape != batches[1][BOUNDS].shape


def test_only_where_the_step_is_the_same_each_time():
    ranks = Ranks()
    ranks.device = torch.device("cuda")
    model, _ = model_and_batches(1)

    def wanted(objective=CAUSAL, ranks=ranks, **settings) -> bool:
        return recorded.wanted(TrainerConfig(**{"num_steps": 50, **settings}), objective, ranks, model)

    assert wanted() and wanted(MaskedLM("fused"))
    assert (
        not wanted(num_steps=49) and not wanted(cuda_graph="off") and not wanted(gradient_checkpointing=True)
    )
    assert not wanted(Classification()) and not wanted(CausalLM("chunked")), "it waits for the device"
    assert not wanted(ranks=Ranks())
    several = types.new_class("Several", (Ranks,))()
    several.device = torch.device("cuda")
    assert not wanted(ranks=several)
    model.config.decoder_layerdrop = 0.1
    assert not wanted(), "which layers are dropped is drawn on the host"


@pytest.mark.parametrize(("recording", "pays"), [(False, 3e5), (True, 3e6)])
def test_long_runs_on_a_gpu_are_compiled(monkeypatch, recording, pays):
    """300 seconds' worth of steps without recordings, ten times as many with them."""
    monkeypatch.setattr(
        run_checks, "peak_flops", lambda where: None if where.type == "cpu" else 1e12 / run_checks.USUAL_SHARE
    )

    def compiles(steps, objective=CAUSAL, where="cuda", **settings) -> bool:
        config = TrainerConfig(num_steps=int(steps), **settings)
        return run_checks.compiles(config, objective, torch.device(where), lambda: 1e9, recording)

    assert compiles(pays * 1.1) and not compiles(pays * 0.9) and not compiles(pays * 1.1, where="cpu")
    assert not compiles(pays * 1.1, Classification()) and not compiles(pays * 1.1, parallel="fsdp")
    assert compiles(1, compile=True, where="cpu") and not compiles(pays * 2, compile=False)


class Source:
    """Packed rows of documents of a learnable pattern."""

    def __init__(self) -> None:
        _, self.batches = model_and_batches(40)

    def __len__(self) -> int:
        return len(self.batches) * 2

    def collate(self, indices, *, seed, epoch):
        names = ("input_ids", "position_ids", "labels")
        return {name: torch.stack([self.batches[i // 2][name][i % 2] for i in indices]) for name in names}

    def where(self, index: int) -> str:
        return f"rows:{index}"


def losses(folder, dropout: float = 0.0, **settings) -> tuple[list[float], dict]:
    model, _ = model_and_batches(1)
    model.config.attention_dropout = dropout
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    run = Run(folder)
    fixed = {
        "num_steps": 50,
        "global_batch_size": 4,
        "learning_rate": 1e-2,
        "log_every": 1,
        "checkpoint_every": 0,
        "threads": 1,
    }
    config = TrainerConfig(**{**fixed, **settings})
    Trainer(model, CausalLM(), Source(), config, run=run).fit()
    return [row["loss"] for row in run.metrics() if "loss" in row], run.manifest()["training"]["train"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("microbatch", [0, 2])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_a_recorded_run_follows_the_plain_one(tmp_path, precision, tolerance, microbatch):
    both = []
    for choice in ("auto", "off"):
        found, facts = losses(
            tmp_path / choice, precision=precision, cuda_graph=choice, microbatch_size=microbatch
        )
        both.append(found)
        assert facts["cuda_graph"] is (choice == "auto")
        if choice == "auto":
            assert facts["recorded_shapes"] >= 1 and not facts["not_recorded"]
    assert max(abs(a - b) for a, b in zip(*both, strict=True)) < tolerance


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_go_on_after_a_recording_that_failed(tmp_path, monkeypatch):
    """One that asks the device for a number; dropout shows that the generator is in order."""
    plain, _ = losses(tmp_path / "plain", precision="bf16", cuda_graph="off", dropout=0.1)
    run = recorded.Recorder._run

    def asking(self, batch, scale):
        total = run(self, batch, scale)
        return total + 0 * float(total)

    monkeypatch.setattr(recorded.Recorder, "_run", asking)
    found, facts = losses(tmp_path / "failing", precision="bf16", dropout=0.1)
    assert facts["not_recorded"] and not facts["recorded_shapes"]
    assert max(abs(a - b) for a, b in zip(found, plain, strict=True)) < 2e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_packed_steps_wait_for_nothing(tmp_path):
    """Only what happens once per run may wait: twice the steps, as many waits; recorded or not."""

    def waits(name, **settings) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                losses(tmp_path / name, log_every=100, **settings)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    for choice in ("auto", "off"):
        waits(f"{choice} first", cuda_graph=choice)  # compiles kernels
        assert waits(f"{choice} 100", cuda_graph=choice, num_steps=100) == waits(
            f"{choice} 50", cuda_graph=choice
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_compiled_recorded_run_follows_the_plain_one(tmp_path):
    plain, _ = losses(tmp_path / "plain", precision="bf16", cuda_graph="off", compile=False)
    fast, facts = losses(tmp_path / "fast", precision="bf16", compile=True)
    assert facts["compiled"] and facts["recorded_shapes"] >= 1 and not facts["not_recorded"]
    assert max(abs(a - b) for a, b in zip(fast, plain, strict=True)) < 2e-2


class Texts:
    """Texts of several lengths with one of two labels, which their first token tells."""

    def __len__(self) -> int:
        return 64

    def collate(self, indices, *, seed, epoch):
        rows = [
            [3 + i % 2, *torch.randint(5, 64, (i % 5 + 3,), generator=torch.Generator().manual_seed(i))]
            for i in indices
        ]
        return {**pad_right(rows, 0), "labels": torch.tensor([i % 2 for i in indices])}

    def where(self, index: int) -> str:
        return f"texts:{index}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_a_recorded_classifier_follows_the_plain_one_under_a_mask(tmp_path, precision, tolerance):
    both = []
    for by_bounds in (True, False):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**SHAPE, num_labels=2, pad_token_id=0)
        model = transformers.LlamaForSequenceClassification(config)
        assert takes_padding_as_documents(model, 8)
        run = Run(tmp_path / f"{by_bounds}")
        settings = TrainerConfig(
            num_steps=60,
            global_batch_size=16,
            learning_rate=1e-2,
            log_every=1,
            checkpoint_every=0,
            precision=precision,
        )
        Trainer(model, Classification(by_bounds=by_bounds), Texts(), settings, run=run).fit()
        facts = run.manifest()["training"]["train"]
        assert facts["cuda_graph"] is by_bounds
        if by_bounds:
            assert facts["recorded_shapes"] >= 1 and not facts["not_recorded"]
        both.append([row["loss"] for row in run.metrics() if "loss" in row])
    assert max(abs(a - b) for a, b in zip(*both, strict=True)) < tolerance
    assert both[0][-1] < both[0][0] / 2
