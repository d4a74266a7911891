"""Files to run a model or a study elsewhere: what they hold, and that their own tools read them.

Home of cli.deploy and serve.deployment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_served import write_complete
from tiny_study import study_config, write_texts
from typer.main import get_command

from adaptkit.cli.app import app
from adaptkit.cli.console import run
from adaptkit.errors import ConfigError
from adaptkit.export.resolve import resolve
from adaptkit.serve.deployment import Deployment, StudyJob, deployment_of, service_name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    folder = write_complete(tmp_path / "Support_Model.v2")
    return deployment_of(resolve(folder), replicas=3, port=9000)


def kubernetes(deployment: Deployment) -> dict[tuple[str, str], dict[str, Any]]:
    documents = list(yaml.safe_load_all(deployment.file("kubernetes")))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def is_served(arguments: list[str]) -> dict[str, Any]:
    """What `adaptkit serve` reads of a command line, its options among it."""
    name, *words = arguments
    return get_command(app).commands[name].make_context(name, words).params  # type: ignore[attr-defined]


def test_kubernetes_reads_each_object_as_its_schema_says(deployment: Deployment) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for gpus in (0, 2):
        objects = kubernetes(Deployment("a", Path("/models/a"), 4, gpus=gpus, replicas=2))
        for each in objects.values():
            validate.validate(each, validate.latest_version(), strict=True)
    assert set(kubernetes(deployment)) == {
        ("Deployment", "support-model-v2-blue"),
        ("Service", "support-model-v2-blue"),
        ("Service", "support-model-v2"),
        ("PodDisruptionBudget", "support-model-v2-blue"),
    }


def test_a_pod_is_ready_by_a_real_answer_and_replaced_only_where_nothing_listens(
    deployment: Deployment,
) -> None:
    pod = kubernetes(deployment)["Deployment", "support-model-v2-blue"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert (
        container["livenessProbe"]["tcpSocket"] == {"port": "http"}
        and "httpGet" not in container["livenessProbe"]
    )
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] == 1200
    assert pod["terminationGracePeriodSeconds"] == 60
    served = is_served(container["args"])
    assert served["models"] == ["support-model-v2=/models/support-model-v2"]
    assert (served["host"], served["port"], served["key_file"]) == ("0.0.0.0", 9000, None)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/models/support-model-v2"]["readOnly"] and set(mounts) >= {"/dev/shm", "/tmp"}
    (key,) = container["env"]
    assert key["name"] == "ADAPTKIT_API_KEY" and "secretKeyRef" in key["valueFrom"], "no key in the file"


def test_a_second_slot_stands_beside_the_first_and_takes_no_traffic(tmp_path: Path) -> None:
    old, new = (resolve(write_complete(tmp_path / name)) for name in ("support", "support-v2"))
    blue = kubernetes(deployment_of(old))
    green = kubernetes(deployment_of(new, name="support", slot="green"))
    assert set(green) == {("Deployment", "support-green"), ("Service", "support-green")}
    assert blue["Service", "support"]["spec"]["selector"]["adaptkit/slot"] == "blue"
    assert green["Service", "support-green"]["spec"]["selector"]["adaptkit/slot"] == "green"
    first, second = (blue["Deployment", "support-blue"]["spec"], green["Deployment", "support-green"]["spec"])
    assert first["selector"]["matchLabels"] != second["selector"]["matchLabels"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for spec in (first, second)
        for volume in spec["template"]["spec"]["volumes"]
        if volume["name"] == "model"
    ]
    assert claims == ["support-blue", "support-green"], "each slot has its own folder"
    served = [spec["template"]["spec"]["containers"][0]["args"][1] for spec in (first, second)]
    assert served[0] == served[1] == "support=/models/support", "clients ask both by one name"


def test_memory_is_what_the_weights_need_and_gpus_are_shared_by_tensors(tmp_path: Path) -> None:
    small = resolve(write_complete(tmp_path / "small"))
    large = resolve(write_complete(tmp_path / "large"))
    with (large.folder / "model.safetensors").open("ab") as file:
        file.truncate(5 * 2**30)
    assert deployment_of(large).memory_gib >= deployment_of(small).memory_gib + 10
    gpus = deployment_of(small, gpus=2)
    assert gpus.image.endswith("-gpu") and deployment_of(small).image.endswith("-cpu")
    compose = yaml.safe_load(gpus.file("compose"))["services"]["server"]
    assert compose["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    assert is_served(compose["command"])["models"][1:] == ["--tensor-parallel-size", "2"]


def test_compose_waits_for_a_real_answer_and_takes_the_key_from_outside(tmp_path: Path) -> None:
    folder = write_complete(tmp_path / "support")
    services = yaml.safe_load(deployment_of(resolve(folder)).file("compose"))["services"]
    server, demo = services["server"], services["demo"]
    assert "127.0.0.1:8000/health" in server["healthcheck"]["test"][-1]
    assert demo["depends_on"] == {"server": {"condition": "service_healthy"}}
    assert server["volumes"] == [f"{folder}:/models/support:ro"]
    assert server["environment"]["ADAPTKIT_API_KEY"].startswith("${ADAPTKIT_API_KEY:?")
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each["ports"])
    assert is_served(server["command"])["models"] == ["support=/models/support"]
    shown = is_served(demo["command"])
    assert (shown["server"], shown["host"]) == ("http://server:8000", "0.0.0.0")


def test_systemd_reads_the_unit_and_its_start_waits_for_a_real_answer(tmp_path: Path) -> None:
    text = deployment_of(resolve(write_complete(tmp_path / "support"))).file("systemd")
    started = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")
    words = started["ExecStart"].split()
    assert is_served(words[1:])["key_file"] == Path("%d/key") and started["LoadCredential"].startswith("key:")
    assert "http://127.0.0.1:8000/health" in started["ExecStartPost"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "support.service"
    unit.write_text(text.replace(words[0], "/bin/true").replace("/usr/bin/curl", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert "support.service" not in done.stderr, done.stderr


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The script of a study, with an `adaptkit` that ends by itself or on SIGTERM, and a `scontrol`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "adaptkit").write_text(
        '#!/bin/bash\ntrap "sleep 0.3; echo kept > checkpoint; exit 7" TERM\necho "$@" > ran\n'
        'if [ -n "${LONG:-}" ]; then while :; do sleep 0.05; done; fi\nexit ${CODE:-3}\n'
    )
    (tools / "scontrol").write_text('#!/bin/bash\necho "$@" > requeued\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    text = StudyJob("tickets", Path("conf/study.yaml"), gpus=2).file("slurm")
    script = tmp_path / "job.sh"
    script.write_text(re.sub(r"^\S+ compare", f"{tools}/adaptkit compare", text, flags=re.MULTILINE))
    return script


@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_scheduler_sees_how_the_study_ended(job: Path, code: int) -> None:
    assert (
        subprocess.run(["bash", job], cwd=job.parent, env={**os.environ, "CODE": str(code)}).returncode
        == code
    )
    assert (job.parent / "ran").read_text() == "compare conf/study.yaml\n"
    assert not (job.parent / "requeued").exists()


def test_a_study_that_time_stops_keeps_its_checkpoint_and_is_queued_again(job: Path) -> None:
    environment = {
        **os.environ,
        "LONG": "1",
        "SLURM_JOB_ID": "42",
        "PATH": f"{job.parent}/tools:{os.environ['PATH']}",
    }
    process = subprocess.Popen(["bash", job], cwd=job.parent, env=environment)
    while not (job.parent / "ran").exists():
        time.sleep(0.01)
    time.sleep(0.2)  # the script waits for it
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 7
    assert (job.parent / "checkpoint").read_text() == "kept\n", "the study itself was told"
    assert (job.parent / "requeued").read_text() == "requeue 42\n"


def test_a_scheduler_is_asked_for_what_the_job_needs() -> None:
    text = StudyJob("tickets", Path("study.yaml"), memory_gib=20, gpus=2).file("slurm")
    assert {"#SBATCH --gpus=2", "#SBATCH --mem=20G", "#SBATCH --requeue"} <= set(text.splitlines())
    assert "--gpus" not in StudyJob("tickets", Path("study.yaml")).file("slurm")
    sky = yaml.safe_load(StudyJob("tickets", Path("study.yaml"), gpus=4).file("skypilot"))
    assert sky["resources"]["accelerators"]["H100"] == 4 and "/runs" in sky["file_mounts"]
    served = yaml.safe_load(Deployment("a", Path("/models/a"), 4, replicas=2).file("skypilot"))
    assert served["service"] == {
        "replicas": 2,
        "readiness_probe": {"path": "/health", "initial_delay_seconds": 1200},
    }
    assert is_served(served["run"].split()[2:])["models"] == ["a=/models/a"]
    split = yaml.safe_load(Deployment("a", Path("/models/a"), 4, gpus=2).file("skypilot"))["run"].split()
    assert split[-2:] == ["--tensor-parallel-size", "2"]


def test_the_command_prints_one_file_and_refuses_what_none_can_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_complete(tmp_path / "support")
    assert run(app, ["deploy", str(folder), "--print", "kubernetes", "--port", "9100"]) == 0
    assert "containerPort: 9100" in capsys.readouterr().out
    assert run(app, ["deploy", f"help={folder}", "--print", "kubernetes", "--slot", "green"]) == 0
    assert "help=/models/help" in capsys.readouterr().out
    assert run(app, ["deploy", str(folder), "--print", "slurm"]) == 2
    assert "there is no slurm file for a model" in capsys.readouterr().err
    assert run(app, ["deploy", str(folder), "--print", "compose", "--replicas", "2"]) == 2
    assert "compose starts one process" in capsys.readouterr().err
    write_texts(tmp_path)
    study_config(tmp_path)
    assert run(app, ["deploy", str(tmp_path / "study.yaml"), "--print", "slurm", "--json"]) == 0
    assert "#SBATCH --job-name=tiny" in json.loads(capsys.readouterr().out)["file"]
    with pytest.raises(ConfigError, match="read otherwise"):
        deployment_of(resolve(write_complete(tmp_path / "with blank")))


@pytest.mark.parametrize(("name", "label"), [("Ärzte_2", "rzte-2"), ("x" * 60, "x" * 40), ("--", "model")])
def test_a_service_has_a_name_that_dns_takes(name: str, label: str) -> None:
    assert service_name(name) == label


def test_the_image_is_pinned_small_and_runs_as_nobody() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text().replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line.strip() and line[0] != "#"]
    bases = [rest.split()[0] for word, rest in steps if word == "FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", bases[0]) and set(bases[1:]) == {"system"}
    for word, rest in steps:
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest
        if word == "COPY":
            assert all((ROOT / path).exists() for path in rest.split()[:-1]), rest
    for stage in text.split("FROM ")[2:]:
        assert "USER 10001" in stage and stage.rindex("USER") > stage.rindex("RUN")
        assert 'ENTRYPOINT ["adaptkit"]' in stage, "signals reach the server itself"
    kept = [
        line[1:]
        for line in (ROOT / "deploy" / "Containerfile.dockerignore").read_text().split()
        if line[0] == "!"
    ]
    copied = {path for word, rest in steps if word == "COPY" for path in rest.split()[:-1]}
    assert copied == set(kept)
