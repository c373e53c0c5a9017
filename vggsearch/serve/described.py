"""The parameters of requests, as OpenAPI describes them; `parameters` parses them."""

from typing import Any

from vggsearch.defaults import SERVE

Described = dict[str, Any]

WHOLE: Described = {"type": "integer", "minimum": 0}
NUMBER: Described = {"type": "number"}
TEXT: Described = {"type": "string"}
FLAG: Described = {"type": "boolean"}
TEXTS: Described = {"type": "array", "items": TEXT}
FILES: Described = {"type": "array", "items": {"type": "string", "format": "binary"}}

# Name -> its type, and what it means.
PARAMETERS: dict[str, tuple[Described, str]] = {
    "offset": (WHOLE, "How many to leave out at the start."),
    "count": (WHOLE | {"minimum": 1, "maximum": SERVE.most_listed}, "How many to return, at most."),
    "filter": (TEXTS, "A rule as on the command line: 2019/**, folder:trips, taken:2019-05..2020, size:1000.."),
    "folder": (TEXT, "Only photos in this folder, and below it."),
    "since": (TEXT, "Only photos taken from then on: a year, month or day."),
    "until": (TEXT, "Only photos taken until then, that year, month or day included."),
    "min_side": (WHOLE, "Only photos with so many pixels on the longer side."),
    "orientation": ({"enum": ["portrait", "landscape", "square"]}, "Only photos of this shape."),
    "index": (TEXT, "The name of an index, where several are served."),
    "size": ({"enum": list(SERVE.thumbnail_sides)}, "Pixels of the longer side."),
    "number": (WHOLE, "The position of the picture in the query."),
    "photo": (TEXT, "The id of a photo."),
    "query": (TEXT, "The id of a query."),
    "other": (TEXT, "The id of the photo to compare with."),
    "image": (FILES, "Files of pictures."),
    "minus": (FILES, "Files of pictures to subtract."),
    "minus_photo": (TEXTS, "Ids of photos to subtract."),
    "crop": (TEXT, "A region: left, top, width and height, in fractions of the picture."),
    "min_similarity": (NUMBER | {"minimum": -1, "maximum": 1}, "Only photos at least this similar."),
    "rerank": (FLAG, "Re-rank the best results geometrically; true by default."),
    "containing": (FLAG, "Find photos that contain the picture."),
    "exclude_same_folder": (FLAG, "Exclude the photos beside the picture."),
    "min_precision": (NUMBER, "The share of pairs that should be right."),
    "threshold": (NUMBER, "A fixed similarity in place of the calibration."),
    "keep": (TEXT, "Which photo of a group to keep: rules, first rule first."),
    "min_size": (WHOLE | {"minimum": 2}, "Only groups of at least so many photos."),
    "within_folder": (FLAG, "Only pairs in the same folder."),
    "across_folders": (FLAG, "Only pairs in different folders."),
    "siblings": (FLAG, "Treat the shots of a burst as duplicates."),
    "similar": (FLAG, "Similar photos, too, which are never removed."),
    "confirm": (FLAG, "Compare the photos; true by default."),
    "kind": (TEXTS, "Only duplicates of this kind."),
}
FILTERS = ("filter", "folder", "since", "until", "min_side", "orientation")
PAGE = ("offset", "count")
SEARCH = ("image", "photo", "min_similarity", "rerank", "containing", "exclude_same_folder", *FILTERS)


def in_address(*names: str, order: tuple[str, ...] = ()) -> Described:
    """Return the parameters of an address; `order` are the values of that one, the default first."""
    found = [_parameter(name, *PARAMETERS[name]) for name in names]
    if order:
        found.append(
            _parameter("order", {"enum": list(order), "default": order[0]}, "The order of what is listed.")
        )
    return {"parameters": found}


def _parameter(name: str, schema: Described, description: str) -> Described:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def in_form(*names: str) -> Described:
    """Return the fields of a form."""
    fields = {name: PARAMETERS[name][0] | {"description": PARAMETERS[name][1]} for name in names}
    return _body("multipart/form-data", fields)


def in_json(**fields: Described) -> Described:
    """Return the members of a JSON object."""
    return _body("application/json", fields)


def _body(media_type: str, fields: dict[str, Described]) -> Described:
    schema = {"type": "object", "properties": fields}
    return {"requestBody": {"content": {media_type: {"schema": schema}}, "required": True}}
