"""One attempt at a job as a child process: started, listened to, stopped."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from cryomamba_crds.failures import ExitCode, Failure, FailureCode
from cryomamba_crds.report import Report
from cryomamba_crds.task import Task

_LINE_LIMIT = 1 << 20
_STOP_GRACE_SECONDS = 5


class RunnerProcess:
    """A running runner, in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._last_word: Failure | None = None

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        task: Task,
        *,
        folder: Path,
        scratch: Path,
        gpu: int | None,
        secrets: Mapping[str, str],
    ) -> "RunnerProcess":
        """Start an attempt.

        Args:
            command: What does a task; its path is added.
            task: The task.
            folder: Takes the task and the log.
            scratch: For temporary files.
            gpu: The one that it may see.
            secrets: Variables of its environment; nothing else that is secret reaches it.
        """
        path, log = folder / "task.json", folder / "runner.log"
        await asyncio.to_thread(_write_task, task, path)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CRYOMAMBA_")}
        environment |= {"TMPDIR": str(scratch), **secrets}
        if gpu is not None:
            # NVML, which counted the GPUs, orders them so; CUDA's own default is by speed.
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--stop-on-stdin-eof",  # the pipe breaks when this server dies, however it dies
                str(path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        return cls(process, log)

    async def reports(self) -> AsyncIterator[Report]:
        """Yield what the runner says, until it has nothing more to say."""
        if self._process.stdout is None:
            raise RuntimeError("the runner's output is not a pipe")
        async for line in self._process.stdout:
            try:
                yield Report.model_validate_json(line)
            except ValidationError:
                self._last_word = Failure.model_validate_json(line)

    async def failure(self) -> Failure | None:
        """Wait for the end; return None where the runner succeeded."""
        code = await self._process.wait()
        return None if code == ExitCode.SUCCEEDED else self._last_word or _unexplained(code, self._log)

    async def stop(self) -> None:
        """End the whole process group: politely, then not."""
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _STOP_GRACE_SECONDS)
        self._signal(signal.SIGKILL)  # what the runner itself may have started
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _write_task(task: Task, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(task.model_dump_json())


def _unexplained(code: int, log: Path) -> Failure:
    """Name an end without a last word: by signal, or by an exit that the runner did not choose."""
    if code == -signal.SIGKILL:
        return Failure(
            code=FailureCode.OUT_OF_MEMORY,
            message="The process that ran the job was killed, most likely because the machine ran out of memory.",
            hint="Close other programs or crop the volume, then start the job again.",
            retryable=False,
        )
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=f"The process that ran the job {how} and gave no reason.",
        hint=f"Its log is {'/'.join(log.parts[-4:])} in the data directory; please report it.",
        retryable=True,
    )
