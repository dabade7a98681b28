"""Synthetic tomograms: seeded vesicles and ribosome-sized particles with their true labels, for demos and tests.

A phantom is a picture of what cryo-electron tomography sees, not a simulation of how it comes to see it: dark lipid
bilayers and dark ribosome-sized particles on a bright background, the missing wedge of a tilt series from -60 to +60
degrees about Y, a band limit, low frequencies damped as defocus damps them, and noise with the same missing wedge.
There are no projections, no contrast transfer function and no reconstruction in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

VOXEL_SIZE_NM: Final = 1.348
BACKGROUND: Final = 0
MEMBRANE: Final = 1
PARTICLE: Final = 2
LABEL_NAMES: Final[dict[int, str]] = {BACKGROUND: "background", MEMBRANE: "membrane", PARTICLE: "particle"}
MINIMUM_SIDE: Final = 32
DEFAULT_NOISE: Final = 1.2
MAXIMUM_TILT_DEGREES: Final = 60.0

# Sizes in nm. A ribosome is drawn as its two subunits, a ball and a smaller one half sunk into it: 20 nm across and
# 25 nm long. Vesicles have the sizes of transport and synaptic vesicles.
_BILAYER_NM: Final = 5.0
_LEAFLET_OFFSET_NM: Final = 1.5
_LEAFLET_SIGMA_NM: Final = 1.1
_LARGE_SUBUNIT_RADIUS_NM: Final = 10.0
_SMALL_SUBUNIT_RADIUS_NM: Final = 7.5
_SUBUNIT_DISTANCE_NM: Final = 7.5
_PARTICLE_SCALE: Final = (0.93, 1.07)
_VESICLE_RADIUS_NM: Final = (18.0, 36.0)
_VESICLE_AXIS_RATIO: Final = (0.8, 1.2)
_GAP_NM: Final = 3.0
_EDGE_NM: Final = 1.5

_MEMBRANE_CONTRAST: Final = 0.8
_PARTICLE_CONTRAST: Final = 1.0
_VOXELS_PER_VESICLE: Final = 300_000
_VOXELS_PER_PARTICLE: Final = 40_000
_TRIES_PER_OBJECT: Final = 60
_LAYOUTS: Final = 200

# Spatial frequencies in 1/nm: where the signal has fallen to 1/e, where the noise has, and below which both are damped.
_SIGNAL_BAND: Final = 1 / 4.0
_NOISE_BAND: Final = 1 / 3.5
_DAMPED_BELOW: Final = 1 / 90.0
_DAMPING: Final = 0.7

_Floats: TypeAlias = NDArray[np.float32]
_Box: TypeAlias = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Phantom:
    """A synthetic tomogram with its truth.

    Attributes:
        density: float32 [z, y, x], no unit: mean 0 and standard deviation 1; protein and lipid are dark (low).
        labels: uint8 [z, y, x] of the same shape: 0 background, 1 membrane, 2 particle.
        voxel_size_nm: Edge of a voxel in nm, the same along all three axes.
        seed: The seed it was made from.
    """

    density: NDArray[np.float32]
    labels: NDArray[np.uint8]
    voxel_size_nm: float
    seed: int


def make_phantom(seed: int, shape: tuple[int, int, int] = (64, 128, 128), *, noise: float = DEFAULT_NOISE) -> Phantom:
    """Make the synthetic tomogram that belongs to a seed.

    Objects do not touch: at least 3 nm lie between any two. Vesicles may be cut by the volume's faces, as in a real
    tomogram; particles are whole and lie outside vesicles. At least one of each is present.

    Args:
        seed: 0 or more. The same seed, shape and noise give the same phantom; labels do not depend on the noise.
        shape: Voxels along [z, y, x], each at least 32. Z is the direction of the beam, Y the tilt axis.
        noise: Standard deviation of the noise over that of the noise-free density, both after the missing wedge, over
            the whole volume. The signal-to-noise ratio (ratio of variances) is 1 / noise**2: 0.69 by default, as in a
            denoised tomogram. Raw ones have 0.01 to 0.1.

    Returns:
        The phantom, with density and labels of the shape asked for.

    Raises:
        ValueError: A side is shorter than 32 voxels, the noise is negative or not finite, or the seed is negative.
    """
    if len(shape) != 3 or min(shape) < MINIMUM_SIDE:  # noqa: PLR2004
        raise ValueError(f"a phantom needs three sides of at least {MINIMUM_SIDE} voxels, got {tuple(shape)}")
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is a ratio of standard deviations, 0 or more, got {noise}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, got {seed}")
    layout_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    matter, labels = _lay_out(layout_rng, shape)
    density = _image(matter, noise_rng, noise)
    return Phantom(density=density, labels=labels, voxel_size_nm=VOXEL_SIZE_NM, seed=seed)


def _lay_out(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[_Floats, NDArray[np.uint8]]:
    """Place objects until both kinds are present.

    A side of 32 voxels is less than two particles long, so in the smallest volumes a vesicle may leave no room for one.
    There the layout is drawn again, with vesicles that may lie half outside.
    """
    voxels = shape[0] * shape[1] * shape[2]
    for attempt in range(_LAYOUTS):
        canvas = _Canvas(shape)
        for _ in range(max(1, round(voxels / _VOXELS_PER_VESICLE))):
            canvas.place_vesicle(rng, inside=0.5 if attempt == 0 else 0.0)
        for _ in range(max(1, round(voxels / _VOXELS_PER_PARTICLE))):
            canvas.place_particle(rng)
        if (canvas.labels == MEMBRANE).any() and (canvas.labels == PARTICLE).any():
            return canvas.matter, canvas.labels
    raise ValueError(f"no room for a vesicle and a particle in {shape} voxels")


class _Canvas:
    """A volume that objects are drawn into one after another; an object that finds no room is left out."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.matter: _Floats = np.zeros(shape, np.float32)
        self.labels: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self._taken: NDArray[np.bool_] = np.zeros(shape, np.bool_)

    def place_vesicle(self, rng: np.random.Generator, inside: float) -> None:
        """Draw an ellipsoidal shell two leaflets thick; its lumen is taken too.

        Its centre lies at least `inside` mean radii from the volume's faces.
        """
        side_nm = min(self.shape) * VOXEL_SIZE_NM
        smallest, largest = (
            min(*limit) for limit in zip(_VESICLE_RADIUS_NM, (0.3 * side_nm, 0.45 * side_nm), strict=True)
        )
        for _ in range(_TRIES_PER_OBJECT):
            radii = rng.uniform(smallest, largest) * rng.uniform(*_VESICLE_AXIS_RATIO, 3)
            rotation = _random_rotation(rng)
            centre = self._random_centre(rng, margin_nm=inside * float(radii.mean()))
            box = self._box(centre, float(radii.max()) + _BILAYER_NM + _GAP_NM)
            distance = _distance_to_ellipsoid(box, centre, radii, rotation)
            if self._take(box, distance < _BILAYER_NM / 2, distance < _BILAYER_NM / 2 + _GAP_NM):
                wall = sum(
                    np.exp(-(((distance - side * _LEAFLET_OFFSET_NM) / _LEAFLET_SIGMA_NM) ** 2) / 2) for side in (-1, 1)
                )
                self.labels[box][np.abs(distance) <= _BILAYER_NM / 2] = MEMBRANE
                self.matter[box] += _MEMBRANE_CONTRAST * wall
                return

    def place_particle(self, rng: np.random.Generator) -> None:
        """Draw two merged balls, the subunits of a ribosome, turned at random."""
        for _ in range(_TRIES_PER_OBJECT):
            scale = rng.uniform(*_PARTICLE_SCALE)
            axis = _random_rotation(rng)[0]
            radii = scale * np.array([_LARGE_SUBUNIT_RADIUS_NM, _SMALL_SUBUNIT_RADIUS_NM])
            reach = scale * (_LARGE_SUBUNIT_RADIUS_NM + _SUBUNIT_DISTANCE_NM + _SMALL_SUBUNIT_RADIUS_NM) / 2
            middle = self._random_centre(rng, margin_nm=float(reach) + VOXEL_SIZE_NM)
            along = np.array([radii[0] - reach, reach - radii[1]]) / VOXEL_SIZE_NM
            box = self._box(middle, float(reach) + _GAP_NM)
            distance = np.minimum(
                *(
                    _distance_to_ellipsoid(box, middle + offset * axis, np.full(3, radius), np.eye(3))
                    for offset, radius in zip(along, radii, strict=True)
                )
            )
            if self._take(box, distance < 0, distance < _GAP_NM):
                self.labels[box][distance <= 0] = PARTICLE
                self.matter[box] += _PARTICLE_CONTRAST / (1 + np.exp(np.clip(distance / (_EDGE_NM / 4), -40, 40)))
                return

    def _random_centre(self, rng: np.random.Generator, margin_nm: float) -> NDArray[np.float64]:
        margin = margin_nm / VOXEL_SIZE_NM
        return rng.uniform(margin, np.array(self.shape) - 1 - margin)

    def _box(self, centre: NDArray[np.float64], reach_nm: float) -> _Box:
        """The part of the volume within a distance of a centre, as slices [z, y, x]."""
        reach = reach_nm / VOXEL_SIZE_NM

        def side(middle: float, length: int) -> slice:
            return slice(max(0, int(middle - reach)), min(length, int(middle + reach) + 2))

        z, y, x = (side(float(middle), length) for middle, length in zip(centre, self.shape, strict=True))
        return z, y, x

    def _take(self, box: _Box, body: NDArray[np.bool_], with_gap: NDArray[np.bool_]) -> bool:
        """Claim a body with the gap around it if none of it is claimed yet; say whether it was free."""
        if bool((self._taken[box] & body).any()):
            return False
        self._taken[box] |= with_gap
        return True


