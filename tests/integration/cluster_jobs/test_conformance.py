"""The API reference holds for a server whose jobs are a cluster's: operator, runner and store are the real ones."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFORMANCE = Path(__file__).parents[2] / "conformance"
ABOUT_JOBS = ("test_jobs.py", "test_websocket.py", "test_artifacts.py")
"""The others are about what both profiles share."""


@pytest.mark.timeout(1800)
def test_the_reference_holds_for_jobs_of_a_cluster(control_plane):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--quiet", "--profile=kubernetes", "--timeout=300"),
            *(CONFORMANCE / name for name in ABOUT_JOBS),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
