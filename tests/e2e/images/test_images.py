from pathlib import Path

from cryomamba_crds.failures import ExitCode
from support.product_images import ProductImages

PROBE = Path(__file__).with_name("probe.py").read_text()
PYTHON = "/opt/cryomamba/bin/python"
USER = 65532
SERVER_BYTES = 450_000_000


def test_the_server_s_image_is_small_and_knows_no_torch(run, product_images: ProductImages) -> None:
    found = run(product_images.server, {"probe": [PYTHON, "-c", PROBE]})["probe"].last_line

    assert found["user"] == [USER, USER]
    assert found["writable"] == ["/scratch"]
    assert not found["has_torch"]
    assert "torch" not in found["sbom"]
    assert "fastapi" in found["sbom"]
    assert found["compiled"]
    assert found["bytes"] <= SERVER_BYTES


def test_every_program_of_the_server_s_image_starts(run, product_images: ProductImages) -> None:
    endings = run(
        product_images.server,
        {
            "default": None,
            "serve": ["cryomamba", "serve", "--help"],
            "agent": ["cryomamba-apiserver", "gpu-agent", "--help"],
            "sweep": ["cryomamba-apiserver", "sweep", "--help"],
            # It takes no arguments; without settings it says which are missing.
            "operator": ["python", "-m", "cryomamba_operator"],
        },
    )

    assert {name: ending.exit_code for name, ending in endings.items() if name != "operator"} == dict.fromkeys(
        ("default", "serve", "agent", "sweep"), 0
    )
    assert "Usage" in endings["default"].printed
    assert endings["operator"].exit_code == 2
    assert "CRYOMAMBA_OPERATOR_" in endings["operator"].printed


def test_the_runner_s_image_has_torch_with_cuda_and_runs_a_pod_s_job(run, product_images: ProductImages) -> None:
    endings = run(product_images.inference, {"probe": [PYTHON, "-c", PROBE], "own": None})

    found = endings["probe"].last_line
    assert found["user"] == [USER, USER]
    assert found["writable"] == ["/scratch"]
    assert found["engine"] == "cryomamba_inference.engine"
    assert found["sbom"]["torch"] == found["torch"].partition("+")[0]
    assert found["cuda"] is not None
    assert any(name.startswith("nvidia-cudnn") for name in found["sbom"])
    assert found["compiled"]
    # Its own command is the runner, which misses what the operator hands to a pod.
    assert endings["own"].exit_code == ExitCode.FAILED
    assert "CRYOMAMBA_JOB_SPEC" in endings["own"].printed
