"""What a job's pod may do in the object store, as a policy that narrows its temporary credentials. Pure."""

import json

from cryomamba_crds import keys
from cryomamba_crds.resource import SegmentationJob


def input_key(record: SegmentationJob) -> str:
    """Return the key of a job's volume."""
    source = record.spec.input
    return source.object if source.object is not None else keys.file_volume(source.file_id or "")


def session_policy(record: SegmentationJob, bucket: str, partition: str = "aws") -> str:
    """Return the policy as JSON: read the input and the model, read and write below the job's own prefix, nothing else.

    What attempts leave for each other, and nothing else, may be deleted, once there is a result.

    There is no right to list, so an object that is not there is answered with AccessDenied.

    Args:
        record: As the API server gave it; no character that its keys may have means anything in a policy.
        bucket: Of the installation.
        partition: Of the resource names: `aws-cn` and the like for AWS's other parts.
    """
    objects = f"arn:{partition}:s3:::{bucket}/"
    uid = record.metadata.uid or ""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetObject"],
                    "Resource": [
                        f"{objects}{input_key(record)}",
                        f"{objects}{keys.model_prefix(record.spec.model)}*",
                    ],
                },
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
                    "Resource": [f"{objects}{keys.job_prefix(uid)}*"],
                },
                {
                    "Effect": "Allow",
                    "Action": ["s3:DeleteObject"],
                    "Resource": [f"{objects}{keys.checkpoint_prefix(uid)}*"],
                },
            ],
        },
        separators=(",", ":"),
    )
