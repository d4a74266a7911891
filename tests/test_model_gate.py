"""Hostile model folders: each is refused in one sentence, by the gate itself and by what asks it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_served import LLAMA, write_complete, write_weights

from adaptkit import folder_trial, model_gate
from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.export.resolve import resolve
from adaptkit.models import find

SECONDS = 60
"""For a machine that does much else; each takes less than a second of its own."""
WORDS = {"a": 0, "b": 1, "!": 2, "[UNK]": 3}
TOKENIZER = {"version": "1.0", "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_complete(tmp_path / "model")


def _index(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))


def _index_of_a_pickle(folder: Path) -> None:
    (folder / "w.bin").write_bytes(b"x")
    _index(folder, "w.bin")


def _index_upwards(folder: Path) -> None:
    write_weights(folder.parent / "x.safetensors")
    _index(folder, "../x.safetensors")


def _index_absolute(folder: Path) -> None:
    write_weights(folder.parent / "x.safetensors")
    _index(folder, str(folder.parent / "x.safetensors"))


def _index_of_a_link(folder: Path) -> None:
    write_weights(folder.parent / "x.safetensors")
    (folder / "w.safetensors").symlink_to(folder.parent / "x.safetensors")
    _index(folder, "w.safetensors")


def _index_of_a_subfolder(folder: Path) -> None:
    (folder / "deep").mkdir()
    write_weights(folder / "deep" / "x.safetensors")
    _index(folder, "deep/x.safetensors")


def _pipe(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    spoil.__name__ = f"_pipe_{name}"
    return spoil


def _socket(folder: Path) -> None:
    before = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("merges.txt")
    finally:
        os.chdir(before)


def _device(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")


def _link_in_a_circle(folder: Path) -> None:
    (folder / "merges.txt").symlink_to("merges.txt")


def _config(**settings: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({**LLAMA, **settings}))

    spoil.__name__ = "_" + "_".join(settings)
    return spoil


def _large_config(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(200 * 2**20)


def _deep_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 50_000 + "1" + "}" * 50_000)


def _module(path: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        module = {"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.Pooling"}
        (folder / "modules.json").write_text(json.dumps([module]))

    return spoil


def _linked_module(folder: Path) -> None:
    (folder.parent / "1_Pooling").mkdir()
    (folder / "1_Pooling").symlink_to(folder.parent / "1_Pooling")
    _module("1_Pooling")(folder)


def _template(text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return spoil


def _template_among_settings(folder: Path) -> None:
    named = [{"name": "default", "template": "{{ 'a' * 10**10 }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))


def _tokenizer(**parts: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps({**TOKENIZER, **parts}))

    return spoil


def _large_tokenizer(folder: Path) -> None:
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(300 * 2**20)


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
PADDING = {
    "strategy": {"Fixed": 10**10},
    "direction": "Right",
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "a",
}
BACKTRACKING = {
    "type": "Split",
    "pattern": {"Regex": r"((a+)+)+\1$|(\w+\w+)+\W\W$"},
    "behavior": "Isolated",
    "invert": False,
}
HOSTILE = {
    "index names a pickle": (_index_of_a_pickle, "no safetensors"),
    "index leads upwards": (_index_upwards, "outside the folder"),
    "index is absolute": (_index_absolute, "outside the folder"),
    "index names a link": (_index_of_a_link, "leads out"),
    "index names a subfolder": (_index_of_a_subfolder, "outside the folder"),
    "config is a pipe": (_pipe("config.json"), "a named pipe"),
    "weights are a pipe": (_pipe("model.safetensors"), "a named pipe"),
    "an adapter is a pipe": (_pipe("adapter_config.json"), "a named pipe"),
    "a vocabulary is a socket": (_socket, "a socket"),
    "config is a device": (_device, "leads out|a device"),
    "a link in a circle": (_link_in_a_circle, "leads nowhere"),
    "a billion layers": (_config(num_hidden_layers=10**9), "num_hidden_layers is 1,000,000,000"),
    "layers as a float": (_config(num_hidden_layers=1e9), "num_hidden_layers is"),
    "a width of 2^40": (_config(hidden_size=2**40), "hidden_size is 1,099,511,627,776"),
    "a negative width": (_config(hidden_size=-64), "hidden_size is -64"),
    "no width": (_config(hidden_size=0), "hidden_size is 0"),
    "a width in words": (_config(hidden_size="wide"), "must be a number"),
    "negative layers": (_config(num_hidden_layers=-1), "num_hidden_layers is -1"),
    "a huge inner width": (_config(text_config={"intermediate_size": 2**40}), "intermediate_size is"),
    "a number of 4000 digits": (_config(vocab_size=10**4000), "vocab_size is a number of more"),
    "architectures as a dict": (_config(architectures={"a": 1}), "architectures is a dict"),
    "quantisation as a list": (_config(quantization_config=[1]), "quantization_config is a list"),
    "a config of 200 MB": (_large_config, "has 200 MiB"),
    "a deep config": (_deep_config, "not readable as JSON|too deeply"),
    "a module leads upwards": (_module("../other"), "outside the folder"),
    "a module is absolute": (_module("/etc"), "outside the folder"),
    "a module of a number": (_module(7), "without a path"),
    "a module is a link": (_linked_module, "leads out"),
    "a template loops": (
        _template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"),
        "chat template takes more than",
    ),
    "a template doubles": (
        _template(
            "{% set n = namespace(x='ab') %}"
            "{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
        ),
        "of memory|takes more than",
    ),
    "a template writes on": (
        _template(
            "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'aaaaaaaa' }}{% endfor %}{% endfor %}"
        ),
        "writes more than",
    ),
    "a template for many turns alone": (
        _template("{% if messages|length > 8 %}{{ 'a' * 10**10 }}{% endif %}"),
        "of memory",
    ),
    "a template among settings": (_template_among_settings, "of memory"),
    "a template of a megabyte": (_template("a" * 2**20), "a chat template of"),
    "a tokenizer of 300 MB": (_large_tokenizer, "has 300 MiB"),
    "a tokenizer that doubles": (
        _tokenizer(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 40}),
        "the tokenizer",
    ),
    "a tokenizer that pads": (_tokenizer(padding=PADDING), "the tokenizer"),
    "a tokenizer that backtracks": (_tokenizer(pre_tokenizer=BACKTRACKING), "the tokenizer"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_in_a_sentence(folder: Path, name: str) -> None:
    spoil, sentence = HOSTILE[name]
    spoil(folder)
    start = time.monotonic()
    with pytest.raises(ModelError, match=sentence) as refused:
        model_gate.check_folder(folder)
    assert refused.value.where and refused.value.fix
    assert "\n" not in refused.value.what and len(refused.value.what) < 500
    for asking in (find, resolve):  # base, teacher, encoder; export and serve
        with pytest.raises(AdaptkitError):
            asking(folder)
    assert time.monotonic() - start < SECONDS


def test_usual_folders_pass(folder: Path) -> None:
    for spoil in (
        _config(max_position_embeddings=2**20, head_dim=64, time_step_limit=[0.0, float("inf")]),
        _template("{% for m in messages %}{{ '<' + m['role'] + '>' + m.content | trim }}{% endfor %}"),
        _tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated"}),
        _module("1_Pooling"),
    ):
        spoil(folder)
        model_gate.check_folder(folder)
    for name in ("pytorch_model.bin", "train_script.py"):  # adaptkit reads neither, and a server might
        (folder / name).write_bytes(b"x")
    model_gate.check_folder(folder)
    with pytest.raises(ModelError, match="pickle|code"):
        model_gate.check_folder(folder, for_server=True)


def test_a_folder_is_judged_again_when_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_gate.check_folder(folder)
    with monkeypatch.context() as patch:
        patch.setattr(model_gate, "check_numbers", lambda *_: pytest.fail("judged again"))
        model_gate.check_folder(folder)
    _config(hidden_size=-1)(folder)
    with pytest.raises(ModelError):
        model_gate.check_folder(folder)


def test_what_is_plain_is_not_tried(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(folder_trial, "_tried", lambda *_: pytest.fail("tried"))
    _tokenizer(normalizer={"type": "NFC"}, pre_tokenizer={"type": "Whitespace"})(folder)
    _template("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}")(folder)
    model_gate.check_folder(folder)
