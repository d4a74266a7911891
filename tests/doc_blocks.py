"""Fenced blocks of Markdown pages: found, and executed or checked by their language.

A bash block is read line by line, and each command is checked: its name, its options, the config it names.
After a line `<!-- run -->` its `adaptkit` commands are executed, where the page's Python blocks ran.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer.main
from source_tree import ROOT

from adaptkit.cli import console
from adaptkit.cli.app import app
from adaptkit.cli.arguments import CONFIGS, divide, kind_of
from adaptkit.config import load

FENCE = re.compile(r"^(<!-- run -->\n)?```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRAINED_BY = {"compare", "pretrain", "finetune", "distill", "show"}
"""Commands whose arguments are a config and overrides."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str
    run: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start(2)) + 1, match[2], match[3], bool(match[1]))
        for match in FENCE.finditer(text)
    ]


def words_of(line: str) -> list[str]:
    """The words of a command, without the prompt, comments, environment and redirection."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    words = words[: words.index(">")] if ">" in words else words
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def check_commands(block: Block) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        if words := words_of(line):
            program = Path(words[0]).name
            assert program in COMMANDS, f"{block}: no test knows how to check `{line}`"
            COMMANDS[program](words[1:])
            if block.run and program == "adaptkit":
                code = console.run(app, words[1:])
                assert code in (0, 3), f"{block}: `{line}` ended with exit code {code}"


def check_make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    subprocess.run(["make", "-n", "-C", str(ROOT), *words], check=True, capture_output=True)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(re.search(rf"^{target}:.*##", makefile, re.MULTILINE) for target in targets)


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
    if path and path[-1] in TRAINED_BY and context.params.get("words"):
        config, overrides = divide(context.params["words"], needed=False)
        if config is not None and config.parts[0] == "configs":
            kind = path[-1] if path[-1] != "show" else kind_of(ROOT / config, [])
            load(CONFIGS[kind], ROOT / config, overrides)


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        named = ",".join(re.findall(r"\[([\w,-]+)\]", word)).split(",")
        assert all(extra in extras for extra in named if extra), word


def check_torchrun(words: list[str]) -> None:
    assert words[words.index("-m") + 1] == "adaptkit"
    check_adaptkit(words[words.index("-m") + 2 :])


def check_docker(words: list[str]) -> None:
    """An image is built from a file and a stage that are there."""
    file, target = (words[words.index(flag) + 1] for flag in ("-f", "--target"))
    assert f" AS {target}\n" in (ROOT / file).read_text()


def check_nothing(words: list[str]) -> None:
    """`cd adaptkit`, `source .venv/bin/activate`, `git clone URL`: nothing of ours to check."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "make": check_make,
    "adaptkit": check_adaptkit,
    "pip": check_pip,
    "torchrun": check_torchrun,
    "docker": check_docker,
    **dict.fromkeys(("cd", "source", "git", "curl", "pre-commit", "export", "hf", "kubectl"), check_nothing),
}


def check_yaml(block: Block) -> None:
    """A config, of the command whose keys it has; it also lies in the folder of the page, as `NAME.yaml`."""
    first = block.text.splitlines()[0]
    path = Path(first.removeprefix("# ") if re.fullmatch(r"# [\w-]+\.yaml", first) else "block.yaml")
    path.write_text(block.text)
    load(CONFIGS[kind_of(path, [])], path)


class Page:
    """Executes the blocks of one page in order, Python in one namespace, all in the current folder."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__name__": "__page__"}

    def run(self, block: Block) -> None:
        if block.language == "python":
            exec(compile(block.text, str(block), "exec", dont_inherit=True), self.names)
        elif block.language in ("bash", "sh"):
            check_commands(block)
        elif block.language == "yaml":
            check_yaml(block)
        elif block.language != "text":
            raise AssertionError(f"{block}: a block must say that it is python, bash, yaml or text")


def broken_links(page: Path) -> list[str]:
    """Links of a page to files that are not there."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if "://" not in target and not os.path.exists(page.parent / target)]
