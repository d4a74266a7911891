"""Broken model folders: each works, as plain transformers has it, or is refused in a sentence that names its
place and the way out before anything trains; never a traceback, never a wrong result without a word."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from matrix_checks import check_vectors
from model_matrix import LENGTH, Lab
from soak import SHARE, count, soaked
from spoilt_folders import Spoilt, spoil
from spoilt_settings import FAULTS
from tiny_architectures import ARCHITECTURES

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.data.check import check
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.supervised import build_examples
from adaptkit.data.tokenizers import with_chat_template
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.recipe import distill
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.recipe import embed
from adaptkit.errors import AdaptkitError, ConfigError, DataError, ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import Capabilities, capabilities
from adaptkit.models.control_tokens import control_tokens, encode
from adaptkit.models.folder import Kind
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.serve.model_files import check_folder

NUM_FOLDERS = soaked(12, 500)
MOST_SECONDS = 90
USES = (Use.CONTINUE, Use.PROBE, Use.CLASSIFY, Use.LABEL_WORDS, Use.SFT, Use.EMBED, Use.DISTILL, Use.EXPORT)
TEXTS = ("the nurse reads the dose in room 7.", "a small model", "Two  blanks,\nand a line.")
CHATS = (
    [{"role": "user", "content": "which room?"}, {"role": "assistant", "content": "room seven"}],
    [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "which dose?"},
        {"role": "assistant", "content": "seven"},
        {"role": "user", "content": "of what?"},
        {"role": "assistant", "content": "samples"},
    ],
)
AUTO = {"causal": hf.AutoModelForCausalLM, "masked": hf.AutoModelForMaskedLM, "encoder": hf.AutoModel}


class WrongError(Exception):
    """Something that must not be: said to work and refused later, or another result than transformers'."""


@dataclass(frozen=True)
class Verdict:
    """What became of one folder: `works`, `ran`, or the sentence that it was refused in."""

    use: str
    outcome: str


def sentence(error: AdaptkitError, folder: Path, *, data: str = "") -> str:
    """The refusal, if it is one sentence with a place and a way out."""
    text = str(error)
    if not error.what or not error.where or not error.fix:
        raise WrongError(f"no place or way out: {text}")
    if str(folder) not in text and not (data and data in text):
        raise WrongError(f"names no file of the folder: {text}")
    if "Traceback" in text or len(text) > 1500 or "\n" in error.what.strip():
        raise WrongError(f"not one sentence: {text}")
    return error.what


def trained(lab: Lab, base: Capabilities, use: Use, adapter: str, number: int) -> Path:
    """The folder of a model that was trained for a step from this base."""
    name, folder = f"fuzz-{number}", json.dumps(str(base.folder))
    shutil.rmtree(lab.root / "runs" / name, ignore_errors=True)
    words = [f"base={folder}", f"adapter.kind={adapter}"]
    if use is Use.CONTINUE:
        objective = "causal" if base.form == "causal" else "masked"
        words += [f"objective={objective}", f"size.seq_len={LENGTH // 2}", f"data.files=[{lab.data('text')}]"]
        return lab.run(name, PretrainConfig, pretrain, [*words, "dev_fraction=0.1"]).model
    if use is Use.EMBED:
        words += [f"train.files=[{lab.data('pairs')}]"]
        return lab.run(name, EmbedConfig, embed, words).model
    if use is Use.DISTILL:
        words = [f"teacher={folder}", f"data.files=[{lab.data('text')}]", f"size.seq_len={LENGTH // 2}"]
        return lab.run(name, DistillConfig, distill, words).model
    kinds = {Use.CLASSIFY: "classify", Use.LABEL_WORDS: "label_words", Use.SFT: "sft"}
    rows = lab.data("chats" if use is Use.SFT else "labels")
    words += [f"kind={kinds[use]}", f"train.files=[{rows}]", f"test.files=[{rows}]", "max_new_tokens=2"]
    return lab.run(name, FinetuneConfig, finetune, words).model


