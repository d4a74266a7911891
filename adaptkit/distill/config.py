"""The settings of a distillation. Imports no torch: the command line reads the schema from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.config import Config, Count, Magnitude, Share, in_unit, places, refuse_credentials
from adaptkit.data.readers import DataConfig
from adaptkit.trainer.config import TrainerConfig

Loss = Literal[
    "cross_entropy",
    "forward_kl",
    "reverse_kl",
    "jsd",
    "hidden",
    "attention",
    "replacing",
    "replacing_constant",
    "on_policy",
    "cosine",
    "mse",
    "margin",
]
OFFLINE = ("cross_entropy", "forward_kl", "reverse_kl", "jsd")
LOOK_INSIDE: tuple[Loss, ...] = ("hidden", "attention", "replacing", "replacing_constant")
"""Losses that look at the blocks of teacher and student."""
FROM_TEACHER = ("every", "last", "search")
"""Starts of a student that are blocks of its teacher."""


class StudentConfig(Config):
    """What the student is before it learns."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"start"})

    start: str = "every"
    """The teacher's blocks evenly spaced (`every`), its `last` ones, or those that matter most to the loss
    (`search`); `fresh` for random weights of the shape that `size` gives; or the folder of a model to start
    from as it is."""
    layers: Annotated[Count, in_unit("blocks")] = 0
    """Blocks to keep; 0 = half of the teacher's."""
    width: Annotated[Count, in_unit("hidden units")] = 0
    """Hidden size to prune to, by activations on `data`; a multiple of 128 (of 32 below 256); 0 = the
    teacher's."""
    vocab_size: Annotated[Count, in_unit("vocabulary entries")] = 0
    """Tokens to prune the vocabulary to, the most frequent in `data`; 0 = all of the teacher's."""

    def own_places(self) -> frozenset[str]:
        """Without a start that is no folder."""
        return frozenset() if self.start in (*FROM_TEACHER, "fresh") else super().own_places()


