"""Attack vggsearch: hostile names, fuzzed files, damaged indexes, kills, and many users at once.

python benchmarks/reliability CAMPAIGN [--count N] [--seed N] [--first N] [--photos DIR] [--minutes N]

The exit status is 1 if there was a fault. Each case depends on the seed and its number alone, so a fault is
repeated with `--first NUMBER --count 1`. Needs Linux.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for library in ("OMP", "OPENBLAS", "MKL"):  # before one is loaded: cases are small
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from campaign import Result, Settings  # noqa: E402
from files import files  # noqa: E402
from flips import flips  # noqa: E402
from kills import kills  # noqa: E402
from names import names  # noqa: E402
from sharing import sharing  # noqa: E402

CAMPAIGNS: dict[str, tuple[Callable[[Settings], Result], int]] = {
    "names": (names, 1_000),
    "files": (files, 10_000),
    "flips": (flips, 10_000),
    "kills": (kills, 500),
    "sharing": (sharing, 1_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--count", type=int, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--photos", type=Path, help="photos to make the pictures from; drawn ones without")
    parser.add_argument("--scratch", type=Path, help="folder for the files of the run, kept afterwards")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no case after so many minutes")
    given = parser.parse_args()
    campaign, count = CAMPAIGNS[given.campaign]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        scratch = (given.scratch or Path(made)).resolve()
        scratch.mkdir(exist_ok=True)
        settings = Settings(
            given.seed, given.first, given.count or count, given.photos, scratch, started + 60 * given.minutes
        )
        result = campaign(settings)
    for kind, number in sorted(result.counts.items()):
        print(f"{number:7,}  {kind}")
    for kind, number in result.notes.items():
        print(f"{number:7,}  {kind}")
    cases = len({number for number, _ in result.faults})
    total = result.counts.total()
    print(f"{given.campaign}: {total:,} cases, {cases:,} with faults, {time.monotonic() - started:.0f} s")
    return int(bool(result.faults))


if __name__ == "__main__":
    sys.exit(main())
