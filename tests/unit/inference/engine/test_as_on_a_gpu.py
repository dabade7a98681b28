"""The way that a GPU goes, walked on the CPU: lines read ahead, logits resampled and labels decided by torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryomamba_crds.model_gate import image_spacing
from cryomamba_inference.engine import slabs, streaming
from cryomamba_inference.engine.deciding import Heads, decide_on_device
from cryomamba_inference.engine.image import ArrayImage
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.streaming import Work, stream
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.model import load_model

REGIONS = {
    "channel_names": {"0": "density"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
}


@pytest.mark.parametrize("voxel_size", [None, (1.9, 1.2, 1.6)], ids=["as it is", "resampled"])
@pytest.mark.parametrize("model", [{}, {"dataset": REGIONS, "heads": 2}], ids=["labels", "regions"])
def test_labels_are_the_same(
    write_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    collect: Callable[..., Any],
    model: dict[str, Any],
    voxel_size: tuple[float, float, float] | None,
) -> None:
    loaded = load_model(write_model(tmp_path / "m", **model), "all", torch.device("cpu"))
    image = ArrayImage(np.random.default_rng(0).normal(size=(29, 26, 21)).astype(np.float32))
    found = survey(image)
    spacing = image_spacing(loaded.facts, "nm" if voxel_size else "ignore", voxel_size)
    route = plan_route(loaded.facts, loaded.configuration.configuration, found.box, spacing)
    work = Work(loaded, image, found, route, Options(step_size=0.7))
    on_cpu = collect(stream(work)).labels
    monkeypatch.setattr(streaming, "line_buffers", lambda _: 2)
    monkeypatch.setattr(slabs, "HostResampler", lambda *_: None)
    monkeypatch.setattr(
        Heads, "labels", lambda heads, logits: decide_on_device(logits, heads.region_order, heads.dtype)
    )

    as_on_gpu = collect(stream(work)).labels

    assert len(np.unique(on_cpu)) > 1
    assert np.count_nonzero(as_on_gpu != on_cpu) <= (3 if voxel_size else 0)
