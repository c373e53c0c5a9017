import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from vggsearch.errors import EngineError, OptionError
from vggsearch.extract import Embedded, extract
from vggsearch.model.engine import Engine
from vggsearch.model.many_cards import ManyCardsEngine, _Wire
from vggsearch.photos import PhotoFile, walk

SIDE = 16
POISON = 255  # the value of a batch no card survives
Ill = Callable[[], object]


@dataclass(frozen=True)
class Load:
    """Loads a fake engine in a card's process; each table is by the card's number.

    `falls_ill` says what a card does instead of its n-th batch, counted from 1; 0 is when it is measured.
    """

    seconds_a_batch: dict[int, float] = field(default_factory=dict)
    seconds_to_load: dict[int, float] = field(default_factory=dict)
    falls_ill: dict[int, tuple[int, Ill]] = field(default_factory=dict)
    does_not_load: tuple[int, ...] = ()

    def __call__(self, card: int) -> Engine:
        time.sleep(self.seconds_to_load.get(card, 0))
        if card in self.does_not_load:
            raise OptionError(f"there is no card {card}")
        return CardEngine(card, self.seconds_a_batch.get(card, 0), self.falls_ill.get(card))


class CardEngine(FakeEngine):
    device = "a pretended card"

    def __init__(self, card: int, seconds: float, falls_ill: tuple[int, Ill] | None) -> None:
        super().__init__(batch_size=5)
        self.card = card
        self.seconds = seconds
        self.falls_ill = falls_ill

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = super().embed(squares)
        if self.falls_ill is not None and self.calls == self.falls_ill[0]:
            self.falls_ill[1]()
        if (squares == POISON).all():
            raise ValueError("poison")
        time.sleep(self.seconds)
        rows[:, -1] = self.card
        return rows

    def multiply_adds_per_s(self, seconds: float) -> float:
        if self.falls_ill is not None and self.falls_ill[0] == 0:
            self.falls_ill[1]()
        time.sleep(self.seconds)
        return seconds * [1, 10, 100, 1000, 10_000, 100_000][self.card]


def raise_an_error() -> None:
    raise RuntimeError("out of memory\nand advice about debugging")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def batch(seed: int, count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 250, (count, SIDE, SIDE, 3), np.uint8)


def batches(count: int) -> list[NDArray[np.uint8]]:
    """Batches of 0 to 4 pictures."""
    return [batch(seed, count=seed * 2 % 5) for seed in range(1, count + 1)]


def assert_right(results: list[NDArray[np.float32]], asked: list[NDArray[np.uint8]]) -> None:
    """Each batch has its own embeddings, in its place, and nothing else is there."""
    single = FakeEngine()
    assert len(results) == len(asked)
    for rows, squares in zip(results, asked, strict=True):
        assert rows.dtype == np.float32
        assert len(rows) == len(squares)
        if len(squares):
            assert (rows[:, :-1] == single.embed(squares)[:, :-1]).all()


def cards_of(results: list[NDArray[np.float32]]) -> list[int]:
    """Which card made each batch: the fake writes its number last."""
    return [int(rows[0, -1]) for rows in results if len(rows)]


def process_of(card: int) -> BaseProcess:
    (process,) = (child for child in multiprocessing.active_children() if child.name == f"card {card}")
    return process


def are_up(engine: ManyCardsEngine) -> None:
    """Wait until every card has loaded: measuring asks all of them."""
    engine.multiply_adds_per_s(0)


class Counted:
    """Batches, and how many were asked for so far."""

    def __init__(self, items: list[NDArray[np.uint8]], seconds: float = 0.0) -> None:
        self.items = items
        self.seconds = seconds
        self.pulled = 0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for item in self.items:
            self.pulled += 1
            time.sleep(self.seconds)
            yield item


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def test_batches_come_out_in_the_order_they_went_in_whatever_the_speed_of_a_card() -> None:
    asked = batches(60)
    load = Load(seconds_a_batch={0: 0.05, 1: 0.0, 2: 0.005})
    with closing(ManyCardsEngine(load, cards=range(3))) as engine:
        are_up(engine)
        results = list(engine.embed_stream(asked))
        assert_right(results, asked)
        assert set(cards_of(results)) == {0, 1, 2}
        assert cards_of(results).count(1) > cards_of(results).count(0)


def test_it_is_an_engine_like_its_cards() -> None:
    with closing(ManyCardsEngine(Load(), cards=[3, 5])) as engine:
        assert isinstance(engine, Engine)
        assert (engine.name, engine.precision, engine.batch_size) == ("fake", "fp32", 5)
        assert str(engine) == "fake, 2 x a pretended card, fp32"
        assert_right([engine.embed(batch(seed)) for seed in range(4)], [batch(seed) for seed in range(4)])
        assert engine.multiply_adds_per_s(2.0) == 2.0 * 10**3 + 2.0 * 10**5


