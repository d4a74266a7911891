"""The trainer's settings. Imports no torch: the command line reads schemas from here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from adaptkit.config import Config, Count, Magnitude, Share, Steps, in_unit


class TrainerConfig(Config):
    """How a model is trained; counts are of optimizer steps unless a unit is named."""

    COST_ONLY: ClassVar[frozenset[str]] = frozenset(
        {
            "microbatch_size",
            "compile",
            "cuda_graph",
            "gradient_checkpointing",
            "checkpoint_every",
            "checkpoint_minutes",
            "keep_checkpoints",
            "log_every",
            "implementation",
            "parallel",
            "threads",
            "report_to",
        }
    )
    """What may change when a run resumes: its cost and rounding change, not what it computes."""

    num_steps: Steps = Field(1000, gt=0)
    """Optimizer steps to take."""
    global_batch_size: Annotated[Count, in_unit("examples")] = Field(32, gt=0)
    """Examples per optimizer step, over all microbatches and ranks."""
    microbatch_size: Annotated[Count, in_unit("examples")] = 0
    """Examples per forward pass on one rank; 0 = all of the rank's share at once. Changes memory, not
    results."""
    learning_rate: Annotated[Magnitude, in_unit("none")] = Field(3e-4, gt=0, le=10)
    """Peak learning rate."""
    schedule: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warmup; wsd holds the peak, then falls over the last fifth."""
    warmup_fraction: Share = Field(0.05, lt=1)
    """Share of the steps that the learning rate rises linearly."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the last step, as a share of the peak."""
    weight_decay: Annotated[Magnitude, in_unit("per step, times the learning rate")] = Field(0.1, le=100)
    """Decoupled weight decay of matrices; vectors (norms, biases) are never decayed."""
    beta2: Annotated[Magnitude, in_unit("none")] = Field(0.95, gt=0, lt=1)
    """AdamW's decay rate of the second moment."""
    grad_clip: Annotated[Magnitude, in_unit("norm of the gradient")] = 1.0
    """Largest gradient norm; 0 = no clipping."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw is torch's fused one; adamw8bit is bitsandbytes', with a quarter of the optimizer memory."""
    ema_decay: Share = Field(0.0, lt=1)
    """Decay rate of an exponential average of the weights, which is then evaluated and kept; 0 = none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 on GPUs that have it and fp32 elsewhere. Weights stay as
    loaded."""
    compile: bool | Literal["auto"] = "auto"
    """Compile each repeated block (about a minute); auto does it on a GPU, for causal and masked language
    models, where the run is so long that it saves more than that."""
    cuda_graph: Literal["auto", "off"] = "auto"
    """Record a step of fixed shapes once and replay it, so that the host launches one thing and not a
    thousand; auto does it for causal and masked language models on one GPU, from 50 steps on. Keeps a step's
    memory for itself."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    eval_every: Steps = 0
    """Steps between evaluations; 0 = only at the end."""
    checkpoint_every: Steps = 0
    """Steps between checkpoints, beside those by time and the one at the end; 0 = none."""
    checkpoint_minutes: Annotated[Magnitude, in_unit("minutes")] = 10.0
    """Minutes between checkpoints; 0 = none by time. A run that is stopped by Ctrl-C or SIGTERM writes one
    after its step; a second signal ends it at once."""
    keep_checkpoints: Annotated[Count, in_unit("checkpoints")] = Field(2, gt=0)
    """Checkpoints kept on disk, newest first."""
    select: Literal["last", "best"] = "last"
    """Which weights the model ends with: those of the last step, or of the lowest evaluation loss."""
    log_every: Steps = Field(10, gt=0)
    """Steps between logged rows."""
    implementation: Literal["auto", "fused", "chunked", "reference"] = "auto"
    """Which implementation of the fused operators to use."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """How ranks share the work under torchrun; auto is ddp there and none elsewhere."""
    threads: Annotated[Count, in_unit("threads")] = Field(0, le=4096)
    """CPU threads of each process; 0 = as many as there are free cores."""
    report_to: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = []
    """Trackers that also receive the logged rows; metrics.jsonl is always written."""
    seed: Annotated[Count, in_unit("none")] = 0
    """Seed of data order, noise and dropout."""

    @model_validator(mode="after")
    def _whole_microbatches(self) -> TrainerConfig:
        if self.microbatch_size > self.global_batch_size:
            sizes = f"microbatch_size {self.microbatch_size} is larger than global_batch_size"
            raise ValueError(f"{sizes} {self.global_batch_size}")
        return self


C = TypeVar("C", bound=Config)


def with_trainer(config: C, **changed: Any) -> C:
    """A recipe's config with other settings of its `trainer`."""
    trainer = config.trainer.model_copy(update=changed)  # type: ignore[attr-defined]
    return config.model_copy(update={"trainer": trainer})
