"""Groups and pairs of duplicates to text."""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from vggsearch.defaults import Format
from vggsearch.duplicates.keep_policy import has_date
from vggsearch.duplicates.results import Group, Member, Pair, Photo
from vggsearch.matching.alignment import Alignment
from vggsearch.photos.addresses import address_of
from vggsearch.render.text import aligned, as_csv, as_paths, quantity, similarity_text, transform_words
from vggsearch.system.units import decimal

NUMBERS = (2, 3, 6, 7)  # the right-aligned columns of a group's table


def duplicate_groups(groups: Sequence[Group], format: Format, root: Path | None) -> str:
    """Render groups of duplicates. `paths` lists the photos that may be removed, joined to the photo folder."""
    return GROUP_FORMATS[format](groups, root)


def duplicate_pairs(pairs: Sequence[Pair], format: Format, root: Path | None) -> str:
    """Render pairs of duplicates. `paths` lists their photos, each once, joined to the photo folder."""
    return PAIR_FORMATS[format](pairs, root)


def group_blocks(groups: Sequence[Group]) -> list[str]:
    """Return each group as lines of text, in columns that are aligned over all groups."""
    rows = [row for group in groups for row in _group_rows(group)]
    lines = iter(aligned(rows, NUMBERS) if rows else [])
    return ["\n".join([_headline(group), *islice(lines, 1 + len(group.members))]) for group in groups]


def summary(groups: Sequence[Group]) -> str:
    """Count the groups, their photos, and what could be freed."""
    if not groups:
        return "no duplicates"
    photos = sum(1 + len(group.members) for group in groups)
    removable = sum(len(group.removable) for group in groups)
    return (
        f"{quantity(len(groups), 'group')}, {quantity(photos, 'photo')}: "
        f"{quantity(photos - len(groups), 'duplicate')}, {removable:,} removable, "
        f"freeing {decimal(sum(map(freed_bytes, groups)))}"
    )


def freed_bytes(group: Group) -> int:
    """Return how many bytes the members of a group take that may be removed."""
    return sum(member.photo.bytes for member in group.removable)


def member_edit(member: Member) -> str:
    """Describe what was done to the keeper to make this member: mirrored, rotated 90°, crop of 30%."""
    alignment = member.alignment
    if alignment is None:
        return ""
    if member.aligned_in == "keeper":
        return _words(alignment.mirrored, alignment.turned, alignment.scale)
    # The keeper is this photo, rotated: so this photo is the keeper, rotated back, unless it is mirrored too.
    turned = alignment.turned if alignment.mirrored else -alignment.turned
    return _words(alignment.mirrored, turned, 1 / alignment.scale)


def confidence_text(confidence: float) -> str:
    """Return a percentage; only certainty is 100%."""
    return "100%" if confidence == 1 else f"{min(confidence, 0.999):.1%}"


def date_text(photo: Photo) -> str:
    """Return when a photo was taken, to the minute; "" if unknown or impossible."""
    return f"{photo.taken:%Y-%m-%d %H:%M}" if photo.taken and has_date(photo) else ""


def _words(mirrored: bool, turned: float, scale: float) -> str:
    return transform_words(mirrored, turned, scale, crop="crop of {}", wider="shows more")


def _headline(group: Group) -> str:
    frees = freed_bytes(group)
    or_more = " or more" if len(group.members) > 1 and group.lowest_similarity < 1 else ""
    return (
        f"group {group.number:,}: {quantity(1 + len(group.members), 'photo')}, similarity "
        f"{similarity_text(group.lowest_similarity)}{or_more}" + (f", frees {decimal(frees)}" if frees else "")
    )


def _group_rows(group: Group) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("  keep", *_photo_cells(group.keeper), "", "", "", "")]
    for member in group.members:
        notes = (
            member_edit(member),
            member.reason,
            f"left alone: {member.left_alone}" if member.left_alone else "",
        )
        shown = (member.kind, similarity_text(member.similarity), confidence_text(member.confidence))
        rows.append(("", *_photo_cells(member.photo), *shown, "; ".join(filter(None, notes))))
    return rows


def _photo_cells(photo: Photo) -> tuple[str, str, str, str]:
    return photo.path, size_text(photo), decimal(photo.bytes), date_text(photo)


def size_text(photo: Photo) -> str:
    """Return width and height; only RAW for a RAW file, of which but the preview is known."""
    return "RAW" if photo.is_raw else f"{photo.width} x {photo.height}"


def _group_table(groups: Sequence[Group], _root: Path | None) -> str:
    return "\n\n".join([*group_blocks(groups), summary(groups)])


def group_values(group: Group) -> dict[str, object]:
    """Return a group for JSON."""
    reasons = dict.fromkeys(member.reason for member in group.members)
    members = [_member_values(member) for member in group.members]
    return {"group": group.number, "keep": group.keeper.path, "reason": "; ".join(reasons), "members": members}


