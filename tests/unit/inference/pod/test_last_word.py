"""The termination message: always JSON, never longer than Kubernetes keeps."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cryomamba_crds.failures import Failure, FailureCode
from cryomamba_inference.pod.last_word import LONGEST, termination_message, write_last_word

TEXT = st.text(alphabet=st.characters(), max_size=900)


@given(
    message=st.builds(lambda text, times: (text * times)[:2048], TEXT, st.integers(1, 40)),
    hint=st.builds(lambda text, times: (text * times)[:1024], TEXT, st.integers(1, 40)),
    details=st.dictionaries(st.text(max_size=9), st.one_of(TEXT, st.integers(), st.binary(max_size=9)), max_size=9),
)
def test_any_failure_fits_and_can_be_read(message: str, hint: str, details: dict[str, object]) -> None:
    failure = Failure(code=FailureCode.GPU_ERROR, message=message, hint=hint, retryable=True, details=details)

    told = termination_message(failure)

    assert len(told) <= LONGEST
    read = Failure.model_validate_json(told)
    assert (read.code, read.retryable) == (failure.code, True)
    assert read.message[:20].startswith(message.encode(errors="replace").decode()[:20])


def test_a_failure_that_fits_is_told_whole(tmp_path: Path) -> None:
    failure = Failure(
        code=FailureCode.NOT_FOUND, message="Kein Tomogramm für 3 Å.", hint="Ä.", retryable=False, details={"a": [1]}
    )
    write_last_word(failure, tmp_path / "word")

    assert json.loads((tmp_path / "word").read_bytes()) == failure.model_dump(mode="json")


def test_a_place_that_cannot_be_written_to_is_no_further_failure(tmp_path: Path, caplog) -> None:
    failure = Failure(code=FailureCode.NOT_FOUND, message="No.", hint="Look.", retryable=False)

    write_last_word(failure, tmp_path / "no" / "word")

    assert "NOT_FOUND: No. Look." in caplog.text
    assert "cannot be written" in caplog.text
