"""How a runner is told to run the network fast."""

import pytest

from cryomamba_inference.engine import Tuning
from cryomamba_inference.tuning import read_tuning


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Tuning()),
        ({"nnUNet_compile": "true"}, Tuning(compiled=True)),
        ({"nnUNet_compile": "T", "nnUNet_channels_last": "1"}, Tuning(compiled=True, channels_last=True)),
        ({"nnUNet_compile": "false", "nnUNet_channels_last": ""}, Tuning()),
    ],
)
def test_the_switches_are_read_as_nnunet_reads_its_own(environment: dict[str, str], expected: Tuning) -> None:
    assert read_tuning(environment) == expected
