"""The campaigns of benchmarks/reliability, scaled down: none may find a fault."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("campaign", "count"), [("names", 20), ("files", 40), ("flips", 30), ("kills", 17), ("sharing", 50)]
)
def test_no_campaign_finds_a_fault(campaign: str, count: int, tmp_path: Path) -> None:
    program, scratch = str(ROOT / "benchmarks" / "reliability"), str(tmp_path / "scratch")
    words = [program, campaign, "--count", str(count), "--scratch", scratch]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 with faults, " in done.stdout
