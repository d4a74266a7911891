"""The command line: results on standard output, errors in two lines without a traceback, exit codes as
promised. Home of cli.app, cli.arguments, cli.compare, cli.console, cli.data, cli.options, cli.render and
cli.train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_study import write_study

from adaptkit.cli import app, arguments, console, render
from adaptkit.cli import runs as cli_runs
from adaptkit.cli import serve as cli_serve
from adaptkit.compare import driver
from adaptkit.errors import ConfigError, DataError
from adaptkit.finetune import recipe as finetune_recipe
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.pretrain import recipe as pretrain_recipe
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run
from adaptkit.run_record import RecipeKind, RunRecord
from adaptkit.study import finetune_baseline as module_of_baseline
from adaptkit.study.config import StudyConfig
from adaptkit.study.finetune_baseline import FinetuneBaseline
from adaptkit.study.record import STUDY_FILE

PRETRAIN = """name: tiny
data: {files: [text.jsonl]}
size: {params: 500k, seq_len: 32}
tokenizer: {vocab_size: 384}
trainer: {num_steps: 4, global_batch_size: 4, threads: 1}
"""
STUDY = """name: small
base_flops: 1e9
domain: {train: {files: [d.txt]}, test: {files: [e.txt]}}
general: {train: {files: [g.txt]}, test: {files: [h.txt]}}
budget: {amount: 1e10}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text: list[str]) -> Path:
    """An empty working folder with a little data and a config."""
    monkeypatch.chdir(tmp_path)
    Path("text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny_text))
    Path("p.yaml").write_text(PRETRAIN)
    Path("s.yaml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Run one command line in this process: exit code, standard output, standard error."""

    def run(line: str) -> SimpleNamespace:
        code = console.run(app.app, line.split())
        captured = capsys.readouterr()
        return SimpleNamespace(
            code=code, out=captured.out, err=captured.err, json=lambda: json.loads(captured.out)
        )

    return run


def small_study(root: Path) -> Path:
    return write_study(root, tasks=["language"], num_documents=30, num_rows=30)


def raising(error: BaseException):
    def act(*args: object, **kwargs: object) -> None:
        raise error

    return act


def test_version(run) -> None:
    assert (run("--version").code, run("--version").out) == (0, "adaptkit 0.1.0\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("comprae", "No such command 'comprae'"),
        ("compare --foo", "No such option: --foo"),
        ("compare s.yaml --executor spark", "'local', 'ray'"),
        ("compare seeds=4", "no config was given"),
        ("pretrain seed=4", "adaptkit pretrain configs/pretrain.yaml"),
        ("embed train seed=4", "adaptkit embed train configs/embed.yaml"),
        ("compare s.yaml p.yaml", "two configs were given: s.yaml and p.yaml"),
        ("compare s.yaml --quickstart", "--quickstart and s.yaml were both given"),
        ("compare absent.yaml", "no such config file"),
        ("compare s.yaml seedz=4", "did you mean 'seeds'"),
        ("pretrain s.yaml", "unknown key 'domain'"),
        ("pretrain p.yaml data.files=[absent.txt]", "absent.txt"),
        ("report .", "holds no finished study"),
        ("data check absent.jsonl", "absent.jsonl"),
        ("config show seeds=4", "no config was given"),
        ("schema train", "'compare', 'pretrain', 'finetune'"),
        ("config frobnicate", "No such command"),
    ],
)
def test_the_users_mistakes_exit_2_in_few_lines(here: Path, run, line: str, said: str) -> None:
    result = run(line)
    assert result.code == 2
    assert said in result.err
    assert result.err.startswith("error: ") and "\n  fix: " in result.err
    assert "Traceback" not in result.err and len(result.err.splitlines()) <= 12
    assert result.out == ""


@pytest.mark.parametrize(
    "line", ["", "compare", "report", "serve", "try", "embed", "embed index", "data check"]
)
def test_a_bare_command_shows_its_help(run, line: str) -> None:
    result = run(line)
    assert (result.code, result.err) == (2, "") and f"Usage: adaptkit {line}".rstrip() in result.out


@pytest.mark.parametrize("line", ["-h", "compare -h", "embed -h", "embed index -h"])
def test_h_is_help(run, line: str) -> None:
    assert run(line).out == run(line.replace("-h", "--help")).out != ""


@pytest.mark.parametrize(("words", "patience"), [("", 0.02), ("my own words", 2.0)])
def test_a_command_that_says_nothing_says_that_it_works(
    here: Path, run, monkeypatch: pytest.MonkeyPatch, words: str, patience: float
) -> None:
    def slow(*arguments: object) -> None:
        if words:
            print(words, file=sys.stderr)
        time.sleep(1.2 * patience)
        raise DataError("the end")

    monkeypatch.setattr(console, "FIRST_WORDS_S", patience)
    monkeypatch.setattr(pretrain_recipe, "pretrain", slow)
    before = sys.stderr
    errors = run("pretrain p.yaml").err
    assert ('"event": "working"' in errors) == (not words) and sys.stderr is before


def test_a_study_is_found_by_its_name(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer, unfinished = (Path("runs") / f"small-{digest * 8}" for digest in "abc")
    for age, folder in enumerate((older, newer, unfinished)):
        folder.mkdir(parents=True)
        if folder != unfinished:
            (folder / STUDY_FILE).write_text("{}")
        os.utime(folder, (age, age))
    assert arguments.find_run(Path("small"), study=True) == newer
    assert arguments.find_run(Path("small")) == unfinished
    assert arguments.find_run(Path(older.name)) == older and arguments.find_run(older) == older
    assert arguments.find_run(Path("smal")) == Path("smal"), "no part of a name"
    data = Path("small")
    data.mkdir()
    (data / "rows.jsonl").write_text("{}")
    assert arguments.find_run(data, study=True) == newer, "data of the study's name hide no study"
    (data / "config.json").write_text("{}")
    assert arguments.find_run(data, study=True) == data, "a model's folder is meant by its path"


@pytest.mark.parametrize(
    "line", ["runs show NAME", "runs export NAME out.tar", "deploy NAME --print compose"]
)
def test_every_command_that_takes_a_run_finds_it_by_its_name(
    here: Path, run, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    found = []
    for module in (cli_runs, cli_serve.arguments):
        monkeypatch.setattr(module, "find_run", lambda word, *_: found.append(str(word)) or Path("absent"))
    assert run(line.replace("NAME", "small")).code == 2 and found == ["small"]


def test_a_plan_takes_a_study_by_its_name(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(word: Path, *, study: bool) -> Path:
        assert study
        return Path("runs") / f"{word}-aaaaaaaa"

    monkeypatch.setattr(arguments, "find_run", find)
    result = run("plan --study small usd=5")
    assert result.code == 2 and "small-aaaaaaaa" in result.err


def test_errors_are_json_too(here: Path, run) -> None:
    result = run("compare s.yaml seedz=4 --json")
    assert result.json()["exit_code"] == result.code == 2
    assert result.json()["error"]["kind"] == "ConfigError"
    assert set(result.json()["error"]) == {"kind", "what", "where", "fix"}


def test_a_defect_is_one_line_and_how_to_report_it(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pretrain_recipe, "pretrain", raising(ZeroDivisionError("division by zero\nsecond line"))
    )
    result = run("pretrain p.yaml")
    assert result.code == 1
    assert result.err.splitlines()[0] == "error: unexpected ZeroDivisionError: division by zero"
    assert "--debug" in result.err and "adaptkit doctor" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), DataError("bad row", where="a.jsonl:3", fix="mend it")]
)
def test_debug_shows_the_traceback(
    here: Path, run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(pretrain_recipe, "pretrain", raising(error))
    result = run("pretrain p.yaml --debug")
    assert "Traceback (most recent call last)" in result.err
    assert result.code == (2 if isinstance(error, DataError) else 1)


def test_ctrl_c_says_how_to_go_on(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_recipe, "pretrain", raising(KeyboardInterrupt()))
    result = run("pretrain p.yaml")
    assert (result.code, "run the same command to resume" in result.err) == (130, True)


def test_too_little_memory_is_said_so(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_recipe, "pretrain", raising(MemoryError()))
    result = run("pretrain p.yaml")
    assert (result.code, "out of memory" in result.err) == (2, True)


def test_a_reader_that_goes_away_is_no_defect() -> None:
    command = f"{sys.executable} -m adaptkit schema compare | head -c 10"
    environment = {**os.environ, "PYTHONPATH": str(Path(app.__file__).parents[2])}
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert answer.stdout == '{\n "$defs":'[:10]
    assert answer.stderr == ""


@pytest.mark.parametrize("module", ["adaptkit", "adaptkit.cli"])
def test_every_way_to_start_it_runs_the_command(module: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(app.__file__).parents[2])}
    command = [sys.executable, "-m", module, "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (answer.returncode, answer.stdout) == (0, "adaptkit 0.1.0\n")


def test_with_json_standard_output_holds_one_object(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(config: object, run: Run) -> object:
        print("a library that talks")
        run.finish(record=RunRecord(recipe=RecipeKind.PRETRAIN).model_dump(mode="json"))
        return pretrain_recipe.PretrainResult(here / "model", {"flops": 1e9}, {"bits_per_byte": 2.5}, 4, 1000)

    monkeypatch.setattr(pretrain_recipe, "pretrain", noisy)
    result = run("pretrain p.yaml --json")
    assert result.json()["scores"] == {"bits_per_byte": 2.5}
    assert "a library that talks" in result.err


def test_only_the_first_rank_prints(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run("schema pretrain").out == ""


def test_the_users_environment_wins(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    run("--version")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"


def test_shell_completion_knows_the_commands() -> None:
    environment = {
        **os.environ,
        "_ADAPTKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": "adaptkit co",
        "COMP_CWORD": "1",
    }
    environment["PYTHONPATH"] = str(Path(app.__file__).parents[2])
    answer = subprocess.run(
        [sys.executable, "-m", "adaptkit"], capture_output=True, text=True, env=environment
    )
    assert answer.stdout.split() == ["compare", "config"]


@pytest.mark.parametrize(("outcome", "code"), [("gain", 0), ("undecided", 3)])
def test_compare_ends_in_the_verdict(
    here: Path, run, monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    asked = {}
    line = "VERDICT: scratch on bits per byte" if outcome == "gain" else "VERDICT: undecided on bits per byte"

    def compare(config: StudyConfig, root: Path, **options: object) -> driver.StudyOutcome:
        asked.update(options, config=config, root=root)
        return driver.StudyOutcome(
            small_study(here / "runs"), line, here / "report.html", "scratch", code, {"line": line}
        )

    monkeypatch.setattr(driver, "compare", compare)
    result = run("compare s.yaml seeds=5 --no-resume --executor ray --root elsewhere")
    assert result.code == code
    assert result.out.splitlines()[-1] == line
    assert f"report: {here / 'report.html'}" in result.out
    assert "scratch" in result.out and "bits per byte" in result.out.lower()
    assert (asked["config"].seeds, asked["root"], asked["resume"], asked["executor"]) == (
        5,
        Path("elsewhere"),
        False,
        "ray",
    )
    as_json = run("compare s.yaml --json")
    assert as_json.code == as_json.json()["exit_code"] == code
    assert as_json.json()["recommended"] == "scratch"


def test_a_dry_run_prints_the_plan_and_trains_nothing(
    here: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = {"describe": "prepare the data", "memory_bytes": 2**30, "cached": False}
    stages = [{**stage, "id": "prepare", "flops": 0.0, "seconds": 8.0}]
    stages += [{**stage, "id": "base", "flops": 1e12, "seconds": 95.0, "cached": True}]
    arms = [{"arm": "scratch", "task": "language", "flops": 1e12, "seconds": 95.0}]
    left_out = [{"arm": "generic+probe", "task": None, "reason": "probe gives no answers"}]
    settles = {"task": "mood", "unit": "macro_f1", "test_items": 400, "seeds": 3, "arms": 8}
    plan = {
        "arms": arms,
        "left_out": left_out,
        "settles": [{**settles, "smallest_difference": 0.0312}],
        "forecast": ["forecast: 3 smaller trainings of each arm"],
        "sizes": ["sizes: scratch also at 10M"],
        "cut_texts": {"mood": "3 of 40 texts are cut at 24 tokens"},
        "lossy_tokenizers": {"base": "the tokenizer cannot give back 3.10% of the bytes"},
        "instructions": {"mood": {"text": "Classify the text.\nLabels: bad, good", "made": True}},
        "outgoing": {
            "url": "https://api.example.com",
            "model": "small",
            "rows": [
                {
                    "arm": "api+prompt",
                    "task": "mood",
                    "requests": 1200,
                    "tokens_in": 5e5,
                    "tokens_out": 9e3,
                    "usd": 0.5,
                }
            ],
            "usd": 0.5,
            "ceiling": 2.0,
        },
        "stages": stages,
        "flops": 1e12,
        "seconds_left": 5400,
        "seconds_by_gpus": {"1": 9000, "2": 5400, "4": 3600, "8": 3600},
        "machine": {"jobs": 2, "process_bytes": 0.75 * 2**30},
        "advice": ["about 9.0 days on this machine; budget.amount=3e+12 takes 20 h"],
    }

    def compare(config: object, root: Path, *, dry_run: bool, **options: object) -> dict:
        assert dry_run
        return plan

    monkeypatch.setattr(driver, "compare", compare)
    result = run("compare s.yaml --dry-run")
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert result.out.splitlines()[-2:] == [plan["advice"][0], "next: adaptkit compare s.yaml"]
    assert ["scratch", "language", "1e+12", "1.58", "min"] in lines
    assert ["generic+probe", "probe", "gives", "no", "answers"] in lines
    assert "mood: 3 of 40 texts are cut at 24 tokens" in result.out
    assert plan["forecast"][0] in result.out and plan["sizes"][0] in result.out
    assert "mood" in result.out and "0.031 macro f1" in result.out and "400 test items, 3 seeds" in result.out
    assert ["api+prompt", "mood", "1,200", "500,000", "9,000", "$0.50"] in lines
    assert "small at https://api.example.com" in result.out and "$0.50 of $2 at most" in result.out
    assert "the instruction of prompts (made" in result.out and "  Labels: bad, good" in result.out
    assert "2 stages, 1 to run, 1e+12 FLOPs in all, about 1.5 h with 2 at once, 1 GiB each" in result.out
    assert "on 1, 2, 4, 8 GPUs of this kind, a stage each: about 2.5 h, 1.5 h, 1 h, 1 h" in result.out
    assert "1 GiB each (0.75 of it Python, torch and other libraries)" in result.out
    shown = run("compare s.yaml --dry-run --json").json()
    assert shown == {**plan, "next": "adaptkit compare s.yaml"}


def test_quickstart_leaves_its_config_to_start_from(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptkit.compare import quickstart
    from adaptkit.config import load

    chosen = load(StudyConfig, "s.yaml").config
    monkeypatch.setattr(quickstart, "quickstart_config", lambda root: chosen)
    seen = []
    monkeypatch.setattr(
        driver, "compare", lambda config, root, **options: seen.append(config) or {"stages": []}
    )
    monkeypatch.setattr(render, "plan", lambda found: "planned")
    assert run("compare --quickstart --dry-run --root r").code == 0
    assert run("compare --quickstart seeds=7 --dry-run --root r").code == 0
    assert run("compare r/quickstart.yaml --dry-run").code == 0
    assert seen == [chosen, chosen.model_copy(update={"seeds": 7}), chosen]


def test_report_is_written_again_from_the_runs(here: Path, run) -> None:
    folder = small_study(here / "runs")
    result = run(f"report {folder}")
    assert result.code in (0, 3)
    assert result.out.splitlines()[-1].startswith("VERDICT: ")
    assert (folder / "report" / "report.html").exists()


def test_pretrain_runs_once_and_is_found_again(here: Path, run) -> None:
    first = run("pretrain p.yaml --json")
    assert first.code == 0, first.err
    folder = Path(first.json()["run"])
    assert folder.parent == Path("runs") and (folder / "model" / "config.json").exists()
    before = (folder / "manifest.json").stat().st_mtime_ns
    again = run("pretrain p.yaml")
    assert again.code == 0 and str(folder) in again.out and "bits_per_byte" in again.out
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert run("pretrain p.yaml --no-resume --json").code == 0
    assert (folder / "manifest.json").stat().st_mtime_ns != before


def test_changed_data_is_another_run(here: Path) -> None:
    from adaptkit.config import load

    config = load(PretrainConfig, "p.yaml").config
    first = arguments.open_run(config, Path("runs"), resume=True)
    assert arguments.open_run(config, Path("runs"), resume=True).path == first.path
    with Path("text.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    assert arguments.open_run(config, Path("runs"), resume=True).path != first.path


def test_a_fresh_start_is_refused_under_torchrun(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("pretrain p.yaml --no-resume")
    assert (result.code, "torchrun" in result.err) == (2, True)


def test_finetune_hands_its_config_over(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text('{"model_type": "llama"}')
    Path("f.yaml").write_text("base: base\ntrain: {files: [text.jsonl]}\n")
    seen = []

    def finetune(config: FinetuneConfig, run: Run) -> finetune_recipe.FinetuneResult:
        seen.append(config)
        run.finish(record=RunRecord(recipe=RecipeKind.FINETUNE).model_dump(mode="json"))
        return finetune_recipe.FinetuneResult(here / "model", None, "task", {"accuracy": 0.75}, {})

    baseline = FinetuneBaseline("tfidf", {"accuracy": 0.5}, 0.25)
    monkeypatch.setattr(finetune_recipe, "finetune", finetune)
    monkeypatch.setattr(module_of_baseline, "finetune_baseline", lambda config, run: baseline)
    result = run("finetune f.yaml adapter.kind=lora adapter.rank=4")
    assert (result.code, seen[0].adapter.kind, seen[0].adapter.rank) == (0, "lora", 4)
    assert "accuracy 0.75" in result.out and "tfidf, no language model        accuracy 0.5" in result.out
    assert "always the most frequent label  accuracy 0.25" in result.out and "evaluated once" in result.out
    assert result.out.splitlines()[-1].startswith("next: adaptkit try runs")


def test_data_check_tells_and_judges(here: Path, run) -> None:
    good = run("data check text.jsonl")
    assert good.code == 0 and "200" in good.out
    with Path("text.jsonl").open("a") as file:
        file.write('{"text": 3}\n')
    bad = run("data check text.jsonl")
    assert bad.code == 2 and "text.jsonl:201" in bad.out
    assert run("data check text.jsonl --json").json()["ok"] is False


def test_config_show_names_every_origin(here: Path, run) -> None:
    result = run("config show p.yaml trainer.seed=3")
    lines = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()}
    assert lines["size.params"] == ["500000", "p.yaml:3:16"]
    assert lines["trainer.seed"] == ["3", "override"]
    assert lines["objective"] == ["causal", "default"]
    found = run("config show p.yaml --json").json()
    assert found["data.files"] == {"value": ["text.jsonl"], "origin": "p.yaml:2:15"}
    assert set(found) == set(lines)


def test_config_show_tells_the_kinds_apart(here: Path, run) -> None:
    assert "budget.amount" in run("config show s.yaml").out
    assert "dev_fraction" in run("config show p.yaml").out
    Path("odd.yaml").write_text("colour: red\n")
    assert "--for compare" in run("config show odd.yaml").err
    assert "unknown key 'colour'" in run("config show odd.yaml --for finetune").err


@pytest.mark.parametrize("kind", ["compare", "pretrain", "finetune"])
def test_schema_describes_every_field(run, kind: str) -> None:
    found = run(f"schema {kind}").json()
    assert found["additionalProperties"] is False
    described = [found, *found["$defs"].values()]
    assert all(
        "description" in field or "$ref" in field
        for part in described
        for field in part.get("properties", {}).values()
    )


def test_doctor_exits_2_where_something_is_broken(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run("doctor").code == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    result = run("doctor --json")
    assert (result.code, result.json()["problems"]) == (2, 1)
    assert [finding["name"] for finding in result.json()["findings"] if finding["status"] == "problem"] == [
        "OMP_NUM_THREADS"
    ]


def test_doctor_writes_the_stand_ins(here: Path, run) -> None:
    result = run("doctor --stubs standins")
    assert (result.code, len(result.out.splitlines())) == (0, 4)
    assert Path("standins/constraints.txt").exists()


def test_words_are_divided_into_file_and_overrides(here: Path) -> None:
    Path("a=b.yaml").touch()
    assert arguments.divide(["a=b.yaml", "x.y=1"], needed=True) == (Path("a=b.yaml"), ["x.y=1"])
    assert arguments.divide(["x=1"], needed=False) == (None, ["x=1"])
    with pytest.raises(ConfigError, match="two configs"):
        arguments.divide(["a.yaml", "b.yaml"], needed=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (12, "12 s"), (95, "1.58 min"), (5400, "1.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text
