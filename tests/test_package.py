import subprocess
import sys
import zipfile
from pathlib import Path

import vggsearch

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_the_package_its_weights_and_its_notices_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("vggsearch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {info.filename: info.file_size for info in archive.infolist()}
    assert names["vggsearch/model/weights/vgg16_conv_imagenet1k_v1.fp16.safetensors"] == 29_431_816
    assert "vggsearch/py.typed" in names
    notices = {Path(name).name for name in names if "/licenses/" in name}
    assert notices == {"LICENSE", "NOTICE"}
    assert {name.split("/")[0] for name in names} == {"vggsearch", f"vggsearch-{vggsearch.__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vggsearch").rglob("*.py")}
    assert modules <= set(names)


def test_every_public_name_can_be_imported_and_is_documented() -> None:
    for name in vggsearch.__all__:
        public = getattr(vggsearch, name)
        assert name == "__version__" or public.__doc__, name
