"""The overview picture: the middle slice in grey, and again with the labels over it, with legend and scale bar."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from cryomamba.errors import CryoMambaError
from cryomamba.planes import Plane, middle_plane
from cryomamba_crds.report import LabelLegend

Grey = NDArray[np.uint8]

_PANEL = 620
"""Longest side of a slice in the picture, in pixels."""
_MARGIN = 28
_GAP = 20
_BACKGROUND = "#15181d"
_TEXT = "#f2f4f7"
_FAINT = "#9aa4b2"
_UNNAMED = "#ffffff"
_FILL = 0.34
_OUTLINE = 2
_TITLE_SIZE, _TEXT_SIZE = 25, 17
_SWATCH = 18
_BAR_FRACTION = 0.3
"""Longest a scale bar may be, as a fraction of the slice's width."""


@dataclass(frozen=True)
class ScaleBar:
    """A length that is easy to read, and how long it is drawn."""

    nanometres: float
    pixels: int

    @property
    def text(self) -> str:
        """Such as ``50 nm``."""
        return f"{self.nanometres:g} nm"


def scale_bar(extent_nm: float, pixels: int) -> ScaleBar:
    """Return the longest of 1, 2, 5, 10, 20, ... nm that fits into 30 % of a width of that many nm and pixels."""
    longest = extent_nm * _BAR_FRACTION
    power = 10.0 ** math.floor(math.log10(longest))
    # 1e-9: a length that fits exactly is not lost to rounding.
    length = next(step * power for step in (5, 2, 1) if step * power <= longest * (1 + 1e-9))
    return ScaleBar(length, round(length / extent_nm * pixels))


def stretched(values: NDArray[Any]) -> Grey:
    """Bring intensities [y, x] to 0..255 between their 0.5th and 99.5th percentile; a flat slice is mid-grey."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(level) for level in np.percentile(finite, (0.5, 99.5)))
    if high <= low:
        return np.full(values.shape, 128, np.uint8)
    return np.asarray(np.clip((finite - low) / (high - low), 0, 1) * 255, np.uint8)


def enlarged_labels(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize labels [y, x] to a width and height in pixels with smooth borders.

    Each label is resized as a mask of its own, and a pixel goes to the label that covers most of it.
    """
    numbers = np.unique(labels)
    best = np.full(size[::-1], -1.0, np.float32)
    result = np.zeros(size[::-1], labels.dtype)
    for number in numbers:
        mask = Image.fromarray((labels == number).astype(np.float32))
        cover = np.asarray(mask.resize(size, Image.Resampling.BILINEAR))
        better = cover > best
        result[better] = number
        best[better] = cover[better]
    return result


