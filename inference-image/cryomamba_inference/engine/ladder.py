"""What is given up, step by step, when memory runs out in the middle of a volume; the slabs that are there stay."""

from collections.abc import Generator
from dataclasses import replace
from typing import Literal

import torch

from cryomamba_inference.engine.fitting import next_step
from cryomamba_inference.engine.interface import Rung, Segmentation, Slab, Tick
from cryomamba_inference.engine.planning import Setting
from cryomamba_inference.engine.streaming import Work, stream


def stream_down_the_ladder(
    work: Work, *, first: int = 0, steps: tuple[str, ...] = ()
) -> Generator[Tick | Slab, None, Segmentation]:
    """Segment a volume as `stream` does, and go on with less where the device's or the host's memory runs out.

    First the passes that go at once are halved, until it is one; then tiles are summed on the host; then the network
    moves to the CPU, where the options allow that. Each time it goes on with the next plane.

    Args:
        work: As `stream`.
        first: As `stream`.
        steps: What was given up before, so that `work` is what it is.

    Raises:
        torch.OutOfMemoryError: There is nothing left to give up.
        MemoryError: Neither is there on the host.
        FailureError: As `stream`.
    """
    done = 0
    while True:
        try:
            events = stream(work, first=first)
            while True:
                event = next(events)
                if isinstance(event, Slab):
                    first = event.start + len(event.labels)
                    event = replace(event, rung=_rung(work, steps))
                else:
                    # Tiles of the slab that broke off are done again; the count waits until it is reached again.
                    done = max(done, event.done)
                    event = replace(event, done=done, steps=steps)
                yield event
        except StopIteration as stop:
            summary: Segmentation = stop.value
            return replace(summary, steps=steps)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            step = next_step(_setting(work), cpu_fallback=work.options.cpu_fallback)
            if step is None:
                raise
        # Outside the handler, whose traceback holds what the run had.
        del events
        if work.model.device.type == "cuda":
            torch.cuda.empty_cache()
        setting, words = step
        work, steps = under(setting, work), (*steps, words)


def under(setting: Setting, work: Work) -> Work:
    """Return the work as a setting wants it."""
    to_cpu = setting.device == "cpu" and work.model.device.type != "cpu"
    return replace(
        work,
        model=replace(work.model, device=torch.device("cpu")) if to_cpu else work.model,
        batch=setting.batch,
        sums_on=torch.device("cpu") if setting.sums_on_host else None,
    )


def _rung(work: Work, steps: tuple[str, ...]) -> Rung:
    return Rung(work.batch, work.sums_on is not None, steps, on_cpu=work.model.device.type == "cpu")


def _setting(work: Work) -> Setting:
    device: Literal["cpu", "cuda"] = "cuda" if work.model.device.type == "cuda" else "cpu"
    return Setting(device, len(work.model.folds), work.batch, work.sums_on is not None)


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The second is what torch says where none of cuDNN's kernels got the room that it needs (ATen's `Conv_v8.cpp`).
    return any(words in str(error) for words in ("can't allocate memory", "unable to find an engine"))
