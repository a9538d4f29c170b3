"""The scripts for SLURM and Kubernetes: a shell reads them, and the commands that they start are accepted."""

import pathlib
import re
import subprocess

import pytest

from experiments import train
from experiments.harness import command_line, distributed

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "cluster"
# Instead of starting a command, print its words.
SAID = """
srun() { while [ "${1#--}" != "$1" ]; do shift; done; "$@"; return "$CODE"; }
scontrol() { printf 'scontrol %s\\n' "$*"; }
python() { printf '%s\\n' "$@"; }
exec() { "$@"; }
"""


def words_of(script, folder, code=0, arguments=(), **environment):
    """The words of each command that the script starts in a folder, as they are printed, and its exit code."""
    settings = {"PATH": "/usr/bin:/bin", "CODE": str(code)} | environment
    command = ["bash", "-c", SAID + script, "script", *arguments]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=30)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines(), done.returncode


def options_of(words):
    assert words[:2] == ["-m", "experiments.train"]
    return command_line.parse("train", "", train.Config, words[2:], shares=True)


def begun(folder, name):
    place = folder / "results" / "train" / name
    place.mkdir(parents=True)
    (place / "options.json").write_text("{}")


def test_the_slurm_script_starts_the_training_and_resumes_it(tmp_path):
    path = FOLDER / "train.slurm"
    subprocess.run(["bash", "-n", path], check=True)
    script = path.read_text()
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", script, re.MULTILINE))
    assert len(directives) == script.count("#SBATCH") and {"nodes", "ntasks-per-node", "requeue"} <= directives.keys()
    assert directives["signal"].startswith("TERM@")
    # Every directive stands before the first command, where sbatch stops reading.
    assert script.rindex("#SBATCH") < re.search(r"^[^#\n]", script, re.MULTILINE).start()

    words, code = words_of(script, tmp_path, arguments=["--seed", "3"], SLURM_JOB_ID="17")
    options = options_of(words)
    assert code == 0 and options.distributed == "auto" and options.run_name == "slurm-17" and options.config.seed == 3
    options.config.validate()
    for number, name in enumerate((".slurm-17.partial", "slurm-17-incomplete")):
        folder = tmp_path / str(number)
        begun(folder, name)
        words, code = words_of(script, folder, code=75, SLURM_JOB_ID="17")
        assert words.pop() == "scontrol requeue 17" and code == 75
        assert options_of(words).config.resume == pathlib.Path("results/train/slurm-17")
        # Another job's run is not taken.
        assert options_of(words_of(script, folder, SLURM_JOB_ID="1")[0]).config.resume is None
    assert "scontrol requeue 17" not in words_of(script, tmp_path, code=70, SLURM_JOB_ID="17")[0]


def test_the_kubernetes_job_starts_the_training_and_resumes_it(tmp_path):
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((FOLDER / "train.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job") and service["spec"]["clusterIP"] == "None"
    spec, name = job["spec"], job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name} and spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (script,) = container["args"]
    assert container["command"] == ["/bin/bash", "-c"] and pod["subdomain"] == service["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    settings = {entry["name"]: entry["value"] for entry in container["env"]}
    for index in range(spec["completions"]):
        words, _ = words_of(script, tmp_path, JOB_COMPLETION_INDEX=str(index), **settings)
        options = options_of(words)
        read = distributed.parsed(options.distributed)
        # The pod of the first index has this name in the subdomain of the service.
        assert read.address == f"{name}-0.{pod['subdomain']}:1234"
        assert (read.count, read.index) == (spec["completions"], index)
        assert options.config.resume is None and options.run_name == "kubernetes-pgjax"
    begun(tmp_path, ".kubernetes-pgjax.partial")
    words, _ = words_of(script, tmp_path, JOB_COMPLETION_INDEX="0", **settings)
    assert options_of(words).config.resume == pathlib.Path("results/train/kubernetes-pgjax")
