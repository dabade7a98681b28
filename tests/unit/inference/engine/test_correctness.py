"""The streaming engine against the same network in float64 over the whole volume, with nnU-Net's own result beside it.

In float64 the logits are the reference's. In float32 labels differ in next to no voxel, only where the reference hardly
prefers one, and in no more than nnU-Net's own. Two runs give the same bytes. Show the figures with ``pytest -rP``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryomamba_crds.model_gate import image_spacing
from cryomamba_inference.engine.deciding import Heads
from cryomamba_inference.engine.image import ArrayImage
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.streaming import Work, stream
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.model import Model, load_model
from support.model_grid import CASES, Case, blobs
from support.nnunet_reference import nnunet_predictor, reference

NEAR_TIE = 1e-4


@pytest.fixture
def model(write_model: Callable[..., Path], tmp_path: Path, case: Case) -> Model:
    return load_model(write_model(tmp_path / "m", **case.model), "all", torch.device("cpu"))


def work_for(model: Model, image: NDArray[np.float32], case: Case, **more: Any) -> tuple[Work, Any]:
    policy = "ignore" if case.voxel_size is None else "nm"
    spacing = image_spacing(model.facts, policy, case.voxel_size)
    found = survey(ArrayImage(image))
    route = plan_route(model.facts, model.configuration.configuration, found.box, spacing)
    options = Options(
        step_size=case.step_size, mirroring=case.mirroring, save_probabilities=more.pop("probabilities", False)
    )
    return Work(model, ArrayImage(image), found, route, options, batch=case.batch, **more), spacing


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_labels_are_those_of_a_whole_volume_in_float64(
    model: Model, case: Case, monkeypatch: pytest.MonkeyPatch, collect: Callable[..., Any], request: Any
) -> None:
    image = blobs(case)
    work, spacing = work_for(model, image, case)
    truth = reference(model, image, spacing, step_size=case.step_size, mirroring=case.mirroring)

    ours = collect(stream(work)).labels
    again = collect(stream(work)).labels
    with monkeypatch.context() as patched:
        # In place of probabilities, logits as they are.
        patched.setattr(Heads, "probabilities", lambda _, logits: logits.numpy().copy())
        patched.setattr(Heads, "probabilities_of_nothing", lambda heads, shape: np.zeros((heads.count, *shape)))
        exact, _ = work_for(model, image, case, dtype=torch.float64, probabilities=True)
        logits = collect(stream(exact)).probabilities
    predictor = nnunet_predictor(model, case.step_size, case.mirroring)
    theirs = predictor.predict_single_npy_array(image, {"spacing": list(spacing)})

    error = np.abs(logits - truth.logits).max() / np.abs(truth.logits).max()
    differing, peer = ours != truth.labels, theirs != truth.labels
    print(f"{request.node.callspec.id}: ours {differing.sum()}, nnU-Net {peer.sum()} of {ours.size}; {error:.1e}")
    assert error < 1e-9
    assert differing.sum() <= max(3, 1e-5 * ours.size)
    assert (truth.margin[differing] < NEAR_TIE).all()
    assert differing.sum() <= max(3, peer.sum())
    assert np.array_equal(ours, again)
    assert len(np.unique(truth.labels)) > 1


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(CASES[name], id=name)
        for name in (
            "a patch of 16, prime sizes",
            "a border of zeros, resampled",
            "slices across y",
            "three folds",
            "two channels, resampled from slices far apart",
        )
    ],
)
def test_a_run_from_any_plane_on_gives_the_same_to_the_last_bit(
    model: Model, case: Case, collect: Callable[..., Any]
) -> None:
    image = blobs(case)
    work, _ = work_for(model, image, case, probabilities=True)
    whole = collect(stream(work))

    for first in range(1, len(whole.labels), 5):
        labels, probabilities = [], []
        for event in stream(work, first=first):
            if hasattr(event, "labels"):
                assert event.start == first + sum(map(len, labels))
                labels.append(event.labels.copy())
                probabilities.append(event.probabilities.copy())
        assert np.array_equal(np.concatenate(labels), whole.labels[first:])
        assert np.array_equal(np.concatenate(probabilities, axis=1), whole.probabilities[:, first:])
