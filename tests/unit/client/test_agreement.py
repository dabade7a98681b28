"""The Dice coefficient."""

import numpy as np
import pytest

from cryomamba.agreement import dice


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 1, 1, 0], 0.5),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([1, 1, 2, 2], [1, 2, 2, 2], 2 / 3),
        ([0, 2, 0, 0], [0, 0, 0, 0], 1.0),
    ],
)
def test_dice_of_label_1(truth: list[int], prediction: list[int], expected: float) -> None:
    assert dice(np.array(truth, np.uint8), np.array(prediction, np.int8), 1) == pytest.approx(expected)


def test_volumes_of_different_shape_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        dice(np.zeros((2, 3)), np.zeros((3, 2)), 1)
