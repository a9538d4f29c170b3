"""What the processes of a run ask of JAX: the client of its service, and the cluster that it detects."""

import os
import re
import socket
import sys
import types

import jax._src.clusters
import jax._src.distributed
import pytest
from teams import finished, free_port, start

from experiments.harness import distributed, jax_processes, runner

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "node[007,010-012],other",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
PORT = 65535 - 2**12 + 1  # the first port that JAX chooses by the number of a job


@pytest.fixture
def within(monkeypatch):
    """A function that sets the variables of a cluster; those of the real one, if there is one, are taken away."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR", "JOB_COMPLETION")):
            monkeypatch.delenv(name)
    return lambda values: [monkeypatch.setenv(*item) for item in values.items()]


@pytest.fixture
def kubernetes(monkeypatch, within):
    """A pod of a job of five, as the package `kubernetes` describes it."""
    space = types.SimpleNamespace
    errors = types.ModuleType("kubernetes.client.exceptions")
    errors.ApiException = type("ApiException", (Exception,), {"__module__": errors.__name__, "status": 403})
    metadata = space(
        name="train-2",
        labels={"job-name": "train"},
        owner_references=[space(controller=True, kind="Job", name="train")],
    )
    pod = space(metadata=metadata, spec=space(subdomain="pods"))
    job = space(metadata=space(name="train", labels={}), spec=space(parallelism=5))
    api = space(list_namespaced_pod=lambda **given: space(items=[pod]))
    client = space(
        CoreV1Api=lambda: api,
        BatchV1Api=lambda: space(read_namespaced_job=lambda **given: job),
        exceptions=errors,
    )
    package = types.ModuleType("kubernetes")
    package.config, package.client = space(load_incluster_config=lambda: None), client
    monkeypatch.setitem(sys.modules, "kubernetes", package)
    kind = jax._src.clusters.K8sCluster
    for name in ("_pod", "_job", "_controller", "_headless_svc", "_namespace"):
        getattr(kind, name).cache_clear()
    monkeypatch.setattr(kind, "_namespace", classmethod(lambda cls: "default"))
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.7")
    within({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-2", "JOB_COMPLETION_INDEX": "2"})
    yield space(package=package, pod=pod, api=api, error=errors.ApiException)
    for name in ("_pod", "_job", "_controller", "_headless_svc"):
        getattr(kind, name).cache_clear()


def test_the_client_of_jax_is_asked_for_in_one_place(monkeypatch):
    moved = r"jax \S+ has no jax._src.distributed.global_state.client, which this option needs"
    with pytest.raises(runner.UsageError, match=moved):  # JAX has not begun here, so there is no client
        jax_processes.client()
    client = types.SimpleNamespace(**dict.fromkeys(jax_processes.METHODS, print))
    monkeypatch.setattr(jax._src.distributed.global_state, "client", client)
    assert jax_processes.client() is client
    monkeypatch.delattr(client, "key_value_dir_get")
    with pytest.raises(runner.UsageError, match=moved):
        jax_processes.client()
    monkeypatch.delattr(jax._src.distributed, "global_state")
    with pytest.raises(runner.UsageError, match=moved):
        jax_processes.client()
    monkeypatch.delattr(jax._src.clusters, "ClusterEnv")
    with pytest.raises(runner.UsageError, match=r"no jax._src.clusters.ClusterEnv.*give HOST:PORT,N,I instead of auto"):
        jax_processes.detected(1.0)


def test_no_other_module_uses_private_names_of_jax():
    folder = distributed.pathlib.Path(distributed.__file__).parents[1]
    using = [path.name for path in folder.rglob("*.py") if "jax._src" in path.read_text(encoding="utf-8")]
    assert using == ["jax_processes.py"]


def test_slurm_and_open_mpi_are_detected(within):
    within(SLURM)
    found = jax_processes.detected(1.0)
    assert found == (("SLURM",), f"node007:{PORT + 17}", 4, 2, [1])
    within(MPI)  # both: mpirun within a job of SLURM
    found = jax_processes.detected(1.0)
    assert found.by == ("Open MPI", "SLURM")
    assert found[1:] == (f"10.96.0.1:{PORT + 1531576320 // 2**12 % 2**12}", 3, 1, [0])


def test_kubernetes_is_detected(kubernetes, within):
    assert jax_processes.detected(1.0) == (("Kubernetes",), "train-0.pods:55527", 5, 2, None)
    within(SLURM)
    assert jax_processes.detected(1.0).by == ("SLURM", "Kubernetes")


def test_what_is_detected_in_part_is_refused_in_one_line(kubernetes, within, monkeypatch):
    def forbidden(**given):
        raise kubernetes.error("Forbidden")

    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    with pytest.raises(runner.UsageError, match="JAX cannot find the other processes: To enable automatic bootstrap"):
        jax_processes.detected(1.0)
    monkeypatch.setattr(kubernetes.package.config, "load_incluster_config", forbidden)
    with pytest.raises(runner.UsageError, match="JAX cannot find the other processes: Forbidden"):
        jax_processes.detected(1.0)
    within({name: value for name, value in MPI.items() if name != "OMPI_COMM_WORLD_RANK"})
    with pytest.raises(runner.UsageError, match="there is no variable 'OMPI_COMM_WORLD_RANK'"):
        jax_processes.detected(1.0)
    within({"OMPI_COMM_WORLD_RANK": "3"})
    with pytest.raises(runner.UsageError, match=r"JAX finds process 3 of 3 at 10\.96\.0\.1"):
        jax_processes.detected(1.0)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({}, "give HOST:PORT,N,I instead"),
        ({"SLURM_JOB_ID": "17", "SLURM_PROCID": "0"}, "within this job of SLURM, start the processes with srun"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "give HOST:PORT,$OMPI_COMM_WORLD_SIZE,"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "install the package kubernetes, or give HOST:PORT,N,I"),
    ],
)
def test_where_jax_detects_nothing_the_error_says_what_to_do(within, monkeypatch, recwarn, values, hint):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    within(values)
    with pytest.raises(runner.UsageError, match=r"JAX finds no cluster here, .*" + re.escape(hint)):
        jax_processes.detected(1.0)
    assert not recwarn.list


@pytest.mark.slow
def test_a_process_that_slurm_starts_alone_trains(tmp_path, within):
    within(SLURM | {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    words = ["--tiny", "--env", "CartPole-v1", "--no-gif", "--output-dir", tmp_path, "--distributed", "auto"]
    ((out, err, code),) = finished(start(1, words))
    assert code == 0 and f"SLURM: process 0 of 1, at 127.0.0.1:{PORT + 17}" in err, (out, err)


def test_process_0_says_what_was_detected(within, capsys):
    within(SLURM | {"SLURM_PROCID": "0"})
    cluster, devices = distributed._found(distributed.Cluster("auto"), 1.0)
    assert cluster == ("auto", f"node007:{PORT + 17}", 4, 0) and devices == [1]
    assert capsys.readouterr().err == f"SLURM: process 0 of 4, at node007:{PORT + 17}\n"
    within(MPI | {"OMPI_COMM_WORLD_RANK": "0"})
    distributed._found(distributed.Cluster("auto"), 1.0)
    assert capsys.readouterr().err.startswith("Open MPI (SLURM could be used too): process 0 of 3, at 10.96.0.1:")


def test_no_cluster_and_a_port_in_use_are_one_line_each(tmp_path):
    port = free_port()
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::", port))
        one.listen()
        taken = start(2, ["--tiny", "--output-dir", tmp_path], port=port, only=[0])
        lost = start(1, ["--tiny", "--output-dir", tmp_path, "--distributed", "auto"])
        ends = finished([*taken, *lost], 60)
    assert [code for *_, code in ends] == [2, 2], ends
    assert f"process 0 cannot listen on port {port} (Address already in use)" in ends[0][1].splitlines()[-1]
    assert "JAX finds no cluster here, neither of SLURM" in ends[1][1].splitlines()[-1]
    assert not list(tmp_path.iterdir())
