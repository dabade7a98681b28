"""From logits to labels and probabilities."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_inference.engine.arrival import Arrival
from cryomamba_inference.engine.interface import Labels

_TORCH_TYPES = {np.uint8: torch.uint8, np.int16: torch.int16}


@dataclass(frozen=True)
class Heads:
    """What the network's outputs stand for."""

    count: int
    region_order: tuple[int, ...] | None
    """Label numbers of overlapping regions in the order in which they are decided; None for exclusive labels."""
    dtype: type[np.integer[Any]]
    """Of label arrays."""

    def labels(self, logits: Iterable[torch.Tensor]) -> Callable[[], Labels]:
        """Decide the label of each voxel as `decide` does; a GPU is told to and not waited for.

        Args:
            logits: One tensor a head, each looked at once. They may change as soon as this has returned.

        Returns:
            What waits for the labels and returns them.

        Raises:
            FailureError: INFERENCE_ERROR, at the latest when the labels are asked for; the network gave something that
                is no finite number.
        """
        heads = iter(logits)
        first = next(heads)
        rest = itertools.chain([first], heads)
        if first.device.type == "cpu":
            labels = self.labels_on_host(one.numpy() for one in rest)
            return lambda: labels
        return decide_on_device(rest, self.region_order, self.dtype)

    def labels_on_host(self, logits: Iterable[NDArray[Any]]) -> Labels:
        """Return the label of each voxel; see `decide_on_host`."""
        return decide_on_host(logits, self.region_order, self.dtype)

    @torch.inference_mode()
    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float16]:
        """Return the probability of each head, [heads, ...] as the logits."""
        exclusive = self.region_order is None
        probabilities = torch.softmax(logits, dim=0) if exclusive else torch.sigmoid(logits)
        half: NDArray[np.float16] = probabilities.half().cpu().numpy()
        return half

    def probabilities_of_nothing(self, shape: Sequence[int]) -> NDArray[np.float16]:
        """Return the probabilities where all is background, which overlapping regions have none of."""
        probabilities = np.zeros((self.count, *shape), dtype=np.float16)
        if self.region_order is None:
            probabilities[0] = 1
        return probabilities


@torch.inference_mode()
def decide(
    logits: Iterable[torch.Tensor], region_order: Sequence[int] | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the label of each voxel: that of the largest logit, or the last of the regions whose logit is positive.

    Args:
        logits: One tensor a head, each looked at once. They need not be divided by the sum of weights.
        region_order: Label numbers in class order; None for exclusive labels.
        dtype: Of the labels.

    Returns:
        The labels, and the least and the greatest of the largest logits, which are finite if all logits are.
    """
    heads = iter(logits)
    first = next(heads)
    best = first.clone()
    # Numbers that rise with the head, so that the largest is that of the last head which was ahead: comparing,
    # multiplying and taking the larger are several times as fast as filling in where a mask says so.
    winner = torch.zeros(first.shape, dtype=dtype, device=first.device)
    if region_order is not None:
        winner += first > 0
    for head, one in enumerate(heads, start=1):
        if region_order is None:
            ahead, number = one > best, head
        else:
            ahead, number = one > 0, head + 1
        torch.maximum(winner, ahead.to(dtype).mul_(number), out=winner)
        torch.maximum(best, one, out=best)
    extremes = torch.stack(torch.aminmax(best))
    if region_order is None:
        return winner, extremes
    return torch.tensor([0, *region_order], dtype=dtype, device=winner.device)[winner.int()], extremes


def decide_on_device(
    logits: Iterable[torch.Tensor], region_order: Sequence[int] | None, dtype: type[np.integer[Any]]
) -> Callable[[], Labels]:
    """Tell the device to decide as `decide` does.

    Returns:
        What waits for the labels and returns them.

    Raises:
        FailureError: INFERENCE_ERROR, when the labels are asked for; the network gave something that is no finite
            number.
    """
    decided, extremes = decide(logits, region_order, _TORCH_TYPES[dtype])
    labels, bounds = Arrival(decided), Arrival(extremes)

    def arrived() -> Labels:
        _refuse_not_finite(*bounds.values())
        return labels.values()

    return arrived


def decide_on_host(
    logits: Iterable[NDArray[Any]], region_order: Sequence[int] | None, dtype: type[np.integer[Any]]
) -> Labels:
    """Return the labels that `decide` returns, with NumPy, which takes a third of the time that torch takes on a CPU.

    An array may be overwritten once the next one is asked for.

    Raises:
        FailureError: INFERENCE_ERROR; the network gave something that is no finite number.
    """
    heads = iter(logits)
    first = next(heads)
    best = first.copy()
    winner = np.zeros(first.shape, dtype=dtype)
    if region_order is not None:
        winner += first > 0
    ahead, number = np.empty(first.shape, dtype=np.bool_), np.empty_like(winner)
    for head, one in enumerate(heads, start=1):
        np.greater(one, best if region_order is None else 0, out=ahead)
        # Bytes of 0 and 1, seen as numbers: there is nothing to convert.
        np.multiply(ahead.view(np.uint8), dtype(head if region_order is None else head + 1), out=number)
        np.maximum(winner, number, out=winner)
        np.maximum(best, one, out=best)
    _refuse_not_finite(float(best.min()), float(best.max()))
    if region_order is None:
        return winner
    labels: Labels = np.array([0, *region_order], dtype=dtype)[winner]
    return labels


def _refuse_not_finite(*extremes: float) -> None:
    """Refuse NaN and infinity in the largest logits: what is in any head is there, but for minus infinity, which loses.

    Raises:
        FailureError: INFERENCE_ERROR.
    """
    if not all(math.isfinite(extreme) for extreme in extremes):
        raise FailureError(
            FailureCode.INFERENCE_ERROR,
            "inference: the network's output is not finite",
            hint="Check that the volume's intensities are of the kind that the model was trained on; extreme values "
            "overflow in half precision.",
        )
