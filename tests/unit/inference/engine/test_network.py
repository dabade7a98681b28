"""The network's switches for speed: what they do to it, and that labels stay what they are."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryomamba_crds.model_gate import image_spacing
from cryomamba_inference.engine.image import ArrayImage
from cryomamba_inference.engine.interface import Options, Tuning
from cryomamba_inference.engine.streaming import Work, stream
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.model import load_model


def work_for(folder: Path) -> Work:
    model = load_model(folder, "all", torch.device("cpu"))
    image = ArrayImage(np.random.default_rng(0).normal(size=(20, 22, 27)).astype(np.float32))
    found = survey(image)
    route = plan_route(
        model.facts, model.configuration.configuration, found.box, image_spacing(model.facts, "ignore", None)
    )
    return Work(model, image, found, route, Options(step_size=0.7), batch=4)


def tuned(work: Work, **switches: bool) -> Work:
    return replace(work, options=replace(work.options, tuning=Tuning(**switches)))


def test_a_network_is_compiled_once_for_all_folds_and_batches(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collect: Callable[..., Any]
) -> None:
    work = work_for(write_model(tmp_path / "m", folds=("0", "1"), mirroring=(0,)))
    plain = collect(stream(work)).labels
    graphs = []

    def traced(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    # The compiler proper takes a minute; what is before it decides how often it runs.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=traced))

    compiled = collect(stream(tuned(work, compiled=True))).labels

    assert len(graphs) == 1
    assert np.array_equal(compiled, plain)
    assert len(np.unique(plain)) > 1


@pytest.mark.parametrize("patch", [(16, 16, 16), (16, 16)])
def test_channels_last_lays_kernels_out_so_and_changes_no_more_than_last_bits(
    write_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    collect: Callable[..., Any],
    patch: tuple[int, ...],
) -> None:
    work = work_for(write_model(tmp_path / "m", patch=patch))
    plain = collect(stream(work)).labels
    forward, laid_out = work.model.network.forward, set()
    layout = torch.channels_last_3d if len(patch) == 3 else torch.channels_last

    def watched(batch: torch.Tensor) -> Any:
        kernels = [value for value in work.model.network.parameters() if value.ndim == batch.ndim]
        laid_out.add(all(value.is_contiguous(memory_format=layout) for value in [batch, *kernels]))
        return forward(batch)

    monkeypatch.setattr(work.model.network, "forward", watched)

    last = collect(stream(tuned(work, channels_last=True))).labels

    assert laid_out == {True}
    assert np.count_nonzero(last != plain) <= 3
    collect(stream(work))
    assert laid_out == {True, False}


def test_a_gpu_may_not_choose_its_kernels_by_trial(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_for(write_model(tmp_path / "m"))
    forward, seen = work.model.network.forward, []

    def watched(batch: torch.Tensor) -> Any:
        seen.append((torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic))
        return forward(batch)

    monkeypatch.setattr(work.model.network, "forward", watched)
    # As nnU-Net's predictor leaves it.
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)

    next(stream(work))

    assert set(seen) == {(False, True)}
    assert torch.backends.cudnn.benchmark
