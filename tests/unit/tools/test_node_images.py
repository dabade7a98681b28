import io
import tarfile
from pathlib import Path

from devcluster import node_images

LISTING = """\
REF                          TYPE                 DIGEST     SIZE     PLATFORMS   LABELS
localhost/cryomamba-server:2 application/manifest sha256:aaa 126 MiB  linux/amd64 -
localhost/cryomamba-server:1 application/manifest sha256:bbb 126 MiB  linux/amd64 -
localhost/stub:1             application/manifest sha256:ccc 2.0 MiB  linux/amd64 -
sha256:111                   application/manifest sha256:aaa 126 MiB  linux/amd64 -
sha256:222                   application/manifest sha256:bbb 126 MiB  linux/amd64 -
"""


def test_only_what_the_node_has_not_got_is_moved(tmp_path: Path) -> None:
    content, layout = tmp_path / "content", tmp_path / "layout"
    content.mkdir()
    (content / "known").write_bytes(b"a layer of gigabytes")
    node_images.link_known(content, layout / node_images.BLOBS)
    (layout / node_images.BLOBS / "new").write_bytes(b"code")
    (layout / "index.json").write_text("{}")
    stream = io.BytesIO()

    moved = node_images.move_new(layout, stream)

    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        assert archive.getnames() == ["blobs/sha256/new", "index.json"]
    assert moved == len(b"code") + len("{}")
    assert not (layout / node_images.BLOBS / "new").exists()
    # To whoever writes the layout the known blob is there.
    assert (layout / node_images.BLOBS / "known").read_bytes() == b"a layer of gigabytes"


def test_an_image_that_is_kept_keeps_its_other_name() -> None:
    removable = node_images.removable(LISTING, {"localhost/cryomamba-server:2"})

    assert removable == ["localhost/cryomamba-server:1", "localhost/stub:1", "sha256:222"]


def test_pods_leave_nothing_in_containerd_s_root_but_images(tmp_path: Path) -> None:
    for name in ("io.containerd.grpc.v1.cri/containers/a", "io.containerd.content.v1.content/blobs"):
        (tmp_path / name).mkdir(parents=True)

    node_images.remove_leftovers(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["io.containerd.content.v1.content"]
