"""Every config that is shipped fits the schema of its command."""

from pathlib import Path

import pytest

from adaptkit.cli.arguments import CONFIGS, kind_of
from adaptkit.config import load

SHIPPED = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_config_loads(path):
    load(CONFIGS[kind_of(path, [])], path)


def test_there_is_one_for_each_command():
    assert {kind_of(path, []) for path in SHIPPED} == CONFIGS.keys()
