"""Compare the pixels of two photos, one laid on the other: is one a copy, or is it another shot or another page?

A copy shows what its original shows. What an edit changes is alike everywhere (tones, blur, compression) or lies in
one place (a caption, a sticker). Another shot has another viewpoint or moved parts, another page of one form has
other text in a few small places. A copy of a page shows all of it: captions and stickers are for photos.
"""

from dataclasses import dataclass, replace

import numpy as np

from vggsearch.matching.alignment import Alignment, inverted, with_agreement
from vggsearch.matching.difference import Difference, looks
from vggsearch.matching.keypoints import Keypoints, align
from vggsearch.matching.registration import halved
from vggsearch.matching.surroundings import share_outside
from vggsearch.matching.tones import Grey, correlation

FEWEST_INLIERS = 6  # with fewer, the position is too uncertain to tell other content from a wrong position
AGREEING = 0.7  # agreement of pixels that do, and
LARGEST_SHIFT = 1.6  # pixels that their parts are displaced: nine in ten copies are so, none of 500 pairs of views
CLOSELY_AGREEING = 0.8  # AGREEING after a closer look, and
CLOSELY_IN_PLACE = 1.2  # LARGEST_SHIFT; a copy of another view had 1.5, one of 362 pairs of such views
SURELY_AGREEING = 0.75  # AGREEING, if nothing is displaced for certain: by
SURELY_DISPLACED = 0.5  # pixels of certain_shift; of 1,050 pairs of views and their strong copies, none had less,
LEAST_PRECISE = 12  # and if so many windows would show it; fewer may be in place by chance
APART = 0.4  # pixels of certain_shift, from which what was exchanged is another print, if so many windows show it:
APART_IN = 100  # of 298 edited copies, none was so; brightened ones seem to be displaced, but nothing was exchanged
BLURRED = 1.4  # pixels, from which a difference of two photos is looked at again at half their size
LEAST_UNTOUCHED = 0.3  # of the parts with detail; the strongest edits leave 0.4
EXCHANGED = 0.22  # from which something has moved: frames of a burst have 0.3 to 0.5, captions up to 0.2
MOVED = 0.3  # from which a thing has moved: nine in ten frames of bursts have more, one in 180 captioned copies
CLOSER = 0.02  # of the parts with detail, from which a place that differs is looked at closer for that
MOSTLY_UNTOUCHED = 0.5  # of the parts with detail, for that: a border and a sticker hide whose outlines are seen
PLAIN = 0.45  # share of what differs that has one tone, from which it is a sticker: other views have up to 0.2
ADDED = (
    0.85  # one_sided, from which all was put on one picture: frames of a burst have up to 0.8, captions 0.9, and
)
MOST_HIDDEN = 0.42  # exchanged, up to which the outlines of what a caption hides may make up the rest of them
LEAST_HIDDEN = 0.3  # exchanged, from which pixels do not agree, however much is hidden
PAGE = 0.35  # share of one tone from which a picture is a page or a drawing; one photo in twenty has more
MOST_OUTSIDE = 0.05  # of a drawing, if few keypoints lay it on another one
CLEAN_PAGE = 0.55  # the same, of a page without any background, on which no difference is overlooked
ALIKE = 0.9  # correlation of pictures at a glance, from which they look alike

# The alignment of a whole picture with another one, as if few keypoints had shown it.
WHOLE = Alignment(0.0, FEWEST_INLIERS, False, 0.0, 1.0, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))


@dataclass(frozen=True)
class Overlay:
    """A query laid on a photo: where it lies, and what differs there, None if they share too little to tell."""

    alignment: Alignment
    difference: Difference | None

    @property
    def shows_other_content(self) -> bool:
        """Whether it is clear that the two are other shots or pages."""
        if self.difference is None or self.alignment.inliers < FEWEST_INLIERS:
            return False
        return shows_other_content(self.difference, self.alignment.inliers)


