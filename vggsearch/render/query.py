"""Results of queries to text."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from vggsearch.defaults import Format
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.evidence import COPY
from vggsearch.photos.addresses import address_of
from vggsearch.photos.walk import one_line
from vggsearch.query.options import Pick, QueryResult
from vggsearch.query.searcher import Match
from vggsearch.render.text import as_csv, as_paths, similarity_text, transform_words

Roots = Mapping[str, Path | None]  # the photo folder of each index that was searched, by its directory


def query_results(results: Sequence[QueryResult], format: Format, roots: Roots) -> str:
    """Render the results of queries. `paths` joins each path to its photo folder, with NUL between two."""
    return QUERY_FORMATS[format](results, roots)


def picks(picked: Sequence[Pick], format: Format, roots: Roots) -> str:
    """Render random photos, in the same formats as the results of queries."""
    values = [{name: value for name, value in asdict(each).items() if value is not None} for each in picked]
    if format == "json":
        return json.dumps(values, ensure_ascii=False, indent=2)
    if format == "jsonl":
        return "\n".join(json.dumps(each, ensure_ascii=False) for each in values)
    if format == "csv":
        return as_csv(("path", *(["index"] if len(roots) > 1 else [])), [tuple(each.values()) for each in values])
    if format == "paths":
        return as_paths(_on_disk(each, roots) for each in picked)
    width = _index_width(picked)
    return (
        "\n".join(f"{_padded(each.index, width)}{one_line(each.path)}" for each in picked) or "no matching photos"
    )


def _query_table(results: Sequence[QueryResult], _roots: Roots) -> str:
    blocks = []
    for result in results:
        width = _index_width(result.matches)
        lines = [one_line(result.query)]
        lines += [
            f"  {similarity_text(match.similarity)}  {confidence_text(match)}  {_padded(match.index, width)}"
            f"{one_line(match.path)}{_in_brackets(relation(match.alignment))}"
            for match in result.matches
        ]
        blocks.append("\n".join(lines if result.matches else [*lines, "  no matching photos"]))
    return "\n\n".join(blocks)


def confidence_text(match: Match) -> str:
    """Return the confidence that a match is a copy, in five characters: "copy" from COPY on."""
    if match.confidence is None:
        return "    -"
    return f"{'copy' if match.confidence >= COPY else f'{match.confidence:.0%}':>5}"


def _index_width(found: Sequence[Match | Pick]) -> int:
    return max((len(one_line(each.index)) for each in found if each.index is not None), default=0)


def _padded(index: str | None, width: int) -> str:
    return f"{one_line(index):<{width}}  " if index is not None else ""


def _on_disk(found: Match | Pick, roots: Roots) -> str:
    """Return the path by which a photo can be opened."""
    root = roots[found.index] if found.index is not None else next(iter(roots.values()))
    return address_of((root or Path()) / found.path)


def _in_brackets(words: str) -> str:
    return f"  ({words})" if words else ""


def relation(alignment: Alignment | None) -> str:
    """Describe how the query is related to a photo; "" where it is simply the whole."""
    if alignment is None:
        return ""
    return transform_words(
        alignment.mirrored,
        alignment.turned,
        alignment.scale,
        crop="query covers {} of it",
        wider="shows part of the query",
    )


def _query_json(results: Sequence[QueryResult], _roots: Roots) -> str:
    return json.dumps([query_values(result) for result in results], ensure_ascii=False, indent=2)


def query_values(result: QueryResult) -> dict[str, object]:
    """Return a result for JSON; `alignment` and `index` only where a match has one."""
    matches = [
        {name: value for name, value in asdict(match).items() if value is not None} for match in result.matches
    ]
    return {"query": result.query, "matches": matches}


def _query_jsonl(results: Sequence[QueryResult], _roots: Roots) -> str:
    return "\n".join(json.dumps(query_values(result), ensure_ascii=False) for result in results)


def _query_csv(results: Sequence[QueryResult], roots: Roots) -> str:
    found = [(result.query, match) for result in results for match in result.matches]
    head = ("query", "path", "similarity", "confidence", *(["index"] if len(roots) > 1 else []))
    rows = [
        (query, match.path, f"{match.similarity:.4f}", _decimals(match.confidence), match.index or "")
        for query, match in found
    ]
    return as_csv(head, [row[: len(head)] for row in rows])


def _decimals(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.4f}"


def _query_paths(results: Sequence[QueryResult], roots: Roots) -> str:
    return as_paths(_on_disk(match, roots) for result in results for match in result.matches)


QUERY_FORMATS: dict[Format, Callable[[Sequence[QueryResult], Roots], str]] = {
    "table": _query_table,
    "json": _query_json,
    "jsonl": _query_jsonl,
    "csv": _query_csv,
    "paths": _query_paths,
}
