"""Memory that runs out in the middle of a volume."""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryomamba_crds.model_gate import image_spacing
from cryomamba_inference.engine import ladder
from cryomamba_inference.engine.image import ArrayImage
from cryomamba_inference.engine.interface import Options, Segmentation, Slab, Tick
from cryomamba_inference.engine.ladder import stream_down_the_ladder
from cryomamba_inference.engine.streaming import Work, stream
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.model import load_model


@pytest.fixture
def work(write_model: Callable[..., Path], tmp_path: Path) -> Work:
    model = load_model(write_model(tmp_path / "m"), "all", torch.device("cpu"))
    image = ArrayImage(np.random.default_rng(0).normal(size=(40, 22, 20)).astype(np.float32))
    found = survey(image)
    spacing = image_spacing(model.facts, "ignore", None)
    route = plan_route(model.facts, model.configuration.configuration, found.box, spacing)
    return Work(model, image, found, route, Options(), batch=4)


def failing(work: Work, monkeypatch: pytest.MonkeyPatch, error: Exception, *, fits: int, after: int) -> None:
    """Let the network fail for batches of more than `fits`, from its pass number `after` on."""
    forward, passes = work.model.network.forward, [0]

    def limited(batch: torch.Tensor) -> Any:
        passes[0] += 1
        if len(batch) > fits and passes[0] > after:
            raise error
        return forward(batch)

    monkeypatch.setattr(work.model.network, "forward", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("GET was unable to find an engine to execute this computation after trying 3 plans."),
    ],
)
def test_the_batch_is_halved_until_it_fits_and_slabs_that_are_there_stay(
    work: Work, monkeypatch: pytest.MonkeyPatch, collect: Callable[..., Any], error: Exception
) -> None:
    plain = collect(stream(replace(work, batch=1)))
    failing(work, monkeypatch, error, fits=1, after=30)

    ours = collect(stream_down_the_ladder(work))

    assert ours.summary.steps == ("2 instead of 4 passes at once", "1 instead of 2 passes at once")
    assert ours.summary.passes_at_once == 1
    assert np.mean(ours.labels != plain.labels) < 1e-3
    assert ours.ticks[-1].steps == ours.summary.steps
    assert ours.ticks[0].steps == ()
    done = [tick.done for tick in ours.ticks]
    assert done == sorted(done)
    assert done[-1] == ours.ticks[-1].total


def test_sums_go_to_the_host_when_one_pass_is_all_there_is(
    work: Work, monkeypatch: pytest.MonkeyPatch, collect: Callable[..., Any]
) -> None:
    single = replace(work, batch=1)
    expected = collect(stream(single)).labels

    ours = collect(stream(replace(single, sums_on=torch.device("cpu")))).labels

    assert np.array_equal(ours, expected)


@pytest.fixture
def small_gpu(work: Work, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A job on a GPU, played by the CPU, that always runs out of memory after its first slab."""
    monkeypatch.setattr(ladder, "stream", on_a_small_gpu)
    return replace(work, model=replace(work.model, device=torch.device("cuda", 0)), batch=2)


def on_a_small_gpu(work: Work, *, first: int = 0) -> Generator[Tick | Slab, None, Segmentation]:
    if work.model.device.type == "cpu":
        return (yield from stream(work, first=first))
    for event in stream(replace(work, model=replace(work.model, device=torch.device("cpu"))), first=first):
        yield event
        if isinstance(event, Slab) and event.start == first:
            break
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_model_that_allows_it_goes_to_the_cpu_last_and_goes_on_with_the_next_plane(
    small_gpu: Work, work: Work, collect: Callable[..., Any]
) -> None:
    allowed = replace(small_gpu, options=Options(cpu_fallback=True))
    expected = collect(stream(replace(work, batch=1)))

    ours = collect(stream_down_the_ladder(allowed))

    assert ours.summary.steps == (
        "1 instead of 2 passes at once",
        "sums in main memory",
        "the network on the CPU",
    )
    assert ours.summary.device == "cpu"
    assert ours.ticks[-1].steps == ours.summary.steps
    assert np.mean(ours.labels != expected.labels) < 1e-3
    # All but the first slab, which two passes at once gave.
    assert np.array_equal(ours.labels[-16:], expected.labels[-16:])


def test_a_model_that_does_not_allow_it_stays_on_the_gpu(small_gpu: Work, collect: Callable[..., Any]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        collect(stream_down_the_ladder(small_gpu))


def test_with_nothing_left_to_give_up_the_error_comes_out(
    work: Work, monkeypatch: pytest.MonkeyPatch, collect: Callable[..., Any]
) -> None:
    failing(work, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), fits=0, after=0)

    with pytest.raises(torch.OutOfMemoryError):
        collect(stream_down_the_ladder(work))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    work: Work, monkeypatch: pytest.MonkeyPatch, collect: Callable[..., Any]
) -> None:
    failing(work, monkeypatch, RuntimeError("mat1 and mat2 do not fit"), fits=0, after=0)

    with pytest.raises(RuntimeError, match="mat1"):
        collect(stream_down_the_ladder(work))
