"""What an index holds to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.indexing.info import Info
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.addresses import address_of
from vggsearch.photos.walk import one_line
from vggsearch.render.build import vector_index_text
from vggsearch.render.text import as_csv, quantity
from vggsearch.system.units import decimal


def info(facts: Info, format: Format) -> str:
    """Render what an index holds and how it was made, as a table, as CSV or as JSON."""
    if format in ("json", "jsonl"):
        return json.dumps(info_values(facts), ensure_ascii=False, indent=2 if format == "json" else None)
    rows = [*_contents(facts), *_embedding(facts.spec), *_storage(facts)]
    if format == "csv":
        return as_csv(("name", "value"), rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {one_line(value)}" for name, value in rows)


def info_values(facts: Info) -> dict[str, object]:
    """Return what an index holds for JSON."""
    root = address_of(facts.root) if facts.root else None
    return asdict(facts) | {"directory": str(facts.directory), "root": root}


def _contents(facts: Info) -> list[tuple[str, str]]:
    skipped = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.skipped.items()))
    return [
        ("index", str(facts.directory)),
        ("photo folder", address_of(facts.root) if facts.root else "none yet"),
        ("photos", f"{facts.photos:,}"),
        ("blank photos", f"{facts.blank:,}, which match no other photo" if facts.blank else "none"),
        ("photo hashes", _hashes(facts)),
        ("skipped files", skipped or "none"),
    ]


def _hashes(facts: Info) -> str:
    if not facts.without_hash:
        return "of all photos"
    return f"missing for {quantity(facts.without_hash, 'photo')}, whose turned copies may not be found"


def _embedding(spec: EmbeddingSpec) -> list[tuple[str, str]]:
    squares = " and ".join(f"{size} x {size}" for size in spec.sizes)
    return [
        ("network", _network(spec)),
        ("input", f"{squares} pixels, {spec.resize}{', averaged with mirror images' if spec.mirror else ''}"),
        ("name and version" if spec.is_own else "weights", f"sha256 {spec.weights_sha256}"),
        ("embedding", f"{quantity(spec.dim, 'dimension')}, float16, unit length"),
    ]


def _network(spec: EmbeddingSpec) -> str:
    return spec.model if spec.is_own else f"{spec.model}, layer {spec.layer}, {spec.pooling} pooling"


def _storage(facts: Info) -> list[tuple[str, str]]:
    return [
        ("computed by", ", ".join(facts.made_by) or "nothing yet"),
        ("vector index", _vector_index(facts)),
        ("whitening", _whitening(facts)),
        ("learned", _learned(facts)),
        ("local features", _local_features(facts)),
        ("on disk", f"{decimal(facts.bytes)} in {quantity(facts.parts, 'part')}"),
    ]


def _local_features(facts: Info) -> str:
    if not facts.spec.has_cells:
        return "none"
    most = facts.local_features_by_default
    limit = f"; by default up to {quantity(most, 'photo')}" if most else ""
    if not facts.local_features:
        return f"none, so re-ranking reads the photos{limit}"
    return f"of {quantity(facts.local_features, 'photo')}, {decimal(facts.local_features_bytes)}{limit}"


def _vector_index(facts: Info) -> str:
    if facts.search is None:
        return "none"
    words = vector_index_text(facts.search)
    return words if facts.is_search_fresh else f"{words}; out of date, run vggsearch index again"


def _whitening(facts: Info) -> str:
    whitening = facts.search.whitening if facts.search is not None else None
    if whitening is None:
        return "none"
    return f"to {quantity(whitening.dim, 'dimension')}, fitted on {quantity(whitening.rows, 'photo')}"


def _learned(facts: Info) -> str:
    learned = facts.learned
    if learned is None:
        return "nothing"
    return f"from {quantity(learned.rows, 'labelled photo')}, to {quantity(learned.dim, 'dimension')}, for queries"