def plain(folder: Path, kind: Kind) -> tuple[Any, list[str]]:
    """transformers' own model of a folder, and the weights that it drew at random."""
    config = hf.AutoConfig.from_pretrained(folder)
    config._attn_implementation, config.return_dict = "eager", True  # a folder may ask for others
    model, info = AUTO[kind].from_pretrained(
        folder, config=config, output_loading_info=True, dtype=torch.float32
    )
    lost = {name for name in info["missing_keys"] if "pooler" not in name}
    return model.eval(), sorted(map(str, [*lost, *info["mismatched_keys"]]))


def check_same_logits(folder: Path, kind: Kind) -> None:
    """What adaptkit loads gives the logits of transformers, and no weight of it is random."""
    try:
        ours = models.load(folder, kind).eval()
    except ModelError as error:
        raise WrongError(f"the table says that it works, and loading refuses it: {error}") from None
    theirs, lost = plain(folder, kind)
    if lost:
        raise WrongError(f"loaded with random weights: {lost[:3]}")
    rows = min(ours.get_input_embeddings().num_embeddings, theirs.get_input_embeddings().num_embeddings)
    ids = torch.arange(3, 11)[None] % rows
    with torch.no_grad():
        a, b = ours(input_ids=ids)[0], theirs(input_ids=ids, return_dict=True)[0]
    if not torch.allclose(a, b, rtol=1e-3, atol=1e-3):
        raise WrongError(f"other logits than transformers, by {float((a - b).abs().max()):.3g}")


def check_same_tokens(folder: Path, saved: Path | None = None) -> None:
    """Texts have the tokens that transformers gives them, before and after training."""
    theirs, own = hf.AutoTokenizer.from_pretrained(folder), models.load_tokenizer(saved or folder)
    wanted = [list(ids) for ids in theirs(list(TEXTS))["input_ids"]]
    for text, mine, right in zip(TEXTS, encode(own, list(TEXTS)), wanted, strict=True):
        controls = control_tokens(own)
        if not controls.spans(text):
            if mine != right:
                raise WrongError(f"other tokens than transformers for {text!r}: {mine}, {right}")
        elif controls.count(mine) > controls.count(encode(own, [""])[0]):  # those are text here
            raise WrongError(f"obeys a control token that is written in {text!r}: {mine}")


def check_same_chats(lab: Lab, folder: Path) -> None:
    """What is taught of a conversation holds its answer."""
    tokenizer = with_chat_template(models.load_tokenizer(folder))
    for row in read(DataConfig(files=[str(lab.data("chats"))]), "sft").rows[: len(CHATS)]:
        for example in build_examples(row, tokenizer):
            turns = row.values["messages"]
            taught = [
                token for token, is_taught in zip(example.ids, example.taught, strict=True) if is_taught
            ]
            text = tokenizer.decode(taught).lower().replace("\u0121", " ")  # a folder may have no decoder
            if not any(turn["content"] in text for turn in turns if turn["role"] == "assistant"):
                raise WrongError(f"teaches {text!r}")


def check_saved(lab: Lab, base: Capabilities, use: Use, saved: Path) -> None:
    if use in (Use.CONTINUE, Use.LABEL_WORDS, Use.SFT, Use.DISTILL):
        kind: Kind = models.model_kind(saved)
        check_same_logits(saved, kind)
    if use is Use.EMBED:
        controls = control_tokens(models.load_tokenizer(saved))  # sentence-transformers obeys them in texts
        check_vectors(saved, [text for text in TEXTS if not controls.spans(text)] or ["x"])
    elif use is not Use.SFT:
        check_same_tokens(base.folder, saved)


