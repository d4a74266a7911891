"""Arm names and the trainings they share."""

import pytest

from adaptkit.errors import ConfigError
from adaptkit.study.arms import Arm, job_adapter, language_jobs


def test_arms_of_one_origin_share_its_language_model():
    arms = [
        Arm.parse(name)
        for name in ("continued+full", "continued+lora", "scratch+probe", "generic+probe", "generic+lora")
    ]
    assert language_jobs(arms) == ["continued", "scratch", "generic+lora"]
    assert [arm.origin_job for arm in arms] == ["continued", "continued", "scratch", None, None]


def test_unknown_arms_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'scratch\\+full'"):
        Arm.parse("scratch+ful")


def test_scratch_trains_all_weights_whatever_continued_pretraining_does():
    assert job_adapter("scratch", "lora") == "full"
    assert job_adapter("continued", "lora") == "lora"
    assert job_adapter("generic+qlora", "full") == "qlora"
