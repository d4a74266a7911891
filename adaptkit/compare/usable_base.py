"""What a study can do with its base, before anything is measured: the whole study, and each arm of it."""

from __future__ import annotations

from adaptkit.compare.build_stages import scores_text
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import WRITES, Capabilities, capabilities
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.config import StudyConfig


def check_base(config: StudyConfig) -> Capabilities | None:
    """The base's capabilities; None for one that the study makes itself.

    Raises: ModelError for a base that no arm can start from, or whose text cannot be scored, and for
        `rag.encoder` where it encodes nothing.
    """
    if config.rag is not None and config.rag.encoder:
        capabilities(config.rag.encoder, read_weights=True).check(Use.EMBED)
    if not config.base:
        return None
    base = capabilities(config.base, read_weights=True)
    if scores_text(config):
        base.check(Use.SCORE)
    elif base.broken is not None or base.quantised or base.without_row:
        base.check(Use.PROBE)
    return base


def why_base_cannot(config: StudyConfig, base: Capabilities | None, arm: Arm) -> str:
    """Why the base gives no start to an arm on any task: a sentence, or nothing where it does."""
    if base is None:
        return ""
    if arm.origin.keeps_training:
        extends = arm.origin is Origin.CONTINUED_VOCABULARY
        if extends and base.form == "encoder":
            return "the base has no masked-language-model head, which new vocabulary is learnt by"
        use = Use.EXTEND if extends else Use.CONTINUE
        refusal = base.why_not(use, config.adapter_on_text(arm.origin))
        if refusal is not None:
            return _sentence(refusal.what, refusal.fix)
    if arm.origin is Origin.DISTILLED and (refusal := base.why_not(Use.DISTILL)):
        return _sentence(refusal.what, refusal.fix)
    reasons = why_not_on(config, base, arm)
    return next(iter(reasons.values()), "") if len(reasons) == len(config.tasks_of(arm)) else ""


def why_not_on(config: StudyConfig, base: Capabilities | None, arm: Arm) -> dict[str, str]:
    """The tasks that an arm cannot learn here, of those that it could on another base: task -> why."""
    if base is None or arm.adaptation is None or arm.origin is Origin.API:
        return {}
    own_shape = arm.origin.starts_random or arm.origin is Origin.DISTILLED
    adapter = config.adapter_of(arm.adaptation) if arm.adaptation.trains else None
    reasons = {}
    for task in config.tasks_of(arm):
        use = task.task_kind.use(arm.adaptation)
        if own_shape and use in WRITES and base.form != "causal":
            reasons[task.name] = f"it is a {base.form} model like the base, and {use} needs a causal one"
        elif not own_shape and (refusal := base.why_not(use, adapter)):
            reasons[task.name] = _sentence(refusal.what, refusal.fix)
    return reasons


def _sentence(what: str, fix: str | None) -> str:
    return f"the base {what}" if fix is None else f"the base {what}: {fix}"
