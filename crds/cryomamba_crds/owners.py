"""Whose job it is, as its resource says: a label to select by, and an annotation where a label cannot hold the name."""

import hashlib
import re
from collections.abc import Mapping

OWNER_LABEL = "cryomamba.io/owner"
OWNER_ANNOTATION = "cryomamba.io/owner"
"""The subject in full, set by the API server where the label is only its digest."""

_DIGEST_PREFIX = "sha256-"
_LABEL_VALUE = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")


def owner_label(subject: str) -> str:
    """Return the label's value for a token's subject: the subject itself where Kubernetes takes it, else a digest.

    Different subjects have different values: one that looks like a digest is not taken for itself.
    """
    if _LABEL_VALUE.match(subject) and not subject.startswith(_DIGEST_PREFIX):
        return subject
    return _DIGEST_PREFIX + hashlib.sha256(subject.encode()).hexdigest()[:48]


def owner_marks(subject: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels and the annotations that say whose a resource is."""
    label = owner_label(subject)
    return {OWNER_LABEL: label}, {} if label == subject else {OWNER_ANNOTATION: subject}


def owner_of(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str | None:
    """Return the subject that a resource belongs to; None where nobody was named, and only `admin` sees it.

    An annotation counts only where the label is its digest, so that the two never name two owners.
    """
    label = labels.get(OWNER_LABEL)
    subject = annotations.get(OWNER_ANNOTATION)
    return subject if subject is not None and owner_label(subject) == label else label or None