def test_photos_go_through_it_as_through_one_card(tmp_path: Path) -> None:
    for number in range(20):
        save_photo(tmp_path / f"{number:02}.jpg", number, (40, 30))
    (tmp_path / "07.jpg").write_bytes(b"no picture")
    files = [item for item in walk(tmp_path) if isinstance(item, PhotoFile)]
    single = [item for item in extract(files, tmp_path, FAKE_SPEC, FakeEngine()) if isinstance(item, Embedded)]
    with closing(ManyCardsEngine(Load(), cards=[0, 1])) as engine:
        many = [item for item in extract(files, tmp_path, FAKE_SPEC, engine) if isinstance(item, Embedded)]
    assert [item.file for item in many] == [item.file for item in single]
    for one, other in zip(many, single, strict=True):
        assert (one.embedding[:-1] == other.embedding[:-1]).all()


def test_batches_larger_than_any_pipe_holds_pass_in_both_directions() -> None:
    asked = [batch(seed, count=2000) for seed in range(8)]  # 1.5 MB there, 8 MB back
    with closing(ManyCardsEngine(Load(), cards=[0, 1])) as engine:
        assert_right(list(engine.embed_stream(asked)), asked)


def test_a_message_arrives_as_it_was_sent_and_arrays_can_be_written() -> None:
    ours, theirs = socket.socketpair()
    turned, strided = np.asfortranarray(batch(2)), batch(3)[:, ::2]
    message = {"pixels": batch(1), "turned": turned, "strided": strided, "none": batch(4, count=0)}
    with ours, theirs:
        sender = threading.Thread(target=_Wire(ours).send, args=(message,))
        sender.start()
        received = _Wire(theirs).receive()
        sender.join()
        ours.close()
        with pytest.raises(EOFError):
            _Wire(theirs).receive()
    assert received.keys() == message.keys()
    for name, value in message.items():
        assert np.array_equal(received[name], value)
    received["pixels"][:] = 0


def test_empty_batches_are_answered_without_a_card() -> None:
    nothing = batch(0, count=0)
    load = Load(falls_ill={0: (1, die)})
    with closing(ManyCardsEngine(load, cards=[0])) as engine:
        assert len(engine.embed(nothing)) == 0
        assert [len(rows) for rows in engine.embed_stream([nothing] * 20)] == [0] * 20
        assert list(engine.embed_stream([])) == []
        assert process_of(0).is_alive()


@pytest.mark.parametrize(
    ("illness", "reason"),
    [(raise_an_error, "RuntimeError: out of memory"), (die, "its process was ended by signal 9, Killed")],
)
def test_the_others_do_the_work_of_a_card_that_fails(
    illness: Ill, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = batches(40)
    load = Load(falls_ill={1: (3, illness)}, seconds_a_batch={0: 0.01, 2: 0.01})
    with closing(ManyCardsEngine(load, cards=range(3))) as engine:
        are_up(engine)
        assert_right(list(engine.embed_stream(asked)), asked)
        assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
            f"card 1 failed ({reason}); its work goes to the others"
        ]
        again = list(engine.embed_stream(asked))
        assert_right(again, asked)
        assert set(cards_of(again)) == {0, 2}


def test_a_card_that_is_killed_while_it_is_idle_is_missed_at_the_next_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(ManyCardsEngine(Load(), cards=[0, 1])) as engine:
        are_up(engine)
        process_of(0).kill()
        assert_right([engine.embed(batch(1))], [batch(1)])
        assert "card 0 failed" in caplog.text


def test_a_card_that_is_killed_from_outside_in_the_middle_of_a_batch_loses_nothing() -> None:
    asked = batches(30)
    load = Load(seconds_a_batch={0: 0.02, 1: 0.02})
    results = []
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine:
        are_up(engine)
        for number, rows in enumerate(engine.embed_stream(asked)):
            results.append(rows)
            if number == 10:
                process_of(1).kill()
    assert_right(results, asked)


def test_a_card_that_does_not_load_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    asked = batches(10)
    load = Load(does_not_load=(0,), seconds_to_load={1: 0.5})
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine:
        assert_right(list(engine.embed_stream(asked)), asked)
    assert "card 0 failed (OptionError: there is no card 0); its work goes to the others" in caplog.text


def test_work_starts_on_the_first_card_that_is_up() -> None:
    asked = batches(10)
    started = time.monotonic()
    with closing(ManyCardsEngine(Load(seconds_to_load={0: 60.0}), cards=[0, 1])) as engine:
        assert_right(list(engine.embed_stream(asked)), asked)
    assert time.monotonic() - started < 30


