"""Pairwise sessions: warm messages, turns, set-ups, small calls, two workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import interlane
import numpy as np
import pytest
import vodozemac
from conftest import Live, Sizes, Versus, avx2_beside, clock
from interlane import Kind, Rows
from linked import MEMORY, PLAINTEXT, Handles, Linked, Packed, address, bundles, handles, link
from report import (
    GO,
    IN_ORDER,
    LIBSIGNAL_CLIENT,
    ONE_ROW,
    ONE_THREAD,
    PORTABLE,
    TWO_PROCESSES,
    VODOZEMAC,
    WACORE,
    WACORE_BEST,
)

# Olm accounts keep so many one-time keys.
OLM_KEYS_MAX = 50
# Of calls of a few rows.
FEW_SESSIONS = 1_000
DEVICES = 1_000
CLOSE_SECONDS_MAX = 60


@pytest.fixture(scope="module")
def olm(sizes: Sizes) -> list[vodozemac.Session]:
    """Vodozemac's sessions, acknowledged: the next message is no prekey message and makes no ratchet key."""
    near, far = vodozemac.Account(), vodozemac.Account()
    sessions: list[vodozemac.Session] = []
    while len(sessions) < sizes.rows:
        far.generate_one_time_keys(OLM_KEYS_MAX)
        keys = list(far.one_time_keys.values())
        far.mark_keys_as_published()
        for key in keys[: sizes.rows - len(sessions)]:
            session = near.create_outbound_session(far.curve25519_key, key)
            first = session.encrypt(PLAINTEXT).to_pre_key()
            assert first is not None
            other, opened = far.create_inbound_session(near.curve25519_key, first)
            assert opened == PLAINTEXT
            assert session.decrypt(other.encrypt(PLAINTEXT)) == PLAINTEXT
            warm = session.encrypt(PLAINTEXT)
            assert warm.to_pre_key() is None
            assert other.decrypt(warm) == PLAINTEXT
            sessions.append(session)
    return sessions


def olm_clock(sessions: list[vodozemac.Session]) -> Callable[[], float]:
    """One call a message; making its bytes (`to_parts`) is left out of the clock."""

    def loop() -> int:
        for session in sessions:
            session.encrypt(PLAINTEXT)
        return len(sessions)

    return clock(loop)


def encryption(linked: Linked) -> tuple[Callable[[], None], Callable[[None], None]]:
    """`prepare` opens and checks what the last call of `ours` gave, so that no gap opens in the chains."""
    linked.check(linked.open_sent(linked.send()))
    sent: list[Rows] = []

    def prepare() -> None:
        while sent:
            linked.check(linked.open_sent(sent.pop()))

    def ours(_: None) -> None:
        sent.append(linked.send())

    return prepare, ours


def bench_encrypt_warm_vodozemac(versus: Versus, linked: Linked, olm: list[vodozemac.Session]) -> None:
    prepare, ours = encryption(linked)
    versus("encrypt/warm", VODOZEMAC, rows=linked.rows, prepare=prepare, ours=ours, theirs=olm_clock(olm))
    prepare()


def bench_encrypt_list(versus: Versus, linked: Linked, olm: list[vodozemac.Session]) -> None:
    """The same with a list of bytes in and out, in place of packed buffers."""
    plaintexts = [PLAINTEXT] * linked.rows
    near, near_handles = linked.near, linked.near_handles.tolist()
    sent: list[list[bytes]] = []

    def ours(_: None) -> None:
        sent.append(near.encrypt(near_handles, plaintexts).tolist())

    def prepare() -> None:
        while sent:
            opened = linked.far.decrypt(linked.far_handles, "msg", sent.pop())
            assert opened.tolist() == plaintexts

    ours(None)
    prepare()
    versus("encrypt/list", VODOZEMAC, rows=linked.rows, prepare=prepare, ours=ours, theirs=olm_clock(olm))
    prepare()


