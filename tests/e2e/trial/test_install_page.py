"""`docs/install.md`, word by word, from an empty namespace to the results of two jobs, on a trial's own MinIO."""

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from devcluster import network
from support.helm import CHART

pytestmark = pytest.mark.timeout(900)

PAGE = (CHART.parents[1] / "docs" / "install.md").read_text()
# A person looks whether it is there before going on.
WAIT = r"\g<0>\nuntil (echo > /dev/tcp/localhost/\1) 2>/dev/null; do kill -0 $!; sleep 0.2; done"


def _commands(section: str) -> list[str]:
    """Return the blocks of commands below a heading."""
    (text,) = re.findall(rf"^## \d+\. {section}$(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    return [block for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if not kind]


def _script() -> str:
    rollout, trial = _commands("CryoMamba")
    (wait,) = [line for line in rollout.splitlines() if "rollout status" in line]
    blocks = [
        *_commands("A namespace"),
        trial,
        wait,
        *_commands("A token, and a first job by REST"),
        *_commands("A first job by kubectl"),
    ]
    text = "\n".join(blocks)
    for port in (8000, 9000):  # somebody else may have these
        free = str(network.free_port(network.LOOPBACK, random.SystemRandom()))
        text = re.sub(rf"(?<= ){port}(?=:\d+ &)|(?<=localhost:){port}", free, text)
    script = re.sub(r"^.*port-forward \S+ (\d+):\d+ &$", WAIT, text, flags=re.MULTILINE)
    return f"set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n{script}"


def test_a_person_who_follows_the_page_gets_results_by_rest_and_by_kubectl(
    desk: Path, environment: dict[str, str], afterwards
):
    done = subprocess.run(
        ["bash", "-c", _script()],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    if done.returncode:
        logs = afterwards(
            "logs", "--all-containers", "--prefix", "--tail=20", "--selector=app.kubernetes.io/part-of=cryomamba"
        )
        pytest.fail(f"{done.stdout}{done.stderr}{logs}")
    assert (desk / "results" / "segmentation.mrc").stat().st_size > 1024
    by_kubectl = json.loads(done.stdout.splitlines()[-1])
    assert by_kubectl["status"] == "completed", by_kubectl
    assert {"segmentation.mrc", "statistics.json"} <= {artifact["name"] for artifact in by_kubectl["artifacts"]}
