"""The gate for volumes: MRC and NIfTI-1 headers are parsed and bounded here before any library sees the file."""

from cryomamba_crds.volumes.error import VolumeError
from cryomamba_crds.volumes.gate import read_header
from cryomamba_crds.volumes.header import VolumeHeader
from cryomamba_crds.volumes.mrc import MrcHeader
from cryomamba_crds.volumes.nifti import NiftiHeader
from cryomamba_crds.volumes.voxels import iter_voxels

__all__ = ["MrcHeader", "NiftiHeader", "VolumeError", "VolumeHeader", "iter_voxels", "read_header"]
