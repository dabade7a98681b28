"""What a runner's pod may write: its own progress, preview, GPU and artifacts, in every way there is."""

import pytest

from support.segmentation_jobs import THEN, condition

PROGRESS = {"sequence": 7, "currentStep": 3, "percentage": 42, "message": "Inferring tile 9/21", "updatedAt": THEN}
PREVIEW = {"sequence": 1, "scale": 4, "shape": [100, 100, 20], "sliceIdx": 10}
GPU = {"gpuId": 0, "memoryUsed": 1024, "memoryTotal": 81559, "utilization": 97}
ARTIFACT = {"name": "labels.mrc", "size": 1024, "contentType": "application/octet-stream", "createdAt": THEN}
RUNNING = [condition("Running", "True", "Running"), condition("Succeeded", "Unknown", "Running")]
ALL = {"progress": PROGRESS, "preview": PREVIEW, "gpu": GPU, "artifacts": [ARTIFACT]}


def test_a_pod_reports_with_the_token_that_kubelet_gave_it(place):
    pod = place.start_pod()
    place.create_job("tomogram", pod, conditions=RUNNING)

    answer = pod.patch("tomogram", {"status": ALL})

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"]["attempt"] == 1  # how a runner learns the number of its attempt
    assert place.status("tomogram")["progress"]["percentage"] == 42


@pytest.mark.parametrize("name", ALL)
def test_each_of_its_four_fields_is_written_changed_and_removed(place, pod, name):
    for value in (ALL[name], None, ALL[name]):
        answer = pod.patch("tomogram", {"status": {name: value}})

        assert answer.status_code == 200, answer.text
        assert (name in place.status("tomogram")) == (value is not None)


def test_what_the_operator_wrote_is_left_as_it_is(place, pod):
    before = place.status("tomogram")

    pod.patch("tomogram", {"status": ALL})

    after = place.status("tomogram")
    assert {name: value for name, value in after.items() if name not in ALL} == before


def test_a_new_attempt_replaces_what_the_last_one_reported(place, pod):
    pod.patch("tomogram", {"status": ALL})
    second = place.create_pod("tomogram-m9q4w")
    place.record("tomogram", podUid=second.uid, attempt=2)

    answer = second.patch("tomogram", {"status": {**dict.fromkeys(ALL), "progress": PROGRESS | {"percentage": 1}}})

    assert answer.status_code == 200, answer.text
    assert set(ALL) & set(place.status("tomogram")) == {"progress"}


def test_a_json_patch_or_an_apply_of_its_own_fields_is_as_good(pod):
    by_operations = pod.patch("tomogram", [{"op": "add", "path": "/status/progress", "value": PROGRESS}], "json")
    applied = {"apiVersion": "cryomamba.io/v1alpha1", "kind": "SegmentationJob", "status": {"gpu": GPU}}
    by_applying = pod.patch("tomogram", applied, "apply", "?fieldManager=runner")

    assert [by_operations.status_code, by_applying.status_code] == [200, 200], by_applying.text


def test_what_is_not_the_status_is_left_out_of_a_report(place, pod):
    before = place.kubectl.get("segjob", "tomogram")
    more = {
        "metadata": {
            "labels": {"cryomamba.io/owner": "mallory"},
            "annotations": {"a": "b"},
            "finalizers": ["cryomamba.io/never"],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid, "controller": True}
            ],
        },
        "spec": {"desiredState": "Cancelled", "ttlSecondsAfterFinished": 0},
    }

    pod.patch("tomogram", {**more, "status": {"progress": PROGRESS}})

    after = place.kubectl.get("segjob", "tomogram")
    assert after["spec"] == before["spec"]
    assert not {"labels", "annotations", "finalizers", "ownerReferences"} & set(after["metadata"])


def test_a_report_that_makes_no_sense_is_refused_by_the_resource_itself(pod, refuses):
    answer = pod.patch("tomogram", {"status": {"progress": PROGRESS | {"percentage": 101}}})

    refuses(answer, 422, "should be less than or equal to 100")
