"""Neither vggsearch nor a library that it uses connects to anything, or writes into folders of others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import save_photo

ROOT = Path(__file__).parent.parent
AUDIT = ROOT / "tests" / "helpers" / "connections"
OF_CI = ("CI", "TF_BUILD", "JENKINS_URL")  # with these, OpenVINO reports nothing


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a new user, in which each attempt to connect is refused and written to the file `attempts`."""
    (tmp_path / "home").mkdir()
    changes = {
        "PYTHONPATH": os.pathsep.join(map(str, (AUDIT, ROOT))),
        "CONNECTIONS": str(tmp_path / "attempts"),
        "HOME": str(tmp_path / "home"),
        "USERPROFILE": str(tmp_path / "home"),
    }
    return {name: value for name, value in os.environ.items() if name not in OF_CI} | changes


def run(environment: dict[str, str], *words: str) -> None:
    subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)


def test_an_attempt_to_connect_is_seen(environment: dict[str, str], tmp_path: Path) -> None:
    code = "import contextlib, socket\nwith contextlib.suppress(OSError): socket.getaddrinfo('a', 1)"
    run(environment, "-c", code)
    assert "socket.getaddrinfo ('a', 1" in (tmp_path / "attempts").read_text()


@pytest.mark.parametrize("loaded_before", ["", "import openvino; "])
def test_openvino_can_be_imported_before_and_its_converter_afterwards(loaded_before: str) -> None:
    code = f"{loaded_before}import vggsearch.model.openvino_engine; from openvino.tools.ovc import convert_model"
    run({**os.environ, "CI": "true"}, "-c", code)


def test_no_command_connects_or_writes_into_folders_of_others(environment: dict[str, str], tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", ("--index", str(tmp_path / "index"))
    for number in range(3):
        save_photo(photos / f"{number}.jpg", seed=number)
    vggsearch = ("-m", "vggsearch")
    run(environment, *vggsearch, "index", str(photos), *index, "--engine", "openvino")
    for command in (("query", str(photos / "0.jpg")), ("dups",), ("info",), ("verify",)):
        run(environment, *vggsearch, *command, *index)
    assert not (tmp_path / "attempts").exists()
    home = tmp_path / "home"
    written = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert written
    assert all("vggsearch" in path.parts for path in written), written
