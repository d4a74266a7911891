"""Every architecture in every use: right, checked against other libraries, or refused in one sentence.

`python tests/model_matrix.py` runs all cells and writes docs/models.md; the test holds the page equal to it.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from matrix_checks import (
    check_adapter,
    check_answers,
    check_features,
    check_likelihoods,
    check_loads_as_saved,
    check_vectors,
)
from tiny_architectures import ARCHITECTURES, make_folder, make_tokenizers

from adaptkit import models
from adaptkit.compare.driver import compare
from adaptkit.config import Config, load
from adaptkit.data.readers import DataConfig, read
from adaptkit.distill import estimate
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.recipe import distill
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.recipe import embed
from adaptkit.errors import AdaptkitError
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.probe import probe_rows
from adaptkit.finetune.prompted_labels import prompt_rows
from adaptkit.finetune.recipe import finetune
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import capabilities
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run
from adaptkit.serve.model_files import check_folder
from adaptkit.study.config import StudyConfig

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
LENGTH = 48
STEPS = ["trainer.num_steps=2", "trainer.global_batch_size=4", "trainer.threads=1"]
RIGHT = "right"
_SUBJECTS = ("the engine", "a small model", "our patient", "the second trial")
_VERBS = ("reads", "improves", "forgets", "compares")
_OBJECTS = ("the dose", "a long report", "seven samples", "each answer")


@dataclass
class Lab:
    """Folders, data and runs of one matrix."""

    root: Path
    texts: list[str] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = random.Random(0)

        def sentence() -> str:
            words = " ".join(rng.choice(choices) for choices in (_SUBJECTS, _VERBS, _OBJECTS))
            return f"{words} in room {rng.randrange(100)}."

        self.texts = [" ".join(sentence() for _ in range(rng.randint(1, 3))) for _ in range(60)]
        labels = ["good" if "improves" in text else "bad" for text in self.texts[4:]]
        labels = ["good", "bad", "good", "bad", *labels]
        self._write("text", [{"text": text} for text in self.texts])
        self._write("labels", [{"text": t, "label": v} for t, v in zip(self.texts, labels, strict=True)])
        self._write("answers", [{"prompt": f"{t[:20]}?", "completion": "yes"} for t in self.texts])
        self._write("pairs", [{"anchor": t.split(".")[0], "positive": t} for t in self.texts])
        self.tokenizers = make_tokenizers(self.texts)

    def folder(self, name: str) -> Path:
        """The model of an architecture, made when it is first asked for."""
        if name not in self.folders:
            self.folders[name] = make_folder(name, self.tokenizers, self.root / "models")
        return self.folders[name]

    def data(self, name: str) -> Path:
        return self.root / f"{name}.jsonl"

    def run(self, name: str, schema: type[Config], recipe: Callable[..., Any], words: list[str]) -> Run:
        """The finished run of a recipe; one that is refused must have left no step behind."""
        config: Any = load(schema, overrides=words + STEPS).config
        run = Run.open(self.root / "runs" / name, config.name, config.model_dump(mode="json"))
        try:
            recipe(config, run)
        except AdaptkitError:
            assert not run.metrics_path.exists(), "refused after training had begun"
            raise
        return run

    def _write(self, name: str, rows: list[dict[str, str]]) -> None:
        self.data(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def objective_of(name: str) -> str:
    return "causal" if ARCHITECTURES[name].vocabulary == "causal" else "masked"


def continued(lab: Lab, name: str, adapter: str = "none") -> None:
    words = [f"base={lab.folder(name)}", f"objective={objective_of(name)}", f"size.seq_len={LENGTH}"]
    words += [f"data.files=[{lab.data('text')}]", "dev_fraction=0.1", f"adapter.kind={adapter}"]
    run = lab.run(f"{name}-continued-{adapter}", PretrainConfig, pretrain, words)
    check_loads_as_saved(run.model, ARCHITECTURES[name].head)


def tuned(lab: Lab, name: str, kind: str, adapter: str = "none") -> None:
    rows = lab.data("answers" if kind == "sft" else "labels")
    words = [f"base={lab.folder(name)}", f"kind={kind}", f"train.files=[{rows}]", f"test.files=[{rows}]"]
    words += [f"max_length={LENGTH}", "max_new_tokens=4", f"adapter.kind={adapter}"]
    run = lab.run(f"{name}-{kind}-{adapter}", FinetuneConfig, finetune, words)
    if kind == "classify":
        check_loads_as_saved(run.model, hf.AutoModelForSequenceClassification)
        check_answers(run, lab.texts, LENGTH)
    else:
        check_loads_as_saved(run.model, hf.AutoModelForCausalLM)
    if adapter == "lora":
        check_adapter(run, lab.folder(name), kind == "classify")


def prompted(lab: Lab, name: str) -> None:
    folder = lab.folder(name)
    base = capabilities(folder)
    base.check(Use.PROMPT)
    model, tokenizer = models.load(folder, models.model_kind(folder)), models.load_tokenizer(folder)
    data = read(DataConfig(files=[str(lab.data("labels"))]), "labelled")
    parts = [data.with_rows(data.rows[a:b]) for a, b in ((0, 36), (36, 40), (40, 44))]
    rows = prompt_rows(model, tokenizer, *parts, label_names=data.labels, trials=3).rows
    assert all(np.isfinite(list(row["probabilities"].values())).all() for row in rows)
    check_likelihoods(model, tokenizer)


def probed(lab: Lab, name: str) -> None:
    folder = lab.folder(name)
    capabilities(folder).check(Use.PROBE)
    model, tokenizer = models.load(folder, models.model_kind(folder)), models.load_tokenizer(folder)
    data = read(DataConfig(files=[str(lab.data("labels"))]), "labelled")
    parts = [data.with_rows(data.rows[a:b]) for a, b in ((0, 40), (40, 50), (50, 60))]
    probe_rows(model, tokenizer, *parts, data.labels, trials=1)
    check_features(model, tokenizer, folder, lab.texts[:3])


def embedded(lab: Lab, name: str, loss: str = "infonce", adapter: str = "none") -> None:
    rows = lab.data("text" if loss == "tsdae" else "pairs")
    words = [f"base={lab.folder(name)}", f"max_length={LENGTH}", f"train.files=[{rows}]", f"loss={loss}"]
    run = lab.run(f"{name}-{loss}-{adapter}", EmbedConfig, embed, [*words, f"adapter.kind={adapter}"])
    check_vectors(run.model, lab.texts[:6])


def distilled(lab: Lab, name: str) -> None:
    words = [f"teacher={lab.folder(name)}", f"data.files=[{lab.data('text')}]", f"size.seq_len={LENGTH}"]
    run = lab.run(f"{name}-distilled", DistillConfig, distill, words)
    check_loads_as_saved(run.model, ARCHITECTURES[name].head)
    assert hf.AutoConfig.from_pretrained(run.model).num_hidden_layers == 1


def taught_by(lab: Lab, name: str) -> None:
    """A new student of another architecture, which the model teaches word by word and block by block."""
    words = [f"teacher={lab.folder(name)}", f"data.files=[{lab.data('text')}]", "student.start=fresh"]
    words += ["losses={forward_kl: 1, hidden: 1}", "size.params=400k", f"size.seq_len={LENGTH}"]
    planned = estimate.plan(load(DistillConfig, overrides=words).config)
    assert planned["flops"] > 0 and planned["teacher"]["params"] > 0
    run = lab.run(f"{name}-taught", DistillConfig, distill, words)
    check_loads_as_saved(run.model, ARCHITECTURES[name].head)


def exported(lab: Lab, name: str) -> None:
    out = lab.root / "exports" / name
    out.parent.mkdir(exist_ok=True)
    export(resolve(str(lab.folder(name))), "fp32", Options(out=out))
    check_folder(out)


def served(lab: Lab, name: str) -> None:
    folder = lab.folder(name)
    capabilities(folder).check(Use.SERVE)
    check_folder(folder)


COLUMNS: dict[str, Callable[[Lab, str], None]] = {
    "continued": continued,
    "continued-lora": lambda lab, name: continued(lab, name, "lora"),
    "prompt": prompted,
    "probe": probed,
    "lora": lambda lab, name: tuned(lab, name, "classify", "lora"),
    "qlora": lambda lab, name: tuned(lab, name, "classify", "qlora"),
    "full": lambda lab, name: tuned(lab, name, "classify"),
    "label_words": lambda lab, name: tuned(lab, name, "label_words", "lora"),
    "sft": lambda lab, name: tuned(lab, name, "sft"),
    "sft qlora": lambda lab, name: tuned(lab, name, "sft", "qlora"),
    "embed": embedded,
    "embed lora": lambda lab, name: embedded(lab, name, adapter="lora"),
    "embed tsdae": lambda lab, name: embedded(lab, name, loss="tsdae"),
    "distill": distilled,
    "teach": taught_by,
    "export": exported,
    "serve": served,
}


def cell(lab: Lab, name: str, column: str) -> str:
    """`right`, the sentence of a refusal, or `unexpected` with anything else that was raised."""
    try:
        COLUMNS[column](lab, name)
    except AdaptkitError as error:
        return error.what
    except Exception as error:  # so that one run of the matrix names all of its defects
        return f"unexpected {type(error).__name__}: {error}"
    return RIGHT


def planned(lab: Lab, name: str) -> dict[str, str]:
    """The arms of a dry run: each `right`, or why it is left out; all alike where the base is refused."""
    text = f"[{lab.data('text')}]"
    words = ["name=s", f"base={lab.folder(name)}", f"size.seq_len={LENGTH}", "size.params=700k", "seeds=2"]
    words += [f"domain.train.files={text}", f"general.train.files={text}", "budget.amount=1e14"]
    words += ["budget.unit=flops", f"tasks=[{{name: t, train: {{files: [{lab.data('labels')}]}}}}]"]
    plan: Any = compare(load(StudyConfig, overrides=words).config, lab.root / "studies", dry_run=True)
    arms = {row["arm"]: RIGHT for row in plan["arms"]}
    return {**arms, **{row["arm"]: row["reason"] for row in plan["left_out"]}}


def matrix(lab: Lab) -> dict[str, dict[str, str]]:
    return {name: {column: cell(lab, name, column) for column in COLUMNS} for name in ARCHITECTURES}


def page(cells: dict[str, dict[str, str]]) -> str:
    """The page of the documentation."""
    reasons: list[str] = []
    rows = []
    for name, outcomes in cells.items():
        shown = []
        for outcome in outcomes.values():
            if outcome != RIGHT and outcome not in reasons:
                reasons.append(outcome)
            shown.append("yes" if outcome == RIGHT else f"({reasons.index(outcome) + 1})")
        rows.append(f"| {name} | {' | '.join(shown)} |")
    header = f"| architecture | {' | '.join(COLUMNS)} |"
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(
        [_INTRODUCTION, header, "|---" * (len(COLUMNS) + 1) + "|", *rows, "", _NOTES, *notes, ""]
    )


_INTRODUCTION = """# Models

What each architecture of transformers can be used for. `yes`: a tiny random model was trained, saved and
checked against transformers, peft or sentence-transformers. A number: the command refuses before anything
trains, in the sentence below the table. Other architectures are asked in the same way, at the start of every
command: a small random copy of the model tries what the command needs. `distill`: a student of its own
blocks; `teach`: a new student of another shape. Where documents packed into one row would see each other
(Bloom, Falcon, gpt-oss, Mamba, LFM2), training and teaching take rows of one document each.

Any model folder is refused that holds quantised weights, an adapter beside whole weights, the weights of two
models, values that are no numbers, or a tokenizer with tokens that the model has no row for, or that lacks
weights that a use needs; for answers, one whose chat template writes no question with its answer. Lengths end
at the positions that a model can use: RoBERTa's 514 are 512, and ALiBi, T5 and recurrent models have no end.

This table is written by `python tests/model_matrix.py`.
"""
_NOTES = "Why not:\n"

if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = matrix(Lab(Path(scratch)))
    PAGE.write_text(page(outcomes), encoding="utf-8")
    counts = [outcome == RIGHT for row in outcomes.values() for outcome in row.values()]
    print(f"{sum(counts)} cells right, {len(counts) - sum(counts)} refused", file=sys.stderr)