def overlay(query: Keypoints, photo: Keypoints) -> Overlay | None:
    """Lay a query on a photo by keypoints and compare the pixels there; None if the keypoints do not match."""
    found = align(query, photo)
    return None if found is None else _overlay(query, photo, found)


def _overlay(query: Keypoints, photo: Keypoints, alignment: Alignment) -> Overlay:
    """Compare the pixels of a query that lies on a photo, and look again if that does not tell.

    The closer look leaves out what differed. Where one of two photos is blurred, or has few pixels, its noise seems
    to displace parts by fractions of these: both are looked at again at half the size. Either look counts only if
    all that is left of the query then agrees. It may also show that a thing has moved: before, the tones of the
    thing may have been mapped to those of what it hides.
    """
    seen = looks(query.picture, photo.picture, alignment)
    first = Overlay(alignment, next(seen, None))
    if first.difference is None:
        return first
    is_copy = agrees(first.difference) and not first.shows_other_content
    is_closer = first.difference.largest >= CLOSER if is_copy else not first.shows_other_content
    again = [*seen] if is_closer else []
    is_noisy = first.difference.blur >= BLURRED and first.difference.one_tone < PAGE
    if is_noisy and not is_copy and not _is_another_print(first.difference):
        smaller = looks(halved(query.picture), halved(photo.picture), alignment)
        again += (replace(each, precise=0) for each in smaller)  # a view may seem to be in place there
    moved = next((each for each in again if _has_moved(each)), None)
    if moved is not None:
        return Overlay(alignment, moved)
    looked = (Overlay(alignment, each) for each in again if not is_copy and _agrees_closely(each))
    return next((each for each in looked if not each.shows_other_content), first)


def align_copy(query: Keypoints, photo: Keypoints) -> Alignment | None:
    """Return the position of the query in the photo, and whether the pixels agree there, too.

    Returns None if the two do not match, or show other shots or pages. Pictures that look alike as a whole are also
    laid on each other as they are: a blurred one has few keypoints, those of a stretched one do not fit.
    """
    laid = overlay(query, photo)
    found = None if laid is None or laid.shows_other_content else _with_pixels(laid)
    if (found is not None and found.agreement) or not _look_alike(query.glance, photo.glance):
        return found
    whole = _overlay(query, photo, WHOLE)
    agreeing = _with_pixels(whole)
    return agreeing if agreeing.agreement and not whole.shows_other_content else found


def _with_pixels(laid: Overlay) -> Alignment:
    """Return where a query lies, with the agreement of the pixels if they agree.

    By few keypoints, a drawing may be laid on another one that has a shape like one of its own: then nothing may
    differ, and one must show all of the other.
    """
    differs, alignment = laid.difference, laid.alignment
    if differs is None or not agrees(differs):
        return alignment
    if alignment.inliers < FEWEST_INLIERS and differs.one_tone > CLEAN_PAGE:
        is_whole = min(map(share_outside, (alignment, inverted(alignment)))) <= MOST_OUTSIDE
        if differs.places or not is_whole:
            return alignment
    return with_agreement(laid.alignment, differs.untouched_agreement)


def _look_alike(query: Grey, photo: Grey) -> bool:
    """Return whether two pictures look alike as a whole, at a glance."""
    return correlation(query, photo, np.full(query.shape, 255, np.uint8)) > ALIKE


def agrees(found: Difference) -> bool:
    """Return whether two pictures agree in every part that nothing was put on."""
    is_alike = found.untouched_agreement > AGREEING and found.untouched_shift < LARGEST_SHIFT
    is_alike |= _is_surely_in_place(found)
    is_of_one = found.exchanged < LEAST_HIDDEN or _was_added(found)
    return is_alike and found.untouched > LEAST_UNTOUCHED and is_of_one


def _agrees_closely(found: Difference) -> bool:
    """Return whether two pictures agree after a closer look, which left out what differed at the first one."""
    is_in_place = found.untouched_agreement > CLOSELY_AGREEING and found.untouched_shift < CLOSELY_IN_PLACE
    is_in_place |= _is_surely_in_place(found)
    return agrees(found) and is_in_place and (found.exchanged < EXCHANGED or _was_added(found))


