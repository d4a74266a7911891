"""How many planted faults `adaptkit verify` finds, and how often it raises a false alarm.

    python benchmarks/verify_faults.py --out benchmarks/results/verify_faults.json

Tiny models with random weights of every kind are exported as fp32, bf16 and int8. Each fault changes a copy
of an export as a wrong merge, a lost file or another library would; each control is an untouched export,
asked in another precision, with other kernels, from other shards, by another library, or held against its
own export in another format. A control may end in `same` or in `cannot tell`, never in `changed`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as token_models

from adaptkit import models
from adaptkit.environment import environment
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.export.verify.answer_changes import Verdict
from adaptkit.export.verify.driver import Verification, verify_folder, verify_upgrade
from adaptkit.export.verify.sentence_answers import ask_sentence_transformers
from adaptkit.export.verify.upgrade import ask_folder
from adaptkit.models.sentence.layout import Layout, write_layout
from adaptkit.run import read_json, write_json

FORMATS = ("fp32", "bf16", "int8")
LENGTH, CUT = 160, 48
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
PROMPTS = {"query": "find: ", "document": "text: "}
LABELS = ("billing", "login", "printer", "other")
WORDS = "the patient report of a new button was read by seven nurses and the committee in room"


def tokenizer_of(texts: list[str], *, encoder: bool, vocab_size: int = 420) -> Any:
    """A byte-level BPE that puts BOS first, or CLS and SEP around one text or two."""
    from transformers import PreTrainedTokenizerFast

    first, last = ("[CLS]", "[SEP]") if encoder else ("<s>", "</s>")
    core = Tokenizer(token_models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[first, last, "[PAD]"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    single, pair = f"{first} $A", f"{first} $A $B"
    if encoder:
        single, pair = f"{first} $A {last}", f"{first} $A {last} $B:1 {last}:1"
    core.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(first, 0), (last, 1)]
    )
    names: dict[str, Any] = {"bos_token": first, "eos_token": last}
    if encoder:
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        names = {"cls_token": first, "sep_token": last, "model_input_names": inputs}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", model_max_length=LENGTH, **names
    )
    if not encoder:
        tokenizer.chat_template = CHAT
    return tokenizer


def write_sources(root: Path, seed: int = 0) -> dict[str, Path]:
    """A random model of each kind: two generators, an encoder, two classifiers, a reranker, a tagger."""
    from transformers import BertConfig, LlamaConfig, Qwen3Config

    texts = [f"{WORDS} {number}." for number in range(60)]
    writer, reader = (tokenizer_of(texts, encoder=encoder) for encoder in (False, True))
    sizes = {**SIZES, "max_position_embeddings": LENGTH, "initializer_range": 0.15}
    causal = {**sizes, "vocab_size": len(writer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    bert = {**sizes, "vocab_size": len(reader), "pad_token_id": 2}
    names = dict(enumerate(LABELS))
    labelled = {**bert, "id2label": names, "label2id": {name: place for place, name in names.items()}}
    made: dict[str, tuple[str, Any]] = {
        "writer": (
            "causal",
            LlamaConfig(**causal, num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=rope),
        ),
        "untied": ("causal", Qwen3Config(**causal, head_dim=16, num_key_value_heads=2)),
        "vectors": ("encoder", BertConfig(**bert)),
        "classes": ("classifier", BertConfig(**labelled)),
        "sets": ("classifier", BertConfig(**labelled, problem_type="multi_label_classification")),
        "pairs": ("classifier", BertConfig(**bert, num_labels=1)),
        "tags": ("tagger", BertConfig(**labelled)),
    }
    for name, (kind, config) in made.items():
        tokenizer = writer if kind == "causal" else reader
        model = models.build(config, kind, seed=seed)
        with torch.no_grad():  # a bias of zero everywhere cannot be lost
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
                    parameter += 0.05 * noise
        models.save(model, tokenizer, root / name)
    layout = Layout("mean", CUT, LENGTH, prompts=PROMPTS, default_prompt="query")
    write_layout(root / "vectors", layout, SIZES["hidden_size"])
    return {name: root / name for name in made}


# ---- faults: each changes a copy of an export


def edit_json(folder: Path, name: str, **changes: Any) -> None:
    """Set keys of a JSON file; None takes a key out."""
    content = read_json(folder / name)
    kept = {key: value for key, value in {**content, **changes}.items() if value is not None}
    write_json(folder / name, kept)


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of the one weights file."""
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"}
    )


