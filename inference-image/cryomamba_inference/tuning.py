"""How the network is to be run, from the environment of the runner. Pure."""

from collections.abc import Mapping

from cryomamba_inference.engine.interface import Tuning

COMPILE = "nnUNet_compile"
"""nnU-Net's own switch: `true`, `t` or `1`, anything else is off."""
CHANNELS_LAST = "nnUNet_channels_last"
"""In its manner, though nnU-Net itself does not know it."""
_ON = ("true", "t", "1")


def read_tuning(environment: Mapping[str, str]) -> Tuning:
    """Return what the two variables say."""
    return Tuning(compiled=_is_on(COMPILE, environment), channels_last=_is_on(CHANNELS_LAST, environment))


def _is_on(name: str, environment: Mapping[str, str]) -> bool:
    return environment.get(name, "").lower() in _ON