def _is_surely_in_place(found: Difference) -> bool:
    """Return whether a displacement would show in many windows, and none does for certain.

    The noise and the blur of strong edits seem to displace parts. Another viewpoint displaces them for certain, but
    other entries on a page of one template may not.
    """
    if found.one_tone >= PAGE:
        return False
    is_in_place = found.certain_shift < SURELY_DISPLACED and found.precise >= LEAST_PRECISE
    return is_in_place and found.untouched_agreement > SURELY_AGREEING and found.untouched > LEAST_UNTOUCHED


def shows_other_content(found: Difference, inliers: int) -> bool:
    """Return whether what differs between two pictures, aligned by so many inliers, is another shot or page."""
    is_displaced = _is_other_view(found, inliers) and not _is_surely_in_place(found)
    is_other_shot = is_displaced or _shows_moved_things(found) or _is_another_print(found)
    return is_other_shot or _differs_in_small_places(found) or _is_other_page(found, inliers)


def _is_other_view(found: Difference, inliers: int) -> bool:
    """Return whether parts are displaced, as from another viewpoint.

    Parts of strong edits seem displaced, too, but these share detail or have few keypoints.
    """
    is_displaced = found.shift > 0.5 and found.largest_shift > 1.2 and found.shared_detail < 0.22
    return is_displaced or (found.shift > 1.05 and inliers >= 20 and found.shared_detail < 0.5)


def _is_another_print(found: Difference) -> bool:
    """Return whether each shows what the other lacks, and the rest is displaced, as two banknotes of one kind are.

    Where much was put on a copy, the rest is still in place.
    """
    is_apart = found.certain_shift > APART and found.precise >= APART_IN
    return is_apart and found.exchanged > EXCHANGED


def _shows_moved_things(found: Difference) -> bool:
    """Return whether each picture shows something that the other lacks, and the rest agrees, as in a burst.

    What one shows may be found elsewhere in the other. Else, a sticker that hides clear outlines seems to have
    moved away from them, but is all that differs.
    """
    is_exchanged = found.exchanged > EXCHANGED and found.contrast > 6 and found.plain < PLAIN
    return _has_moved(found) or (is_exchanged and _is_in_place(found) and not _was_added(found))


def _has_moved(found: Difference) -> bool:
    """Return whether what differs in one picture is also in the other one, elsewhere, and the rest agrees."""
    return found.moved > MOVED and _is_in_place(found)


def _is_in_place(found: Difference) -> bool:
    return found.untouched > MOSTLY_UNTOUCHED and found.untouched_agreement > 0.55


def _was_added(found: Difference) -> bool:
    """Return whether all that differs was put on one photo, though it may hide clear outlines in the other."""
    return found.one_tone < PAGE and found.one_sided > ADDED and found.exchanged < MOST_HIDDEN


def _differs_in_small_places(found: Difference) -> bool:
    """Return whether small places differ, as in another page of one form: a caption or a sticker is larger."""
    if not found.places or found.largest >= 0.04 or found.exchanged < 0.1 or _was_added(found):
        return False
    was_replaced = found.places >= 5 and found.one_sided < 0.75 and found.replaced > 0.25 and found.contrast > 10
    return found.contrast > 60 or was_replaced or (found.places >= 20 and found.one_sided < 0.65)


def _is_other_page(found: Difference, inliers: int) -> bool:
    """Return whether pages have other content: each shows what the other lacks, or it is in several places."""
    if found.one_tone < PAGE or not found.places:
        return False
    was_exchanged = found.exchanged > 0.04 and found.one_sided < 0.8 and found.contrast > 4
    is_unlike = inliers < 12 and found.least_agreement < 0.5
    is_altered = found.one_tone > CLEAN_PAGE and (found.places >= 2 or found.contrast > 4)
    return was_exchanged or is_unlike or is_altered
