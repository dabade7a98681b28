import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryomamba_crds.owners import OWNER_ANNOTATION, OWNER_LABEL, owner_label, owner_marks, owner_of

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)\Z")


@given(st.text(min_size=1))
def test_every_subject_has_a_label_that_kubernetes_takes_and_is_read_back(subject: str) -> None:
    labels, annotations = owner_marks(subject)

    assert _LABEL_VALUE.match(labels[OWNER_LABEL])
    assert owner_of(labels, annotations) == subject


@pytest.mark.parametrize("subject", ["ada", "ada.lovelace", "A-1_x", "a" * 63])
def test_a_subject_that_can_be_a_label_is_its_own(subject: str) -> None:
    assert owner_marks(subject) == ({OWNER_LABEL: subject}, {})


def test_a_subject_that_looks_like_anothers_digest_gets_a_digest_of_its_own() -> None:
    digest = owner_label("auth0|ada")

    assert owner_label(digest) != digest


def test_an_annotation_that_does_not_fit_the_label_counts_for_nothing() -> None:
    assert owner_of({OWNER_LABEL: "bob"}, {OWNER_ANNOTATION: "auth0|ada"}) == "bob"


def test_without_a_label_there_is_no_owner() -> None:
    assert owner_of({}, {OWNER_ANNOTATION: "ada"}) is None
