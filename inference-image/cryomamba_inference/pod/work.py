"""`python -m cryomamba_inference pod`: the job of a pod, from its environment to its last word."""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from cryomamba_crds import keys
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.report import STEPS, Manifest, Progress, Report
from cryomamba_inference.ending import conclude, finish_in_spite_of_sigterm
from cryomamba_inference.pod.api_server import ApiServer
from cryomamba_inference.pod.environment import PodEnvironment, read_environment, termination_log
from cryomamba_inference.pod.last_word import write_last_word
from cryomamba_inference.pod.reporter import StatusReporter
from cryomamba_inference.pod.task import find_model, make_task
from cryomamba_inference.storage import Storage, open_storage

_log = logging.getLogger(__name__)


def run_pod(environment: Mapping[str, str]) -> NoReturn:
    """Do the pod's job and end the process; see `ExitCode` for how."""
    log = termination_log(environment)
    code = conclude(lambda: _work(environment, log), lambda failure: write_last_word(failure, log))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by the interpreter's own end: it waits for threads, and one may be at a request to a store that is away.
    os._exit(code)


def _work(environment: Mapping[str, str], log: Path) -> None:
    handed = read_environment(environment)
    storage = open_storage(handed.store, environment)
    api = ApiServer(
        handed.api_server,
        handed.service_account,
        namespace=handed.job_namespace,
        name=handed.job_name,
        pod_uid=handed.pod_uid,
    )
    reporter = StatusReporter(api, log)
    _log.info("job %s/%s, pod %s", handed.job_namespace, handed.job_name, handed.pod_uid)
    attempt = reporter.introduce()
    _log.info("attempt %d", attempt)
    reporter.start()
    with tempfile.TemporaryDirectory(prefix="cryomamba-", dir=handed.scratch) as folder:
        do_attempt(handed, attempt, storage, reporter, Path(folder))
        finish_in_spite_of_sigterm()
    reporter.finish()


def do_attempt(handed: PodEnvironment, attempt: int, storage: Storage, reporter: StatusReporter, scratch: Path) -> None:
    """Do one attempt, unless an earlier one has stored the job's result and could not say so any more.

    Raises:
        FailureError: There is no result.
    """
    if attempt > 1 and (manifest := _committed(handed.job_uid, storage, scratch)):
        _tell_result(manifest, reporter)
        return
    model = find_model(handed.spec, storage, cache=handed.model_cache, scratch=scratch)
    # Imported here: torch takes seconds to import, and what is missing is told before.
    from cryomamba_inference.run import Runner  # noqa: PLC0415

    try:
        Runner(storage, reporter, scratch, tuning=handed.tuning).run(make_task(handed, attempt, model))
    except FailureError as error:
        manifest = _committed(handed.job_uid, storage, scratch) if error.failure.code is FailureCode.CONFLICT else None
        if manifest is None:
            raise
        _tell_result(manifest, reporter)


def _committed(job_uid: str, storage: Storage, scratch: Path) -> Manifest | None:
    """Return the job's result, where there is one."""
    try:
        return Manifest.model_validate_json(storage.fetch(keys.job_manifest(job_uid), scratch).read_bytes())
    except FailureError as error:
        if error.failure.code is not FailureCode.NOT_FOUND:
            raise
        return None


def _tell_result(manifest: Manifest, reporter: StatusReporter) -> None:
    _log.info("attempt %d has stored the result already", manifest.attempt)
    reporter.send(Report(progress=Progress(current_step=len(STEPS), percentage=100, message="Done", eta_seconds=0)))
    reporter.send(Report(result=manifest))