def test_a_card_that_comes_up_late_finds_work_that_waits_for_it() -> None:
    asked = [batch(seed) for seed in range(4)]
    load = Load(seconds_to_load={0: 0.3}, seconds_a_batch={1: 1.0})
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine:
        results = list(engine.embed_stream(asked))
    assert_right(results, asked)
    assert cards_of(results) == [1, 1, 0, 0]


def test_when_no_card_comes_up_each_is_named_with_its_reason() -> None:
    with pytest.raises(EngineError) as raised:
        ManyCardsEngine(Load(does_not_load=(2, 3)), cards=[2, 3])
    assert "card 2 (OptionError: there is no card 2)" in str(raised.value)
    assert "card 3 (OptionError: there is no card 3)" in str(raised.value)


def test_when_the_last_card_fails_each_is_named_with_its_reason() -> None:
    load = Load(falls_ill={0: (2, raise_an_error), 1: (4, die)})
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine:
        are_up(engine)
        with pytest.raises(EngineError) as raised:
            list(engine.embed_stream(batches(40)))
        assert "card 0 (RuntimeError: out of memory)" in str(raised.value)
        assert "card 1 (its process was ended by signal 9, Killed)" in str(raised.value)
        with pytest.raises(EngineError, match=r"card 0 .* card 1"):
            engine.embed(batch(0))
        with pytest.raises(EngineError):
            engine.multiply_adds_per_s(1)


def test_a_batch_that_no_card_survives_is_tried_once_on_each() -> None:
    asked = [*batches(6), np.full((2, SIDE, SIDE, 3), POISON, np.uint8), *batches(6)]
    with closing(ManyCardsEngine(Load(), cards=range(3))) as engine:
        with pytest.raises(EngineError) as raised:
            list(engine.embed_stream(asked))
        assert str(raised.value).count("ValueError: poison") == 3


def test_a_card_that_fails_while_it_is_measured_does_not_count() -> None:
    load = Load(falls_ill={0: (0, raise_an_error)}, seconds_a_batch={3: 0.3})
    with closing(ManyCardsEngine(load, cards=[0, 2, 3])) as engine:
        assert engine.multiply_adds_per_s(1.0) == 1100.0
        assert_right([engine.embed(batch(1))], [batch(1)])


def test_a_measurement_no_card_survives_is_an_error() -> None:
    load = Load(falls_ill={0: (0, raise_an_error), 1: (0, die)})
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine, pytest.raises(EngineError, match="card 0"):
        engine.multiply_adds_per_s(1.0)


@pytest.mark.parametrize("cards", [1, 2, 3])
def test_the_look_ahead_is_two_batches_a_card(cards: int) -> None:
    counted = Counted([batch(seed) for seed in range(30)])
    load = Load(seconds_a_batch=dict.fromkeys(range(cards), 0.01))
    with closing(ManyCardsEngine(load, cards=range(cards))) as engine:
        are_up(engine)
        ahead = [counted.pulled - number for number, _ in enumerate(engine.embed_stream(counted))]
    assert len(ahead) == 30
    assert max(ahead) == 2 * cards


def test_the_look_ahead_stays_bounded_behind_a_slow_card_and_among_empty_batches() -> None:
    counted = Counted([batch(seed, count=seed % 3) for seed in range(60)])
    load = Load(seconds_a_batch={0: 0.05})
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine:
        are_up(engine)
        ahead = [counted.pulled - number for number, _ in enumerate(engine.embed_stream(counted))]
    assert len(ahead) == 60
    assert max(ahead) <= 4


def test_what_is_done_comes_out_before_a_slow_source_is_asked_for_more() -> None:
    counted = Counted([batch(seed) for seed in range(8)], seconds=0.2)
    with closing(ManyCardsEngine(Load(), cards=range(4))) as engine:
        are_up(engine)
        ahead = [counted.pulled - number for number, _ in enumerate(engine.embed_stream(counted))]
    assert ahead[0] <= 3  # two, and one more if this machine was busy; it may be eight


def test_nothing_is_pulled_before_the_first_batch_is_asked_for() -> None:
    counted = Counted(batches(5))
    with closing(ManyCardsEngine(Load(), cards=[0])) as engine:
        engine.embed_stream(counted)
        assert counted.pulled == 0


def test_a_stream_that_is_left_early_does_not_disturb_the_next() -> None:
    first, second = [batch(seed) for seed in range(30)], [batch(seed) for seed in range(100, 120)]
    load = Load(seconds_a_batch={0: 0.02, 1: 0.02})
    with closing(ManyCardsEngine(load, cards=[0, 1])) as engine:
        are_up(engine)
        for _ in range(3):
            left = engine.embed_stream(first)
            assert isinstance(left, Generator)
            assert_right([next(left)], first[:1])
            left.close()
            assert_right(list(engine.embed_stream(second)), second)


