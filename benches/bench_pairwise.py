"""Pairwise sessions: warm messages, turns, set-ups, single calls, two workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import interlane
import numpy as np
import pytest
import vodozemac
from conftest import Live, Sizes, Versus, clock
from interlane import Kind, Rows
from linked import MEMORY, PLAINTEXT, Handles, Linked, Packed, bundles, handles, link
from report import GO, LIBSIGNAL_CLIENT, ONE_THREAD, VODOZEMAC

# Olm accounts keep so many one-time keys.
OLM_KEYS_MAX = 50
SINGLE_CALLS = 1_000


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


def bench_encrypt_warm_libsignal_client(versus: Versus, linked: Linked, live: Live) -> None:
    prepare, ours = encryption(linked)
    theirs = live.clock(LIBSIGNAL_CLIENT, "encrypt/warm")
    versus("encrypt/warm", LIBSIGNAL_CLIENT, rows=linked.rows, prepare=prepare, ours=ours, theirs=theirs)
    prepare()


@pytest.mark.parametrize("peer", [GO, LIBSIGNAL_CLIENT])
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


def bench_rows_1(versus: Versus, linked: Linked, olm: list[vodozemac.Session]) -> None:
    """A call a message, as a program writes it that has one message."""
    calls = min(SINGLE_CALLS, linked.rows)
    near, singles = linked.near, linked.near_handles[:calls].tolist()
    sent: list[list[Rows]] = []

    def ours(_: None) -> None:
        sent.append([near.encrypt([handle], [PLAINTEXT]) for handle in singles])

    def prepare() -> None:
        while sent:
            frames = [rows.tolist()[0] for rows in sent.pop()]
            opened = linked.far.decrypt(linked.far_handles[:calls], "msg", frames)
            assert opened.tolist() == [PLAINTEXT] * calls

    ours(None)
    prepare()
    versus(
        "rows/1", VODOZEMAC, rows=calls, batch=1, prepare=prepare, ours=ours, theirs=olm_clock(olm[:calls])
    )
    prepare()


def bench_setup(versus: Versus, sizes: Sizes, live: Live) -> None:
    """From a bundle with a one-time prekey: the session, then its first message. Each round has its own
    engine."""
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
    versus("setup", GO, rows=rows, prepare=prepare, ours=ours, theirs=live.clock(GO, "setup"))
    finish()
    far.close()


def bench_turn(versus: Versus, sizes: Sizes, live: Live) -> None:
    """A decrypt with a new ratchet key, then an encrypt, which is the first with our new one."""
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

    versus("turn", GO, rows=linked.rows, prepare=prepare, ours=ours, theirs=live.clock(GO, "turn"))
    finish()
    linked.close()


@pytest.fixture
def two_workers(sizes: Sizes) -> Iterator[Linked]:
    pair = link(sizes.rows, threads=2)
    yield pair
    pair.close()


def bench_threads_2(versus: Versus, linked: Linked, two_workers: Linked) -> None:
    """The same call with two workers, against one."""
    alone: list[Rows] = []
    prepare, ours = encryption(two_workers)

    def loop() -> int:
        alone.append(linked.send())
        return linked.rows

    def prepare_both() -> None:
        prepare()
        while alone:
            linked.check(linked.open_sent(alone.pop()))

    loop()
    prepare_both()
    versus("threads/2", ONE_THREAD, rows=linked.rows, prepare=prepare_both, ours=ours, theirs=clock(loop))
    prepare_both()
