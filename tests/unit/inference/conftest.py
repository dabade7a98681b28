"""Tiny nnU-Net models with random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support import nnunet_models


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """Return a function that writes an nnU-Net result folder and returns it."""
    return nnunet_models.write_model
