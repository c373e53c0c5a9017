"""Every call in the package that deletes, replaces or overwrites a file, and why it may."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "vggsearch"
DELETING = {"unlink", "rmdir", "removedirs", "rmtree", "TemporaryDirectory", "NamedTemporaryFile", "send2trash"}
REPLACING = {"rename", "renames", "renameat2", "renamex_np", "move", "truncate"}
WRITING = {
    "write_text",
    "write_bytes",
    "touch",
    "copyfile",
    "copy2",
    "copytree",
    "hardlink_to",
    "symlink_to",
    "link",
    "symlink",
    "write_table",
    "write_index",
    "save",
    "savez",
    "save_file",
    "tofile",
    "memmap",
    "download_url_to_file",
}
NEW = {"x", "xb"}  # modes that create a file and never overwrite one
READ = {"r", "rb", "rt"}

MAY: dict[str, set[str]] = {
    # The only module that deletes inside an index.
    "store/own_files.py": {"unlink", "rmdir"},
    # Fills a temporary file, created exclusively, and renames it to its name: the old content or the new one.
    # A file of an index that is merged is linked under a new name, or copied to a temporary one.
    "store/files.py": {"replace", "touch", "open rb+", "link", "copyfile"},
    # The new list of skipped files takes the place of the old one.
    "store/writer.py": {"replace"},
    # These fill the temporary file or the new folder that store.files hands them.
    "store/decisions.py": {"write_bytes"},
    "store/dead_rows.py": {"write_bytes"},
    "store/manifest.py": {"write_text"},
    "store/parts.py": {"write_table"},
    "store/compared.py": {"write_table"},
    "store/edges.py": {"write_table"},
    "store/stamps.py": {"write_table"},
    "store/keypoint_codes.py": {"write_table"},
    "store/keypoint_matches.py": {"write_table"},
    "store/measurements.py": {"write_table"},
    "store/local_features.py": {"save"},
    "published/export.py": {"write_table"},
    "duplicates/calibration_pairs.py": {"write_text"},
    "knn/files.py": {"unlink", "write_index", "open wb", "save"},
    "knn/build.py": {"TemporaryDirectory", "write_index"},
    "knn/shards.py": {"write_index", "open r+b", "save"},
    # A folder of its own in the system's folder for temporary files.
    "knn/recipes.py": {"TemporaryDirectory", "write_index"},
    # Photos: each step is in the journal first, and no rename replaces anything.
    "removal/files.py": {"unlink", "rename", "link", "renameat2", "renamex_np"},
    "removal/perform.py": {"unlink", "rename", "hardlink_to", "symlink_to"},
    "removal/undo.py": {"unlink", "rename"},
    "removal/trash.py": {"send2trash"},
    # An unfinished last line of the journal is cut off before it is continued.
    # A new journal whose first line could not be written is removed.
    "removal/journal.py": {"truncate", "open ab", "unlink"},
    # A page in place of an earlier one, which is recognised by its first line; its own unfinished file.
    "render/html/files.py": {"open w", "replace", "unlink"},
    # --curve FILE in place of an earlier curve, which is recognised by how it begins.
    "evaluation/pr_curve.py": {"write_text"},
    "evaluation/work_plot.py": {"write_text"},
    # Compiled networks, in a folder of their own in the user's cache folder: own files, by their suffix.
    "model/openvino_engine/compiled.py": {"replace", "unlink"},
    # torchvision's weights, into its own cache.
    "model/weights.py": {"download_url_to_file"},
    # Lists of tar files, in a folder of their own in the user's cache folder.
    "photos/tar_files.py": {"write_table", "replace"},
    # Pictures that are written to memory.
    "model/torch_engine/jpeg_decoders.py": {"save"},
    "photos/edits.py": {"save"},
    "photos/thumbnails.py": {"save"},
    "render/terminal_images.py": {"save"},
    "serve/thumbnails.py": {"save"},
    # Pictures for a benchmark, in a folder of its own in the system's folder for temporary files.
    "evaluation/throughput.py": {"save", "TemporaryDirectory"},
    # The null device; and /proc/self/oom_score_adj, so that a decoder is killed first when memory is short.
    "photos/decoder_worker.py": {"open wb", "write_bytes"},
}


def name_of(call: ast.Call) -> str | None:
    """Return what a call does to files, None if nothing that could cost one."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = (
        function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
    )
    if owner == "self" or (name == "save" and not call.args):
        return None  # a method of ours, such as matcher.save(), whose own calls are listed
    if name in DELETING | REPLACING | WRITING or (owner, name) == ("os", "remove"):
        return name
    if name == "replace" and (owner == "os" or (isinstance(function, ast.Attribute) and is_path_replace(call))):
        return name
    if name == "open":
        return opening(call, owner)
    return None


def is_path_replace(call: ast.Call) -> bool:
    """Path.replace takes one argument; str.replace takes two, and datetime.replace only keywords."""
    return len(call.args) == 1 and not call.keywords


def opening(call: ast.Call, owner: str) -> str | None:
    words = [each for each in (*call.args, *(key.value for key in call.keywords)) if isinstance(each, ast.Constant)]
    modes = [word.value for word in words if isinstance(word.value, str) and set(word.value) <= set("rwxabt+")]
    if owner == "os" and "O_CREAT" in ast.unparse(call):
        return "open O_CREAT"
    return next((f"open {mode}" for mode in modes if mode not in NEW | READ), None)


def found() -> dict[str, set[str]]:
    calls: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (name := name_of(node)) is not None:
                calls.setdefault(path.relative_to(SOURCE).as_posix(), set()).add(name)
    return calls


def test_only_these_calls_delete_replace_or_overwrite_a_file() -> None:
    assert found() == MAY


def test_a_new_call_that_deletes_is_noticed() -> None:
    code = "rmtree(x); x.unlink(); os.replace(a, b); p.replace(q); open(f, 'w'); f.open(mode='ab'); os.remove(x)"
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert sorted(filter(None, map(name_of, calls))) == sorted(
        ["rmtree", "unlink", "replace", "replace", "open w", "open ab", "remove"]
    )
    harmless = (
        "'a'.replace('b', 'c'); replace(part, rows=1); when.replace(tzinfo=None); open(f, 'xb'); names.remove(x)"
    )
    calls = [node for node in ast.walk(ast.parse(harmless)) if isinstance(node, ast.Call)]
    assert list(filter(None, map(name_of, calls))) == []
