"""`python -m cryomamba_operator`: runs the operator in the foreground, settings from the environment."""

import gc
import logging
import sys

import uvloop
from pydantic import ValidationError

from cryomamba_operator.app import run
from cryomamba_operator.cluster import KubernetesCluster
from cryomamba_operator.ports import GoneError
from cryomamba_operator.settings import Settings, read_file_setting, read_pod_template, told
from cryomamba_operator.sts import SecurityTokenService, StsError, operators_keys

logger = logging.getLogger("cryomamba_operator")

_COLLECT_AFTER = (50_000, 20, 50)
"""What the operator knows lives long, and is looked through by each collection; this saves a sixth of the CPU time."""


async def _run(settings: Settings) -> None:
    template = read_pod_template(settings.pod_template)
    service = SecurityTokenService(settings) if settings.s3_credentials == "sts" else None
    async with KubernetesCluster.connect(settings) as cluster:
        await run(settings, cluster, template, service)


def _read_files(settings: Settings) -> None:
    """Raise where a file that the settings name is not as it should be, before anything depends on it."""
    read_pod_template(settings.pod_template)
    if settings.s3_ca_file is not None:
        read_file_setting("s3_ca_file", settings.s3_ca_file)
    if settings.s3_credentials == "sts":
        operators_keys(settings)


def main() -> int:
    """Return 0 after SIGTERM, 1 where the CRD is missing, 2 where the settings are wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for talkative in ("kopf", "aiohttp.access"):  # each event and each probe would be a line
        logging.getLogger(talkative).setLevel(logging.WARNING)
    try:
        settings = Settings()
        _read_files(settings)
    except ValidationError as error:
        logger.error("the settings are wrong: %s", told(error))  # noqa: TRY400 - what is wrong is in the message
        return 2
    except (ValueError, OSError, StsError) as error:
        logger.error("the settings are wrong: %s", error)  # noqa: TRY400 - what is wrong is in the message
        return 2
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        uvloop.run(_run(settings))
    except GoneError as error:
        logger.error("the CustomResourceDefinition is missing; apply crds/segmentationjobs.yaml: %s", error)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
