"""A workstation from end to end: real commands, a real server, a real network."""

import json
import re
import secrets
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import mrcfile
import numpy as np
import pytest
from PIL import Image

from support.commands import CRYOMAMBA, ENVIRONMENT, INTERRUPTIBLE, serving
from support.waiting import processes_with, until

pytestmark = pytest.mark.timeout(400)

EMD_3197 = Path(__file__).parents[2] / "data" / "EMD-3197.map"
BUNDLED_MODEL = Path(__file__).parents[3] / "apiserver/cryomamba_apiserver/models/bundled/demo/model.zip"
CHANGED_BY_DESIGN = {"mode", "dmin", "dmax", "dmean", "rms", "nsymbt", "exttyp"}


def test_the_demo_finds_what_is_in_its_phantom_and_leaves_no_process(cryomamba, tmp_path):
    done = cryomamba("demo", "--output", tmp_path / "out", "--shape", "48,96,96", TMPDIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "phantom.mrc",
        "truth.mrc",
        "segmentation.mrc",
        "statistics.json",
        "preview.png",
        "receipt.json",
        "overview.png",
    }
    dice = {name: float(value) for name, value in re.findall(r"(membrane|particle) (0\.\d+)", done.stdout)}
    assert set(dice) == {"membrane", "particle"}
    assert min(dice.values()) > 0.7
    with (
        mrcfile.open(tmp_path / "out" / "segmentation.mrc") as labels,
        mrcfile.open(tmp_path / "out" / "truth.mrc") as truth,
    ):
        overlap = (
            ((labels.data == 2) & (truth.data == 2)).sum() * 2 / ((labels.data == 2).sum() + (truth.data == 2).sum())
        )
    assert dice["particle"] == pytest.approx(overlap, abs=0.001)
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert statistics["label_counts"]["1"] > 1000
    with Image.open(tmp_path / "out" / "overview.png") as overview:
        assert overview.width > 600
    assert processes_with(str(tmp_path)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.fixture(scope="module")
def segmented(server, tmp_path_factory) -> Path:
    """The results of `cryomamba segment` on a real volume, smaller than any patch."""
    output = tmp_path_factory.mktemp("segmented")
    environment = ENVIRONMENT | {"CRYOMAMBA_URL": server.url, "CRYOMAMBA_TOKEN": server.token()}
    command = [*CRYOMAMBA, "segment", EMD_3197, "--model", "demo", "--output", output]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=environment)
    return output


def test_a_real_volume_smaller_than_the_patch_keeps_its_header(segmented):
    with mrcfile.open(EMD_3197) as source, mrcfile.open(segmented / "segmentation.mrc") as result:
        assert result.data.shape == (20, 20, 20)
        assert result.data.dtype == np.int8
        for field in source.header.dtype.names:
            if field not in CHANGED_BY_DESIGN:
                assert np.array_equal(result.header[field], source.header[field]), field
        assert result.header.mode == 0
        assert (result.header.dmin, result.header.dmax) == (result.data.min(), result.data.max())


def test_the_server_has_not_loaded_torch_even_after_a_job(server, segmented):
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()

    assert "pydantic_core" in maps
    assert "torch" not in maps


