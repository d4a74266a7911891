"""Ask an encoder's folder by the sentence-transformers library, as its users do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptkit.doctor import extras
from adaptkit.errors import ConfigError, ModelError, first_line
from adaptkit.export.quantise.compressed_tensors import rounded_layers
from adaptkit.export.verify.answer_changes import Given
from adaptkit.export.verify.record import ACTIVATIONS, Answer, AnswerKind, AnswerRecord, Precision, rounded
from adaptkit.model_gate import check_folder
from adaptkit.models.store import quiet

NOT_SHOWN = "sentence-transformers shows vectors and tokens"


def ask_sentence_transformers(folder: Path, record: AnswerRecord, precision: Precision = "float32") -> Given:
    """Ask a folder's vectors, with its own default prompt and with each prompt that the record names.

    Raises: ConfigError for a model of another kind; ModelError where the library cannot load the folder.
    """
    if record.kind != "embed":
        what = f"sentence-transformers encodes texts, and this model is of kind {record.kind}"
        raise ConfigError(what, where="--engine", fix="use --engine transformers")
    check_folder(folder)
    rounded_weights = bool(rounded_layers(folder))
    encoder = _load(folder, precision, rounded_weights=rounded_weights)
    vectors, tokens = [], []
    for stored in record.answers[AnswerKind.VECTORS]:
        options = {"prompt_name": stored.query} if stored.query else {}
        try:
            values = encoder.encode([stored.text], show_progress_bar=False, **options)[0].tolist()
        except ValueError:  # a prompt of this name is no longer there
            values = []
        vectors.append(Answer(text=stored.text, query=stored.query, values=rounded(values)))
    for stored in record.answers[AnswerKind.TOKENS]:
        ids = encoder.preprocess([stored.text])["input_ids"][0].tolist()
        tokens.append(Answer(text=stored.text, exact=tuple(ids)))
    answers = {AnswerKind.VECTORS: tuple(vectors), AnswerKind.TOKENS: tuple(tokens)}
    missing = {kind: NOT_SHOWN for kind in record.answers if kind not in answers}
    engine = f"sentence-transformers in {precision}"
    return Given(engine, answers, missing, precision, rounds_activations=ACTIVATIONS in record.noise)


def _load(folder: Path, precision: Precision, *, rounded_weights: bool) -> Any:
    from sentence_transformers import SentenceTransformer  # optional

    settings: dict[str, Any] = {"dtype": precision}
    if rounded_weights:
        extras.require("serve-cpu", ["compressed_tensors"], "a folder with rounded weights", str(folder))
        from transformers import CompressedTensorsConfig

        settings["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    try:
        with quiet():
            return SentenceTransformer(
                str(folder), device="cpu", trust_remote_code=False, model_kwargs=settings
            )
    except Exception as error:  # of whatever type the library meets first
        what = f"cannot be loaded: {first_line(error)}"
        raise ModelError(what, where=str(folder), fix="look into its files, or export it again") from None
