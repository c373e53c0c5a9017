"""Results of queries to text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from vggsearch.defaults import Format
from vggsearch.geometry import Alignment
from vggsearch.queries import QueryResult
from vggsearch.report.text import as_csv, one_line, similarity_text, transform_words


def query_results(results: Sequence[QueryResult], format: Format, root: Path | None) -> str:
    """Render the results of some queries. `paths` joins each path to the photo folder, so that it can be opened."""
    return QUERY_FORMATS[format](results, root)


def _query_table(results: Sequence[QueryResult], _root: Path | None) -> str:
    blocks = []
    for result in results:
        lines = [one_line(result.query)]
        lines += [
            f"  {similarity_text(match.similarity)}  {one_line(match.path)}{_how(match.alignment)}"
            for match in result.matches
        ]
        blocks.append("\n".join(lines if result.matches else [*lines, "  nothing found"]))
    return "\n\n".join(blocks)


def _how(alignment: Alignment | None) -> str:
    """Say in words how the query lies in a photo, where that is not simply as a whole."""
    if alignment is None:
        return ""
    told = transform_words(alignment.mirrored, alignment.turned, alignment.scale)
    return f"  ({told})" if told else ""


def _query_json(results: Sequence[QueryResult], _root: Path | None) -> str:
    return json.dumps([_query_values(result) for result in results], ensure_ascii=False, indent=2)


def _query_values(result: QueryResult) -> dict[str, object]:
    """Return a result as JSON has it: an alignment only where there is one."""
    matches = [
        {name: value for name, value in asdict(match).items() if value is not None} for match in result.matches
    ]
    return {"query": result.query, "matches": matches}


def _query_jsonl(results: Sequence[QueryResult], _root: Path | None) -> str:
    return "\n".join(json.dumps(_query_values(result), ensure_ascii=False) for result in results)


def _query_csv(results: Sequence[QueryResult], _root: Path | None) -> str:
    rows = [(result.query, match.path, f"{match.similarity:.4f}") for result in results for match in result.matches]
    return as_csv(("query", "path", "similarity"), rows)


def _query_paths(results: Sequence[QueryResult], root: Path | None) -> str:
    folder = root or Path()
    return "\n".join(str(folder / match.path) for result in results for match in result.matches)


QUERY_FORMATS: dict[Format, Callable[[Sequence[QueryResult], Path | None], str]] = {
    "table": _query_table,
    "json": _query_json,
    "jsonl": _query_jsonl,
    "csv": _query_csv,
    "paths": _query_paths,
}
