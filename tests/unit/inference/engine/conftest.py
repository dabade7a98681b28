"""Runs the engine to its end and puts its slabs together."""

from collections.abc import Callable, Generator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryomamba_inference.engine import Segmentation, Slab, Tick


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _collect(events: Generator[Tick | Slab, None, Segmentation]) -> SimpleNamespace:
    """Labels and probabilities in one piece, the ticks, and the summary."""
    ticks, labels, probabilities, planes = [], [], [], 0
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            whole = np.concatenate(labels)
            chances = np.concatenate(probabilities, axis=1) if probabilities else None
            return SimpleNamespace(labels=whole, probabilities=chances, ticks=ticks, summary=stop.value)
        if isinstance(event, Tick):
            ticks.append(event)
            continue
        assert event.start == planes, "slabs follow each other without a gap"
        planes += len(event.labels)
        labels.append(event.labels.copy())
        if event.probabilities is not None:
            probabilities.append(event.probabilities.copy())


@pytest.fixture(scope="session")
def collect() -> Callable[[Generator[Tick | Slab, None, Segmentation]], SimpleNamespace]:
    return _collect