def bench_encrypt_shuffled(versus: Versus, linked: Linked) -> None:
    """The sessions in another order at each call, against the order in which they lie in memory."""
    random = np.random.default_rng(1)
    open_in_order, in_order = encryption(linked)
    shuffled: list[tuple[Handles, Rows]] = []

    def loop() -> int:
        in_order(None)
        return linked.rows

    def prepare() -> tuple[Handles, Handles]:
        open_in_order()
        while shuffled:
            far_handles, sent = shuffled.pop()
            linked.check(linked.far.decrypt(far_handles, sent.kinds, sent.data, sent.offsets))
        order = random.permutation(linked.rows)
        return linked.near_handles[order], linked.far_handles[order]

    def ours(both: tuple[Handles, Handles]) -> None:
        near_handles, far_handles = both
        plaintexts = linked.plaintexts
        shuffled.append((far_handles, linked.near.encrypt(near_handles, plaintexts.data, plaintexts.offsets)))

    versus("encrypt/shuffled", IN_ORDER, rows=linked.rows, prepare=prepare, ours=ours, theirs=clock(loop))
    prepare()


@pytest.mark.parametrize("peer", [LIBSIGNAL_CLIENT, WACORE])
def bench_encrypt_warm(versus: Versus, linked: Linked, live: Live, peer: str) -> None:
    prepare, ours = encryption(linked)
    theirs = live.clock(peer, "encrypt/warm")
    versus("encrypt/warm", peer, rows=linked.rows, prepare=prepare, ours=ours, theirs=theirs)
    prepare()


def bench_encrypt_warm_avx2(versus: Versus, sizes: Sizes, olm: list[vodozemac.Session]) -> None:
    """What a CPU without AVX-512 does, beside what is used here."""
    avx2_beside("encrypt/warm")
    if interlane.backend() == "avx2":
        pytest.skip("encrypt/warm: avx2 is the backend in use")
    linked = link(sizes.rows, backend="avx2")
    prepare, ours = encryption(linked)
    theirs = olm_clock(olm)
    versus(
        "encrypt/warm", VODOZEMAC, rows=linked.rows, prepare=prepare, ours=ours, theirs=theirs, backend="avx2"
    )
    prepare()
    linked.close()


@pytest.mark.parametrize("peer", [GO, LIBSIGNAL_CLIENT, WACORE])
def bench_decrypt_warm(versus: Versus, linked: Linked, live: Live, peer: str) -> None:
    opened: list[Rows] = [linked.open_sent(linked.send())]

    def prepare() -> Rows:
        linked.check(opened.pop())
        return linked.send()

    def ours(sent: Rows) -> None:
        opened.append(linked.open_sent(sent))

    theirs = live.clock(peer, "decrypt/warm")
    versus("decrypt/warm", peer, rows=linked.rows, prepare=prepare, ours=ours, theirs=theirs)
    linked.check(opened.pop())


class FewRows:
    """Calls of a few rows, over the first sessions of `linked`."""

    def __init__(self, linked: Linked) -> None:
        self._linked = linked
        self.rows = min(FEW_SESSIONS, linked.rows)
        self._sent: list[list[Rows]] = []

    def calls(self, of_rows: int) -> Callable[[], int]:
        """A loop with one row of each session, as a program writes it that has a message or some."""
        near = self._linked.near
        sessions = self._linked.near_handles[: self.rows].tolist()
        batches = [sessions[first : first + of_rows] for first in range(0, self.rows, of_rows)]
        plaintexts = [PLAINTEXT] * of_rows

        def loop() -> int:
            self._sent.append([near.encrypt(batch, plaintexts) for batch in batches])
            return self.rows

        return loop

    def check(self) -> None:
        """Opens what was sent, in its order."""
        far_handles = self._linked.far_handles[: self.rows]
        for sent in self._sent:
            frames = [frame for rows in sent for frame in rows.tolist()]
            opened = self._linked.far.decrypt(far_handles, "msg", frames)
            assert opened.tolist() == [PLAINTEXT] * self.rows
        self._sent.clear()


def bench_rows_1(versus: Versus, linked: Linked, olm: list[vodozemac.Session]) -> None:
    few = FewRows(linked)
    loop = few.calls(1)
    loop()
    few.check()
    versus(
        "rows/1",
        VODOZEMAC,
        rows=few.rows,
        batch=1,
        prepare=few.check,
        ours=lambda _: loop(),
        theirs=olm_clock(olm[: few.rows]),
    )
    few.check()