def test_no_module_of_the_server_imports_torch_or_nnunet():
    program = """
import importlib, pkgutil, sys, cryomamba_apiserver
for module in pkgutil.walk_packages(cryomamba_apiserver.__path__, "cryomamba_apiserver."):
    importlib.import_module(module.name)
print(sorted({"torch", "nnunetv2", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"This is a letter, not a tomogram.\n" * 60, "text"), (EMD_3197.read_bytes()[:20_000], "20000|20,000")],
)
def test_a_file_that_is_no_volume_is_refused_before_it_is_sent(server, cryomamba, tmp_path, content, words):
    path = tmp_path / "volume.mrc"
    path.write_bytes(content)

    done = cryomamba("segment", path, "--model", "demo", "--output", tmp_path / "out", server=server)

    assert done.returncode == 1
    assert re.search(words, done.stderr)
    assert "Hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_model_is_answered_with_what_there_is(server, cryomamba, tmp_path):
    done = cryomamba("segment", EMD_3197, "--model", "3d_fullres", "--output", tmp_path, server=server)

    assert done.returncode == 1
    assert "demo" in done.stderr


@pytest.mark.parametrize("token", ["", "nonsense"])
def test_a_wrong_or_missing_token_is_told(server, cryomamba, tmp_path, token):
    done = cryomamba(
        "segment", EMD_3197, "--model", "demo", "--output", tmp_path, CRYOMAMBA_URL=server.url, CRYOMAMBA_TOKEN=token
    )

    assert done.returncode == 1
    assert "token" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_is_told(cryomamba, tmp_path):
    done = cryomamba(
        "segment",
        EMD_3197,
        "--model",
        "demo",
        "--output",
        tmp_path,
        CRYOMAMBA_URL="http://127.0.0.1:9",
        CRYOMAMBA_TOKEN="x",
    )

    assert done.returncode == 1
    assert "cryomamba serve" in done.stderr


def large_volume(folder: Path, shape: tuple[int, int, int] = (96, 192, 192)) -> Path:
    """A volume of noise [z, y, x] that takes a while."""
    path = folder / "large.mrc"
    noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    with mrcfile.new(path, noise) as file:
        file.voxel_size = 13.48
    return path


def test_ctrl_c_cancels_the_job_and_ends_cleanly(server, tmp_path):
    volume, output = large_volume(tmp_path), tmp_path / "out"
    command = [*INTERRUPTIBLE, *CRYOMAMBA, "segment", volume, "--model", "demo", "--output", output]
    environment = ENVIRONMENT | {"CRYOMAMBA_URL": server.url, "CRYOMAMBA_TOKEN": server.token()}
    headers = {"Authorization": f"Bearer {server.token()}"}

    def running() -> list[dict]:
        return httpx.get(f"{server.url}/v1/jobs", params={"status": "running"}, headers=headers).json()["jobs"]

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        until((tmp_path / "out" / "preview.png").exists)
        (job,) = running()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in errors
    assert httpx.get(f"{server.url}/v1/jobs/{job['job_id']}", headers=headers).json()["status"] == "cancelled"
    assert processes_with(job["job_id"]) == []


def test_ctrl_c_in_the_demo_leaves_nothing_behind(tmp_path):
    command = [*INTERRUPTIBLE, *CRYOMAMBA, "demo", "--output", tmp_path / "out"]
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        until((tmp_path / "out" / "preview.png").exists)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in errors
    until(lambda: processes_with(str(tmp_path)) == [], 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_job_survives_kill_9_of_the_server(cryomamba, tmp_path):
    volume, data_dir = large_volume(tmp_path, (64, 128, 128)), tmp_path / "data"
    with serving(data_dir, requests_per_minute="10000") as server:
        command = [*CRYOMAMBA, "segment", volume, "--model", "demo", "--output", tmp_path / "out", "--no-mirroring"]
        environment = ENVIRONMENT | {"CRYOMAMBA_URL": server.url, "CRYOMAMBA_TOKEN": server.token()}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as client:
            until((tmp_path / "out" / "preview.png").exists)
            server.process.kill()
            server.process.wait()
            client.kill()
        # The pipe to the server broke, and with it the runner ends.
        until(lambda: processes_with(str(data_dir)) == [], 20)

    with serving(data_dir, requests_per_minute="10000") as server:
        headers = {"Authorization": f"Bearer {server.token()}"}

        def job() -> dict:
            (listed,) = httpx.get(f"{server.url}/v1/jobs", headers=headers).json()["jobs"]
            return httpx.get(f"{server.url}/v1/jobs/{listed['job_id']}", headers=headers).json()

        until(lambda: job()["status"] in {"completed", "failed"}, 200)
        done = job()
        assert done["status"] == "completed", done
        labels = next(artifact for artifact in done["artifacts"] if artifact["name"] == "segmentation.mrc")
        assert len(httpx.get(server.url + labels["url"]).content) == labels["size"]


def test_a_second_server_on_the_same_data_is_refused(server):
    done = subprocess.run(
        [*CRYOMAMBA, "serve", "--port", "0", "--data-dir", server.data_dir],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
        check=False,
    )

    assert done.returncode == 1
    assert "Another server uses" in done.stderr
    assert "--data-dir" in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A server whose data lie on a file system of 24 MB that only it sees."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    mount = f'mount -t tmpfs -o size=24m none "{data_dir}" && exec "$@"'
    namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        namespace = ("unshare", "--mount", "sh", "-c", mount, "sh")
    settings = {
        "token_secret": secrets.token_hex(32),  # what the server would make of its own lies inside the namespace
        "requests_per_minute": "1000",
        "storage_reserve": "0",  # so that uploads can fill the disk to its end
    }
    with (
        serving(data_dir, namespace, **settings) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token()}"}) as client,
    ):
        yield client


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(small_disk):
    client = small_disk
    body = {"filename": "a.mrc", "total_size": 15 << 20, "chunk_size": 5 << 20}

    first, second = client.post("/v1/uploads/init", json=body), client.post("/v1/uploads/init", json=body)
    parts = [client.put(url, content=bytes(5 << 20)) for url in first.json()["chunk_urls"]]

    assert second.status_code == 507  # each fits, the two together do not
    assert second.json()["error"]["code"] == "INSUFFICIENT_STORAGE"
    assert [part.status_code for part in parts] == [200, 200, 200]


def test_a_disk_that_is_full_is_told_and_the_server_goes_on(small_disk):
    client = small_disk
    content = EMD_3197.read_bytes()
    begun = client.post(
        "/v1/uploads/init", json={"filename": "a.map", "total_size": len(content), "chunk_size": 5 << 20}
    ).json()
    etag = client.put(begun["chunk_urls"][0], content=content).json()["etag"]
    complete = {"parts": [{"part_number": 0, "etag": etag}]}
    file_id = client.post(f"/v1/uploads/{begun['upload_id']}/complete", json=complete).json()["file_id"]
    job = {"file_id": file_id, "model": "demo"}

    for size in (4 << 20, 1 << 18, 1 << 14, 1 << 12):  # announced uploads take up all the room there is
        body = {"filename": "b.map", "total_size": size, "chunk_size": 5 << 20}
        while (answer := client.post("/v1/uploads/init", json=body)).status_code == 201:
            pass
    steps = (0.3, 0.4, 0.5, 0.6, 0.7)
    jobs = [client.post("/v1/jobs", json={**job, "params": {"step_size": step}}) for step in steps]

    assert answer.status_code == 507
    # The database has a few pages left for the first of them.
    assert jobs[-1].status_code == 507
    assert jobs[-1].json()["error"]["code"] == "INSUFFICIENT_STORAGE"
    assert client.get("/v1/jobs").status_code == 200


def test_neither_log_nor_data_holds_a_token(server, segmented):
    token = server.token()

    httpx.get(f"{server.url}/v1/server/info?token={token}")
    httpx.get(f"{server.url}/v1/server/info", headers={"Authorization": f"Bearer {token}"})

    written = [server.errors, *(path for path in server.data_dir.rglob("*") if path.suffix in {".log", ".json"})]
    assert len(written) > 3
    assert [path for path in written if "eyJ" in path.read_text()] == []


def test_a_token_is_printed_and_nothing_else(server):
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", server.token())


def test_a_model_of_ones_own_is_pushed_shown_and_removed(cryomamba, tmp_path):
    with zipfile.ZipFile(BUNDLED_MODEL) as archive:
        archive.extractall(tmp_path / "result")
    data_dir = tmp_path / "data"

    pushed = cryomamba(
        "models", "push", tmp_path / "result", "--name", "mine", "--cpu-fallback", "--data-dir", data_dir
    )
    listed = cryomamba("models", "list", "--data-dir", data_dir)
    shown = cryomamba("models", "show", "mine", "--data-dir", data_dir)
    removed = cryomamba("models", "remove", "mine", "--data-dir", data_dir)
    missing = cryomamba("models", "show", "mine", "--data-dir", data_dir)

    assert pushed.returncode == 0, pushed.stderr
    assert "1 membrane, 2 particle" in pushed.stdout
    assert listed.stdout.split() == ["mine"]
    assert json.loads(shown.stdout)["spacing_policy"] == "ignore"
    assert json.loads(shown.stdout)["cpu_fallback"] is True
    assert removed.returncode == 0
    assert missing.returncode == 1
    assert "There is no model 'mine'" in missing.stderr


def test_a_model_that_would_run_code_is_refused_where_it_is_pushed(cryomamba, tmp_path):
    with zipfile.ZipFile(BUNDLED_MODEL) as archive:
        archive.extractall(tmp_path / "result")
    plans = tmp_path / "result" / "plans.json"
    content = json.loads(plans.read_text())
    (configuration,) = (one for one in content["configurations"].values() if "architecture" in one)
    configuration["architecture"]["arch_kwargs"]["nonlin"] = "os.system"
    plans.write_text(json.dumps(content))

    done = cryomamba("models", "push", tmp_path / "result", "--name", "evil", "--data-dir", tmp_path / "data")

    assert done.returncode == 1
    assert "nonlin" in done.stderr
    assert "os.system" in done.stderr