def test_two_streams_and_a_single_question_may_be_open_at_once() -> None:
    first, second = batches(20), batches(25)[5:]
    with closing(ManyCardsEngine(Load(), cards=[0, 1])) as engine:
        one, other, single = [], [], []
        for rows, others in zip(engine.embed_stream(first), engine.embed_stream(second), strict=True):
            one.append(rows)
            other.append(others)
            single.append(engine.embed(batch(len(one))))
        assert_right(one, first)
        assert_right(other, second)
        assert_right(single, [batch(seed) for seed in range(1, 21)])


def test_an_error_in_the_source_is_heard_and_leaves_the_engine_usable() -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from batches(5)
        raise OSError("disk gone")

    with closing(ManyCardsEngine(Load(), cards=[0, 1])) as engine:
        with pytest.raises(OSError, match="disk gone"):
            list(engine.embed_stream(broken()))
        assert_right([engine.embed(batch(1))], [batch(1)])


def test_an_answer_that_is_lost_to_ctrl_c_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [batch(seed) for seed in range(20)]
    with closing(ManyCardsEngine(Load(), cards=[0, 1])) as engine:
        are_up(engine)
        monkeypatch.setattr(_Wire, "receive", interrupted_receive)
        with pytest.raises(KeyboardInterrupt):
            list(engine.embed_stream(asked))
        monkeypatch.undo()
        assert_right(list(engine.embed_stream(asked[::-1])), asked[::-1])


receive = _Wire.receive


def interrupted_receive(wire: _Wire) -> None:
    """Be interrupted when the message is off the wire and not yet noted."""
    receive(wire)
    raise KeyboardInterrupt


def test_closing_ends_the_processes_even_those_that_load_or_work() -> None:
    def three() -> Iterator[NDArray[np.uint8]]:
        yield from (batch(seed) for seed in range(3))
        raise OSError("disk gone")

    load = Load(seconds_to_load={0: 60.0}, seconds_a_batch={1: 60.0, 2: 60.0})
    engine = ManyCardsEngine(load, cards=[0, 1, 2])
    with pytest.raises(OSError, match="disk gone"):
        list(engine.embed_stream(three()))
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 4
    assert multiprocessing.active_children() == []


def test_an_engine_that_was_closed_says_so() -> None:
    engine = ManyCardsEngine(Load(), cards=[0])
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.embed(batch(0))
    with pytest.raises(EngineError, match="closed"):
        engine.multiply_adds_per_s(1)


def test_an_engine_that_is_let_go_ends_its_processes() -> None:
    engine = ManyCardsEngine(Load(), cards=[0, 1])
    assert len(multiprocessing.active_children()) == 2
    del engine
    assert multiprocessing.active_children() == []


def test_an_engine_can_be_loaded_outside_the_main_thread() -> None:
    results = []

    def work() -> None:
        with closing(ManyCardsEngine(Load(), cards=[0])) as engine:
            results.append(engine.embed(batch(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert_right(results, [batch(1)])


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def run_until_interrupted() -> None:
    """Embed for ever in a process of its own; tests below start this."""
    say("started")
    try:
        engine = ManyCardsEngine(Load(seconds_a_batch={0: 0.01, 1: 0.01}), cards=[0, 1])
        for _ in engine.embed_stream(map(batch, count())):
            say("embedded")
    except KeyboardInterrupt:
        say("interrupted")


@contextmanager
def started_in_a_session(until: str) -> Iterator[subprocess.Popen[str]]:
    """Start run_until_interrupted, and give its process when it says `until`."""
    code = "from tests.test_many_cards import run_until_interrupted as run; run()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdout is not None
        try:
            while (word := process.stdout.readline().strip()) != until:
                assert word
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("until", "then_s"), [("embedded", 0.1), ("started", 0.05), ("started", 0.2)])
def test_ctrl_c_is_heard_by_the_parent_alone(until: str, then_s: float) -> None:
    with started_in_a_session(until) as process:
        time.sleep(then_s)  # the first in the middle of the work, the others while the processes start
        os.killpg(process.pid, signal.SIGINT)
        said, complained = process.communicate(timeout=20)
    assert said.endswith("interrupted\n")
    assert "Traceback" not in complained
    assert "KeyboardInterrupt" not in complained
    assert process.returncode == 0


def test_the_processes_end_with_a_parent_that_is_killed() -> None:
    with started_in_a_session("embedded") as process:
        process.kill()
        # Its output ends only when all who inherited it are gone.
        _, complained = process.communicate(timeout=20)
    assert "Traceback" not in complained
