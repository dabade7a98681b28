"""What the API server itself makes of SegmentationJobs, by the schema and the rules of the CRD."""




def job(name: str = "tomogram", **spec):
    base = {"input": {"fileId": "file_xyz789abc123"}, "model": "demo"}
    return {
        "apiVersion": "cryomamba.io/v1alpha1",
        "kind": "SegmentationJob",
        "metadata": {"name": name},
        "spec": {**base, **spec},
    }


def test_a_plain_job_is_taken_and_its_defaults_are_filled_in(control_plane_namespace):
    control_plane_namespace.apply(job())

    spec = control_plane_namespace.get("segjob", "tomogram")["spec"]

    assert spec["desiredState"] == "Run"
    assert spec["maxAttempts"] == 3