def judged(lab: Lab, folder: Path, rng: random.Random, number: int) -> Iterator[Verdict]:
    """What each question about a folder ends with.

    Raises: WrongError, or whatever a defect raises.
    """
    chats = lab.data("chats")
    try:
        check([DataConfig(files=[str(chats)])], tokenizer=str(folder))
    except AdaptkitError as error:
        yield Verdict("data check", sentence(error, folder, data=chats.name))
    else:
        yield Verdict("data check", "works")
    try:
        base = capabilities(folder, read_weights=True)
    except AdaptkitError as error:
        yield Verdict("any", sentence(error, folder))
        return
    uses = list(USES) if SHARE else rng.sample(USES, 2)
    adapter = rng.choice(("none", "none", "lora"))
    working = []
    for use in uses:
        refusal = base.why_not(use, AdapterConfig(kind=adapter))
        if refusal is not None:
            yield Verdict(use, sentence(refusal, folder))
        else:
            working.append(use)
            yield Verdict(use, "works")
    try:
        check_folder(folder)
    except AdaptkitError as error:
        yield Verdict("serve files", sentence(error, folder))
    if not working:
        return
    check_same_tokens(folder)
    if base.form in AUTO:
        whole = {Use.CONTINUE, Use.LABEL_WORDS, Use.SFT, Use.EXPORT, Use.PROBE} & set(working)
        check_same_logits(folder, base.form if whole else "encoder")
    if Use.SFT in working:
        try:
            check_same_chats(lab, folder)
        except DataError as error:
            yield Verdict("rows", sentence(error, folder, data=chats.name))
    use = rng.choice(working)
    try:
        if use is Use.PROBE:
            return
        if use is Use.EXPORT:
            out = lab.root / "exports" / f"fuzz-{number}"
            out.parent.mkdir(exist_ok=True)
            export(resolve(str(folder)), "fp32", Options(out=out))
            check_folder(out)
            yield Verdict(use, "ran")
            return
        saved = trained(lab, base, use, adapter, number)
    except (DataError, ConfigError) as error:
        yield Verdict(f"{use} of these rows", sentence(error, folder, data=str(lab.root)))
        return
    except AdaptkitError as error:
        if re.search("last-token pooling needs|cannot give back|are unknown to", error.what):
            yield Verdict(f"{use} of these rows", sentence(error, folder, data=str(error.where)))
            return
        raise WrongError(f"the table says that {use} works, and the run refuses: {error}") from None
    check_saved(lab, base, use, saved)
    yield Verdict(use, "ran")


def make_lab(root: Path) -> Lab:
    lab = Lab(root)
    rows = [
        {"messages": [*chat[:-1], {**chat[-1], "content": f"{chat[-1]['content']} {number}"}]}
        for number in range(12)
        for chat in CHATS
    ]
    lab.data("chats").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return lab


def spoilt_folder(lab: Lab, number: int, salt: str = "") -> tuple[Spoilt, random.Random, str]:
    rng = random.Random(f"{salt}{number}")
    name = rng.choice(list(ARCHITECTURES))
    target = lab.root / "spoilt" / f"{number}" / "model"
    target.parent.mkdir(parents=True, exist_ok=True)
    return spoil(rng, lab.folder(name), target, FAULTS), rng, name


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(_number: int, _frame: object) -> None:
        raise WrongError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_broken_folders_work_as_in_transformers_or_are_refused_in_a_sentence(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    wrong: list[str] = []
    for number in range(NUM_FOLDERS):
        spoilt, rng, name = spoilt_folder(lab, number)
        try:
            with limited(MOST_SECONDS):
                verdicts = list(judged(lab, spoilt.folder, rng, number))
        except Exception as error:
            wrong.append(f"{number} {name} {spoilt.faults}: {type(error).__name__}: {str(error)[:500]}")
            continue
        finally:
            shutil.rmtree(spoilt.folder.parent)
            shutil.rmtree(lab.root / "runs" / f"fuzz-{number}", ignore_errors=True)
        for outcome in ("works", "ran"):
            count(f"uses of them: {outcome}", sum(v.outcome == outcome for v in verdicts))
        count("uses of them: refused in a sentence", sum(v.outcome not in ("works", "ran") for v in verdicts))
    count("broken model folders", NUM_FOLDERS)
    assert not wrong, f"{len(wrong)} of {NUM_FOLDERS}:\n" + "\n".join(wrong)


def test_what_is_judged_is_not_always_refused_and_not_always_right(tmp_path: Path) -> None:
    """The fuzzer sees both: a sound folder works and trains, one without weights does neither."""
    lab = make_lab(tmp_path)
    sound = lab.folder("llama")
    assert {v.outcome for v in judged(lab, sound, random.Random(2), 0)} >= {"works", "ran"}
    (sound / "model.safetensors").unlink()
    outcomes = {v.use: v.outcome for v in judged(lab, sound, random.Random(2), 1)}
    assert outcomes.pop("data check") == "works", "it reads the tokenizer alone"
    assert outcomes and all("no weights in this folder" in outcome for outcome in outcomes.values())
