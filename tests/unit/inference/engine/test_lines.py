"""Lines of tiles that are read ahead: in their order, into a few buffers, by a thread that is gone at the end."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryomamba_crds.model_gate import image_spacing
from cryomamba_inference.engine import streaming
from cryomamba_inference.engine.image import ArrayImage, Box
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.lines import Corner, Lines
from cryomamba_inference.engine.slab_shapes import transfer_bytes
from cryomamba_inference.engine.streaming import Work, stream
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.engine.tiling import tile_volume
from cryomamba_inference.model import load_model

CORNERS: list[Corner] = [(0, 0), (0, 4), (8, 0), (8, 4)]
PATIENCE = 30


class Source:
    """Writes a line's number, and says that it has."""

    def __init__(self) -> None:
        self.read: list[Corner] = []
        self.done = {corner: threading.Event() for corner in CORNERS}
        self.threads: set[int] = set()

    def fill(self, corner: Corner, into: NDArray[Any]) -> None:
        self.read.append(corner)
        self.threads.add(threading.get_ident())
        into[:] = CORNERS.index(corner)
        self.done[corner].set()


def lines_of(source: Any, buffers: int) -> Lines:
    return Lines(source.fill, CORNERS, (1, 2, 3, 4), dtype=torch.float32, device=torch.device("cpu"), buffers=buffers)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lines")]


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_lines_come_in_their_order_from_one_thread_and_no_more_buffers_than_allowed(buffers: int) -> None:
    source = Source()
    lines = lines_of(source, buffers)

    taken = [lines.take() for _ in CORNERS]
    lines.close()

    assert source.read == CORNERS
    assert len(source.threads) == 1
    assert source.threads != {threading.get_ident()}
    assert [one.data_ptr() for one in taken] == [taken[number % buffers].data_ptr() for number in range(4)]
    assert len({one.data_ptr() for one in taken}) == buffers


def test_with_two_buffers_the_next_line_is_read_while_one_is_worked_on_and_no_further() -> None:
    source = Source()
    lines = lines_of(source, 2)

    for number in range(len(CORNERS)):
        seen = lines.take()
        if number + 1 < len(CORNERS):
            assert source.done[CORNERS[number + 1]].wait(PATIENCE)
        assert source.read == CORNERS[: number + 2]
        assert (seen == number).all()
    lines.close()


def test_with_one_buffer_a_line_is_read_when_it_is_wanted() -> None:
    source = Source()
    lines = lines_of(source, 1)

    for number in range(len(CORNERS)):
        assert source.read == CORNERS[:number]
        assert (lines.take() == number).all()
    lines.close()


@pytest.mark.parametrize("buffers", [1, 2])
def test_what_reading_raises_comes_out_when_that_line_is_wanted(buffers: int) -> None:
    class Broken(Source):
        def fill(self, corner: Corner, into: NDArray[Any]) -> None:
            super().fill(corner, into)
            if corner == CORNERS[1]:
                raise OSError("the file is gone")

    lines = lines_of(Broken(), buffers)

    assert (lines.take() == 0).all()
    with pytest.raises(OSError, match="the file is gone"):
        lines.take()
    lines.close()
    assert readers() == []


def test_closing_waits_for_the_line_that_is_being_read_and_reads_no_other() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Source):
        def fill(self, corner: Corner, into: NDArray[Any]) -> None:
            if corner == CORNERS[1]:
                begun.set()
                assert go_on.wait(PATIENCE)
            super().fill(corner, into)

    source = Slow()
    lines = lines_of(source, 3)
    lines.take()
    assert begun.wait(PATIENCE)
    closer = threading.Thread(target=lines.close)
    closer.start()
    go_on.set()
    closer.join(PATIENCE)

    assert not closer.is_alive()
    assert source.read[:2] == CORNERS[:2]
    assert CORNERS[3] not in source.read
    assert readers() == []


def test_what_lines_take_is_told_for_either_device() -> None:
    tiling = tile_volume((40, 100, 90), (32, 48, 48), (0, 1, 2), 0.5)
    being_read = 4 * 16 * 48 * 90
    line = 2 * 2 * being_read

    on_cpu, on_gpu = (transfer_bytes(tiling, 2, device) for device in ("cpu", "cuda"))

    assert on_cpu == (line + being_read, 0)
    assert on_gpu == (2 * (1 << 21) + being_read, 2 * line)
    assert 1 << 20 < line < 1 << 21


@pytest.fixture
def two_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(streaming, "line_buffers", lambda _: 2)


def work_for(folder: Path, voxel_size: tuple[float, float, float] | None = None, **changes: Any) -> Work:
    model = load_model(folder, "all", torch.device("cpu"))
    image = changes.get("image") or ArrayImage(np.random.default_rng(0).normal(size=(29, 26, 21)).astype(np.float32))
    found = survey(image)
    spacing = image_spacing(model.facts, "nm" if voxel_size else "ignore", voxel_size)
    route = plan_route(model.facts, model.configuration.configuration, found.box, spacing)
    return Work(model, image, found, route, Options(save_probabilities=True))


@pytest.mark.parametrize(
    ("model", "voxel_size"),
    [
        pytest.param({}, None, id="as it is"),
        pytest.param({"patch": (16, 40, 32)}, None, id="smaller than the patch"),
        pytest.param({"folds": ("0", "1")}, (1.9, 1.2, 1.6), id="resampled, two folds"),
        pytest.param({"patch": (16, 16), "transpose": (1, 0, 2)}, None, id="slices across y"),
    ],
)
def test_reading_ahead_changes_no_bit(
    write_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    collect: Callable[..., Any],
    model: dict[str, Any],
    voxel_size: tuple[float, float, float] | None,
) -> None:
    work = work_for(write_model(tmp_path / "m", **model), voxel_size)
    plain = collect(stream(work))
    monkeypatch.setattr(streaming, "line_buffers", lambda _: 2)

    ahead = collect(stream(work))

    assert np.array_equal(ahead.labels, plain.labels)
    assert np.array_equal(ahead.probabilities, plain.probabilities)
    assert readers() == []


def test_closing_the_engine_leaves_no_thread(
    write_model: Callable[..., Path], tmp_path: Path, two_buffers: None
) -> None:
    events = stream(work_for(write_model(tmp_path / "m")))
    next(events)
    assert len(readers()) == 1

    events.close()

    assert readers() == []


def test_a_network_that_fails_leaves_no_thread(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_buffers: None
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 do not fit")

    work = work_for(write_model(tmp_path / "m"))
    monkeypatch.setattr(work.model.network, "forward", fail)

    with pytest.raises(RuntimeError, match="mat1"):
        next(stream(work))

    assert readers() == []


def test_a_file_that_breaks_off_leaves_no_thread(
    write_model: Callable[..., Path], tmp_path: Path, two_buffers: None, collect: Callable[..., Any]
) -> None:
    class Breaking(ArrayImage):
        broken = False

        def read(self, box: Box, *more: Any) -> NDArray[np.float32]:
            if self.broken and box[0][0] > 0:
                raise OSError("the file is gone")
            return super().read(box, *more)

    image = Breaking(np.random.default_rng(0).normal(size=(40, 20, 20)).astype(np.float32))
    work = work_for(write_model(tmp_path / "m"), image=image)
    Breaking.broken = True

    with pytest.raises(OSError, match="the file is gone"):
        collect(stream(work))

    assert readers() == []
