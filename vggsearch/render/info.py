"""What an index holds to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.indexing.info import Info
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.render.build import search_facts
from vggsearch.render.text import as_csv, bytes_text, one_line


def info(facts: Info, format: Format) -> str:
    """Render what an index holds and how it was made, as a table or as JSON."""
    if format in ("json", "jsonl"):
        values = asdict(facts) | {
            "directory": str(facts.directory),
            "root": str(facts.root) if facts.root else None,
        }
        return json.dumps(values, ensure_ascii=False, indent=2 if format == "json" else None)
    spec = facts.spec
    skipped = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.skipped.items()))
    search = search_facts(facts.search) if facts.search is not None else "none"
    if facts.search is not None and (whitening := facts.search.whitening) is not None:
        search += f"; whitened to {whitening.dim} numbers, as learned on {whitening.rows:,} photos"
    rows = [
        ("index", str(facts.directory)),
        ("photo folder", str(facts.root) if facts.root else "none yet"),
        ("photos", f"{facts.photos:,}"),
        ("blank photos", f"{facts.blank:,}, which match no other" if facts.blank else "none"),
        ("skipped files", skipped or "none"),
        ("network", f"{spec.model}, cut at {spec.layer}, {spec.pooling} pooling"),
        ("input", _input(spec)),
        ("weights", f"sha256 {spec.weights_sha256}"),
        ("embedding", f"{spec.dim:,} numbers, float16, unit length"),
        ("made by", ", ".join(facts.made_by) or "nothing yet"),
        ("search", search if facts.is_search_fresh else f"{search}, out of date: run index again"),
        ("local features", f"of {facts.local_features:,} photos" if facts.local_features else "none"),
        ("on disk", f"{bytes_text(facts.bytes)} in {facts.parts} part{'s' if facts.parts != 1 else ''}"),
    ]
    if format == "csv":
        return as_csv(("what", "value"), rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {one_line(value)}" for name, value in rows)


def _input(spec: EmbeddingSpec) -> str:
    """Return what the network sees of a photo: 160 x 160 and 224 x 224 pixels, squash, and mirrored."""
    squares = " and ".join(f"{size} x {size}" for size in spec.sizes)
    return f"{squares} pixels, {spec.resize}{', and mirrored' if spec.mirror else ''}"