def scaled(pattern: str, factor: float) -> Callable[[Path], None]:
    """Weights, or the scales of rounded ones, times a factor."""

    def plant(folder: Path) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            chosen = [name for name in tensors if pattern in name and tensors[name].is_floating_point()]
            assert chosen, pattern
            for name in chosen:
                tensors[name] = (tensors[name].float() * factor).to(tensors[name].dtype)

        edit_tensors(folder, change)

    return plant


def coarser(folder: Path) -> None:
    """Store the next coarser precision: bfloat16 for float32, 8 bits for the rest."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype == torch.float32:
                tensors[name] = tensor.bfloat16()
            elif tensor.dtype == torch.bfloat16 and not name.endswith("_scale"):
                tensors[name] = tensor.to(torch.float8_e4m3fn).bfloat16()

    edit_tensors(folder, change)


def rounded_embeddings(folder: Path) -> None:
    """Round the embeddings to 8 bits, which no export does."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if "embed" in name and tensors[name].dim() == 2)
        weight = tensors[name].float()
        step = weight.abs().amax(1, keepdim=True) / 127
        tensors[name] = ((weight / step).round() * step).to(tensors[name].dtype)

    edit_tensors(folder, change)


def swapped(one: str, other: str) -> Callable[[Path], None]:
    """Tensors of two layers in each other's place."""

    def plant(folder: Path) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            for name in [name for name in tensors if one in name]:
                pair = name.replace(one, other)
                tensors[name], tensors[pair] = tensors[pair].clone(), tensors[name].clone()

        edit_tensors(folder, change)

    return plant


def rows_swapped(pattern: str) -> Callable[[Path], None]:
    """The first two rows of a matrix in each other's place."""

    def plant(folder: Path) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            for name in [name for name in tensors if pattern in name]:
                order = torch.arange(len(tensors[name]))
                order[:2] = torch.tensor([1, 0])
                tensors[name] = tensors[name][order]

        edit_tensors(folder, change)

    return plant


def head_lost(folder: Path) -> None:
    """A tied head becomes one of its own, with other weights."""
    edit_json(folder, "config.json", tie_word_embeddings=False)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        embeddings = tensors["model.embed_tokens.weight"]
        noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(5))
        tensors["lm_head.weight"] = (0.15 * noise).to(embeddings.dtype)

    edit_tensors(folder, change)


def token_forgotten(folder: Path) -> None:
    """The embedding of one token is drawn anew, as after a wrong resize."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        embeddings = tensors["model.embed_tokens.weight"]
        embeddings[300] = embeddings.float().mean(0).to(embeddings.dtype)
        embeddings[72] = embeddings[300]

    edit_tensors(folder, change)


def token_core(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change tokenizer.json."""
    core = read_json(folder / "tokenizer.json")
    change(core)
    write_json(folder / "tokenizer.json", core)


def bos_twice(folder: Path) -> None:
    def change(core: dict[str, Any]) -> None:
        single = core["post_processor"]["single"]
        single.insert(0, json.loads(json.dumps(single[0])))

    token_core(folder, change)


def bos_lost(folder: Path) -> None:
    token_core(
        folder, lambda core: core["post_processor"].update(single=core["post_processor"]["single"][1:])
    )


def ids_swapped(folder: Path) -> None:
    def change(core: dict[str, Any]) -> None:
        vocabulary = core["model"]["vocab"]
        vocabulary["t"], vocabulary["e"] = vocabulary["e"], vocabulary["t"]

    token_core(folder, change)


def merge_lost(folder: Path) -> None:
    token_core(folder, lambda core: core["model"]["merges"].pop(0))


def one_type(folder: Path) -> None:
    """The second text of a pair is no longer told from the first."""

    def change(core: dict[str, Any]) -> None:
        for piece in core["post_processor"]["pair"]:
            next(iter(piece.values()))["type_id"] = 0

    token_core(folder, change)


def separator_lost(folder: Path) -> None:
    token_core(folder, lambda core: core["post_processor"]["pair"].pop(2))


def stale_tokenizer(folder: Path) -> None:
    encoder = "cls_token" in read_json(folder / "tokenizer_config.json")
    other = tokenizer_of([f"Quite other words, {n} of them." for n in range(50)], encoder=encoder)
    other.save_pretrained(folder)