def tinted(grey: Grey, labels: NDArray[Any], colours: Mapping[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Lay labels [y, x] over a grey picture of the same shape: a see-through fill inside a solid outline.

    Returns:
        RGB, uint8 [y, x, 3]. Pixels of label 0, and of labels without a colour, stay grey.
    """
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for number, colour in colours.items():
        inside = labels == number
        outline = inside & ~_eroded(inside, _OUTLINE)
        paint = np.array(colour, np.float32)
        picture[inside] = (1 - _FILL) * picture[inside] + _FILL * paint
        picture[outline] = paint
    return np.asarray(np.rint(picture), np.uint8)


def write_overview(
    volume: Path,
    segmentation: Path,
    labels: Mapping[str, LabelLegend],
    voxel_size_nm: tuple[float, float, float] | None,
    target: Path,
) -> None:
    """Write the picture of a volume's middle Z slice with and without its labels as a PNG.

    Args:
        volume: The MRC or NIfTI file that was segmented.
        segmentation: Its labels, of the same shape.
        labels: Names and colours by the label's number, as in `statistics.json`.
        voxel_size_nm: Along [X, Y, Z]; None where it is unknown, and then there is no scale bar.
        target: Where the PNG goes.

    Raises:
        cryomamba_crds.volumes.VolumeError: One of the files is no usable volume.
        CryoMambaError: The two differ in shape, or one cannot be read.
    """
    grey, labelled = middle_plane(volume), middle_plane(segmentation)
    if grey.header.shape != labelled.header.shape:
        raise CryoMambaError(
            f"{volume} has {grey.header.shape} voxels along X, Y, Z and {segmentation} has {labelled.header.shape}",
            hint="Check that the two belong together.",
        )
    draw_overview(volume.name, grey, labelled.values, labels, voxel_size_nm).save(target)


def draw_overview(
    title: str,
    plane: Plane,
    labels: NDArray[Any],
    legend: Mapping[str, LabelLegend],
    voxel: tuple[float, float, float] | None,
) -> Image.Image:
    """Draw the picture.

    Args:
        title: Shown above, usually the file's name.
        plane: The grey slice.
        labels: The labels of the same slice [y, x].
        legend: Names and colours by the label's number; 0 is the background and left out.
        voxel: Edge lengths along [X, Y, Z] in nm; None where unknown.
    """
    panel = _panel_size(plane.header.shape[:2], voxel)
    shown = {int(number): label for number, label in legend.items() if int(number) != 0}
    grey = Image.fromarray(stretched(plane.values)).resize(panel, Image.Resampling.BICUBIC)
    colours = {number: _rgb(label.colour) for number, label in shown.items()}
    coloured = Image.fromarray(tinted(np.asarray(grey), enlarged_labels(labels, panel), colours))

    side_by_side = panel[0] <= 2 * panel[1]
    width = (2 * panel[0] + _GAP if side_by_side else panel[0]) + 2 * _MARGIN
    width = max(width, 2 * _MARGIN + 520)
    rows = _legend_rows([label.name for label in shown.values()], width - 2 * _MARGIN)
    top = _MARGIN + 70
    panels_height = panel[1] if side_by_side else 2 * panel[1] + _GAP
    below = top + panels_height + 20
    canvas = Image.new("RGB", (width, below + len(rows) * 32 + _MARGIN - 8), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)

    _draw_heading(draw, title, plane, voxel, width)
    left = (width - (2 * panel[0] + _GAP if side_by_side else panel[0])) // 2
    second = (left + panel[0] + _GAP, top) if side_by_side else (left, top + panel[1] + _GAP)
    canvas.paste(grey.convert("RGB"), (left, top))
    canvas.paste(coloured, second)
    if voxel is not None:
        bar = scale_bar(plane.header.shape[0] * voxel[0], panel[0])
        _draw_bar(draw, bar, left + 16, top + panel[1] - 16)
    _draw_legend(draw, rows, list(shown.values()), below)
    return canvas


def _panel_size(shape_xy: Sequence[int], voxel: tuple[float, float, float] | None) -> tuple[int, int]:
    """Pixels of a slice whose longest side is always the same, true to the shape of the voxels."""
    across, down = (length * (voxel[axis] if voxel else 1.0) for axis, length in enumerate(shape_xy))
    zoom = _PANEL / max(across, down)
    return max(1, round(across * zoom)), max(1, round(down * zoom))


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Take pixels off a mask's border that many times; what lies beyond the picture counts as inside."""
    for _ in range(steps):
        padded = np.pad(mask, 1, constant_values=True)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Shorten a text in the middle, where a file name has least to say, until it fits."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return "..."


def _draw_heading(
    draw: ImageDraw.ImageDraw,
    title: str,
    plane: Plane,
    voxel: tuple[float, float, float] | None,
    width: int,
) -> None:
    large, small = _font(_TITLE_SIZE), _font(_TEXT_SIZE)
    draw.text((_MARGIN, _MARGIN - 4), _fitting(title, large, width - 2 * _MARGIN), _TEXT, large)
    x, y, z = plane.header.shape
    if voxel is None:
        size = "voxel size unknown"
    elif max(voxel) - min(voxel) < 1e-4 * max(voxel):
        size = f"voxel {voxel[0]:.4g} nm"
    else:
        size = "voxel " + " x ".join(f"{edge:.4g}" for edge in voxel) + " nm"
    facts = f"{x} x {y} x {z}   |   Z slice {plane.index + 1} of {z}   |   {size}"
    draw.text((_MARGIN, _MARGIN + 34), _fitting(facts, small, width - 2 * _MARGIN), _FAINT, small)


def _draw_bar(draw: ImageDraw.ImageDraw, bar: ScaleBar, left: int, bottom: int) -> None:
    font = _font(_TEXT_SIZE)
    text_width = font.getlength(bar.text)
    right = left + max(bar.pixels, text_width)
    draw.rounded_rectangle((left - 10, bottom - 38, right + 10, bottom + 10), 6, fill="black")
    draw.rectangle((left, bottom - 5, left + bar.pixels - 1, bottom), fill="white")
    middle = left + (max(bar.pixels, text_width) if bar.pixels < text_width else bar.pixels) / 2
    draw.text((middle, bottom - 10), bar.text, "white", font, anchor="mb")


def _legend_rows(names: Sequence[str], width: int) -> list[list[tuple[int, str]]]:
    """Lay names out from left to right: for every row, the X offset and the name of each."""
    font = _font(_TEXT_SIZE)
    rows: list[list[tuple[int, str]]] = [[]]
    at = 0
    for name in names:
        shown = _fitting(name, font, width - _SWATCH - 10)
        needed = _SWATCH + 10 + math.ceil(font.getlength(shown))
        if rows[-1] and at + needed > width:
            rows.append([])
            at = 0
        rows[-1].append((at, shown))
        at += needed + 32
    return rows


def _draw_legend(
    draw: ImageDraw.ImageDraw, rows: list[list[tuple[int, str]]], labels: Sequence[LabelLegend], top: int
) -> None:
    font = _font(_TEXT_SIZE)
    remaining = iter(labels)
    for row_number, row in enumerate(rows):
        y = top + row_number * 32
        for (offset, name), label in zip(row, remaining, strict=False):
            x = _MARGIN + offset
            draw.rounded_rectangle((x, y + 2, x + _SWATCH, y + 2 + _SWATCH), 4, fill=label.colour)
            draw.text((x + _SWATCH + 10, y + 2 + _SWATCH / 2), name, _TEXT, font, anchor="lm")
