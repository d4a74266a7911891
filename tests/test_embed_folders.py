"""Folders of every sort that sentence-transformers reads: the same vectors as its own encode, or a refusal by
name. Home of models.sentence.text_settings, models.sentence.text_tokens and
serve.engine.layout_check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_embed
from tokenizers import processors

from adaptkit import models
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder, closed_by_eos
from adaptkit.embed.recipe import embed
from adaptkit.errors import ModelError
from adaptkit.export.source import Source
from adaptkit.models.control_tokens import control_tokens
from adaptkit.models.sentence.layout import Layout, check_servable
from adaptkit.models.sentence.text_settings import ChatText
from adaptkit.run import Run, read_json, write_json
from adaptkit.serve.engine import layout_check

TEXTS = ["the engine reads", "One River", " two blanks  ", "<eos> written [SEP]", *tiny_embed.texts(3)]
TEXTS += [" ".join(tiny_embed.texts(12)), "winter?"]
PROMPTS = {"prompts": {"query": "Find: the ", "document": "", "other": "B: "}}
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %} end"
)
PARTS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'][0]['text'] }} end{% endfor %}"
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("plain")
    return {"bert": tiny_embed.bert(root / "bert"), "qwen": tiny_embed.qwen(root / "qwen")}


def folder_of(base: Path, folder: Path, pooling: dict[str, Any], *, normalised: bool = True) -> Path:
    """`base` with the files of sentence-transformers, written by hand."""
    shutil.copytree(base, folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | ({"2_Normalize": "Normalize"} if normalised else {})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, **pooling})
    write_json(folder / "2_Normalize/config.json", {})
    write_json(folder / "config_sentence_transformers.json", PROMPTS)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    return folder


def edit(path: Path, **changes: Any) -> None:
    write_json(path, {**(read_json(path) if path.exists() else {}), **changes})


def edit_tokenizer(folder: Path, change: Callable[[Any], None]) -> None:
    tokenizer = models.load_tokenizer(folder)
    change(tokenizer)
    tokenizer.save_pretrained(folder)


def end_with_pad(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {tokenizer.pad_token}", special_tokens=[(tokenizer.pad_token, tokenizer.pad_token_id)]
    )


def pad_left(tokenizer: Any) -> None:
    tokenizer.padding_side = "left"


LAST, MEAN = {"pooling_mode_lasttoken": True}, {"pooling_mode_mean_tokens": True}


def closing_token_of_its_own(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["qwen"], folder, LAST)
    edit_tokenizer(folder, end_with_pad)


def no_closing_token(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["qwen"], folder, LAST)


def left_padding(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["qwen"], folder, {"pooling_mode": ["cls", "lasttoken", "weightedmean"]})
    edit_tokenizer(folder, pad_left)


def closed_by_us(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["qwen"], folder, LAST)
    edit_tokenizer(folder, closed_by_eos)


def chat(base: dict[str, Path], folder: Path, template: str = CHAT, **options: Any) -> None:
    folder_of(base["qwen"], folder, LAST)
    edit_tokenizer(folder, lambda tokenizer: setattr(tokenizer, "chat_template", template))
    message = {**FORWARD, "format": "structured" if template == PARTS else "flat"}
    edit(
        folder / "sentence_bert_config.json",
        transformer_task="feature-extraction",
        modality_config={"text": FORWARD, "message": message},
        module_output_name="token_embeddings",
        **({"processing_kwargs": {"chat_template": options}} if options else {}),
    )


def chat_in_parts(base: dict[str, Path], folder: Path) -> None:
    chat(base, folder, PARTS)


def chat_with_opening(base: dict[str, Path], folder: Path) -> None:
    chat(base, folder, CHAT, add_generation_prompt=True)


def chat_cut_at_its_end(base: dict[str, Path], folder: Path) -> None:
    chat(base, folder, CHAT, restore_suffix=False)


def several_poolings(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, {**MEAN, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True})


def poolings_in_an_order(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, {"pooling_mode": ["mean_sqrt_len_tokens", "cls"]}, normalised=False)


def prompt_left_out(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, {**MEAN, "include_prompt": False})


def prompt_left_out_of_all(base: dict[str, Path], folder: Path) -> None:
    modes = ["cls", "weightedmean", "max", "lasttoken"]
    folder_of(base["qwen"], folder, {"pooling_mode": modes, "include_prompt": False})


def lower_case(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["qwen"], folder, MEAN)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)


def default_prompt(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, MEAN)
    edit(folder / "config_sentence_transformers.json", default_prompt_name="other")


def cut_by_the_folder(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, MEAN, normalised=False)
    edit(folder / "config_sentence_transformers.json", truncate_dim=12, similarity_fn_name="dot")


def length_of_the_tokenizer(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, MEAN)
    write_json(folder / "sentence_bert_config.json", {})
    edit_tokenizer(folder, lambda tokenizer: setattr(tokenizer, "model_max_length", 16))


def settings_of_older_releases(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, {})
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    (folder / "config_sentence_transformers.json").unlink()


SORTS = [
    closing_token_of_its_own,
    no_closing_token,
    left_padding,
    closed_by_us,
    chat,
    chat_in_parts,
    chat_with_opening,
    chat_cut_at_its_end,
    several_poolings,
    poolings_in_an_order,
    prompt_left_out,
    prompt_left_out_of_all,
    lower_case,
    default_prompt,
    cut_by_the_folder,
    length_of_the_tokenizer,
    settings_of_older_releases,
]


TRAINED = [closing_token_of_its_own, no_closing_token, chat_with_opening, several_poolings, prompt_left_out]


def prompts_with_a_token(base: dict[str, Path], folder: Path) -> None:
    folder_of(base["bert"], folder, MEAN)
    stated = folder / "config_sentence_transformers.json"
    write_json(stated, {"prompts": {"query": "<|masked|> "}, "default_prompt_name": "query"})


def their_encoder(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def assert_same(ours: Encoder, theirs: Any) -> None:
    names = [None, *ours.layout.prompts]
    for name in names:
        found = ours.encode(TEXTS, prompt=name)
        expected = theirs.encode(TEXTS, prompt_name=name, show_progress_bar=False)
        assert found.shape == expected.shape
        scale = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((found * expected).sum(1) / scale).min() > 0.99999, name


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.__name__)
def test_vectors_are_those_of_sentence_transformers(plain, tmp_path, sort):
    sort(plain, tmp_path / "base")
    ours = Encoder.load(tmp_path / "base")
    assert_same(ours, their_encoder(tmp_path / "base"))
    ours.save(tmp_path / "saved")
    assert_same(ours, their_encoder(tmp_path / "saved"))
    assert_same(Encoder.load(tmp_path / "saved"), their_encoder(tmp_path / "base"))


@pytest.mark.parametrize("sort", [*TRAINED, prompts_with_a_token], ids=lambda sort: sort.__name__)
def test_a_control_token_in_a_text_is_text_for_us_and_for_those_who_load_what_we_save(plain, tmp_path, sort):
    sort(plain, tmp_path / "base")
    encoder = Encoder.load(tmp_path / "base")
    tokenizer, words = encoder.tokenizer, encoder.layout.prompt(None)
    controls = control_tokens(tokenizer)
    [plain_ids] = encoder.tokens(["the engine reads"], words)
    spelling = [f"the {token} engine reads" for token in controls.contents.values()]
    encoded = encoder.tokens(spelling, words)
    assert {controls.count(ids) for ids in encoded} == {controls.count(plain_ids)}
    encoder.save(tmp_path / "saved")
    own = encoder.layout.chat is not None or sort is prompts_with_a_token
    theirs = models.load_tokenizer(tmp_path / "saved")
    if not own:
        assert theirs([words + text for text in spelling])["input_ids"] == encoded
    assert theirs.split_special_tokens != own
    assert Encoder.load(tmp_path / "saved").tokens(spelling, words) == encoded


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.__name__)
def test_what_sentence_transformers_saves_is_read_alike(plain, tmp_path, sort):
    sort(plain, tmp_path / "base")
    theirs = their_encoder(tmp_path / "base")
    theirs.save(str(tmp_path / "theirs"))
    assert_same(Encoder.load(tmp_path / "theirs"), theirs)
    assert Encoder.load(tmp_path / "theirs").tokens(TEXTS, "B: ") == Encoder.load(tmp_path / "base").tokens(
        TEXTS, "B: "
    )


@pytest.mark.parametrize("sort", TRAINED, ids=lambda sort: sort.__name__)
def test_a_training_run_gives_a_folder_with_the_encoding_it_was_trained_in(plain, tmp_path, sort):
    sort(plain, tmp_path / "base")
    tiny_embed.write(tmp_path / "pairs.jsonl", tiny_embed.pairs(24))
    config = EmbedConfig.model_validate(
        {
            "base": str(tmp_path / "base"),
            "train": {"files": [str(tmp_path / "pairs.jsonl")]},
            "max_length": 24,
            "trainer": {"num_steps": 2, "global_batch_size": 8, "learning_rate": 1e-3, "threads": 1},
        }
    )
    result = embed(config, Run.open(tmp_path / "runs", "embed", config.model_dump(mode="json")))
    before, after = Encoder.load(tmp_path / "base"), Encoder.load(result.model_folder)
    assert before.tokens(TEXTS, "Find: the ") == after.tokens(TEXTS, "Find: the ")
    assert after.layout.pooling == before.layout.pooling
    assert_same(after, their_encoder(result.model_folder))


def test_closing_texts_keeps_the_token_that_a_tokenizer_has(plain, tmp_path):
    shutil.copytree(plain["qwen"], tmp_path / "own")
    edit_tokenizer(tmp_path / "own", end_with_pad)
    tokenizer = models.load_tokenizer(tmp_path / "own")
    assert closed_by_eos(tokenizer)("a")["input_ids"][-1] == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"chat": ChatText()}, "chat template"),
        ({"pooling": "cls+mean"}, r"cls\+mean pooling"),
        ({"pooling": "max"}, "max pooling"),
        ({"include_prompt": False, "prompts": {"query": "find: "}}, "leaves prompts out"),
        ({"truncated": 16}, "cuts its vectors to 16"),
    ],
)
def test_what_a_server_would_do_otherwise_is_not_exported(changes, match):
    layout = Layout("mean", 64, 64)
    check_servable(layout, "here")
    check_servable(replace(layout, include_prompt=False, prompts={"document": ""}), "here")
    with pytest.raises(ModelError, match=match):
        check_servable(replace(layout, **changes), "here")


@pytest.mark.parametrize(
    ("file", "changes", "match"),
    [
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("sentence_bert_config.json", {"query_length": 8}, "query_length"),
        ("sentence_bert_config.json", {"brand_new": 1}, "brand_new"),
        ("sentence_bert_config.json", {"module_output_name": "sentence_embedding"}, "module_output_name"),
        ("sentence_bert_config.json", {"modality_config": {"image": FORWARD}}, "modality_config"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {**FORWARD, "method_output_name": "pooler_output"}}},
            "method_output_name",
        ),
        ("sentence_bert_config.json", {"modality_config": {"message": FORWARD}}, "chat template"),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"add_special_tokens": False}}},
            "processing_kwargs.text.add_special_tokens",
        ),
        (
            "sentence_bert_config.json",
            {"tokenizer_args": {"do_lower_case": True}},
            "tokenizer_args.do_lower_case",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pooling 'attention'"),
        ("1_Pooling/config.json", {"normalize_first": True}, "normalize_first"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, "maxsim"),
    ],
)
def test_settings_that_are_not_supported_are_refused_by_name(plain, tmp_path, file, changes, match):
    folder_of(plain["bert"], tmp_path / "odd", MEAN)
    edit(tmp_path / "odd" / file, **changes)
    with pytest.raises(ModelError, match=match):
        Encoder.load(tmp_path / "odd")


@pytest.mark.parametrize(
    ("module", "match"),
    [
        ({"path": "", "type": "custom_st.Transformer"}, "custom_st.Transformer"),
        ({"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}, "0_Transformer"),
        ({"path": "", "type": "sentence_transformers.models.Transformer", "kwargs": ["task"]}, "kwargs"),
        ({"path": "", "type": "sentence_transformers.models.Router"}, "Router"),
        ({"path": "", "type": "sentence_transformers.models.StaticEmbedding"}, "StaticEmbedding"),
    ],
)
def test_modules_that_are_not_supported_are_refused_by_name(plain, tmp_path, module, match):
    folder_of(plain["bert"], tmp_path / "odd", MEAN)
    modules = json.loads((tmp_path / "odd/modules.json").read_text())
    write_json(tmp_path / "odd/modules.json", [{**modules[0], **module}, *modules[1:]])
    with pytest.raises(ModelError, match=match):
        Encoder.load(tmp_path / "odd")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("normalised", [True, False])
def test_texts_are_ranked_by_the_similarity_of_the_folder_or_not_at_all(
    plain, tmp_path, similarity, normalised
):
    folder = folder_of(plain["bert"], tmp_path / "base", MEAN, normalised=normalised)
    edit(folder / "config_sentence_transformers.json", similarity_fn_name=similarity)
    ours, theirs = Encoder.load(folder), their_encoder(folder)
    try:
        vectors = ours.encode_to_rank(TEXTS)
    except ModelError as error:
        assert "compared by" in str(error) and similarity in ("euclidean", "manhattan")
        return
    states = theirs.encode(TEXTS, show_progress_bar=False)
    expected = theirs.similarity(states, states).numpy()
    found = vectors @ vectors.T
    assert all(
        np.argsort(-expected[i], kind="stable")[0] == np.argsort(-found[i], kind="stable")[0]
        and np.corrcoef(np.argsort(np.argsort(expected[i])), np.argsort(np.argsort(found[i])))[0, 1] > 0.99
        for i in range(len(TEXTS))
    )


def test_a_server_is_not_started_for_a_folder_that_it_would_answer_for_otherwise(plain, tmp_path):
    prompt_left_out(plain, tmp_path / "left")
    folder_of(plain["bert"], tmp_path / "mean", MEAN)
    chat(plain, tmp_path / "chat")
    several_poolings(plain, tmp_path / "several")
    sound = [tmp_path / "mean", plain["bert"], plain["qwen"]]
    assert layout_check.first_refusal(sound) is None
    for name, why in {"left": "leaves prompts out", "chat": "chat template", "several": "pooling"}.items():
        refusal = layout_check.first_refusal([*sound, tmp_path / name])
        assert refusal is not None and why in refusal.what and refusal.where == str(tmp_path / name)
    sources = [Source(folder, "embed", folder.name, "") for folder in (plain["bert"], tmp_path / "chat")]
    layout_check.check([replace(source, kind="generate") for source in sources])
    with pytest.raises(ModelError, match=r"(?s)chat template.*adaptkit embed"):
        layout_check.check(sources)
