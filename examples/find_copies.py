"""Print the groups of duplicates in a folder: the photo to keep, then its copies, and why they are copies.

python examples/find_copies.py ./photos
"""

import sys
from pathlib import Path

from vggsearch import ImageIndex


def main(folder: Path) -> None:
    with ImageIndex.for_photos(folder) as photos:
        photos.update(folder)
        for group in photos.duplicates().groups:
            print(f"keep  {group.keeper.path}")
            for member in group.members:
                print(f"      {member.photo.path}  {member.kind}, {member.confidence:.1%} sure, {member.reason}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
