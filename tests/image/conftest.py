"""The image, built twice. Only where it is asked for (`make image-test`): it takes minutes, root and Debian."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import Engine, Image, added_mebibytes, wheels_in
from support import do_without

collect_ignore_glob = [] if os.environ.get("IMAGE_TEST") else ["test_*.py"]

_PROGRAMS = ("buildah", "debootstrap", "unshare")


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Return the image, built twice from this checkout."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        do_without(f"the Debian packages buildah, debootstrap and util-linux are needed: {', '.join(missing)} missing")
    if os.geteuid() != 0:
        do_without("only root can build the image without an engine")
    with tempfile.TemporaryDirectory(prefix="ita-ag-oase-image-") as name:
        folder = Path(name)
        engine = Engine(folder)
        engine.make_base()
        base = engine.unpack(engine.base_name)
        wheels = wheels_in(folder / "wheels")
        engine.build("ita-ag-oase:test", wheels)
        first, second = (engine.build(f"ita-ag-oase:{tag}", wheels, "--format", "oci") for tag in ("first", "second"))
        root = engine.unpack("ita-ag-oase:test")
        added = added_mebibytes(root, base)
        # What `make image-test` is asked for, too.
        print(f"\nthe image adds {added:.1f} MiB to its base")
        try:
            yield Image(root, engine.config("ita-ag-oase:test"), (first, second), added)
        finally:
            engine.clean()
