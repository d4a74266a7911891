"""A real `adaptkit serve` over vLLM for many tests: tiny random models, and the running server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from fake_study import LABELS

from adaptkit import adapters, models
from adaptkit.adapters import AdapterConfig
from adaptkit.client.openai import Client
from adaptkit.serve.address import free_port

KEY = "a-key-of-the-tests-0123456789"
LENGTH = 128
START_S = 900.0  # several starts of vLLM on a busy machine
PROMPTS = {"query": "search for: ", "passage": "a page says: "}
CHAT = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def tokenizer_of(texts: list[str], encoder: bool = False) -> Any:
    """A byte-level BPE that puts BOS first, or CLS and SEP around."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    first, last = ("[CLS]", "[SEP]") if encoder else ("<s>", "</s>")
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [first, last, "[PAD]"]
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    single, pair = (
        (f"{first} $A {last}", f"{first} $A {last} $B:1 {last}:1")
        if encoder
        else (f"{first} $A", f"{first} $A $B")
    )
    made.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(first, 0), (last, 1)]
    )
    names = {"cls_token": first, "sep_token": last} if encoder else {"bos_token": first, "eos_token": last}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", model_max_length=LENGTH, **names
    )
    if not encoder:
        tokenizer.chat_template = CHAT
    return tokenizer


def write_models(folder: Path, texts: list[str]) -> None:
    """A Llama with a LoRA adapter of its own, and three BERTs (mean pooling, five classes, relevance), all
    with random weights."""
    from transformers import BertConfig, BertModel, LlamaConfig

    writer = tokenizer_of(texts)
    shape = LlamaConfig(
        vocab_size=len(writer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    model = models.build(shape, "causal", seed=0)
    models.save(model, writer, folder / "writer")
    tuned = adapters.attach(model, AdapterConfig(kind="lora", rank=4), seed=0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    adapters.save_adapter(tuned, folder / "tuned", base=str(folder / "writer"))
    reader = tokenizer_of(texts, encoder=True)
    small = {
        "vocab_size": len(reader),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": LENGTH,
        "pad_token_id": 2,
    }
    torch.manual_seed(0)
    models.save(BertModel(BertConfig(**small)), reader, folder / "vectors")
    (folder / "vectors" / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {
                    "idx": 2,
                    "name": "2",
                    "path": "2_Normalize",
                    "type": "sentence_transformers.models.Normalize",
                },
            ]
        )
    )
    (folder / "vectors" / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
    (folder / "vectors" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "vectors" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH}))
    (folder / "vectors" / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    names = dict(enumerate(LABELS))
    classes = BertConfig(**small, id2label=names, label2id={name: i for i, name in names.items()})
    models.save(models.build(classes, "classifier", seed=0), reader, folder / "classes")
    pairs = BertConfig(**small, num_labels=1, initializer_range=0.2)
    models.save(models.build(pairs, "classifier", seed=0), reader, folder / "pairs")


def write_index(folder: Path, texts: list[str]) -> None:
    """An index of some texts by `vectors`, with words."""
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.encoding import encode_files
    from adaptkit.embed.index_writing import build

    rows = [{"id": f"d{i}", "text": text, "even": i % 2 == 0} for i, text in enumerate(texts[:20])]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = Encoder.load(folder / "vectors")
    prompt = encoder.layout.prompt_if_any("document")
    made = encode_files(encoder, [str(folder / "texts.jsonl")], folder / "encoding", prompt=prompt)
    build(made, folder / "index", words=True)


def command_of(process: psutil.Process) -> list[str]:
    """The words that a process was started with; a fork shows them as one."""
    return " ".join(process.cmdline()).split()


@dataclass
class Served:
    """A running `adaptkit serve`; `logs` holds what its children wrote."""

    process: subprocess.Popen
    folder: Path
    client: Client
    http: httpx.Client

    @property
    def url(self) -> str:
        return self.client.base_url

    @property
    def log(self) -> Path:
        return self.folder / "serve.log"

    @property
    def logs(self) -> Path:
        return self.folder / "state" / "adaptkit" / "logs"

    def post(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        fields = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **(headers or {})}
        return self.http.post(self.url + path, headers=fields, **options)

    def fronts(self) -> list[psutil.Process]:
        """The front process of each model, however it was started; its command line names the model."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in family if "--port" in command_of(process)]

    def key_of(self, front: psutil.Process) -> str:
        """The key that a model's process and the gateway share; forks show that of their origin."""
        family = [front, *front.children(recursive=True)]
        keys = [process.environ().get("ADAPTKIT_API_KEY") for process in family]
        return next(key for key in keys if key)

    def wait_healthy(self) -> None:
        until = time.monotonic() + START_S
        while not self.client.healthy():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.5)


@contextmanager
def serving(folder: Path, texts: list[str], more: Sequence[str] = ()) -> Iterator[Served]:
    """`adaptkit serve` over the models of `write_models` and the index of `write_index`, ready.

    Args:
        more: further models, as on the command line.
    """
    write_models(folder, texts)
    write_index(folder, texts)
    (folder / "key").write_text(KEY)
    (folder / "key").chmod(0o600)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "adaptkit",
        "serve",
        "writer",
        "tuned=tuned",
        "vectors",
        "classes",
        "pairs",
        *more,
    ]
    command += ["--port", str(port), "--key-file", "key", "--index", "index"]
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(folder / "state"),
        "ADAPTKIT_LIMIT_COMPILE_SECONDS": "5",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    with Client(f"http://127.0.0.1:{port}", KEY) as client, httpx.Client(timeout=120) as http:
        made = Served(process, folder, client, http)
        try:
            made.wait_healthy()
            yield made
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
