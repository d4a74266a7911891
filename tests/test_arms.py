"""Arms: two ledgers, names, and the trainings on text that arms need."""

import pytest

from adaptkit.errors import ConfigError
from adaptkit.study.arms import ARMS, ASKED, Adaptation, Arm, Origin, text_trainings, with_text_arms


def parsed(*names: str) -> list[Arm]:
    return [Arm.parse(name) for name in names]


def test_an_arm_is_in_one_ledger_and_named_after_what_it_is():
    text, job = parsed("continued-lora", "continued+full")
    assert (text.origin, text.adaptation, text.ledger) == (Origin.CONTINUED_LORA, None, "text")
    assert (job.origin, job.adaptation, job.ledger) == (Origin.CONTINUED, Adaptation.FULL, "jobs")
    assert all(arm.name == name and ("+" in name) == (arm.ledger == "jobs") for name, arm in ARMS.items())
    assert len(ARMS) == (len(Origin) - 1) * (1 + len(Adaptation)) + len(ASKED) - 1, "tapt models no text"


def test_arms_of_one_origin_share_its_training_on_text():
    arms = parsed("distilled", "continued+full", "continued+lora", "scratch+probe", "continued")
    assert text_trainings(arms) == [Origin.CONTINUED, Origin.SCRATCH, Origin.DISTILLED]


def test_fine_tuning_the_base_is_no_training_on_text():
    assert text_trainings(parsed("generic+lora", "generic+full", "generic")) == []


def test_the_base_and_every_origin_of_a_job_arm_are_in_the_text_ledger():
    named = [arm.name for arm in with_text_arms(parsed("scratch+full", "generic+lora", "continued"))]
    assert named == ["generic", "scratch", "continued", "scratch+full", "generic+lora"]


def test_a_training_on_the_text_of_a_task_is_an_arm_of_that_task_only():
    (arm,) = parsed("tapt+full")
    assert [other.name for other in with_text_arms([arm])] == ["generic", "tapt+full"]
    assert (arm.text_of("mood"), Arm(Origin.CONTINUED, Adaptation.FULL).text_of("mood")) == ("mood", None)
    with pytest.raises(ConfigError, match="(?s)so it is an arm of tasks only.*name tapt\\+full"):
        Arm.parse("tapt")


def test_unknown_arms_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'scratch\\+full'"):
        Arm.parse("scratch+ful")


@pytest.mark.parametrize("name", ["scratch", "generic+prompt", "placebo+full", "continued-lora"])
def test_each_arm_says_in_words_what_it_is(name):
    arm = Arm.parse(name)
    assert arm.origin.describe in arm.describe
    assert arm.adaptation is None or arm.adaptation.describe in arm.describe
