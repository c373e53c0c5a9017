"""Print the pairs of photos in a folder that are likely copies of each other.

python examples/find_copies.py ./photos
"""

import sys
from pathlib import Path

from vggsearch import ImageIndex

LIKELY_COPY = 0.9


def main(folder: Path) -> None:
    with ImageIndex.for_photos(folder) as photos:
        photos.update(folder)
        told: set[frozenset[str]] = set()
        for path in photos.paths():
            for match in photos.query(folder / path, count=5, min_similarity=LIKELY_COPY).matches:
                pair = frozenset((path, match.path))
                if len(pair) == 2 and pair not in told:
                    told.add(pair)
                    print(f"{match.similarity:.3f}  {path}  {match.path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
