"""Model folders as data: what runs code, unpickles, leads out or is cut is refused."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from tiny_served import LLAMA, write_complete, write_weights

from adaptkit.errors import ModelError
from adaptkit.serve.model_files import check_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_complete(tmp_path / "model")


def _pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.")


def _code(folder: Path) -> None:
    (folder / "modeling_x.py").write_text("raise SystemExit")


def _hidden_code(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.so").write_bytes(b"")


def _auto_map(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**LLAMA, "auto_map": {"AutoModel": "x.Y"}}))


def _inner_auto_map(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"a": [{"auto_map": {"AutoTokenizer": "x.Y"}}]}))


def _attention(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**LLAMA, "_attn_implementation_internal": "evil/repo"}))


def _link(folder: Path) -> None:
    (folder / "extra.txt").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    (folder / "sub").symlink_to("/etc")


def _shard_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "../x.safetensors"}})
    )


def _shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "model-1.safetensors"}})
    )


def _sharded(folder: Path, weight_map: dict[str, str] | None = None) -> None:
    """Two shards with an index, and no whole file."""
    (folder / "model.safetensors").unlink()
    for place in "12":
        write_weights(folder / f"model-{place}.safetensors", {f"w{place}": 4})
    named = weight_map or {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))


def _whole_beside_shards(folder: Path) -> None:
    _sharded(folder)
    write_weights(folder / "model.safetensors")


def _orphan_shard(folder: Path) -> None:
    _sharded(folder)
    write_weights(folder / "model-3.safetensors")


def _shards_without_index(folder: Path) -> None:
    write_weights(folder / "model-00001-of-00002.safetensors")


def _consolidated(folder: Path) -> None:
    write_weights(folder / "consolidated.safetensors")


def _adapter_beside_weights(folder: Path) -> None:
    write_weights(folder / "adapter_model.safetensors")


def _index_names_no_such_tensor(folder: Path) -> None:
    _sharded(folder, {"w1": "model-1.safetensors", "w2": "model-2.safetensors", "w9": "model-2.safetensors"})


def _tensor_in_another_shard(folder: Path) -> None:
    _sharded(folder, {"w1": "model-2.safetensors", "w2": "model-1.safetensors"})


def _tensor_twice(folder: Path) -> None:
    _sharded(folder)
    write_weights(folder / "model-2.safetensors", {"w1": 4, "w2": 4})


def _empty_index(folder: Path) -> None:
    _sharded(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')


def _huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _longer(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"PK\x03\x04")


def _odd_header(folder: Path) -> None:
    text = b'{"w": [1, 2]}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _deep_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text("[" * 100_000)


def _no_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


BAD = {
    _pickle: "pickle",
    _code: "holds no code",
    _hidden_code: "holds no code",
    _auto_map: "'auto_map'",
    _inner_auto_map: "'auto_map'",
    _attention: "_attn_implementation_internal",
    _link: "leads out",
    _linked_folder: "leads out",
    _shard_outside: "outside",
    _shard_missing: "1 of 1 weight files are missing",
    _whole_beside_shards: "which does not name it: the weights of two models",
    _orphan_shard: "holds model-3.safetensors, which",
    _shards_without_index: "beside model.safetensors, and vLLM would load both",
    _consolidated: "consolidated.safetensors beside",
    _adapter_beside_weights: "adapter_model.safetensors beside",
    _index_names_no_such_tensor: "names w9 in model-2.safetensors, which does not hold it",
    _tensor_in_another_shard: "which does not hold it",
    _tensor_twice: "model-2.safetensors holds w1, which the index does not name there",
    _empty_index: "names no weights",
    _huge_header: "no safetensors",
    _cut: "cut",
    _longer: "header tells",
    _odd_header: "no safetensors",
    _no_weights: "no weights",
    _no_tokenizer: "no tokenizer",
    _broken_tokenizer: "not readable",
    _deep_config: "not readable",
    _no_architecture: "names no architecture",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_folder_that_runs_code_or_is_broken_is_refused(
    folder: Path, spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spoil(folder)
    with pytest.raises(ModelError, match=BAD[spoil]) as refused:
        check_folder(folder)
    assert refused.value.where and refused.value.fix
    assert not Path("canary").exists()


def test_whole_shards_are_fine(folder: Path) -> None:
    _sharded(folder)
    check_folder(folder)
    (folder / "original").mkdir()
    write_weights(folder / "original" / "consolidated.safetensors")
    check_folder(folder)  # nobody looks into it


def test_links_within_the_folder_and_the_hubs_cache_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "copy.txt").symlink_to("config.json")
    check_folder(folder)
    snapshot = tmp_path / "hub" / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "hub" / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        (blobs / path.name).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / path.name, snapshot))
    check_folder(snapshot)
    (snapshot / "more.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out"):
        check_folder(snapshot)