def template(change: Callable[[str], str | None]) -> Callable[[Path], None]:
    """Another chat template, wherever the folder keeps it."""

    def plant(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        text = change(path.read_text())
        if text is None:
            path.unlink()
        else:
            path.write_text(text)

    return plant


def rope(**changes: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        settings = read_json(folder / "config.json")["rope_parameters"]
        edit_json(folder, "config.json", rope_parameters={**settings, **changes})

    return plant


def config(name: str = "config.json", **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, name, **changes)


def pooling(mode: str) -> Callable[[Path], None]:
    flags = {"pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    return lambda folder: edit_json(folder, "1_Pooling/config.json", **flags)


def not_normalised(folder: Path) -> None:
    modules = [
        entry for entry in read_json(folder / "modules.json") if not entry["type"].endswith("Normalize")
    ]
    write_json(folder / "modules.json", modules)


def labels_renamed(folder: Path) -> None:
    names = dict(enumerate((LABELS[1], LABELS[0], *LABELS[2:])))
    edit_json(folder, "config.json", id2label=names, label2id={name: place for place, name in names.items()})


def end_of_text(token: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        edit_json(folder, "generation_config.json", eos_token_id=token)
        edit_json(folder, "config.json", eos_token_id=token)

    return plant


SENTENCES = "config_sentence_transformers.json"
FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "chat template loses its last words": ("writer", template(lambda text: text.replace("assistant:", ""))),
    "chat template puts a blank less": (
        "writer",
        template(lambda text: text.replace("'] }}: {{", "'] }}:{{")),
    ),
    "chat template lost": ("writer", template(lambda text: None)),
    "beginning of a text twice": ("writer", bos_twice),
    "beginning of a text lost": ("writer", bos_lost),
    "stale tokenizer": ("writer", stale_tokenizer),
    "stale tokenizer of an encoder": ("vectors", stale_tokenizer),
    "two tokens in each other's place": ("untied", ids_swapped),
    "a merge of the tokenizer lost": ("classes", merge_lost),
    "scaled positions left out": ("writer", rope(rope_type="default", factor=1.0)),
    "positions scaled by another factor": ("writer", rope(factor=2.0)),
    "another base of the positions": ("untied", rope(rope_theta=500000.0)),
    "wrong end of a text": ("writer", end_of_text(77)),
    "a second end of a text": ("writer", end_of_text([1, 77])),
    "no end of a text in the generation config": ("untied", end_of_text(0)),
    "a penalty slipped into the generation config": (
        "writer",
        config("generation_config.json", repetition_penalty=1.8),
    ),
    "tied head lost": ("writer", head_lost),
    "another epsilon in the norms": ("writer", config(rms_norm_eps=1e-3)),
    "weights stored more coarsely": ("writer", coarser),
    "an encoder stored more coarsely": ("vectors", coarser),
    "a classifier stored more coarsely": ("classes", coarser),
    "embeddings rounded to 8 bits": ("writer", rounded_embeddings),
    "an encoder's embeddings rounded to 8 bits": ("vectors", rounded_embeddings),
    "two layers in each other's place": ("writer", swapped("layers.0.", "layers.1.")),
    "two layers of an encoder in each other's place": ("vectors", swapped("layer.0.", "layer.1.")),
    "another activation": ("writer", config(hidden_act="gelu")),
    "another activation of an encoder": ("vectors", config(hidden_act="relu")),
    "one projection 2 % larger": ("untied", scaled("layers.1.mlp.down_proj.", 1.02)),
    "the last norm 0.5 % larger": ("writer", scaled("model.norm.", 1.005)),
    "a token's embedding forgotten": ("writer", token_forgotten),
    "window halved": ("writer", config("tokenizer_config.json", model_max_length=LENGTH // 2)),
    "padded on the other side": ("untied", config("tokenizer_config.json", padding_side="left")),
    "first token instead of the mean": ("vectors", pooling("cls_token")),
    "largest instead of the mean": ("vectors", pooling("max_tokens")),
    "normalisation dropped": ("vectors", not_normalised),
    "prompts dropped": ("vectors", config(SENTENCES, prompts={}, default_prompt_name=None)),
    "another prompt where none is named": ("vectors", config(SENTENCES, default_prompt_name="document")),
    "words of a prompt changed": ("vectors", config(SENTENCES, prompts={**PROMPTS, "document": "passage: "})),
    "texts cut earlier": ("vectors", config("sentence_bert_config.json", max_seq_length=CUT // 2)),
    "texts cut later": ("vectors", config("sentence_bert_config.json", max_seq_length=2 * CUT)),
    "texts cut on the other side": ("vectors", config("tokenizer_config.json", truncation_side="left")),
    "texts of a classifier cut on the other side": (
        "classes",
        config("tokenizer_config.json", truncation_side="left"),
    ),
    "lower case": ("vectors", config("sentence_bert_config.json", do_lower_case=True)),
    "vectors cut": ("vectors", config(SENTENCES, truncate_dim=32)),
    "another similarity": ("vectors", config(SENTENCES, similarity_fn_name="dot")),
    "names of labels in another order": ("classes", labels_renamed),
    "rows of a head in another order": ("classes", rows_swapped("classifier.")),
    "one of several classes instead of a set": ("sets", config(problem_type="single_label_classification")),
    "a set instead of one of several classes": ("classes", config(problem_type="multi_label_classification")),
    "bias of a head lost": ("classes", scaled("classifier.bias", 0.0)),
    "bias of a tagger's head lost": ("tags", scaled("classifier.bias", 0.0)),
    "names of tags in another order": ("tags", labels_renamed),
    "texts of a tagger cut earlier": ("tags", config("tokenizer_config.json", model_max_length=CUT)),
    "query and document no longer told apart": ("pairs", one_type),
    "separator between query and document lost": ("pairs", separator_lost),
    "relevance turned round": ("pairs", scaled("classifier.", -1.0)),
    "another epsilon in an encoder's norms": ("vectors", config(layer_norm_eps=1e-5)),
}
"""Name -> the model that it is planted in, and what changes a copy of its export."""


# ---- merges: the source is made wrongly, and exported like any other


def write_adapted(base: Path, folder: Path, *, times: float, seed: int = 7) -> Path:
    """A model with a low-rank change of its attention merged `times` over."""
    model, tokenizer = models.load(base, "causal"), models.load_tokenizer(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "self_attn" in name and weight.dim() == 2:
                rows, columns = weight.shape
                left, right = (torch.randn(size, 2, generator=generator) for size in (rows, columns))
                weight += times * 0.02 * left @ right.T
    models.save(model, tokenizer, folder)
    return folder


MERGES: dict[str, tuple[str, float, int]] = {
    "merged over the wrong base": ("other", 1.0, 7),
    "adapter not merged": ("base", 0.0, 7),
    "adapter merged at half its scale": ("base", 0.5, 7),
    "adapter merged twice": ("base", 2.0, 7),
    "another adapter merged": ("base", 1.0, 8),
}
"""Name -> which base, how often the adapter is merged, and which adapter."""


# ---- the count


@dataclass(frozen=True)
class Trial:
    """One copy that was verified.

    Attributes:
        by: the kinds of answer that say changed.
    """

    name: str
    format: str
    engine: str
    verdict: str
    by: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def export_to(source: Path, format: str, out: Path) -> Path:
    """Export a random model, whatever the rounding costs it."""
    return export(resolve(source), format, Options(out=out, max_loss_bpb=50.0, max_loss_score=1.0)).folder


def trial(name: str, format: str, engine: str, result: Verification) -> Trial:
    changed = tuple(str(kind.kind) for kind in result.results if kind.verdict is Verdict.CHANGED)
    unclear = tuple(str(kind.kind) for kind in result.results if kind.verdict is Verdict.CANNOT_TELL)
    return Trial(name, format, engine, str(result.verdict), changed, unclear)


def by_transformers(folder: Path, precision: Any = "float32") -> Verification:
    return verify_folder(folder, lambda record: ask_folder(folder, record, precision))


def by_sentence_transformers(folder: Path) -> Verification:
    return verify_folder(folder, lambda record: ask_sentence_transformers(folder, record))


def planted(exports: dict[tuple[str, str], Path], scratch: Path) -> list[Trial]:
    """Plant every fault in one format after the other, and verify each copy."""
    trials = []
    for number, (name, (model, plant)) in enumerate(FAULTS.items()):
        format = FORMATS[number % len(FORMATS)]
        copy = scratch / "copy"
        shutil.copytree(exports[model, format], copy)
        plant(copy)
        trials.append(trial(name, format, "transformers", by_transformers(copy)))
        if model == "vectors" and number % 2:
            trials.append(trial(name, format, "sentence-transformers", by_sentence_transformers(copy)))
        shutil.rmtree(copy)
        print(f"{number + 1} of {len(FAULTS)}: {trials[-1].verdict:<12} {name} ({format})", flush=True)
    return trials


def merged_wrongly(sources: dict[str, Path], scratch: Path) -> list[Trial]:
    """Merge adapters wrongly, export the result, and hold it against the right export's answers."""
    bases = {"base": sources["writer"], "other": write_sources(scratch / "others", seed=1)["writer"]}
    right = write_adapted(bases["base"], scratch / "right", times=1.0)
    trials = []
    for format in FORMATS:
        good = export_to(right, format, scratch / f"good-{format}")
        for name, (base, times, seed) in MERGES.items():
            wrong = write_adapted(bases[base], scratch / "wrong", times=times, seed=seed)
            bad = export_to(wrong, format, scratch / "bad")
            trials.append(trial(name, format, "old and new", verify_upgrade(good, bad)))
            shutil.rmtree(wrong)
            shutil.rmtree(bad)
    return trials


def resharded(folder: Path, copy: Path) -> Path:
    """The same weights in several files."""
    shutil.copytree(folder, copy)
    (path,) = copy.glob("*.safetensors")
    tensors = sorted(load_file(path).items())
    path.unlink()
    names, half = {}, len(tensors) // 2
    for number, part in enumerate((tensors[:half], tensors[half:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(dict(part), copy / file, metadata={"format": "pt"})
        names |= {name: file for name, _ in part}
    size = sum(tensor.nbytes for _, tensor in tensors)
    index = {"metadata": {"total_size": size}, "weight_map": names}
    write_json(copy / "model.safetensors.index.json", index)
    return copy


def untouched(exports: dict[tuple[str, str], Path], scratch: Path) -> list[Trial]:
    """Verify exports that nothing was done to, in every way that must not matter."""
    trials = []
    for (model, format), folder in exports.items():
        trials.append(trial(model, format, "transformers, 2 threads", by_transformers(folder)))
        trials.append(trial(model, format, "transformers in bfloat16", by_transformers(folder, "bfloat16")))
        if model == "vectors":
            result = by_sentence_transformers(folder)
            trials.append(trial(model, format, "sentence-transformers", result))
        if model in ("writer", "vectors"):
            copy = resharded(folder, scratch / "sharded")
            trials.append(trial(model, format, "transformers, from two files", by_transformers(copy)))
            shutil.rmtree(copy)
        if format != "fp32":
            result = verify_upgrade(exports[model, "fp32"], folder)
            trials.append(trial(model, f"fp32 and {format}", "old and new", result))
    return trials


def main() -> None:
    """Plant, verify, count, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="verify-faults-") as name:
        root = Path(name)
        torch.set_num_threads(1)
        sources = write_sources(root / "sources")
        exports = {
            (model, format): export_to(folder, format, root / "exports" / f"{model}-{format}")
            for model, folder in sources.items()
            for format in FORMATS
        }
        faults = planted(exports, root) + merged_wrongly(sources, root)
        torch.set_num_threads(2)
        controls = untouched(exports, root)
    missed = [each for each in faults if each.verdict != Verdict.CHANGED]
    alarms = [each for each in controls if each.verdict == Verdict.CHANGED]
    machine = environment()
    write_json(
        arguments.out,
        {
            "command": f"python benchmarks/verify_faults.py --out {arguments.out}",
            "faults": len(faults),
            "found": len(faults) - len(missed),
            "controls": len(controls),
            "false_alarms": len(alarms),
            "cannot_tell": sum(each.verdict == Verdict.CANNOT_TELL for each in controls),
            "seconds": round(time.monotonic() - started),
            "versions": machine["versions"],
            "missed": [dataclasses.asdict(each) for each in missed],
            "alarms": [dataclasses.asdict(each) for each in alarms],
            "planted": [dataclasses.asdict(each) for each in faults],
            "untouched": [dataclasses.asdict(each) for each in controls],
        },
    )
    print(f"{len(faults) - len(missed)} of {len(faults)} faults found")
    print(f"{len(alarms)} false alarms in {len(controls)} untouched exports")


if __name__ == "__main__":
    main()
