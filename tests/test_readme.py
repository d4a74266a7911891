"""Every fenced block of README.md is executed or checked, so that what a newcomer types is what works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from adaptkit.cli.app import app
from adaptkit.cli.arguments import CONFIGS, divide, kind_of
from adaptkit.config import load

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MAX_WORDS = 900
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"[-+][0-9.]+"
VERDICT = re.compile(
    rf"^(VERDICT: \S+ WINS over \S+ on .+ {NUMBER} \[{NUMBER}, {NUMBER}\]|TIE: do not pretrain)", re.MULTILINE
)


def blocks() -> list[tuple[str, str, int]]:
    """(language, text, line) of every fenced block."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    return [(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in FENCE.finditer(text)]


def check_commands(text: str, tmp_path: Path) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment for one command
            words = words[1:]
        if words:
            program = Path(words[0]).name
            assert program in COMMANDS, f"no test knows how to check `{line}`"
            COMMANDS[program](words[1:])


def check_make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    subprocess.run(["make", "-n", "-C", str(ROOT), *words], check=True, capture_output=True)
    assert targets and all(
        re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in targets
    )


def check_adaptkit(words: list[str]) -> None:
    """The command line parses, and a config named in it is there and takes the overrides."""
    command = typer.main.get_command(app)
    context, path = None, []
    while True:
        name = path[-1] if path else "adaptkit"
        context = command.make_context(name, list(words), parent=context, resilient_parsing="--help" in words)
        if not hasattr(command, "resolve_command") or "--version" in words:
            break
        name, command, words = command.resolve_command(context, words)
        path.append(name)
    if path and path[-1] in ("compare", "pretrain", "finetune", "show") and context.params.get("words"):
        config, overrides = divide(context.params["words"], needed=False)
        if config is not None and config.parts[0] == "configs":
            kind = path[-1] if path[-1] != "show" else kind_of(ROOT / config, [])
            load(CONFIGS[kind], ROOT / config, overrides)


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        assert all(
            extra in extras for extra in ",".join(re.findall(r"\[([\w,-]+)\]", word)).split(",") if extra
        )


def check_torchrun(words: list[str]) -> None:
    assert words[words.index("-m") + 1] == "adaptkit"
    check_adaptkit(words[words.index("-m") + 2 :])


def check_path(words: list[str]) -> None:
    """`cd adaptkit`, `source .venv/bin/activate`, `git clone URL`: nothing of ours to check."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "make": check_make,
    "adaptkit": check_adaptkit,
    "pip": check_pip,
    "torchrun": check_torchrun,
    "cd": check_path,
    "source": check_path,
    "git": check_path,
}


def check_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "block.yaml"
    path.write_text(text)
    load(CONFIGS[kind_of(path, [])], path)


def check_python(text: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels" / "torch-ext")]),
    }
    subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True, timeout=120, env=environment)


def check_text(text: str, tmp_path: Path) -> None:
    """Output of `compare`, which ends in a verdict, or a listing of folders and files that exist."""
    if VERDICT.search(text):
        return
    for line in text.splitlines():
        for name in line.partition("  ")[0].split():
            assert (ROOT / name).exists(), f"{name} is listed but does not exist"


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "bash": check_commands,
    "sh": check_commands,
    "yaml": check_yaml,
    "python": check_python,
    "text": check_text,
}


def test_the_readme_is_there_and_short() -> None:
    words = README.read_text(encoding="utf-8").split()
    assert 150 < len(words) < MAX_WORDS


def test_the_two_commands_are_in_it() -> None:
    commands = "\n".join(text for language, text, _ in blocks() if language in ("bash", "sh"))
    assert "make quickstart" in commands and "make test" in commands


@pytest.mark.parametrize(
    ("language", "text", "line"), blocks(), ids=[f"line {line}" for _, _, line in blocks()]
)
def test_a_block_works(language: str, text: str, line: int, tmp_path: Path) -> None:
    assert language in CHECKS, f"README.md:{line}: a block must say that it is one of {', '.join(CHECKS)}"
    CHECKS[language](text, tmp_path)


def test_links_into_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text(encoding="utf-8")):
        assert "://" in target or (ROOT / target).exists(), target
