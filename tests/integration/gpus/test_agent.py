"""`cryomamba-apiserver gpu-agent`, with an NVML that the test supplies."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from support.commands import environment_with
from support.gpu_agents import COMMAND, agent
from support.waiting import until

FIRST = {
    "index": 0,
    "name": "NVIDIA Imaginary 0",
    "memory_total": 48 << 30,
    "memory_free": 40 << 30,
    "memory_used": 8 << 30,
    "compute_capability": "8.6",
    "utilization": 85,
    "temperature": 72,
    "power_usage": 280,
    "power_limit": 300,
}
NOT_TOLD = dict.fromkeys(
    ("memory_total", "memory_free", "memory_used", "utilization", "temperature", "power_usage", "power_limit")
)


def ask(asked, path="/v1/node"):
    return httpx.get(asked.url + path, timeout=30)


def test_an_agent_tells_every_gpu_of_its_node_in_bytes_and_watts(start):
    answer = ask(start("node-a"))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "node": "node-a",
        "cuda_version": "12.4",
        "gpus": [FIRST, FIRST | {"index": 1, "name": "NVIDIA Imaginary 1"}],
        "problems": [],
    }


@pytest.mark.parametrize(
    ("words", "silent"),
    [("powerless=1", ("power_usage", "power_limit")), ("shy=1", tuple(NOT_TOLD))],
)
def test_what_a_card_does_not_tell_is_null_and_the_rest_is_told(start, gpus, words, silent):
    gpus.say(f"gpus=2 {words}")

    told = ask(start()).json()["gpus"]

    assert told[0] == FIRST
    assert told[1] == FIRST | {"index": 1, "name": "NVIDIA Imaginary 1"} | dict.fromkeys(silent)


def test_a_lost_gpu_is_named_and_the_others_are_told(start, gpus):
    gpus.say("gpus=3 lost=1")

    report = ask(start()).json()

    assert [gpu["index"] for gpu in report["gpus"]] == [0, 2]
    assert report["problems"] == ["GPU 1 does not answer: GPU is lost"]


@pytest.mark.parametrize("words", ["gpus=0", "init=9"])
def test_a_node_without_gpus_or_without_their_driver_has_none_which_is_no_error(start, gpus, words):
    gpus.say(words)

    answer = ask(start())

    assert answer.status_code == 200
    assert answer.json()["gpus"] == []
    assert answer.json()["problems"] == []


def test_a_node_without_nvml_has_no_gpus_which_is_no_error(tmp_path):
    with agent("node-a", tmp_path / "stderr", {}) as without:
        answer = ask(without)

    assert answer.json() == {"node": "node-a", "cuda_version": None, "gpus": [], "problems": []}


@pytest.mark.parametrize("words", ["init=999", "gpus=2 count=999"])
def test_an_error_of_the_driver_is_answered_503_with_its_words(start, gpus, words):
    gpus.say(words)

    answer = ask(start())

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    failure = answer.json()["error"]
    assert failure["code"] == "SERVICE_UNAVAILABLE"
    assert failure["message"] == "the NVIDIA driver does not answer: Unknown Error"
    assert "nvidia-smi" in failure["hint"]


@pytest.mark.parametrize("call", ["init", "memory", "power"])
def test_a_driver_that_hangs_is_answered_503_in_time_and_is_asked_again_once_it_is_back(start, gpus, call):
    patient = start(gpu_agent_seconds="0.4")
    gpus.say(f"gpus=2 hang={call}")

    began = time.monotonic()
    answers = [ask(patient) for _ in range(3)]

    assert time.monotonic() - began < 10
    assert {answer.status_code for answer in answers} == {503}
    assert "the NVIDIA driver has not answered within 0.3 s" in answers[0].json()["error"]["message"]
    assert ask(patient, "/livez").status_code == 200
    gpus.say("gpus=2")
    until(lambda: ask(patient).status_code == 200)


def test_requests_on_a_driver_that_hangs_share_one_thread(start, gpus):
    hanging = start(gpu_agent_seconds="0.4")
    gpus.say("gpus=2 hang=init")
    ask(hanging)
    before = psutil.Process(hanging.process.pid).num_threads()

    for _ in range(5):
        assert ask(hanging).status_code == 503

    assert psutil.Process(hanging.process.pid).num_threads() == before
    gpus.say("gpus=2")
    until(lambda: ask(hanging).status_code == 200)


@pytest.mark.parametrize("words", ["gpus=2", "gpus=2 hang=init"])
def test_an_agent_ends_in_good_order_on_sigterm_whatever_its_driver_does(gpus, tmp_path, words):
    with agent("node-a", tmp_path / "stderr", gpus.environment, gpu_agent_seconds="0.2") as stopped:
        gpus.say(words)
        ask(stopped)

        stopped.process.send_signal(signal.SIGTERM)

        assert stopped.process.wait(120) == 0


def test_an_agent_without_a_name_for_its_node_takes_the_hosts(start):
    nameless = start(node="")

    assert ask(nameless).json()["node"] == socket.gethostname()


def test_a_setting_that_is_wrong_is_named(gpus):
    done = subprocess.run(
        COMMAND, env=environment_with(gpu_agent_port="many"), capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert "CRYOMAMBA_GPU_AGENT_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_imports_no_torch(start):
    lean = start()
    ask(lean)

    assert "torch" not in Path(f"/proc/{lean.process.pid}/maps").read_text()
