"""What an export answered, against what its server answers: kept when equal, refused when not. Home of
export.parity.http_check."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from adaptkit import data, models
from adaptkit.client.openai import Completion
from adaptkit.errors import ServerError
from adaptkit.export.hardware import Hardware
from adaptkit.export.parity.http_check import check_server
from adaptkit.export.parity.reference import make_reference
from adaptkit.export.record import HTTP_FILE, REFERENCE_FILE
from adaptkit.export.resolve import resolve
from adaptkit.run import read_json, write_json
from adaptkit.serve.engine.command import Launch


class Server:
    """A client whose server runs the model in this process, with everything it says moved by `off`."""

    def __init__(
        self, reference: dict, off: float = 0.0, flip: int | None = None, tokenizer=None, bits: float = 0.0
    ):
        self.reference, self.off, self.flip, self.tokenizer, self.bits = reference, off, flip, tokenizer, bits

    def complete(self, name, prompt, *, max_tokens, **options):
        assert options["ignore_eos"] and options["return_token_ids"]
        place = self.reference["prompts"].index(prompt)
        tokens, logprobs = (
            list(self.reference["tokens"][place]),
            [value - self.off for value in self.reference["logprobs"][place]],
        )
        if self.flip is not None:  # another token of nearly equal probability, and nonsense after it
            tokens[self.flip :] = [0] * (len(tokens) - self.flip)
            logprobs[self.flip + 1 :] = [-9.0] * (len(tokens) - self.flip - 1)
        return Completion("", "length", len(prompt), len(tokens), tuple(tokens), tuple(logprobs))

    def embed(self, name, texts):
        assert texts == self.reference["texts"]
        return [
            [value + self.off * (-1) ** place for place, value in enumerate(row)]
            for row in self.reference["vectors"]
        ]

    def classify(self, name, texts):
        return [("a", [row[0] + self.off, *row[1:]]) for row in self.reference["probabilities"]]

    def rerank(self, name, query, documents, *, use_activation):
        assert (
            query == self.reference["texts"][0]
            and documents == self.reference["texts"]
            and use_activation is False
        )
        return [value + self.off for value in self.reference["logits"]]

    def tokenize(self, name, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def complete_each(self, name, prompts, *, max_tokens, prompt_logprobs):
        """Every token of a prompt is as likely as makes the texts' bits per byte those of the export, and
        `bits` more."""
        language = self.reference["language"]
        assert prompt_logprobs == 0 and max(map(len, prompts)) <= language["seq_len"] + 1
        tokens = sum(len(self.tokenize("m", text)) for text in language["texts"])
        size = sum(len(text.encode()) for text in language["texts"])
        nats = (language["bits_per_byte"] + self.bits) * size * math.log(2) / tokens
        logprobs = [({}, *({token: -nats} for token in ids[1:])) for ids in prompts]
        return [Completion("", "length", 0, 1, prompt_logprobs=each) for each in logprobs]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_text) -> dict[str, Path]:
    """A generator, an encoder, a classifier and a reranker with random weights, each with its reference
    answers."""
    from transformers import BertConfig, LlamaConfig

    root = tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    causal, masked = (data.train_tokenizer(tiny_text, "bpe", 384, masked=kind) for kind in (False, True))
    llama = LlamaConfig(vocab_size=len(causal), initializer_range=0.2, **shape)
    bert, classes, pairs = (
        BertConfig(vocab_size=len(masked), max_position_embeddings=64, num_labels=num, **shape)
        for num in (2, 3, 1)
    )
    by_kind = {
        "generate": (models.build(llama, "causal", seed=0), causal),
        "embed": (models.build(bert, "encoder", seed=0), masked),
        "classify": (models.build(classes, "classifier", seed=0), masked),
        "rerank": (models.build(pairs, "classifier", seed=0), masked),
    }
    for kind, (model, tokenizer) in by_kind.items():
        models.save(model, tokenizer, root / kind)
        source = resolve(root / kind)
        assert source.kind == kind
        write_json(root / kind / REFERENCE_FILE, make_reference(source, model.eval(), tokenizer))
    return {kind: root / kind for kind in by_kind}


@pytest.mark.parametrize("kind", ["generate", "embed", "classify", "rerank"])
def test_equal_answers_are_kept_and_others_are_refused(folders, kind):
    folder = folders[kind]
    source, reference = resolve(folder), read_json(folder / REFERENCE_FILE)
    check_server(Server(reference), source, "m", exact=True)
    assert read_json(folder / HTTP_FILE)["ok"] is True
    rounding = 0.004 if kind == "embed" else 0.02
    check_server(Server(reference, rounding), source, "m", exact=False)
    for off, exact in (
        (0.5, False),
        (0.5, True),
        (math.nan, False),
        *(() if kind == "embed" else ((rounding, True),)),
    ):
        with pytest.raises(ServerError, match="not those that were exported"):
            check_server(Server(reference, off), source, "m", exact=exact)
    assert read_json(folder / HTTP_FILE)["ok"] is False


def test_the_reference_is_what_the_model_says(folders):
    reference = read_json(folders["generate"] / REFERENCE_FILE)
    model = models.load(folders["generate"], "causal").eval()
    ids = torch.tensor([[*reference["prompts"][1], *reference["tokens"][1]]])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits.log_softmax(-1)[0, len(reference["prompts"][1]) - 1 : -1]
    best, tokens = logprobs.max(-1)
    assert tokens.tolist() == reference["tokens"][1] and len(reference["tokens"][1]) > 2
    assert best.tolist() == pytest.approx(reference["logprobs"][1], abs=1e-5)


def test_a_reranker_is_asked_about_pairs(folders):
    reference = read_json(folders["rerank"] / REFERENCE_FILE)
    model, tokenizer = (
        models.load(folders["rerank"], "classifier").eval(),
        models.load_tokenizer(folders["rerank"]),
    )
    with torch.no_grad():
        wanted = model(**tokenizer(reference["texts"][0], reference["texts"][2], return_tensors="pt")).logits
    assert float(wanted[0, 0]) == pytest.approx(reference["logits"][2], abs=1e-5)
    assert len({round(value, 6) for value in reference["logits"]}) == 3


def test_bits_per_byte_over_http_are_part_of_the_gate(folders):
    folder = folders["generate"]
    reference, tokenizer = read_json(folder / REFERENCE_FILE), models.load_tokenizer(folder)
    source, room = resolve(folder), reference["language"]["seq_len"] + 2
    check_server(Server(reference, tokenizer=tokenizer), source, "m", exact=True, room=room)
    held = read_json(folder / HTTP_FILE)["bits per byte"]
    assert (
        held["ok"] and held["limit"] == 1e-3 and held["served"] == pytest.approx(held["exported"], abs=1e-6)
    )
    for exact in (True, False):
        with pytest.raises(ServerError, match="bits per byte are not those that were exported: off by 0.002"):
            check_server(
                Server(reference, tokenizer=tokenizer, bits=0.002), source, "m", exact=exact, room=room
            )
    assert not read_json(folder / HTTP_FILE)["ok"]
    check_server(Server(reference, bits=9.0), source, "m", exact=True, room=room - 1)
    assert "bits per byte" not in read_json(folder / HTTP_FILE)


def test_after_a_near_tie_the_texts_may_part(folders):
    folder = folders["generate"]
    reference = read_json(folder / REFERENCE_FILE)
    check_server(Server(reference, flip=2), resolve(folder), "m", exact=True)
    with pytest.raises(ServerError):
        check_server(Server(reference, off=0.2, flip=2), resolve(folder), "m", exact=False)


def test_a_folder_without_reference_is_not_held_to_one(folders, tmp_path):
    plain = dataclasses.replace(resolve(folders["embed"]), folder=tmp_path)
    check_server(Server({}), plain, "m", exact=True)
    assert not (tmp_path / HTTP_FILE).exists()


def test_exact_means_float32_throughout(folders):
    launch = Launch(resolve(folders["generate"]), Hardware())
    assert launch.exact
    assert not dataclasses.replace(launch, extra=("--dtype=bfloat16",)).exact
    assert not dataclasses.replace(launch, hardware=Hardware(gpus=("H200",))).exact
