"""Count how many pairs of pages of one template pass for copies, and how many copies of pages do not.

python benchmarks/templates_quality.py [--pages 4] [--seed 1]

Draws pages of twelve templates with other content each time: forms, invoices, tickets, sudokus, plots, calendars,
slides, chats, maps, sheet music, receipts, bank cards. Compares all pairs of one template, and the first page with
edited copies of it, by keypoints and pixels as `dups` does.
"""

import argparse
import io
import random
import sys
from collections.abc import Sequence
from itertools import combinations

from library_pictures import TEMPLATES
from PIL import Image
from template_pictures import MORE_TEMPLATES

from vggsearch.defaults import DUPLICATES
from vggsearch.matching.keypoints import Keypoints, detect_keypoints
from vggsearch.matching.pixels import align_copy
from vggsearch.photos.edits import EDITS, edited
from vggsearch.system.threads import single_threaded_blas

EDITS_OF_PAGES = ("half", "thumbnail", "jpeg30", "bright", "grey", "crop20", "turn90", "border")
UNSEEN = "logo"  # on transparency: it shows nothing but its alpha


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    totals = [0, 0, 0, 0]
    for name, draw in {**TEMPLATES, **MORE_TEMPLATES}.items():
        if name == UNSEEN:
            continue
        generator = random.Random(f"{name} {given.seed}")  # noqa: S311 - must be repeatable, not secure
        pages = [draw(generator).convert("RGB") for _ in range(given.pages)]
        keypoints = [detect_keypoints(page) for page in pages]
        wrong = [passes(one, other) for one, other in combinations(keypoints, 2)]
        missed = [
            edit for edit in EDITS_OF_PAGES if not passes(keypoints[0], detect_keypoints(copy_of(pages[0], edit)))
        ]
        counts = (sum(wrong), len(wrong), len(missed), len(EDITS_OF_PAGES))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        print(f"{name}: {described(counts)} {' '.join(missed)}", flush=True)
    print(f"all: {described(totals)}")


def passes(one: Keypoints, other: Keypoints) -> bool:
    """Return whether enough keypoints match to be taken for a copy in most folders."""
    found = align_copy(one, other)
    return found is not None and found.evidence >= DUPLICATES.confirmed


def described(counts: Sequence[int]) -> str:
    return f"{counts[0]} of {counts[1]} pairs of pages pass, {counts[2]} of {counts[3]} copies do not"


def copy_of(page: Image.Image, edit: str) -> Image.Image:
    return Image.open(io.BytesIO(edited(page, EDITS[edit], edit))).convert("RGB")


if __name__ == "__main__":
    with single_threaded_blas():
        main(sys.argv[1:])
