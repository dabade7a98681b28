"""How well a segmentation agrees with a known truth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def dice(truth: NDArray[Any], prediction: NDArray[Any], label: int) -> float:
    """Return the Dice coefficient 2 |A ∩ B| / (|A| + |B|) of one label in two volumes of the same shape.

    1 where neither has the label: they agree on that (Dice 1945, with the usual convention for empty sets).

    Raises:
        ValueError: The shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"volumes of shape {truth.shape} and {prediction.shape} cannot be compared")
    expected, found = truth == label, prediction == label
    both = int(np.count_nonzero(expected & found))
    in_all = int(np.count_nonzero(expected)) + int(np.count_nonzero(found))
    return 2 * both / in_all if in_all else 1.0