def bench_rows_1_portable(versus: Versus, linked: Linked) -> None:
    """What lanes cost who has one row."""
    if interlane.backend() == PORTABLE:
        pytest.skip("rows/1: portable is its own peer")
    portable = link(min(FEW_SESSIONS, linked.rows), backend=PORTABLE)
    few, theirs = FewRows(linked), FewRows(portable)
    loop, their_loop = few.calls(1), theirs.calls(1)

    def check() -> None:
        few.check()
        theirs.check()

    loop()
    their_loop()
    check()
    versus(
        "rows/1",
        PORTABLE,
        rows=few.rows,
        batch=1,
        prepare=check,
        ours=lambda _: loop(),
        theirs=clock(their_loop),
    )
    check()
    portable.close()


def bench_rows_4(versus: Versus, linked: Linked) -> None:
    few = FewRows(linked)
    loop = few.calls(4)
    loop()
    few.check()
    versus(
        "rows/4",
        ONE_ROW,
        rows=few.rows,
        batch=4,
        prepare=few.check,
        ours=lambda _: loop(),
        theirs=clock(few.calls(1)),
    )
    few.check()


@pytest.mark.parametrize("peer", [GO, WACORE, WACORE_BEST])
def bench_setup(versus: Versus, sizes: Sizes, live: Live, peer: str) -> None:
    """From a bundle with a one-time prekey: the session, then its first message. Each round has its own
    engine."""
    theirs = live.clock(peer, "setup")
    rows, plaintexts = sizes.rows, Packed.repeated(PLAINTEXT, sizes.rows)
    far = interlane.open(MEMORY, threads=1)
    # An initiator does not know that another one has been given the same bundle.
    published = bundles(far, rows)
    used: list[tuple[interlane.Engine, Rows]] = []

    def prepare() -> tuple[interlane.Engine, Handles]:
        finish()
        engine = interlane.open(MEMORY, threads=1)
        return engine, handles(engine, rows)

    def ours(prepared: tuple[interlane.Engine, Handles]) -> None:
        engine, near_handles = prepared
        started = engine.start_sessions(near_handles, published)
        sent = engine.encrypt(near_handles, plaintexts.data, plaintexts.offsets)
        assert started.ok.all()
        used.append((engine, sent))

    def finish() -> None:
        while used:
            engine, sent = used.pop()
            assert sent.ok.all()
            assert (sent.kinds == Kind.PKMSG).all()
            engine.close()

    # Opened once: the one-time prekeys are spent then.
    ours(prepare())
    sent = used[0][1]
    opened = far.decrypt(handles(far, rows), sent.kinds, sent.data, sent.offsets)
    assert opened.ok.all()
    assert np.array_equal(opened.data, plaintexts.data)
    versus("setup", peer, rows=rows, prepare=prepare, ours=ours, theirs=theirs)
    finish()
    far.close()


@pytest.mark.parametrize("peer", [WACORE, WACORE_BEST])
def bench_setup_responder(versus: Versus, sizes: Sizes, live: Live, peer: str) -> None:
    """The first message of a session that the peer has started. Each round has its own engines."""
    theirs = live.clock(peer, "setup/responder")
    rows, plaintexts = sizes.rows, Packed.repeated(PLAINTEXT, sizes.rows)
    used: list[tuple[interlane.Engine, Rows]] = []

    def prepare() -> tuple[interlane.Engine, Handles, Rows]:
        finish()
        near, far = interlane.open(MEMORY, threads=1), interlane.open(MEMORY, threads=1)
        near_handles = handles(near, rows)
        assert near.start_sessions(near_handles, bundles(far, rows)).ok.all()
        sent = near.encrypt(near_handles, plaintexts.data, plaintexts.offsets)
        assert (sent.kinds == Kind.PKMSG).all()
        near.close()
        return far, handles(far, rows), sent

    def ours(prepared: tuple[interlane.Engine, Handles, Rows]) -> None:
        far, far_handles, sent = prepared
        used.append((far, far.decrypt(far_handles, sent.kinds, sent.data, sent.offsets)))

    def finish() -> None:
        while used:
            far, opened = used.pop()
            assert opened.ok.all()
            assert np.array_equal(opened.data, plaintexts.data)
            far.close()

    ours(prepare())
    versus("setup/responder", peer, rows=rows, prepare=prepare, ours=ours, theirs=theirs)
    finish()