def _random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation matrix, uniform over all rotations: a normalised quaternion of four normal numbers."""
    quaternion = rng.standard_normal(4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _distance_to_ellipsoid(
    box: _Box, centre: NDArray[np.float64], radii_nm: NDArray[np.float64], rotation: NDArray[np.float64]
) -> _Floats:
    """Signed distance in nm of a box's voxels from an ellipsoid's surface, negative inside, to first order.

    With p the offset in the ellipsoid's own axes it is k (k - 1) / |p / r**2|, where k = |p / r|. That is exact for a
    ball and, unlike k - 1 times a mean radius, keeps a shell equally thick on all sides of an ellipsoid.
    """
    dz, dy, dx = (
        ((np.arange(part.start, part.stop) - middle) * VOXEL_SIZE_NM).astype(np.float32).reshape(reshape)
        for part, middle, reshape in zip(box, centre, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    level = np.float32(0)
    slope = np.float32(0)
    for (along_z, along_y, along_x), radius in zip(
        rotation.astype(np.float32), radii_nm.astype(np.float32), strict=True
    ):
        scaled = ((along_z * dz + along_y * dy + along_x * dx) / radius) ** 2
        level = level + scaled
        slope = slope + scaled / radius**2
    level = np.sqrt(level)
    return np.asarray(level * (level - 1) / np.sqrt(np.maximum(slope, np.float32(1e-12))), np.float32)


def _image(matter: _Floats, rng: np.random.Generator, noise: float) -> _Floats:
    """What a tomogram of the matter [z, y, x] looks like: dark, band-limited, without its missing wedge, and noisy."""
    shape = matter.shape
    kz, ky, kx = (
        frequency.astype(np.float32) / np.float32(VOXEL_SIZE_NM)
        for frequency in (
            np.fft.fftfreq(shape[0])[:, None, None],
            np.fft.fftfreq(shape[1])[None, :, None],
            np.fft.rfftfreq(shape[2])[None, None, :],
        )
    )
    squared = kz**2 + ky**2 + kx**2
    # A projection at a tilt of t about Y measures the plane of directions Y and (z: sin t, x: cos t).
    measured = np.abs(kz) <= np.abs(kx) * np.float32(np.tan(np.deg2rad(MAXIMUM_TILT_DEGREES))) + np.float32(1e-6)
    transfer = measured * (1 - np.float32(_DAMPING) * np.exp(-squared / np.float32(_DAMPED_BELOW**2)))

    def seen(volume: _Floats, band: float) -> _Floats:
        spectrum = np.fft.rfftn(volume) * (transfer * np.exp(-squared / np.float32(band**2)))
        spectrum[0, 0, 0] = 0
        return np.fft.irfftn(spectrum, s=shape, axes=(0, 1, 2)).astype(np.float32)

    image = seen(-matter, _SIGNAL_BAND)
    if noise > 0:
        grain = seen(rng.standard_normal(shape, np.float32), _NOISE_BAND)
        image += grain * np.float32(noise * image.std() / grain.std())
    image -= image.mean()
    image /= image.std()
    return image