class DistillConfig(Config):
    """One distillation."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"teacher"})

    name: str = "distill"
    """Name of the run, and the first part of its folder's."""
    teacher: str
    """HF folder or hub id of a causal or masked language model, a classifier or an embedding model; or, for a
    student that starts from a folder, the http(s) address of an OpenAI-compatible server: of its first model
    that writes text, or of the one named at its end (http://host:port/v1/models/NAME)."""
    signal: Literal["online", "int8", "nf4", "offline", "text"] = "online"
    """How the teacher speaks: beside the student (in 8 or 4 bits with int8, nf4), `offline` through its 64
    largest log-probabilities per token written once, or by the `text` it writes, which asks for no common
    tokenizer."""
    losses: Annotated[dict[Loss, Magnitude], in_unit("weight of each loss")] = {
        "forward_kl": 0.9,
        "cross_entropy": 0.1,
    }
    """Losses and their weights. reverse_kl and on_policy together are GKD's mixture of the data and the
    student's own text."""
    temperature: Annotated[Magnitude, in_unit("none")] = Field(1.0, gt=0, le=1000)
    """Softens both distributions of forward_kl, reverse_kl and jsd."""
    beta: Share = Field(0.5, gt=0, lt=1)
    """The teacher's share of the mixture in jsd."""
    student: StudentConfig = StudentConfig()
    """Where the student starts."""
    adapter: AdapterConfig = AdapterConfig()
    """All of the student's weights learn, or a low-rank update of what it starts as."""
    data: DataConfig
    """What it learns on: text, or labelled rows for a classifier; for `signal: text` the teacher goes on
    where a quarter ends."""
    dev: DataConfig | None = None
    """Rows to measure on; a tenth of `data` if not given."""
    test: DataConfig | None = None
    """Labelled rows that are only scored."""
    size: SizeConfig = SizeConfig()
    """Row length of any student (longer texts are cut), and the shape of a `fresh` one."""
    trainer: TrainerConfig = TrainerConfig()
    """The training loop."""

    @model_validator(mode="before")
    @classmethod
    def _text_is_learnt_as_it_is(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("signal") == "text":
            return {"losses": {"cross_entropy": 1.0}, **values}
        return values

    @field_validator("teacher")
    @classmethod
    def _no_secret_in_the_address(cls, teacher: str) -> str:
        if teacher.startswith(("http://", "https://")):
            refuse_credentials(teacher, where="teacher", fix="give the key in OPENAI_API_KEY")
        return teacher

    @model_validator(mode="after")
    def _losses_go_together(self) -> DistillConfig:
        if not self.losses or not all(weight > 0 for weight in self.losses.values()):
            raise ValueError("losses needs at least one loss, and weights above 0")
        if {"replacing", "replacing_constant"} <= self.losses.keys():
            raise ValueError("replacing and replacing_constant exclude each other")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_training(self) -> DistillConfig:
        if inside := [name for name in LOOK_INSIDE if name in self.losses]:
            name = inside[0]
            if self.signal not in ("online", "int8", "nf4"):
                raise ValueError(f"{name} looks into the teacher, so signal must be online, int8 or nf4")
            if self.trainer.compile is True:
                what = f"{name} looks into blocks as they run, not into compiled ones"
                raise ValueError(f"{what}: set trainer.compile=false")
            if self.trainer.gradient_checkpointing:
                raise ValueError(f"{name} cannot be recomputed: set trainer.gradient_checkpointing=false")
        if "on_policy" in self.losses and self.trainer.parallel == "fsdp":
            what = "on_policy writes as long as each rank likes, and sharded weights need all ranks each time"
            raise ValueError(f"{what}: set trainer.parallel=ddp")
        return self

    @model_validator(mode="after")
    def _student_fits_the_teacher(self) -> DistillConfig:
        start = self.student.start
        if self.served and (start in (*FROM_TEACHER, "fresh") or self.signal not in ("offline", "text")):
            fix = "name a folder as student.start, and signal offline or text"
            raise ValueError(f"a served teacher has no weights here: {fix}")
        if self.adapter.kind != "none" and start == "fresh":
            what = "an adapter turns what a model knows, and fresh weights know nothing"
            raise ValueError(f"{what}: set adapter.kind=none")
        if start not in FROM_TEACHER and any(
            (self.student.layers, self.student.width, self.student.vocab_size)
        ):
            what = "student.layers, width and vocab_size prune the teacher"
            raise ValueError(f"{what}: set student.start to every, last or search")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_signal(self) -> DistillConfig:
        if self.signal == "text" and self.losses.keys() != {"cross_entropy"}:
            what = "the teacher's text has no distribution beside it"
            raise ValueError(f"{what}: with signal=text, losses is cross_entropy alone")
        if self.signal == "offline":
            if self.served and self.temperature != 1:
                raise ValueError("a server gives log-probabilities at temperature 1 only: set temperature=1")
            if unfit := [name for name in self.losses if name not in OFFLINE]:
                fix = f"with signal=offline choose from {', '.join(OFFLINE)}"
                raise ValueError(f"{unfit[0]} needs the teacher itself: {fix}")
        return self

    @property
    def quantization(self) -> Literal["int8", "nf4"] | None:
        """What the teacher's weights are kept in."""
        if self.signal in ("int8", "nf4"):
            return self.signal
        return None

    @property
    def served(self) -> bool:
        """Whether the teacher is an address."""
        return self.teacher.startswith(("http://", "https://"))

    @property
    def student_base(self) -> str:
        """What the student's weights are at first: the teacher's, those of a folder, or random (empty)."""
        start = self.student.start
        if start in FROM_TEACHER:
            return self.teacher
        if start == "fresh":
            return ""
        return start

    def own_places(self) -> frozenset[str]:
        """Without a teacher that is an address."""
        return frozenset() if self.served else super().own_places()

    def folders(self) -> dict[str, str]:
        """Models that the run depends on: dotted key -> folder or hub id."""
        return {key: value for key, value in places(self).items() if not key.endswith(".files")}

    @property
    def model_name(self) -> str:
        """The teacher's name without its place, for messages and cards."""
        if self.served:
            return self.teacher
        return Path(self.teacher).name
