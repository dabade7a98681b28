"""What a file that is no volume looks like, so that the refusal can say it."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive (a model, a PyTorch checkpoint or an .npz?)"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy .npy file"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"II+\0", "a BigTIFF image"),
    (0, b"MM\0+", "a BigTIFF image"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"\0\0\0\x03\0\0", "a Gatan DM3 file"),
    (0, b"\0\0\0\x04\0\0", "a Gatan DM4 file"),
    (0, b"\x7fELF", "a program"),
    (128, b"DICM", "a DICOM file"),
    (257, b"ustar", "a tar archive"),
)
_PICKLE = b"\x80"
_PICKLE_PROTOCOLS = range(2, 6)
_TEXT_CONTROLS = b"\t\n\r\f"
_FIRST_PRINTABLE = 0x20
_DELETE = 0x7F


def likeness(head: bytes) -> str:
    """Say in words what these first bytes of a file look like."""
    if not head:
        return "an empty file"
    for offset, signature, name in _SIGNATURES:
        if head.startswith(signature, offset):
            return name
    if head[:1] == _PICKLE and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS:
        return "a Python pickle (it was not opened)"
    if not any(head):
        return "nothing but zeros"
    if all(byte in _TEXT_CONTROLS or (byte >= _FIRST_PRINTABLE and byte != _DELETE) for byte in head):
        return "a web page" if head.lstrip()[:1] == b"<" else "a text file"
    return "no format known here"
