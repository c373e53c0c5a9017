"""Keep an index up to date while photos come in, and report for each new photo whether it is in the folder already.

python examples/watch_folder.py ./photos [ROUNDS]
"""

import sys
import time
from pathlib import Path

from vggsearch import ImageIndex

SECONDS_BETWEEN_UPDATES = 5.0
SAME_PICTURE = 0.95  # similarity


def update_once(photos: ImageIndex, folder: Path) -> None:
    before = set(photos.paths())
    photos.update(folder)
    for path in sorted(set(photos.paths()) - before):
        others = [match for match in photos.query(folder / path, count=2).matches if match.path != path]
        known = [match.path for match in others if match.similarity >= SAME_PICTURE]
        print(f"new: {path}" + (f", like {known[0]}" if known else ""))


def main(folder: Path, rounds: int) -> None:
    with ImageIndex.for_photos(folder) as photos:
        for number in range(rounds):
            update_once(photos, folder)
            if number < rounds - 1:
                time.sleep(SECONDS_BETWEEN_UPDATES)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
