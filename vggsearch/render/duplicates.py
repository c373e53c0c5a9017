"""Groups and pairs of duplicates to text."""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from vggsearch.defaults import Format
from vggsearch.duplicates.results import Group, Member, Pair, Photo
from vggsearch.matching.alignment import Alignment
from vggsearch.render.text import aligned, as_csv, bytes_text, similarity_text, transform_words

NUMBERS = (2, 3, 6, 7)  # columns of a group's table that are numbers


def duplicate_groups(groups: Sequence[Group], format: Format, root: Path | None) -> str:
    """Render groups of duplicates. `paths` is the photos that may be removed, joined to the photo folder."""
    return GROUP_FORMATS[format](groups, root)


def duplicate_pairs(pairs: Sequence[Pair], format: Format, root: Path | None) -> str:
    """Render pairs of duplicates. `paths` is all photos of them, each once, joined to the photo folder."""
    return PAIR_FORMATS[format](pairs, root)


def group_blocks(groups: Sequence[Group]) -> list[str]:
    """Return each group as lines for a person, in columns that are aligned over all groups."""
    rows = [row for group in groups for row in _group_rows(group)]
    lines = iter(aligned(rows, NUMBERS) if rows else [])
    return ["\n".join([_headline(group), *islice(lines, 1 + len(group.members))]) for group in groups]


def summary(groups: Sequence[Group]) -> str:
    """Say how many groups there are, how many photos are in them, and what could be freed."""
    if not groups:
        return "no duplicates"
    photos = sum(1 + len(group.members) for group in groups)
    removable = sum(len(group.removable) for group in groups)
    return (
        f"{_count(len(groups), 'group')} of {photos:,} photos: {_count(photos - len(groups), 'duplicate')}, "
        f"{removable:,} of which may be removed, which frees {bytes_text(sum(map(freed_bytes, groups)))}"
    )


def freed_bytes(group: Group) -> int:
    """Return the bytes of those members of a group that may be removed."""
    return sum(member.photo.bytes for member in group.removable)


def how_member_lies(member: Member) -> str:
    """Say in words what was done to the keeper to make this member: mirrored, turned 90°, a part, 30% of it."""
    alignment = member.alignment
    if alignment is None:
        return ""
    if member.aligned_in == "keeper":
        return transform_words(alignment.mirrored, alignment.turned, alignment.scale)
    # The keeper is this photo, turned: so this photo is the keeper, turned back. A mirror image turns along.
    turned = alignment.turned if alignment.mirrored else -alignment.turned
    return transform_words(alignment.mirrored, turned, 1 / alignment.scale)


def confidence_text(confidence: float) -> str:
    """Return per cent, of which 100 is kept for what is certain."""
    return "100 %" if confidence == 1 else f"{min(confidence, 0.999):.1%}".replace("%", " %")


def date_text(photo: Photo) -> str:
    """Return when a photo was taken, to the minute; nothing where its camera did not say."""
    return f"{photo.taken:%Y-%m-%d %H:%M}" if photo.taken else ""


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _headline(group: Group) -> str:
    frees = freed_bytes(group)
    return (
        f"group {group.number:,}: {1 + len(group.members):,} photos, similarity at least "
        f"{similarity_text(group.lowest_similarity)}" + (f", frees {bytes_text(frees)}" if frees else "")
    )


def _group_rows(group: Group) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("  keep", *_photo_cells(group.keeper), "", "", "", "")]
    for member in group.members:
        notes = (
            how_member_lies(member),
            member.reason,
            f"left alone: {member.left_alone}" if member.left_alone else "",
        )
        shown = (member.kind, similarity_text(member.similarity), confidence_text(member.confidence))
        rows.append(("", *_photo_cells(member.photo), *shown, "; ".join(filter(None, notes))))
    return rows


def _photo_cells(photo: Photo) -> tuple[str, str, str, str]:
    return photo.path, f"{photo.width} x {photo.height}", bytes_text(photo.bytes), date_text(photo)


def _group_table(groups: Sequence[Group], _root: Path | None) -> str:
    return "\n\n".join([*group_blocks(groups), summary(groups)])


def _group_values(group: Group) -> dict[str, object]:
    """Return a group as JSON has it."""
    reasons = dict.fromkeys(member.reason for member in group.members)
    members = [_member_values(member) for member in group.members]
    return {"group": group.number, "keep": group.keeper.path, "reason": "; ".join(reasons), "members": members}


def _member_values(member: Member) -> dict[str, object]:
    """Return a member as JSON has it: `left_alone` and `transform` only where there are such."""
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
    """Return how one photo lies in another; `part` is the share of that photo's area it takes."""
    return {
        "mirrored": alignment.mirrored,
        "turned": round(alignment.turned, 1),
        "part": round(alignment.scale**2, 3),
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
    return values


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
                how_member_lies(member),
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
    return "\n".join(str(folder / member.photo.path) for group in groups for member in group.removable)


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
            _how_pair_lies(pair),
        )
        for pair in pairs
    ]
    return "\n".join([*aligned(rows, (0, 1)), "", _count(len(pairs), "pair")])


def _how_pair_lies(pair: Pair) -> str:
    """Say in words how the first photo of a pair lies in the second."""
    alignment = pair.alignment
    return transform_words(alignment.mirrored, alignment.turned, alignment.scale) if alignment else ""


def _pair_csv(pairs: Sequence[Pair], _root: Path | None) -> str:
    rows = [
        (
            pair.first.path,
            pair.second.path,
            f"{pair.similarity:.4f}",
            f"{pair.confidence:.4f}",
            pair.kind,
            _how_pair_lies(pair),
        )
        for pair in pairs
    ]
    return as_csv(("a", "b", "similarity", "confidence", "kind", "transform"), rows)


def _pair_paths(pairs: Sequence[Pair], root: Path | None) -> str:
    folder = root or Path()
    paths = dict.fromkeys(photo.path for pair in pairs for photo in (pair.first, pair.second))
    return "\n".join(str(folder / path) for path in paths)


def _json(values: Sequence[dict[str, object]]) -> str:
    return json.dumps(values, ensure_ascii=False, indent=2)


def _jsonl(values: Sequence[dict[str, object]]) -> str:
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in values)


GROUP_FORMATS: dict[Format, Callable[[Sequence[Group], Path | None], str]] = {
    "table": _group_table,
    "json": lambda groups, _root: _json([_group_values(group) for group in groups]),
    "jsonl": lambda groups, _root: _jsonl([_group_values(group) for group in groups]),
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
