"""What a study can do with its base, before anything is measured: the whole study, and each arm of it."""

from __future__ import annotations

from adaptkit.adapters import AdapterConfig
from adaptkit.compare.build_stages import scores_text
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import Capabilities, capabilities
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
    """Why the base gives no start to an arm: a sentence, or nothing where it does."""
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
    others = arm.origin.starts_random or arm.origin in (Origin.DISTILLED, Origin.API)
    if arm.adaptation is None or others:
        return ""  # models of other shapes learn the tasks
    adapter: AdapterConfig | None = None
    if arm.adaptation.trains:
        adapter = config.adapter_of(arm.adaptation)
    for task in config.tasks_of(arm):
        refusal = base.why_not(task.task_kind.use(arm.adaptation), adapter)
        if refusal is not None:
            return _sentence(refusal.what, refusal.fix)
    return ""


def _sentence(what: str, fix: str | None) -> str:
    return f"the base {what}" if fix is None else f"the base {what}: {fix}"
