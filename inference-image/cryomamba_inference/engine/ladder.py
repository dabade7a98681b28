"""What is given up, step by step, when memory runs out in the middle of a volume; the slabs that are there stay."""

from collections.abc import Generator
from dataclasses import replace

import torch

from cryomamba_inference.engine.interface import Rung, Segmentation, Slab, Tick
from cryomamba_inference.engine.streaming import Work, stream


def stream_down_the_ladder(
    work: Work, *, first: int = 0, steps: tuple[str, ...] = ()
) -> Generator[Tick | Slab, None, Segmentation]:
    """Segment a volume as `stream` does, and go on with less where the device's or the host's memory runs out.

    First the passes that go at once are halved, until it is one; then tiles are summed on the host.

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
                    event = replace(event, rung=Rung(work.batch, work.sums_on is not None, steps))
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
            taken = _next_step(work)
            if taken is None:
                raise
            work, step = taken
            steps = (*steps, step)
        # Outside the handler, whose traceback holds what the run had.
        del events
        if work.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _next_step(work: Work) -> tuple[Work, str] | None:
    if work.batch > 1:
        less = work.batch // 2
        return replace(work, batch=less), f"{less} instead of {work.batch} passes at once"
    if work.model.device.type != "cpu" and work.sums_on is None:
        return replace(work, sums_on=torch.device("cpu")), "sums in main memory"
    return None