@pytest.mark.parametrize("peer", [WACORE, WACORE_BEST])
def bench_fanout(versus: Versus, sizes: Sizes, live: Live, peer: str) -> None:
    """One account to devices that it has no session with: all the sessions, then a message to each. Each
    device has an identity of its own. Each round has its own engine."""
    theirs = live.clock(peer, "fanout/1000")
    rows = min(DEVICES, sizes.rows)
    plaintexts = Packed.repeated(PLAINTEXT, rows)
    far = interlane.open(MEMORY, threads=1)
    devices = [far.account(f"device-{n}@bench.example", create=True) for n in range(rows)]
    published = [next(iter(device.prekeys(1).bundles())) for device in devices]
    addresses = [address(n) for n in range(rows)]
    used: list[tuple[interlane.Engine, Rows]] = []

    def prepare() -> interlane.Account:
        finish()
        return interlane.open(MEMORY, threads=1).account("sender@bench.example", create=True)

    def ours(sender: interlane.Account) -> None:
        sender.start_sessions(addresses, published)
        sent = sender.encrypt(addresses, plaintexts.data, plaintexts.offsets)
        used.append((sender.engine, sent))

    def finish() -> None:
        while used:
            engine, sent = used.pop()
            assert sent.ok.all()
            assert (sent.kinds == Kind.PKMSG).all()
            engine.close()

    # Opened once: the one-time prekeys are spent then.
    ours(prepare())
    sent = used[0][1]
    at_devices = far.sessions(devices, [address(0)] * rows)
    opened = far.decrypt(at_devices, sent.kinds, sent.data, sent.offsets)
    assert opened.ok.all()
    assert np.array_equal(opened.data, plaintexts.data)
    versus("fanout/1000", peer, rows=rows, prepare=prepare, ours=ours, theirs=theirs)
    finish()
    far.close()


@pytest.mark.parametrize("peer", [GO, WACORE, WACORE_BEST])
def bench_turn(versus: Versus, sizes: Sizes, live: Live, peer: str) -> None:
    """A decrypt with a new ratchet key, then an encrypt, which is the first with our new one."""
    theirs = live.clock(peer, "turn")
    linked = link(sizes.rows)
    done: list[tuple[Rows, Rows]] = [(linked.open_answer(linked.answer()), linked.send())]

    def prepare() -> Rows:
        finish()
        return linked.answer()

    def ours(answer: Rows) -> None:
        done.append((linked.open_answer(answer), linked.send()))

    def finish() -> None:
        while done:
            opened, sent = done.pop()
            linked.check(opened)
            linked.check(linked.open_sent(sent))

    versus("turn", peer, rows=linked.rows, prepare=prepare, ours=ours, theirs=theirs)
    finish()
    linked.close()


@pytest.fixture
def two_workers(sizes: Sizes) -> Iterator[Linked]:
    pair = link(sizes.rows, threads=2)
    yield pair
    pair.close()


class TwoProcesses:
    """One worker's loop in two processes at once."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        command = [sys.executable, str(Path(__file__).with_name("alone.py")), str(rows)]
        self._running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - of this folder
            for _ in range(2)
        ]
        assert self._answers() == ["ready"] * 2

    def clock(self) -> float:
        """Nanoseconds a row of both together, which the slower one ends."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        slower = max(int(answer) for answer in self._answers())
        # Neither checks what it sent while the next side is timed.
        assert self._answers() == ["checked"] * 2
        return slower / (2 * self._rows)

    def _answers(self) -> list[str]:
        answers = []
        for process in self._running:
            assert process.stdout is not None
            answers.append(process.stdout.readline().strip())
        return answers

    def close(self) -> None:
        for process in self._running:
            process.communicate(timeout=CLOSE_SECONDS_MAX)
            assert process.returncode == 0


@pytest.fixture
def two_processes(sizes: Sizes) -> Iterator[TwoProcesses]:
    processes = TwoProcesses(sizes.rows)
    yield processes
    processes.close()


def bench_threads_2(versus: Versus, linked: Linked, two_workers: Linked, two_processes: TwoProcesses) -> None:
    """The same call with two workers, against one; the limit is what two processes do at once."""
    prepare, ours = encryption(two_workers)
    prepare_alone, alone = encryption(linked)

    def loop() -> int:
        alone(None)
        return linked.rows

    def prepare_both() -> None:
        prepare()
        prepare_alone()

    versus(
        "threads/2",
        ONE_THREAD,
        rows=linked.rows,
        prepare=prepare_both,
        ours=ours,
        theirs=clock(loop),
        limit=(TWO_PROCESSES, two_processes.clock),
    )
    prepare_both()
