"""The agent with the real driver, held against what nvidia-smi says."""

import shutil
import subprocess

import httpx
import pytest

from support.gpu_agents import agent

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA driver on this machine"),
]
MIB = 1 << 20


def nvidia_smi(*fields: str) -> list[list[str]]:
    query = [f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, check=True)
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]


def test_the_agent_tells_what_nvidia_smi_tells(tmp_path):
    # A driver that nobody keeps open takes seconds to answer.
    with agent("node-a", tmp_path / "stderr", {}, gpu_agent_seconds="60") as running:
        report = httpx.get(f"{running.url}/v1/node", timeout=60).json()
    wanted = nvidia_smi("index", "name", "memory.total", "compute_cap")

    assert report["problems"] == []
    told = [[str(gpu["index"]), gpu["name"], gpu["compute_capability"]] for gpu in report["gpus"]]
    assert told == [[index, name, capability] for index, name, _, capability in wanted]
    for gpu, (_, _, total, _) in zip(report["gpus"], wanted, strict=True):
        # nvidia-smi leaves out, or not, what the driver keeps for itself.
        assert abs(gpu["memory_total"] - int(total) * MIB) < 0.05 * gpu["memory_total"]
        assert 0 <= gpu["memory_used"] <= gpu["memory_total"]