def _member_values(member: Member) -> dict[str, object]:
    """Return a member for JSON; `left_alone` and `transform` only where it has them."""
    values: dict[str, object] = {
        "path": member.photo.path,
        "similarity": member.similarity,
        "kind": member.kind,
        "confidence": member.confidence,
        "reason": member.reason,
    }
    if member.left_alone is not None:
        values["left_alone"] = member.left_alone
    if member.alignment is not None:
        values["transform"] = _transform_values(member.alignment) | {"in": member.aligned_in}
    return values


def _transform_values(alignment: Alignment) -> dict[str, object]:
    """Return where one photo lies in another; `area` is the share of that photo it covers."""
    return {
        "mirrored": alignment.mirrored,
        "turned": round(alignment.turned, 1),
        "area": round(alignment.scale**2, 3),
        "corners": [[round(x, 4), round(y, 4)] for x, y in alignment.corners],
    }


def _pair_values(pair: Pair) -> dict[str, object]:
    values: dict[str, object] = {
        "a": pair.first.path,
        "b": pair.second.path,
        "similarity": pair.similarity,
        "confidence": pair.confidence,
        "kind": pair.kind,
    }
    if pair.alignment is not None:
        values["transform"] = _transform_values(pair.alignment)
    copies = {"a_copies": list(pair.copies_of_first), "b_copies": list(pair.copies_of_second)}
    return values | {name: paths for name, paths in copies.items() if paths}


def _group_csv(groups: Sequence[Group], _root: Path | None) -> str:
    head = (
        "group",
        "role",
        "path",
        "width",
        "height",
        "bytes",
        "taken",
        "kind",
        "similarity",
        "confidence",
        "transform",
        "reason",
        "left_alone",
    )
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((str(group.number), "keep", *_photo_fields(group.keeper), "", "", "", "", "", ""))
        rows += [
            (
                str(group.number),
                "duplicate",
                *_photo_fields(member.photo),
                member.kind,
                f"{member.similarity:.4f}",
                f"{member.confidence:.4f}",
                member_edit(member),
                member.reason,
                member.left_alone or "",
            )
            for member in group.members
        ]
    return as_csv(head, rows)


def _photo_fields(photo: Photo) -> tuple[str, ...]:
    taken = photo.taken.isoformat() if photo.taken else ""
    return photo.path, str(photo.width), str(photo.height), str(photo.bytes), taken


def _group_paths(groups: Sequence[Group], root: Path | None) -> str:
    folder = root or Path()
    return as_paths(address_of(folder / member.photo.path) for group in groups for member in group.removable)


def _pair_table(pairs: Sequence[Pair], _root: Path | None) -> str:
    if not pairs:
        return "no duplicates"
    rows = [
        (
            similarity_text(pair.similarity),
            confidence_text(pair.confidence),
            pair.kind,
            pair.first.path,
            pair.second.path,
            _pair_edit(pair),
        )
        for pair in pairs
    ]
    return "\n".join([*aligned(rows, (0, 1)), "", quantity(len(pairs), "pair")])


def _pair_edit(pair: Pair) -> str:
    """Describe what was done to the second photo of a pair to make the first."""
    alignment = pair.alignment
    return _words(alignment.mirrored, alignment.turned, alignment.scale) if alignment else ""


def _pair_csv(pairs: Sequence[Pair], _root: Path | None) -> str:
    rows = [
        (
            pair.first.path,
            pair.second.path,
            f"{pair.similarity:.4f}",
            f"{pair.confidence:.4f}",
            pair.kind,
            _pair_edit(pair),
        )
        for pair in pairs
    ]
    return as_csv(("a", "b", "similarity", "confidence", "kind", "transform"), rows)


def _pair_paths(pairs: Sequence[Pair], root: Path | None) -> str:
    folder = root or Path()
    paths = dict.fromkeys(photo.path for pair in pairs for photo in (pair.first, pair.second))
    return as_paths(address_of(folder / path) for path in paths)


def _json(values: Sequence[dict[str, object]]) -> str:
    return json.dumps(values, ensure_ascii=False, indent=2)


def _jsonl(values: Sequence[dict[str, object]]) -> str:
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in values)


GROUP_FORMATS: dict[Format, Callable[[Sequence[Group], Path | None], str]] = {
    "table": _group_table,
    "json": lambda groups, _root: _json([group_values(group) for group in groups]),
    "jsonl": lambda groups, _root: _jsonl([group_values(group) for group in groups]),
    "csv": _group_csv,
    "paths": _group_paths,
}
PAIR_FORMATS: dict[Format, Callable[[Sequence[Pair], Path | None], str]] = {
    "table": _pair_table,
    "json": lambda pairs, _root: _json([_pair_values(pair) for pair in pairs]),
    "jsonl": lambda pairs, _root: _jsonl([_pair_values(pair) for pair in pairs]),
    "csv": _pair_csv,
    "paths": _pair_paths,
}
