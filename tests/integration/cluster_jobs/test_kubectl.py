"""Jobs that were made with kubectl, and how they are seen through the API."""

from support.api_target import Person, error, ok
from support.segmentation_jobs import FILE, segmentation_job
from support.waiting import until


def apply(kube, name: str, owner: str | None, **spec) -> None:
    resource = segmentation_job(name, **spec)
    resource["metadata"]["labels"] = {"cryomamba.io/owner": owner} if owner else {}
    kube.kubectl.apply(resource)


def test_a_job_of_kubectl_is_its_owners(serve, kube):
    target = serve()
    ada, bob, admin = Person(target, target.ada), Person(target, target.bob), Person(target, target.admin)
    apply(kube, "adas", "ada", inference={"tileStepPercent": 25, "mirroring": False})

    until(lambda: ada.get("/v1/jobs/adas").status_code == 200)

    shown = ada.job("adas")
    assert shown["job_id"] == "adas"
    assert shown["file_id"] == FILE
    assert shown["params"]["step_size"] == 0.25
    assert shown["params"]["disable_tta"] is True
    error(bob.get("/v1/jobs/adas"), 404, "NOT_FOUND")
    assert admin.job("adas")["status"] == "queued"
    assert [job["job_id"] for job in ok(ada.get("/v1/jobs"))["jobs"]] == ["adas"]
    assert ok(bob.get("/v1/jobs"))["jobs"] == []


def test_a_job_without_an_owner_is_seen_by_admin_alone(serve, kube):
    target = serve()
    ada, admin = Person(target, target.ada), Person(target, target.admin)
    apply(kube, "nobodys", None, input={"object": "raw/tomogram.mrc"})

    until(lambda: admin.get("/v1/jobs/nobodys").status_code == 200)

    assert "file_id" not in admin.job("nobodys")
    error(ada.get("/v1/jobs/nobodys"), 404, "NOT_FOUND")


def test_a_job_that_is_cancelled_with_kubectl_is_cancelled_in_the_api(ada, kube):
    apply(kube, "adas", "ada")
    until(lambda: ada.get("/v1/jobs/adas").status_code == 200)

    kube.kubectl("patch", "segjob", "adas", "--type=merge", "--patch", '{"spec":{"desiredState":"Cancelled"}}')

    until(lambda: ada.job("adas")["status"] == "cancelled")


def test_a_job_that_is_deleted_is_gone_and_its_sockets_are_told(ada, kube):
    apply(kube, "adas", "ada")
    until(lambda: ada.get("/v1/jobs/adas").status_code == 200)

    with ada.socket("adas") as socket:
        kube.kubectl("delete", "segjob", "adas")
        last = socket.recv(timeout=5)

    assert "The job was removed." in str(last)
    error(ada.get("/v1/jobs/adas"), 404, "NOT_FOUND")
