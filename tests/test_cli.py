import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fakes import FakeEngine, save_photo
from tests.helpers.announced import EMBEDDED
from vggsearch.cli import cli, dups, main
from vggsearch.cli import eval as eval_
from vggsearch.cli.dups.remove import dry_run
from vggsearch.defaults import EMBEDDING
from vggsearch.image_index import ImageIndex
from vggsearch.render.text import quantity

COMMANDS = (
    "index",
    "query",
    "dups",
    "dups find",
    "dups decide",
    "dups remove",
    "dups undo",
    "info",
    "build",
    "verify",
    "learn",
    "classify",
    "serve",
    "merge",
    "publish",
    "export",
    "eval",
    "eval truth",
    "eval copies",
    "bench",
    "model",
)


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VGGSEARCH_INDEX", raising=False)


@pytest.fixture
def fake_network(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The commands load this instead of VGG16, since these tests are about the commands."""
    engine = FakeEngine()
    monkeypatch.setattr("vggsearch.query.session.load_engine", lambda *_: engine)
    return engine


@pytest.fixture
def indexed(photos: Path, fake_network: FakeEngine, six_photos: Path, six_indexed: FakeEngine) -> Path:
    shutil.copytree(six_photos.parent / "indexes", "indexes")
    return photos


def run(*words: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, words, input=stdin, prog_name="vggsearch")


def test_index_makes_an_index_named_after_the_folder_and_says_so(photos: Path, fake_network: FakeEngine) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    (photos / "notes.txt").write_text("hello")
    done = run("index", "photos/")
    assert done.exit_code == 0
    assert re.fullmatch(
        r"6 indexed, 0 unchanged, 1 skipped, 1 other file in [\d.]+ s \([\d.]+ photos/s\): "
        r"6 photos in indexes/photos\n",
        done.stdout,
    )
    assert "on fake" in done.stderr
    assert "skipped bad.jpg: the file is empty" in done.stderr
    assert run("index", "photos").stdout.startswith("0 indexed, 6 unchanged, 1 skipped, 1 other file in ")


def test_strict_turns_a_skipped_picture_into_an_error_and_other_files_not(
    photos: Path, fake_network: FakeEngine
) -> None:
    (photos / "notes.txt").write_text("hello")
    assert run("index", "photos", "--strict").exit_code == 0
    (photos / "bad.jpg").write_bytes(b"")
    for _ in range(2):
        done = run("index", "photos", "--strict")
        assert (done.exit_code, done.stderr.splitlines()[-1]) == (
            1,
            "Error: 1 skipped picture, and --strict is set. List them: vggsearch info --skipped",
        )
    assert run("index", "photos").exit_code == 0


def test_query_prints_an_aligned_table(indexed: Path) -> None:
    done = run("query", "photos/summer/0.jpg", "-k", "3", "--no-rerank")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["photos/summer/0.jpg", "  1.000   copy  summer/0.jpg"]
    assert len(lines) == 4
    assert all(re.fullmatch(r"  -?\d\.\d{3}  ( copy| +\d+%| +-)  \w+/\d\.jpg", line) for line in lines[1:])


def test_json_lines_keep_the_contract(indexed: Path) -> None:
    done = run("query", "photos/summer/0.jpg", "photos/winter/4.jpg", "-k", "2", "--format", "jsonl")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["photos/summer/0.jpg", "photos/winter/4.jpg"]
    assert answers[0]["matches"][0] == {"path": "summer/0.jpg", "similarity": 1.0, "confidence": 0.999}
    assert all(set(answer) == {"query", "matches"} and len(answer["matches"]) == 2 for answer in answers)
    assert json.loads(run("query", "photos/summer/0.jpg", "-k", "2", "--format", "json").stdout) == answers[:1]


def test_csv_and_paths_are_for_other_programs(indexed: Path) -> None:
    rows = list(csv.reader(io.StringIO(run("query", "photos/summer/0.jpg", "-k", "2", "--format", "csv").stdout)))
    assert rows[0] == ["query", "path", "similarity", "confidence"]
    assert rows[1] == ["photos/summer/0.jpg", "summer/0.jpg", "1.0000", "0.9990"]
    paths = run("query", "photos/summer/0.jpg", "-k", "2", "--format", "paths").stdout.splitlines()
    assert len(paths) == 2
    assert all(Path(path).is_file() for path in paths)


def test_a_picture_on_standard_input_is_a_query(indexed: Path) -> None:
    done = run("query", "-", "-k", "1", "--format", "jsonl", stdin=(indexed / "winter" / "5.jpg").read_bytes())
    answer = json.loads(done.stdout)
    assert answer == {"query": "-", "matches": [{"path": "winter/5.jpg", "similarity": 1.0, "confidence": 0.999}]}


def test_a_bad_query_is_told_and_the_others_are_answered(indexed: Path) -> None:
    done = run("query", "absent.jpg", "photos/summer/0.jpg", "-k", "1")
    assert done.exit_code == 1
    assert "1.000   copy  summer/0.jpg" in done.stdout
    assert done.stderr == "Error: absent.jpg: No such file or directory\n"


def test_nothing_similar_enough_is_said(indexed: Path) -> None:
    save_photo(Path("strange.jpg"), seed=99)
    assert "no matching photos" in run("query", "strange.jpg", "--min-similarity", "1").stdout


def test_a_name_with_a_newline_cannot_break_the_table(photos: Path, fake_network: FakeEngine) -> None:
    save_photo(photos / "two\nlines\x1b[31m.jpg", seed=9)
    run("index", "photos")
    done = run("query", str(photos / "two\nlines\x1b[31m.jpg"), "-k", "1")
    assert r"1.000   copy  two\nlines\x1b[31m.jpg" in done.stdout
    path = json.loads(run("query", "photos/summer/0.jpg", "--format", "json").stdout)[0]["matches"]
    assert "two\nlines\x1b[31m.jpg" in {match["path"] for match in path}


def test_info_shows_what_the_index_is(indexed: Path) -> None:
    shown = run("info").stdout
    assert re.search(r"^photos +6$", shown, re.MULTILINE)
    assert re.search(r"^network +vgg16, layer pool4\+pool5, spoc pooling$", shown, re.MULTILINE)
    facts = json.loads(run("info", "--format", "json").stdout)
    assert (facts["photos"], facts["spec"]["layer"], facts["directory"]) == (6, "pool4+pool5", "indexes/photos")


def test_an_index_of_several_sizes_and_mirror_images_says_so_and_is_asked_in_its_own_way(photos: Path) -> None:
    options = ("--layer", "0.5*pool1 + pool2", "--size", "48+32", "--mirror")
    assert run("index", "photos", *options).exit_code == 0
    shown = run("info").stdout
    assert "vgg16, layer 0.5*pool1+pool2, spoc pooling\n" in shown
    assert "input           32 x 32 and 48 x 48 pixels, squash, averaged with mirror images\n" in shown
    spec = json.loads(run("info", "--format", "json").stdout)["spec"]
    assert (spec["sizes"], spec["mirror"]) == ([32, 48], True)
    assert run("index", "photos").stdout.startswith("0 indexed, 6 unchanged")
    for same in ([], ["--size", "32+48"], options):
        assert "  1.000   copy  summer/0.jpg\n" in run("query", "photos/summer/0.jpg", *same).stdout
    for other, told in (
        (("--size", "48"), "contains embeddings with size 32+48, which cannot be compared with size 48"),
        (("--no-mirror",), "contains embeddings with mirror on, which cannot be compared with mirror off"),
    ):
        refused = run("query", "photos/summer/0.jpg", *other)
        assert (refused.exit_code, told in refused.stderr) == (1, True)


def test_info_lists_what_was_skipped_in_every_format(photos: Path, fake_network: FakeEngine) -> None:
    (photos / "bad, really.jpg").write_bytes(b"")
    run("index", "photos")
    row = {"path": "bad, really.jpg", "kind": "broken", "reason": "the file is empty"}
    assert json.loads(run("info", "--skipped", "--format", "json").stdout) == [row]
    assert json.loads(run("info", "--skipped", "--format", "jsonl").stdout) == row
    assert list(csv.DictReader(io.StringIO(run("info", "--skipped", "--format", "csv").stdout))) == [row]
    assert run("info", "--skipped", "--format", "paths").stdout == "bad, really.jpg\n"
    assert re.search(r"^bad, really.jpg +broken +the file is empty$", run("info", "--skipped").stdout, re.MULTILINE)


def test_model_marks_the_cut_and_counts_the_parameters() -> None:
    lines = run("model", "--layer", "pool4+pool5").stdout.splitlines()
    marked = [line.split()[0] for line in lines if line.endswith("<- embedding")]
    assert marked == ["pool4", "pool5"]
    assert [line.split()[0] for line in lines if line.endswith("not loaded")] == ["fc6", "fc7", "fc8"]
    assert next(line for line in lines if line.startswith("up to pool5")).split()[3] == "14,714,688"
    assert next(line for line in lines if line.startswith("whole network")).split()[2] == "138,357,544"


def test_model_describes_a_network_or_all_of_them() -> None:
    layers = json.loads(run("model", "--model", "resnet18", "--format", "json").stdout)
    assert layers[5] == {
        "name": "layer4",
        "parameters": 8_393_728,
        "shape": [512, 7, 7],
        "multiply_adds": 411_041_792,
        "receptive_field": 435,
    }
    names = [line.split()[0] for line in run("model", "--compare").stdout.splitlines()[2:10]]
    assert names == ["vgg11", "vgg13", "vgg16", "vgg19", "vgg16_half", "googlenet", "resnet18", "resnet50"]
    assert "layer1" in run("model", "--model", "resnet18", "--layer", "pool5").stderr
    assert "--measure needs --compare" in run("model", "--measure").stderr


def damage_a_part(index: Path) -> None:
    part = next((index / "embeddings").iterdir())
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def test_verify_says_that_an_index_is_whole(indexed: Path) -> None:
    done = run("verify")
    assert done.exit_code == 0
    assert re.fullmatch(r"indexes/photos: no damage; 6 photos, 1 part, [\d.]+ kB read in [\d.]+ s\n", done.stdout)
    assert json.loads(run("verify", "--format", "json").stdout)["findings"] == []
    assert run("verify", "--format", "paths").stdout == ""


def test_verify_tells_damage_in_every_format_and_repair_mends_it(indexed: Path) -> None:
    damage_a_part(Path("indexes/photos"))
    done = run("verify")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert re.fullmatch(
        r"embeddings/part-000001.parquet has sha256 \w{12}\.\.\., but the manifest says \w{12}\.\.\.; "
        r"it holds 6 photos: vggsearch verify --repair drops these photos, "
        r"and vggsearch index indexes them again\.",
        lines[0],
    )
    assert [line.strip() for line in lines[1:7]] == run("verify", "--format", "paths").stdout.splitlines()
    assert lines[-1].startswith("indexes/photos: damaged, 1 problem; 6 photos, 1 part")
    told = json.loads(run("verify", "--format", "json").stdout)
    assert (told["is_whole"], told["is_repaired"], len(told["findings"][0]["photos"])) == (False, False, 6)
    assert json.loads(run("verify", "--format", "jsonl").stdout) == told["findings"][0]
    assert (
        next(csv.DictReader(io.StringIO(run("verify", "--format", "csv").stdout)))["file"]
        == told["findings"][0]["file"]
    )
    repaired = run("verify", "--repair")
    assert repaired.exit_code == 0
    assert "these photos were dropped; vggsearch index indexes them again." in repaired.stdout
    assert "indexes/photos: 1 problem repaired; 0 photos, 0 parts" in repaired.stdout
    assert run("index", "photos").stdout.startswith("6 indexed, 0 unchanged")
    assert run("verify").exit_code == 0


def test_verify_mends_an_index_whose_manifest_is_lost(indexed: Path) -> None:
    Path("indexes/photos/manifest.json").write_bytes(b"\0")
    asked = run("query", "photos/summer/0.jpg")
    assert asked.exit_code == 1
    assert re.fullmatch(
        r"Error: indexes/photos/manifest.json is damaged \(.*\)\. Repair the index: vggsearch verify --repair\n",
        asked.stderr,
    )
    assert run("verify").exit_code == 1
    assert run("verify", "--repair").exit_code == 0
    assert run("index", "photos").stdout.startswith("0 indexed, 6 unchanged")


def test_index_merges_parts_when_asked(indexed: Path) -> None:
    save_photo(indexed / "new.jpg", 33)
    run("index", "photos")
    done = run("index", "photos", "--compact")
    assert "2 parts were merged into 1." in done.stderr
    assert json.loads(run("info", "--format", "json").stdout)["parts"] == 1


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("index", "nowhere"), 1, "nowhere is not a folder."),
        (("query", "x.jpg"), 1, "There is no index in indexes/. Create one: vggsearch index PHOTOS"),
        (("query",), 2, "Name an IMAGE, or show random photos: vggsearch query --random 20"),
        (("query", "x.jpg", "--random", "3"), 2, "--random takes no IMAGE"),
        (("query", "--random", "3", "--min-similarity", "0"), 2, "of the search options, only --filter"),
        (("query", "x.jpg", "--seed", "3"), 2, "--seed requires --random N"),
        (("query", "x.jpg", "--index", "a", "--index", "b", "--root", "c"), 2, "--root applies to a single index"),
        (("index", "photos", "--layer", "pool9"), 2, "vgg16 has no layer 'pool9'. Choose one of pool1"),
        (("index", "photos", "--layer", "fc7", "--size", "192"), 2, "224 x 224 pixels, not 192"),
        (("index", "photos", "--size", "8"), 2, "32 to 1024 pixels, not 8"),
        (("index", "photos", "--weights", "absent.pth"), 1, "absent.pth is not a file"),
        (("index", "photos", "--pooling", "sum"), 2, "'sum' is not one of 'spoc'"),
        (("info", "--index", "nowhere"), 1, "nowhere is not an index: it has no manifest.json"),
        (("query", "x.jpg", "-k", "0"), 2, "0 is not in the range x>=1"),
    ],
)
def test_errors_are_one_line_with_the_right_status(words: tuple[str, ...], status: int, message: str) -> None:
    Path("photos").mkdir()
    done = run(*words)
    assert done.exit_code == status
    assert message in done.stderr
    if status == 1:
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("Error: ")
    assert not Path("indexes").exists()


def test_two_indexes_need_naming_by_option_or_environment(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_photo(Path("other") / "x.jpg", seed=40)
    run("index", "other")
    asked = run("query", "photos/summer/0.jpg")
    assert asked.exit_code == 1
    assert "Found 2 indexes: indexes/other, indexes/photos. Choose one with --index" in asked.stderr
    assert run("query", "photos/summer/0.jpg", "--index", "indexes/photos").exit_code == 0
    monkeypatch.setenv("VGGSEARCH_INDEX", "indexes/other")
    assert "1 in" not in run("query", "photos/summer/0.jpg").stdout.splitlines()[0]
    assert [
        m["path"] for m in json.loads(run("query", "other/x.jpg", "--format", "json").stdout)[0]["matches"]
    ] == ["x.jpg"]


def test_a_query_of_another_kind_is_refused_with_both_named(indexed: Path) -> None:
    done = run("query", "photos/summer/0.jpg", "--layer", "fc7")
    assert done.exit_code == 1
    assert "contains embeddings with layer pool4+pool5, which cannot be compared with layer fc7" in done.stderr


def test_an_index_goes_on_with_the_options_it_was_made_with(photos: Path, fake_network: FakeEngine) -> None:
    fake_network.dim = 512
    assert run("index", "photos", "--layer", "pool5").exit_code == 0
    save_photo(photos / "new.jpg", seed=33)
    assert run("index", "photos").stdout.startswith("1 indexed, 6 unchanged")
    with ImageIndex.open("indexes/photos") as index:
        assert index.spec.layer == "pool5"


def test_fast_is_short_for_its_model_and_never_mixed(photos: Path, fake_network: FakeEngine) -> None:
    assert run("index", "photos", "--fast").exit_code == 0
    with ImageIndex.open("indexes/photos") as index:
        assert index.spec.model == EMBEDDING.fast_model
    assert run("index", "photos").exit_code == 0
    assert run("index", "photos", "--fast").stdout.startswith("0 indexed, 6 unchanged")
    other = run("index", "photos", "--model", "vgg16")
    assert other.exit_code == 1
    assert "contains embeddings with model vgg16_half, which cannot be compared with model vgg16" in other.stderr
    both = run("index", "photos", "--fast", "--model", "vgg16")
    assert both.exit_code == 2
    assert "--fast is --model vgg16_half. Leave out --fast or --model." in both.stderr


@pytest.mark.parametrize(
    ("options", "is_suggested"), [((), True), (("--fast",), False), (("--model", "vgg16"), False)]
)
def test_a_long_first_run_with_the_default_network_mentions_the_fast_one(
    options: tuple[str, ...],
    is_suggested: bool,
    photos: Path,
    fake_network: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_network.batch_size = 1
    monkeypatch.setattr("vggsearch.cli.terminal.REFRESH_S", 0.0)
    monkeypatch.setattr("vggsearch.cli.terminal.RATE_S", 0.0)
    monkeypatch.setattr("vggsearch.cli.terminal.LONG_S", 0.0)
    assert ("made with --fast" in run("index", "photos", *options).stderr) is is_suggested
    save_photo(photos / "new.jpg", seed=33)
    save_photo(photos / "newer.jpg", seed=34)
    assert "made with --fast" not in run("index", "photos").stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = run(*command.split(), "--help").stdout
    assert f"Example:\n    vggsearch {command}" in shown


def test_every_command_is_tested_here() -> None:
    assert set(COMMANDS) == {*main.COMMANDS} | {f"dups {name}" for name in dups.COMMANDS} | {
        f"eval {name}" for name in eval_.COMMANDS
    }


def test_a_bug_keeps_its_traceback(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ImageIndex, "info", bug)
    assert isinstance(run("info").exception, ZeroDivisionError)


def test_a_folder_that_may_not_be_written_is_told_in_a_line(photos: Path, fake_network: FakeEngine) -> None:
    Path("indexes").write_text("a file where the folder would go")
    done = run("index", "photos")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "indexes" in done.stderr


def vggsearch(*words: str) -> list[str]:
    return [sys.executable, "-m", "vggsearch", *words]


HEAVY = ("PIL", "cv2", "faiss", "filelock", "numpy", "openvino", "pyarrow", "rich", "torch")


@pytest.mark.parametrize("group", ["", "dups", "eval"])
def test_help_of_a_group_imports_nothing_heavy_so_that_it_answers_at_once(group: str) -> None:
    code = (
        "import sys; from vggsearch.cli import cli\n"
        "cli([*sys.argv[1].split(), '--help'], prog_name='vggsearch', standalone_mode=False)\n"
        "print(*(sys.modules), sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, group], check=True, capture_output=True, text=True)
    assert "Commands:" in done.stdout
    assert set(done.stderr.split()) & set(HEAVY) == set()


@pytest.mark.slow
def test_help_answers_at_once() -> None:
    """In processor time: what else the machine does is not its fault."""
    seconds = []
    for _ in range(8):
        before = os.times()
        subprocess.run(vggsearch("--help"), check=True, capture_output=True)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # of children, user and system
    assert min(seconds) < 0.3


REAL_OR_FAKE = pytest.mark.parametrize(
    "network", ["fake", pytest.param("real", marks=[pytest.mark.network, pytest.mark.slow])]
)


def index_until(network: str, stall_at: int, number: signal.Signals) -> tuple[int, str]:
    """Index the folder many, stop before what batch `stall_at` embeds is used; return exit status and stderr."""
    command = [sys.executable, "-m", "tests.helpers.announced", network, str(stall_at)]
    command += ["index", "many", "--batch-size", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        for _ in range(stall_at):
            assert process.stdout.readline() == EMBEDDED
        process.send_signal(number)
        _, said = process.communicate()
    return process.returncode, said


def index_again(network: str) -> str:
    """Index the folder many; return what was said last."""
    command = [sys.executable, "-m", "tests.helpers.announced", network, "0", "index", "many"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()[-1]


@REAL_OR_FAKE
def test_ctrl_c_keeps_what_was_done_and_the_next_run_goes_on(network: str) -> None:
    for seed in range(120):
        save_photo(Path("many") / f"{seed:03}.jpg", seed, size=(64, 48))
    status, told = index_until(network, 5, signal.SIGINT)
    assert status == 1
    assert "pool4+pool5" in told.splitlines()[0]
    assert "finished work is kept" in told
    with ImageIndex.open("indexes/many") as index:
        kept = len(index)
    assert 0 < kept < 120
    assert index_again(network).startswith(f"{120 - kept} indexed, {kept} unchanged")


@REAL_OR_FAKE
def test_a_run_that_is_killed_leaves_an_index_that_goes_on(network: str) -> None:
    for seed in range(40):
        save_photo(Path("many") / f"{seed:03}.jpg", seed, size=(64, 48))
    status, _ = index_until(network, 5, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert subprocess.run(vggsearch("info"), capture_output=True, check=True).stdout
    assert index_again(network).endswith("40 photos in indexes/many")


def test_query_asks_several_indexes_and_says_which_a_photo_is_in(indexed: Path) -> None:
    save_photo(Path("phone") / "0.jpg", seed=0)
    assert run("index", "phone").exit_code == 0
    asked = ("query", "photos/summer/0.jpg", "--index", "indexes/photos", "--index", "indexes/phone", "--no-rerank")
    assert run(*asked, "-k", "2").stdout.splitlines()[1:] == [
        "  1.000   copy  indexes/photos  summer/0.jpg",
        "  1.000   copy  indexes/phone   0.jpg",
    ]
    answer = json.loads(run(*asked, "-k", "1", "--format", "jsonl").stdout)
    itself = {"path": "summer/0.jpg", "similarity": 1.0, "confidence": 0.999, "index": "indexes/photos"}
    assert answer["matches"] == [itself]
    paths = run(*asked, "-k", "2", "--format", "paths").stdout.splitlines()
    assert [Path(path).resolve() for path in paths] == [
        Path("photos/summer/0.jpg").resolve(),
        Path("phone/0.jpg").resolve(),
    ]
    rows = run(*asked, "-k", "1", "--format", "csv").stdout.splitlines()
    assert rows == [
        "query,path,similarity,confidence,index",
        "photos/summer/0.jpg,summer/0.jpg,1.0000,0.9990,indexes/photos",
    ]
    twice = run(*asked, "--index", "photos/../indexes/photos")
    assert (twice.exit_code, "photos is named twice. Name each index once." in twice.stderr) == (2, True)


def test_query_filters_adds_and_subtracts(indexed: Path) -> None:
    asked = ("query", "photos/summer/0.jpg", "photos/summer/1.jpg", "--format", "jsonl")
    rules = ("--filter", "winter/", "--filter", "orientation:landscape")
    done = run(*asked, "--together", "--minus", "photos/summer/2.jpg", *rules)
    answer = json.loads(done.stdout)
    assert answer["query"] == "photos/summer/0.jpg + photos/summer/1.jpg - photos/summer/2.jpg"
    assert {match["path"] for match in answer["matches"]} == {"winter/4.jpg", "winter/5.jpg"}
    elsewhere = [json.loads(line)["matches"] for line in run(*asked, "--exclude-same-folder").stdout.splitlines()]
    assert [{match["path"] for match in matches} for matches in elsewhere] == [{"winter/4.jpg", "winter/5.jpg"}] * 2
    assert len(json.loads(run(*asked[:2], "--min-similarity", "-1", *asked[3:]).stdout)["matches"]) == 6
    refused = run(*asked, "--filter", "size:big")
    assert (refused.exit_code, "'big' is not a whole number" in refused.stderr.splitlines()[-1]) == (2, True)


def test_query_subtracts_a_picture_from_standard_input(indexed: Path) -> None:
    done = run("query", "photos/summer/0.jpg", "--minus", "-", stdin=(indexed / "winter" / "5.jpg").read_bytes())
    assert done.stdout.splitlines()[0] == "photos/summer/0.jpg - -"
    assert done.stdout.splitlines()[-1].endswith("winter/5.jpg")


def test_query_writes_a_page_of_what_it_found(indexed: Path) -> None:
    done = run("query", "photos/summer/1.jpg", "photos/gone.jpg", "-k", "2", "--html", "found.html")
    assert (done.exit_code, done.stdout) == (1, "found.html: 2 photos\n")
    assert "photos/gone.jpg" in done.stderr
    assert Path("found.html").read_text("utf-8").count("data:image/webp") == 3
    assert run("query", "--random", "3", "--html", "found.html").stdout == "found.html: 3 photos\n"
    assert run("query", "--random", "3", "--html", "found.html", "--format", "json").exit_code == 2
    assert "cannot show pictures" in run("query", "--random", "3", "--preview").stderr


def test_query_shows_photos_at_random_in_every_format(indexed: Path, fake_network: FakeEngine) -> None:
    asked = ("query", "--random", "4", "--seed", "1", "--filter", "summer/")
    calls = fake_network.calls
    paths = run(*asked).stdout.splitlines()
    assert sorted(paths) == [f"summer/{seed}.jpg" for seed in range(4)]
    assert run(*asked).stdout.splitlines() == paths
    assert json.loads(run(*asked, "--format", "json").stdout) == [{"path": path} for path in paths]
    assert [json.loads(line) for line in run(*asked, "--format", "jsonl").stdout.splitlines()] == [
        {"path": path} for path in paths
    ]
    assert run(*asked, "--format", "csv").stdout.splitlines() == ["path", *paths]
    opened = run(*asked, "--format", "paths").stdout.splitlines()
    assert [Path(path).resolve() for path in opened] == [Path("photos", path).resolve() for path in paths]
    assert run("query", "--random", "4", "--filter", "autumn/").stdout == "no matching photos\n"
    assert fake_network.calls == calls


def test_the_variable_that_names_the_index_is_one_path_even_with_a_colon(
    photos: Path, fake_network: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGSEARCH_INDEX", "indexes/a:b c")
    assert run("index", "photos").exit_code == 0
    done = run("query", "photos/winter/5.jpg", "-k", "1", "--format", "jsonl")
    assert json.loads(done.stdout)["matches"] == [{"path": "winter/5.jpg", "similarity": 1.0, "confidence": 0.999}]


def test_what_is_told_while_decoders_are_quiet_is_seen() -> None:
    code = (
        "import logging, os\n"
        "from vggsearch.cli.terminal import log_to_stderr, quiet_decoders\n"
        "log_to_stderr()\n"
        "with quiet_decoders():\n"
        "    logging.getLogger('vggsearch.query').warning('No photo passes.')\n"
        "    os.write(2, b'an odd tag')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "No photo passes.\n"


def test_an_error_in_a_log_line_is_spelled_as_on_the_command_line() -> None:
    code = (
        "import logging\n"
        "from vggsearch.cli.terminal import log_to_stderr\n"
        "from vggsearch.errors import OptionError, option\n"
        "log_to_stderr()\n"
        "logging.getLogger('vggsearch.x').warning('%s %d', OptionError('Pass ', option('moved'), '.'), 7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "Pass --moved. 7\n"


@pytest.fixture
def with_a_copy(photos: Path, fake_network: FakeEngine) -> Path:
    """An index of six photos and an exact copy of one."""
    shutil.copy(photos / "summer" / "1.jpg", photos / "winter" / "copy.jpg")
    assert run("index", "photos").exit_code == 0
    return photos


def test_dups_shows_groups_and_how_they_were_chosen_and_changes_nothing(with_a_copy: Path) -> None:
    done = run("dups")
    assert done.exit_code == 0
    assert "group 1: 2 photos" in done.stdout
    assert "exact  1.000  100%" in done.stdout
    assert re.search(r"Compared \d+ candidate pairs? among 7 photos\.", done.stderr)
    assert (with_a_copy / "winter" / "copy.jpg").exists()
    assert run("dups", "--fail-if-found").exit_code == 1
    [pair] = [json.loads(line) for line in run("dups", "--pairs", "--format", "jsonl").stdout.splitlines()]
    assert {pair["a"], pair["b"]} == {"summer/1.jpg", "winter/copy.jpg"}
    assert json.loads(run("dups", "--explain-threshold", "--format", "json").stdout)["photos"] == 7


def test_dups_alone_is_dups_find(with_a_copy: Path) -> None:
    alone, named = run("dups", "--format", "csv"), run("dups", "find", "--format", "csv")
    assert (alone.exit_code, alone.stdout) == (named.exit_code, named.stdout) == (0, named.stdout)
    assert "winter/copy.jpg" in alone.stdout


def test_dups_removes_only_with_yes_and_undo_restores(with_a_copy: Path) -> None:
    planned = run("dups", "remove", "move:away")
    assert planned.exit_code == 0
    assert planned.stdout.splitlines()[0] == "move  winter/copy.jpg  (keep summer/1.jpg)"
    assert f"1 photo would be moved to {Path('away').resolve()}, freeing " in planned.stdout
    assert (
        planned.stderr.splitlines()[-1]
        == "Dry run, nothing was changed. Add --yes to apply; everything can be undone."
    )
    assert not Path("away").exists()
    done = run("dups", "remove", "move:away", "--yes")
    assert done.exit_code == 0
    assert "1 file removed, " in done.stdout
    [journal] = Path("indexes/photos/journals").iterdir()
    assert f"Undo: vggsearch dups undo {journal}" in done.stdout
    assert len(list(with_a_copy.rglob("*.jpg"))) == 6
    undone = run("dups", "undo", str(journal))
    assert (undone.exit_code, undone.stdout) == (0, "1 file restored\n")
    assert len(list(with_a_copy.rglob("*.jpg"))) == 7


def test_a_removal_says_which_deletions_no_undo_restores() -> None:
    assert "everything except those edited copies can be undone" in dry_run(has_irreversible=True)


def test_dups_remove_fails_if_a_photo_of_its_plan_cannot_be_removed(
    with_a_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vggsearch.removal.perform.rename_exclusively", refuse)
    done = run("dups", "remove", "move:../away", "--yes")
    assert (done.exit_code, "not removed: " in done.stdout) == (1, True)


def test_dups_remove_keeps_what_is_protected(with_a_copy: Path) -> None:
    assert "(keep winter/copy.jpg)" in run("dups", "remove", "trash", "--protect", "photos/winter").stdout
    both = run("dups", "remove", "trash", "--protect", "photos/winter", "--protect", "photos/summer")
    assert both.stdout == "Nothing to remove.\n"
    nothing = run("dups", "remove", "trash", "--protect", "photos", "--yes")
    assert (nothing.exit_code, nothing.stderr.splitlines()[-1]) == (0, "Nothing to remove.")
    assert not Path("indexes/photos/journals").exists()


def test_dups_acts_on_the_groups_that_are_asked_for(with_a_copy: Path) -> None:
    def shown(*words: str) -> bool:
        return "winter/copy.jpg" in run("dups", "--format", "csv", *words).stdout

    assert shown("--group", "winter/copy.jpg")
    assert shown("--group", "photos/winter/copy.jpg", "--filter", "folder:winter", "--kind", "exact")
    assert not shown("--group", "summer/2.jpg")
    assert not shown("--filter", "*.png")
    assert not shown("--kind", "near")
    assert run("dups", "remove", "trash", "--kind", "near").stdout == "Nothing to remove.\n"
    assert "winter/copy.jpg" in run("dups", "remove", "trash", "--kind", "exact").stdout
    assert "no-such.jpg is not in the index" in run("dups", "--group", "no-such.jpg").stderr


def test_dups_writes_a_page_and_records_decisions(with_a_copy: Path) -> None:
    assert "dups.html: 1 group, 2 photos: 1 duplicate" in run("dups", "--html", "dups.html").stdout
    page = Path("dups.html").read_text("utf-8")
    assert "winter/copy.jpg" in page
    assert "vggsearch dups decide --index indexes/photos" in page
    assert '"remove":"vggsearch dups remove trash --index indexes/photos"' in page
    run("dups", "--html", "dups.html", "--protect", "photos/winter", "--no-confirm", "--threshold", "0.9")
    words = "--threshold 0.9 --protect photos/winter --no-confirm"
    page = Path("dups.html").read_text("utf-8")
    assert f'"remove":"vggsearch dups remove trash --index indexes/photos {words}"' in page
    decided = run("dups", "decide", "--not-duplicates", "summer/1.jpg", "summer/2.jpg")
    assert decided.stdout == "Saved: the 2 photos are not duplicates of each other.\n"
    assert Path("indexes/photos/decisions.jsonl").exists()
    shutil.copy("indexes/photos/decisions.jsonl", "other.jsonl")
    assert run("dups", "decide", "--import", "other.jsonl").stdout == "Imported 0 new decisions.\n"
    cleared = run("dups", "decide", "--undecided", "summer/1.jpg", "summer/2.jpg")
    assert cleared.stdout == "Cleared earlier decisions about the 2 photos.\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--yes"], 2, "Did you mean: vggsearch dups remove --yes ACTION"),
        (["--action", "trash"], 2, "Did you mean: vggsearch dups remove ACTION"),
        (["--raw-pairs"], 2, "Did you mean: vggsearch dups remove --raw-pairs ACTION"),
        (["--undo", "x.jsonl"], 2, "Did you mean: vggsearch dups undo JOURNAL"),
        (
            ["--same", "a.jpg"],
            2,
            "Did you mean: vggsearch dups decide --same PHOTO...",
        ),
        (["--htmll", "x.html"], 2, "--html"),
        (["udno", "x.jsonl"], 2, "unexpected extra arguments (udno x.jsonl)"),
        (["--index", "x", "remove", "trash"], 2, "(remove trash). Did you mean: vggsearch dups remove ACTION"),
        (["decide", "summer/1.jpg", "summer/2.jpg"], 2, "Add a decision: --same, --not-duplicates, --keep or"),
        (["decide", "--import", "x.jsonl", "--same"], 2, "--import takes no PHOTO and no decision"),
        (["decide", "--same", "summer/1.jpg", "nowhere.jpg"], 2, "nowhere.jpg is not in the index"),
        (["decide", "--import", "nothing.jsonl"], 2, "is not a file. Name a file of decisions"),
        (["remove"], 2, "Missing argument 'ACTION'"),
        (["remove", "burn"], 2, "Unknown action 'burn'"),
        (["undo", "nothing.jsonl"], 1, "nothing.jsonl cannot be read"),
        (["--keep", "biggest"], 2, "Unknown keep rule 'biggest'. Available: original"),
        (
            ["--within-folder", "--across-folders-only"],
            2,
            "--within-folder and --across-folders-only exclude each other",
        ),
        (["--against", "nowhere"], 1, "nowhere has no index yet"),
        (["--protect", "/"], 2, "/ is not in the photo folder"),
        (["--protect", "sumer"], 2, "--protect sumer: there is no such folder or file in the photo folder"),
        (["remove", "trash", "--protect", "summer/*"], 2, "--protect 'summer/*': there is no such folder"),
    ],
)
def test_what_dups_cannot_do_is_said_in_a_line(
    with_a_copy: Path, words: list[str], status: int, message: str
) -> None:
    done = run("dups", *words)
    assert done.exit_code == status
    assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verfy"], "No such command 'verfy'. Did you mean 'verify'?"),
        (["dance"], "No such command 'dance'. Choose one of index, query, dups, serve, "),
        (["query", "--pairs", "a.jpg"], "No such option"),
        (["eval", "--linear-prob", "truth.tsv"], "--linear-probe"),
    ],
)
def test_a_mistyped_command_or_option_leads_to_the_right_one(words: list[str], message: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(("count", "words"), [(0, "0 photos"), (1, "1 photo"), (1_234, "1,234 photos")])
def test_a_quantity_is_in_the_singular_only_for_one(count: int, words: str) -> None:
    assert quantity(count, "photo") == words
    assert quantity(count, "copy", "copies").endswith("copy" if count == 1 else "copies")
