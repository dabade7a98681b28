"""`cryomamba-apiserver sweep`, as a CronJob runs it."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from cryomamba_apiserver.uploads.schemas import InitUpload
from cryomamba_crds import keys
from support.commands import ENVIRONMENT


@pytest.fixture
def command(tmp_path):
    """Runs the command on the test's data directory."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cryomamba_apiserver", "sweep", "--data-dir", str(tmp_path / "data"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=ENVIRONMENT | environment,
            check=False,
        )

    return run


@pytest.fixture
def leftovers(context, clock):
    """An upload that expired a week ago, and a volume that nobody names; the server goes on running."""
    clock.forward(-timedelta(days=7))
    request = InitUpload(filename="v.mrc", total_size=1000, chunk_size=1000, metadata={})
    session = asyncio.run(context.uploads.begin("ada", request))
    clock.forward(timedelta(days=7))
    orphan = context.objects.root / keys.file_volume("file_bbbbbbbbbbbb")
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"orphan")
    week_ago = (datetime.now(UTC) - timedelta(days=7)).timestamp()
    os.utime(orphan, (week_ago, week_ago))
    return session.upload_id, orphan


def test_it_removes_beside_a_running_server_what_nothing_needs(command, leftovers, ada):
    upload_id, orphan = leftovers

    first, second = command(), command()

    assert first.returncode == 0, first.stderr
    assert "ended 1 uploads" in first.stdout
    assert "ended 0 uploads" in second.stdout
    assert not orphan.exists()
    assert ada.get(f"/v1/uploads/{upload_id}").status_code == 404


def test_a_dry_run_only_says_what_it_would_do(command, leftovers):
    upload_id, orphan = leftovers

    done = command("--dry-run")

    assert f"expire upload {upload_id}" in done.stdout
    assert f"delete {keys.file_volume('file_bbbbbbbbbbbb')}" in done.stdout
    assert orphan.exists()


def test_without_a_table_of_jobs_nothing_is_touched(command, tmp_path):
    volume = tmp_path / "data" / "store" / "objects" / keys.file_volume("file_bbbbbbbbbbbb")
    volume.parent.mkdir(parents=True)
    volume.write_bytes(b"somebody's")

    done = command(CRYOMAMBA_SWEEP_GRACE_SECONDS="0")

    assert done.returncode == 1
    assert "--data-dir" in done.stderr
    assert volume.exists()


def test_a_wrong_setting_is_named(command):
    done = command(CRYOMAMBA_KEEP_JOBS_DAYS="soon")

    assert done.returncode == 2
    assert "CRYOMAMBA_KEEP_JOBS_DAYS" in done.stderr
    assert "Traceback" not in done.stderr
