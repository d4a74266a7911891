"""Arm names and the trainings they share."""

import pytest

from adaptkit.errors import ConfigError
from adaptkit.study.arms import Adaptation, Arm, Origin, TextJob, language_jobs


def test_arms_of_one_origin_share_its_language_model():
    arms = [
        Arm.parse(name)
        for name in ("continued+full", "continued+lora", "scratch+probe", "generic+probe", "generic+lora")
    ]
    continued, scratch = TextJob(Origin.CONTINUED), TextJob(Origin.SCRATCH)
    assert language_jobs(arms) == [continued, scratch, TextJob(Origin.GENERIC, Adaptation.LORA)]
    assert [arm.origin_job for arm in arms] == [continued, continued, scratch, None, None]


def test_unknown_arms_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'scratch\\+full'"):
        Arm.parse("scratch+ful")


def test_scratch_trains_all_weights_whatever_continued_pretraining_does():
    lora, qlora, full = Adaptation.LORA, Adaptation.QLORA, Adaptation.FULL
    assert TextJob(Origin.SCRATCH).weights(lora) is full
    assert TextJob(Origin.CONTINUED).weights(lora) is lora
    assert TextJob(Origin.GENERIC, qlora).weights(full) is qlora
