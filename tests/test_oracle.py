"""The engine against the oracle: random histories with the same randomness, in batches split at random.

A batch equals its rows one at a time, in order: the same frames, statuses, events and observable final state,
for any split into calls, any backend, any number of threads, and with the store closed and opened at any
point. The network loses, reorders, repeats, damages, edits and re-encodes. Accounts of two other worlds take
part, one of which spells its frames in lawful ways that are not ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import interlane
import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference import L, PeerInfo, Status, read_protobuf, varint, write_protobuf

STORE_KEY = bytes(range(32))
NO_SUCH_HANDLE = 2**63 + 12_345
GROUP = "1203630@g.us"

# --- The twins ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One row of any call. `account` None stands for a handle that was never given out."""

    account: str | None
    peer: str = ""
    data: bytes = b""
    kind: str = ""
    bundle: reference.Bundle | None = None


class Twins:
    """An engine and the oracle, taken through the same calls and compared after each of them."""

    def __init__(
        self,
        *,
        path: str = ":memory:",
        backend: str | None = None,
        threads: int = 1,
        refuse: bool = False,
        padding: bool = False,
        buffered: bool = False,
        lease: int | None = None,
        resident: int | None = None,
    ) -> None:
        self.path = path
        self.backend = backend
        self.refuse = refuse
        self.padding = padding
        self.buffered = buffered
        self.lease = lease
        self.resident = resident
        self.received: list[tuple[interlane.Rows, str, list[Cell]]] = []
        self.opened = 1
        self.packed = False
        self.world = reference.World(self._seed(), refuse, padding, receive_buffer=buffered)
        self.engine = self._open(threads)

    def _seed(self) -> bytes:
        return bytes([self.opened % 256]) * 32

    def _open(self, threads: int) -> interlane.Engine:
        return interlane.open(
            self.path,
            key=None if self.path == ":memory:" else STORE_KEY,
            threads=threads,
            identity_changes="refuse" if self.refuse else "accept",
            padding=self.padding,
            durability="strict" if self.lease is None else "leased",
            lease=self.lease or 64,
            receive_buffer=self.buffered,
            resident_sessions=self.resident,
            backend=self.backend,
            _seed=self._seed(),
        )

    def close(self) -> None:
        self.engine.close()

    def reopen(self, threads: int) -> None:
        self.engine.close()
        self.received.clear()
        self.opened += 1
        self.world.reopen(self._seed())
        self.engine = self._open(threads)
        self.compare()

    def create(self, name: str) -> None:
        made, expected = self.engine.account(name, create=True), self.world.account(name, create=True)
        assert (bytes(made.identity), made.registration_id, made.stock) == (
            expected.identity,
            expected.registration_id,
            expected.stock,
        )

    def prekeys(self, name: str, one_time: int, rotate: bool) -> reference.Upload:
        upload = self.engine.account(name).prekeys(one_time, rotate=rotate)
        expected = self.world.account(name).prekeys(one_time, rotate=rotate)
        signed = upload.signed_prekey
        assert upload.registration_id == expected.registration_id
        assert bytes(upload.identity) == expected.identity
        assert (signed.id, bytes(signed.public), bytes(signed.signature)) == (
            expected.signed_prekey.id,
            expected.signed_prekey.public,
            expected.signed_prekey.signature,
        )
        made = [(prekey.id, bytes(prekey.public)) for prekey in upload.one_time_prekeys]
        assert made == [(prekey.id, prekey.public) for prekey in expected.one_time_prekeys]
        return expected

    # Batches.

    def run(self, call: str, cells: Sequence[Cell], split: Sequence[int] = ()) -> list[reference.Row]:
        """`cells` in calls of the sizes in `split`, the rest in one more; gives the oracle's rows."""
        expected: list[reference.Row] = []
        at, sizes = 0, iter(split)
        while at < len(cells):
            part = cells[at : at + next(sizes, len(cells))]
            at += len(part)
            rows = [oracle_row(self.world, call, cell) for cell in part]
            got = [self._plain(row) for row in self._engine(call, part)]
            assert got == rows, f"{call} in a batch of {len(part)}: {_first_difference(got, rows)}"
            expected += rows
        return expected

    def _engine(self, call: str, cells: Sequence[Cell]) -> Iterator[interlane.Row]:
        if call in ("trust", "forget"):
            yield from self._account_calls(call, cells)
            return
        handles = self._handles(call, cells)
        data: tuple[Any, ...] = ([cell.data for cell in cells],)
        if self.packed:
            data = pack([cell.data for cell in cells])
        match call:
            case "start_sessions":
                bundles = [their_bundle(cell.bundle) for cell in cells if cell.bundle is not None]
                yield from self.engine.start_sessions(handles, bundles)
            case "decrypt":
                rows = self.engine.decrypt(handles, [cell.kind for cell in cells], *data)
                self.received.append((rows, call, list(cells)))
                yield from rows
            case "group_decrypt":
                rows = self.engine.group_decrypt(handles, *data)
                self.received.append((rows, call, list(cells)))
                yield from rows
            case "group_distribute" | "group_rotate":
                yield from getattr(self.engine, call)(handles)
            case _:
                yield from getattr(self.engine, call)(handles, *data)

    def acknowledge(self, every: int) -> None:
        """Every so many of the rows that were received since the store was opened, and not acknowledged."""
        for rows, call, cells in self.received:
            rows.ack(None if every == 1 else list(range(0, len(cells), every)))
            for cell, row in list(zip(cells, rows, strict=True))[::every]:
                if row.status in (Status.OK, Status.REDELIVERED):
                    group = ("skmsg", GROUP) if call == "group_decrypt" else (cell.kind, "")
                    self.world.account(str(cell.account)).acknowledge((*group, cell.peer, cell.data))
        self.received.clear()

    def _account_calls(self, call: str, cells: Sequence[Cell]) -> Iterator[interlane.Row]:
        """Calls that an account has and the engine has not: a batch for each run of one account's cells."""
        for name, run in runs(cells):
            account = self.engine.account(name)
            peers = [cell.peer for cell in run]
            if call == "trust":
                yield from account.trust(peers, [cell.data for cell in run])
            else:
                yield from account.forget(peers)

    def _handles(self, call: str, cells: Sequence[Cell]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        known = [cell for cell in cells if cell.account is not None]
        accounts = [cell.account for cell in known if cell.account is not None]
        if not known:
            found = iter(())
        elif call in ("group_accept", "group_decrypt"):
            found = iter(self.engine.groups(accounts, [GROUP] * len(known), [cell.peer for cell in known]))
        elif call.startswith("group"):
            found = iter(self.engine.groups(accounts, [GROUP] * len(known)))
        else:
            found = iter(self.engine.sessions(accounts, [cell.peer for cell in known]))
        handles = [NO_SUCH_HANDLE if cell.account is None else int(next(found)) for cell in cells]
        return np.array(handles, dtype=np.uint64)

    @staticmethod
    def _plain(row: interlane.Row) -> reference.Row:
        return reference.Row(Status(row.status), row.kind, row.data, reference.Event(row.events))

    # Final state.

    def compare(self) -> None:
        assert sorted(self.engine.accounts()) == self.world.accounts()
        for name, expected in self.world.state().items():
            account = self.engine.account(name)
            assert bytes(account.identity) == expected.identity
            assert (account.registration_id, account.stock) == (expected.registration_id, expected.stock), (
                name
            )
            peers = {
                peer.address: PeerInfo(
                    None if peer.identity is None else bytes(peer.identity),
                    peer.session,
                    peer.pending,
                    peer.archived,
                )
                for peer in account.peers()
                if peer.identity is not None or peer.session
            }
            assert peers == expected.peers, name


def oracle_row(world: reference.World, call: str, cell: Cell) -> reference.Row:
    """The oracle's row for a cell."""
    if cell.account is None:
        return world.unknown_handle(call)
    account = world.account(cell.account)
    group = account.group(GROUP)
    match call:
        case "start_sessions":
            assert cell.bundle is not None
            return account.start_sessions(cell.peer, cell.bundle)
        case "encrypt":
            return account.encrypt(cell.peer, cell.data)
        case "decrypt":
            return account.decrypt(cell.peer, cell.kind, cell.data)
        case "trust":
            return account.trust(cell.peer, cell.data)
        case "forget":
            return account.forget(cell.peer)
        case "group_distribute":
            return group.distribute()
        case "group_rotate":
            return group.rotate()
        case "group_encrypt":
            return group.encrypt(cell.data)
        case "group_accept":
            return group.accept(cell.peer, cell.data)
        case "group_decrypt":
            return group.decrypt(cell.peer, cell.data)
    raise ValueError(call)


def _first_difference(got: list[reference.Row], expected: list[reference.Row]) -> str:
    for i, (a, b) in enumerate(zip(got, expected, strict=False)):
        if a != b:
            return f"row {i}: the engine has {a}, the oracle {b}"
    return f"{len(got)} rows instead of {len(expected)}"


def runs(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    run: list[Cell] = []
    for cell in cells:
        if run and run[0].account != cell.account:
            yield str(run[0].account), run
            run = []
        run.append(cell)
    if run:
        yield str(run[0].account), run


def pack(rows: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The rows as a uint8 buffer and int64 offsets."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.frombuffer(b"".join(rows), dtype=np.uint8), offsets


def their_bundle(bundle: reference.Bundle) -> interlane.Bundle:
    signed, one_time = bundle.signed_prekey, bundle.one_time_prekey
    return interlane.Bundle(
        registration_id=bundle.registration_id,
        identity=bundle.identity,
        signed_prekey=interlane.SignedPrekey(signed.id, signed.public, signed.signature),
        one_time_prekey=None if one_time is None else interlane.Prekey(one_time.id, one_time.public),
    )


# --- Other worlds -------------------------------------------------------------------------------------------


def wide_varint(value: int) -> bytes:
    """A varint two bytes longer than it needs to be."""
    short = varint(value)
    return short[:-1] + bytes([short[-1] | 0x80, 0x80, 0x00])


class OddSpelling(reference.Spelling):
    """`0x34`, another order, unknown fields, wide varints, no previous counter or a strange one."""

    version = 0x34

    def __init__(self) -> None:
        self.written = 0

    def write(self, fields: reference.Fields) -> bytes:
        self.written += 1
        style = self.written % 4
        is_signal_message = [number for number, _ in fields] == [1, 2, 3, 4]
        if is_signal_message and style == 0:
            fields = [(n, v) for n, v in fields if n != 3]
        elif is_signal_message and style == 1:
            fields = [(n, 0xFFFF_FFFF if n == 3 and isinstance(v, int) else v) for n, v in fields]
        if style == 2:
            fields = [(1_000, b"unknown"), *reversed(fields), (77, 5)]
        body = b""
        for number, value in fields:
            if isinstance(value, int) and style == 3:
                body += varint(number << 3) + wide_varint(value)
            else:
                body += write_protobuf([(number, value)])
        if style == 3:
            body += varint(99 << 3 | 1) + bytes(8) + varint(98 << 3 | 5) + bytes(4)
        return bytes([self.version]) + body


def skip_ahead(account: reference.Account, peer: str, steps: int) -> None:
    """As if `steps` messages to `peer` had been sent and lost."""
    known = account.peer(peer)
    assert known.current is not None
    chain = known.current.sending
    for _ in range(steps):
        chain = chain.next()
    account.peer_records[peer] = replace(known, current=replace(known.current, sending=chain))


def go_on_from(account: reference.Account, iteration: int) -> None:
    """As if the account's sender key had been used up to this iteration (if it is small: that many times)."""
    own = account.own_sender_keys
    if GROUP in own:
        chain = own[GROUP].chain
        if iteration > 2**31:
            chain = replace(chain, index=max(iteration, chain.index))
        else:
            for _ in range(min(iteration, reference.LAST_COUNTER - chain.index)):
                chain = chain.next()
        own[GROUP] = replace(own[GROUP], chain=chain)


# --- The network --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    kind: str
    sender: str
    receiver: str
    frame: bytes


def fields_of(data: bytes) -> reference.Fields:
    """None of them where the bytes are no protobuf."""
    try:
        return list(read_protobuf(data))
    except reference.Refused:
        return []


def trailer(kind: str) -> int:
    return {"msg": reference.MAC_LENGTH, "skmsg": reference.SIGNATURE_LENGTH}.get(kind, 0)


def edited(kind: str, frame: bytes, edit: Callable[[reference.Fields], bytes]) -> bytes:
    """The frame with other fields, under the MAC or signature it had."""
    end = len(frame) - trailer(kind)
    fields = fields_of(frame[1:end])
    return frame[:1] + edit(fields) + frame[end:] if fields else frame


LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (reference.P - 1).to_bytes(32, "little"),
    reference.P.to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
]

OTHER_KEY = reference.KeyPair.of(bytes(range(32))).public


def with_torsion(public: bytes) -> bytes:
    """The point plus the one of order two: u becomes 1/u, and every shared secret stays what it was."""
    u = int.from_bytes(public[1:], "little") % reference.P
    return b"\x05" + reference.inverse(u).to_bytes(32, "little")


NUMBERS = [0, 1, 2, 1_999, 2_000, 2_001, 2_002, 4_000, 2**24, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**64 - 1]


def damage(how: str, kind: str, frame: bytes, a: int, b: int) -> bytes:
    """One fault, chosen by two numbers."""
    if not frame:
        return b"\x33"

    def drop(fields: reference.Fields) -> bytes:
        return write_protobuf([field for i, field in enumerate(fields) if i != a % len(fields)])

    def repeat(fields: reference.Fields) -> bytes:
        return write_protobuf([*fields, fields[a % len(fields)]])

    def flood(fields: reference.Fields) -> bytes:
        unknown: reference.Fields = [(30, b)] * (1 + a % 70)
        return write_protobuf([*fields, *unknown])

    def replace_one(new: Callable[[reference.Value], reference.Value]) -> Callable[[reference.Fields], bytes]:
        def edit(fields: reference.Fields) -> bytes:
            at = a % len(fields)
            number, value = fields[at]
            return write_protobuf([*fields[:at], (number, new(value)), *fields[at + 1 :]])

        return edit

    def other_value(value: reference.Value) -> reference.Value:
        if isinstance(value, int):
            return NUMBERS[b % len(NUMBERS)]
        if len(value) != 33:
            return value[: b % (len(value) + 1)]
        keys = [value[:32] + bytes([value[32] ^ 0x80]), b"\x06" + value[1:], value[1:], value + b"\0"]
        keys += [OTHER_KEY, OTHER_KEY, with_torsion(value), *(b"\x05" + point for point in LOW_ORDER)]
        return keys[b % len(keys)]

    def small_step(value: reference.Value) -> reference.Value:
        return max(value + b % 7 - 3, 0) if isinstance(value, int) else value

    match how:
        case "flip a bit":
            damaged = bytearray(frame)
            damaged[a % len(frame)] ^= 1 << b % 8
            return bytes(damaged)
        case "cut":
            return frame[: a % len(frame)]
        case "lengthen":
            return frame + bytes([b % 256]) * (1 + a % 20)
        case "another version":
            return bytes([[0x34, 0x3F, 0x32, 0x23, 0x44, 0x03, 0x30][a % 7]]) + frame[1:]
        case "another value":
            return edited(kind, frame, replace_one(other_value))
        case "a small step":
            return edited(kind, frame, replace_one(small_step))
        case "drop a field":
            return edited(kind, frame, drop)
        case "a field twice":
            return edited(kind, frame, repeat)
        case "another order":
            return edited(kind, frame, lambda f: write_protobuf(f[::-1]))
        case "unknown fields":
            return edited(kind, frame, flood)
        case "wide varints":
            return edited(
                kind,
                frame,
                lambda f: b"".join(
                    varint(n << 3) + wide_varint(v) if isinstance(v, int) else write_protobuf([(n, v)])
                    for n, v in f
                ),
            )
        case "inside":
            hows = [h for h in DAMAGES if h != "inside"]

            def inside(fields: reference.Fields) -> bytes:
                return write_protobuf(
                    [
                        (n, damage(hows[b % len(hows)], "msg", v, a, b // 16) if n == 4 else v)
                        if isinstance(v, bytes)
                        else (n, v)
                        for n, v in fields
                    ]
                )

            return edited(kind, frame, inside) if kind == "pkmsg" else frame
    raise ValueError(how)


DAMAGES = [
    "flip a bit",
    "cut",
    "lengthen",
    "another version",
    "another value",
    "a small step",
    "drop a field",
    "a field twice",
    "another order",
    "unknown fields",
    "wide varints",
    "inside",
]


def edit_bundle(how: str, bundle: reference.Bundle, owner: reference.Account, a: int) -> reference.Bundle:
    """A bundle as a careless or hostile server would hand it out."""
    signed, one_time = bundle.signed_prekey, bundle.one_time_prekey
    low_order = b"\x05" + LOW_ORDER[a % len(LOW_ORDER)]

    def sign(public: bytes) -> reference.SignedPrekey:
        return replace(signed, public=public, signature=owner.identity_pair.sign(public, bytes(64)))

    def signature(new: bytes) -> reference.Bundle:
        return replace(bundle, signed_prekey=replace(signed, signature=new))

    match how:
        case "no one-time prekey":
            return replace(bundle, one_time_prekey=None)
        case "one-time prekey 0":
            return replace(bundle, one_time_prekey=reference.Prekey(0, signed.public))
        case "an odd one-time prekey":
            odd = [(1 << 24, signed.public), (7, low_order), (7, signed.public[1:]), (9, signed.public)]
            return replace(bundle, one_time_prekey=reference.Prekey(*odd[a % 4]))
        case "a flipped signature bit":
            broken = bytearray(signed.signature)
            broken[a % 64] ^= 1 << a // 64 % 8
            return signature(bytes(broken))
        case "s plus l":
            s = int.from_bytes(signed.signature[32:], "little")
            return signature(signed.signature[:32] + ((s + L) % 2**256).to_bytes(32, "little"))
        case "a short signature":
            return signature(signed.signature[: a % 64])
        case "another identity":
            return replace(bundle, identity=low_order if a % 3 == 0 else signed.public)
        case "a low-order signed prekey":
            return replace(bundle, signed_prekey=sign(low_order))
        case "a top bit":
            public = signed.public[:32] + bytes([signed.public[32] | 0x80])
            return replace(bundle, signed_prekey=sign(public))
        case "an odd signed id":
            return replace(bundle, signed_prekey=replace(signed, id=[0, 1 << 24, (1 << 24) - 1][a % 3]))
        case "odd shapes":
            return [
                replace(bundle, identity=bundle.identity[1:]),
                replace(bundle, identity=b"\x06" + bundle.identity[1:]),
                replace(bundle, signed_prekey=replace(signed, public=signed.public + b"\0")),
                replace(bundle, one_time_prekey=one_time and replace(one_time, public=b"")),
            ][a % 4]
    return bundle


BUNDLE_EDITS = [
    "no one-time prekey",
    "one-time prekey 0",
    "an odd one-time prekey",
    "a flipped signature bit",
    "s plus l",
    "a short signature",
    "another identity",
    "a low-order signed prekey",
    "a top bit",
    "an odd signed id",
    "odd shapes",
]

# --- Random histories ---------------------------------------------------------------------------------------

HOME = ["ann", "bob", "cay"]
ABROAD = ["fay", "gus"]
EVERYONE = HOME + ABROAD

number = st.integers(0, 2**16)
home = st.sampled_from(HOME)
anyone = st.sampled_from(EVERYONE)
# Home takes part in most talks, and no one talks to itself often.
pair = st.one_of(
    st.tuples(home, st.sampled_from(ABROAD)),
    st.tuples(st.sampled_from(ABROAD), home),
    st.tuples(anyone, anyone),
)
split = st.lists(st.integers(1, 9), max_size=4)
threads = st.integers(1, 3)
length = st.sampled_from([0, 1, 14, 15, 16, 17, 31, 63, 64, 200, 256, 1_000])
gap = st.one_of(st.just(0), st.just(0), st.sampled_from([0, 1, 3, 1_998, 1_999, 2_000, 2_001]))
# Most packets arrive as they were sent.
fault = st.one_of(st.just(""), st.just(""), st.just(""), st.sampled_from(DAMAGES))
delivery = st.tuples(number, fault, number, number, st.integers(0, 11))
deliveries = st.lists(delivery, max_size=12)
bundle_edit = st.one_of(st.just(""), st.just(""), st.sampled_from(BUNDLE_EDITS))

Delivery = tuple[int, str, int, int, int]


class Histories(RuleBasedStateMachine):
    """Three accounts in the engine, two abroad, and a network between them that keeps no promises."""

    @initialize(
        on_disk=st.booleans(),
        backend=st.sampled_from(interlane.backends()),
        threads=threads,
        refuse=st.booleans(),
        padding=st.booleans(),
        buffered=st.booleans(),
        lease=st.sampled_from([None, 1, 3, 64]),
        resident=st.sampled_from([None, 1, 2, 5]),
        packed=st.booleans(),
    )
    def open(
        self,
        on_disk: bool,
        backend: str,
        threads: int,
        refuse: bool,
        padding: bool,
        buffered: bool,
        lease: int | None,
        resident: int | None,
        packed: bool,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = str(Path(self.folder.name) / "histories.db") if on_disk else ":memory:"
        self.twins = Twins(
            path=path,
            backend=backend,
            threads=threads,
            refuse=refuse,
            padding=padding,
            buffered=buffered,
            lease=lease,
            resident=resident if on_disk else None,
        )
        self.twins.packed = packed
        self.abroad = {
            "fay": reference.World(b"\xf0" * 32, refuse, padding),
            "gus": reference.World(b"\xf1" * 32, refuse, padding, OddSpelling()),
        }
        self.network: list[Packet] = []
        self.group_network: list[Packet] = []
        self.uploaded: dict[str, list[reference.Bundle]] = {}
        self.texts = 0
        for name in HOME:
            self.twins.create(name)
            self.note_upload(name, self.twins.prekeys(name, 6, False))
        for name, world in self.abroad.items():
            self.note_upload(name, world.account(name, create=True).prekeys(6))

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            self.twins.close()
            self.folder.cleanup()

    @invariant()
    def same_state(self) -> None:
        if hasattr(self, "twins"):
            self.twins.compare()

    def account(self, name: str) -> reference.Account:
        return self.abroad.get(name, self.twins.world).account(name)

    def perform(self, call: str, cells: list[Cell], split: Sequence[int] = ()) -> list[reference.Row]:
        """Home's cells in batches, the ones abroad by themselves; rows in the order of `cells`."""
        at_home = [cell for cell in cells if cell.account not in ABROAD]
        rows = iter(self.twins.run(call, at_home, split))
        results = []
        for cell in cells:
            abroad = self.abroad.get(cell.account or "")
            results.append(next(rows) if abroad is None else oracle_row(abroad, call, cell))
        return results

    def note_upload(self, name: str, upload: reference.Upload) -> None:
        self.uploaded.setdefault(name, []).extend([upload.bundle(), *upload.bundles()])

    def text(self, size: int) -> bytes:
        self.texts += 1
        return bytes([self.texts % 256]) * size

    # Prekeys and sessions.

    @rule(name=anyone, one_time=st.integers(0, 6), rotate=st.booleans())
    def publish(self, name: str, one_time: int, rotate: bool) -> None:
        if name in HOME:
            self.note_upload(name, self.twins.prekeys(name, one_time, rotate))
        else:
            self.note_upload(name, self.account(name).prekeys(one_time, rotate=rotate))

    @rule(
        starts=st.lists(st.tuples(pair, number, bundle_edit, number), min_size=1, max_size=8),
        split=split,
        unknown=st.booleans(),
    )
    def start(
        self, starts: list[tuple[tuple[str, str], int, str, int]], split: list[int], unknown: bool
    ) -> None:
        """From any bundle that was ever published, as it was or edited."""
        cells = []
        for (name, peer), which, how, a in starts:
            uploaded = self.uploaded[peer]
            bundle = edit_bundle(how, uploaded[which % len(uploaded)], self.account(peer), a)
            cells.append(Cell(name, peer, bundle=bundle))
        if unknown:
            cells.insert(len(cells) // 2, replace(cells[0], account=None))
        self.perform("start_sessions", cells, split)

    @rule(
        talks=st.lists(st.tuples(pair, st.integers(1, 4), length, gap), min_size=1, max_size=8),
        split=split,
        unknown=st.booleans(),
        deliveries=deliveries,
        then_split=split,
    )
    def talk(
        self,
        talks: list[tuple[tuple[str, str], int, int, int]],
        split: list[int],
        unknown: bool,
        deliveries: list[Delivery],
        then_split: list[int],
    ) -> None:
        """Several rows a session; who has no session yet starts one. What is sent may arrive at once."""
        cells, starts = [], {}
        for (name, peer), times, size, skipped in talks:
            if self.account(name).peer(peer).current is None and (name, peer) not in starts:
                uploaded = self.uploaded[peer]
                bundle = uploaded.pop() if len(uploaded) > 1 else uploaded[0]
                starts[name, peer] = Cell(name, peer, bundle=bundle)
            elif name in ABROAD and self.account(name).peer(peer).current is not None:
                skip_ahead(self.account(name), peer, skipped)
            cells += [Cell(name, peer, self.text(size)) for _ in range(times)]
        self.perform("start_sessions", list(starts.values()), split)
        if unknown:
            cells.insert(len(cells) // 2, Cell(None))
        for cell, row in zip(cells, self.perform("encrypt", cells, split), strict=True):
            if row.status == Status.OK:
                self.network.append(Packet(row.kind, str(cell.account), cell.peer, row.data))
        self.deliver(deliveries, then_split)

    # The network.

    @rule(deliveries=deliveries, split=split)
    def arrive(self, deliveries: list[Delivery], split: list[int]) -> None:
        self.deliver(deliveries, split)

    def deliver(self, deliveries: list[Delivery], split: list[int]) -> None:
        self.perform("decrypt", list(self.arrivals(self.network, deliveries)), split)

    @rule(
        order=st.none() | st.randoms(use_true_random=False),
        split=split,
        faults=st.lists(delivery, max_size=6),
    )
    def everything_arrives(self, order: Random | None, split: list[int], faults: list[Delivery]) -> None:
        """Whole tiles, damaged rows among them."""
        cells = list(self.arrivals(self.network, [(0, "", 0, 0, 11)] * len(self.network)))
        if order is not None:
            order.shuffle(cells)
        for which, how, a, b, _ in faults:
            if cells:
                cell = cells[which % len(cells)]
                damaged = damage(how, cell.kind, cell.data, a, b) if how else cell.data
                cells.insert(a % len(cells), replace(cell, data=damaged))
        self.perform("decrypt", cells, split)

    def arrivals(self, network: list[Packet], deliveries: list[Delivery]) -> Iterator[Cell]:
        for which, how, a, b, fate in deliveries:
            if not network:
                break
            # A true frame is delivered once, or again later; a damaged one leaves its original on the way.
            at = which % len(network)
            packet = network[at] if how or fate == 0 else network.pop(at)
            frame = damage(how, packet.kind, packet.frame, a, b) if how else packet.frame
            cell = Cell(packet.receiver, packet.sender, frame, packet.kind)
            if fate == 1:  # the server names another sender
                cell = replace(cell, peer=[*EVERYONE, "nobody@s.whatsapp.net"][a % 6])
            elif fate == 2:  # it delivers to another account
                cell = replace(cell, account=EVERYONE[b % 5])
            elif fate == 3 and cell.kind in ("msg", "pkmsg"):
                cell = replace(cell, kind={"msg": "pkmsg", "pkmsg": "msg"}[cell.kind])
            elif fate == 4 and cell.kind == "pkmsg":  # the inner message by itself
                inner = [v for n, v in fields_of(frame[1:]) if n == 4 and isinstance(v, bytes)]
                cell = replace(cell, kind="msg", data=inner[-1]) if inner else cell
            elif fate == 5 and how and cell.account in HOME:
                cell = replace(cell, account=None)
            elif fate == 6:  # lost
                continue
            yield cell

    # Groups.

    @rule(
        acts=st.lists(
            st.tuples(
                anyone, st.sampled_from(["send", "send", "send", "distribute", "rotate", "gap"]), length
            ),
            min_size=1,
            max_size=10,
        ),
        iteration=st.sampled_from([1, 2, 1_999, 2_000, 2_001, 2**32 - 2_500, 2**32 - 3, 2**32 - 2]),
        split=split,
        unknown=st.booleans(),
        deliveries=deliveries,
    )
    def group_talk(
        self,
        acts: list[tuple[str, str, int]],
        iteration: int,
        split: list[int],
        unknown: bool,
        deliveries: list[Delivery],
    ) -> None:
        """Rotations, then distributions (those who have no key yet make one), then messages."""
        self.perform("group_rotate", [Cell(name) for name, act, _ in acts if act == "rotate"], split)
        for name, act, _ in acts:
            if act == "gap" and name in ABROAD:
                go_on_from(self.account(name), iteration)
        distributing = [
            Cell(name)
            for name, act, size in acts
            if act == "distribute" or (GROUP not in self.account(name).own_sender_keys and size % 3)
        ]
        messages = [Cell(name, data=self.text(size)) for name, act, size in acts if act == "send"]
        if unknown:
            messages.append(Cell(None))
        for call, cells in (("group_distribute", distributing), ("group_encrypt", messages)):
            for cell, row in zip(cells, self.perform(call, cells, split), strict=True):
                if row.status == Status.OK:
                    name = str(cell.account)
                    self.group_network += [
                        Packet(row.kind, name, to, row.data) for to in EVERYONE if to != name
                    ]
        self.group_deliver(deliveries, split)

    @rule(deliveries=deliveries, split=split, order=st.none() | st.randoms(use_true_random=False))
    def group_arrive(self, deliveries: list[Delivery], split: list[int], order: Random | None) -> None:
        """Some of it, then all of it in some order."""
        self.group_deliver(deliveries, split)
        if order is not None:
            order.shuffle(self.group_network)
            self.group_deliver([(0, "", 0, 0, 11)] * len(self.group_network), split)

    def group_deliver(self, deliveries: list[Delivery], split: list[int]) -> None:
        cells = list(self.arrivals(self.group_network, deliveries))
        self.perform("group_accept", [cell for cell in cells if cell.kind == "skdm"], split)
        self.perform("group_decrypt", [cell for cell in cells if cell.kind == "skmsg"], split)

    # The operator.

    @rule(name=home, peer=anyone, identity=st.none() | anyone)
    def decide(self, name: str, peer: str, identity: str | None) -> None:
        """To trust an identity, or to forget the sessions."""
        if identity is None:
            self.perform("forget", [Cell(name, peer)])
        else:
            self.perform("trust", [Cell(name, peer, self.account(identity).identity)])

    @rule(every=st.integers(1, 3))
    def acknowledge(self, every: int) -> None:
        self.twins.acknowledge(every)

    @rule(threads=threads)
    def reopen(self, threads: int) -> None:
        if self.twins.path != ":memory:":
            self.twins.reopen(threads)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

# --- Histories that chance would take long to find ----------------------------------------------------------


@pytest.fixture(params=interlane.backends())
def twins(request: pytest.FixtureRequest) -> Iterator[Twins]:
    """Ann, Bob and Cay at home, in memory."""
    pair = Twins(backend=request.param, threads=2)
    for name in HOME:
        pair.create(name)
    yield pair
    pair.compare()
    pair.close()


@pytest.fixture
def fay() -> reference.Account:
    """An account abroad."""
    return reference.World(b"\xf0" * 32).account("fay", create=True)


def frames(rows: Iterable[reference.Row]) -> list[bytes]:
    return [row.data for row in rows]


def statuses(rows: Iterable[reference.Row]) -> list[Status]:
    return [row.status for row in rows]


def test_many_sessions_many_rows_and_damaged_neighbours(twins: Twins) -> None:
    """Eighty abroad, so that tiles are full and some rows of each are bad; three waves."""
    world = reference.World(b"\xf7" * 32)
    names = [f"peer {i}" for i in range(80)]
    upload = twins.prekeys("ann", len(names), False)
    waves: tuple[list[Cell], ...] = ([], [], [])
    first, second, third = waves
    for i, (name, bundle) in enumerate(zip(names, upload.bundles(), strict=True)):
        account = world.account(name, create=True)
        account.start_sessions("ann", bundle)
        sent = [account.encrypt("ann", bytes([i]) * (i * 5 % 90)) for _ in range(3)]
        if i % 7 == 3:
            damaged = damage("flip a bit", "pkmsg", sent[0].data, 11 * i, i)
            first.append(Cell("ann", name, damaged, "pkmsg"))
        for wave, row in zip(waves, sent, strict=True):
            wave.append(Cell("ann", name, row.data, row.kind))
    rows = twins.run("decrypt", [*first, *second[::-1], *third], [100, 37])
    assert statuses(rows).count(Status.OK) >= 3 * len(names)
    replies = twins.run("encrypt", [Cell("ann", name, name.encode() * 9) for name in names * 3], [33, 150])
    back = []
    for i, (name, row) in enumerate(zip(names * 3, replies, strict=True)):
        account = world.account(name)
        assert account.decrypt("ann", row.kind, row.data).data == name.encode() * 9
        if i >= 2 * len(names):
            sent_back = account.encrypt("ann", b"turn")
            back.append(Cell("ann", name, sent_back.data, sent_back.kind))
    bad = [
        replace(cell, data=damage("flip a bit", "msg", cell.data, 5 * i, i)) for i, cell in enumerate(back)
    ]
    mixed = [cell for pair in zip(bad, back, strict=True) for cell in pair]
    assert set(statuses(twins.run("decrypt", mixed))[1::2]) == {Status.OK}


@pytest.mark.parametrize("jump", [1_999, 2_000, 2_001])
def test_a_jump_within_one_batch(twins: Twins, fay: reference.Account, jump: int) -> None:
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    sent = [fay.encrypt("ann", b"%d" % i) for i in range(jump + 2)]
    order = [0, jump + 1, jump, 1, 2, 1]
    rows = twins.run("decrypt", [Cell("ann", "fay", sent[i].data, sent[i].kind) for i in order])
    assert rows[1].status == (Status.OK if jump <= 2_000 else Status.TOO_FAR_AHEAD)


def test_skipped_keys_are_evicted_oldest_first(twins: Twins, fay: reference.Account) -> None:
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    sent = [fay.encrypt("ann", b"%d" % i) for i in range(3_600)]
    order = [0, 1_500, 3_400, 1_400, 1_401, 1_402, 3_399, 3_599, 1_600, 1_599, 1_598, 0]
    cells = [Cell("ann", "fay", sent[i].data, sent[i].kind) for i in order]
    rows = twins.run("decrypt", cells, [3, 4])
    assert {Status.OK, Status.DUPLICATE} == set(statuses(rows))


def test_a_thousand_rows_to_one_session(twins: Twins, fay: reference.Account) -> None:
    [row] = twins.run("start_sessions", [Cell("ann", "fay", bundle=fay.prekeys(1).bundles()[0])])
    assert row.status == Status.OK
    sent = twins.run(
        "encrypt", [Cell("ann", "fay", bytes([i % 256]) * (i % 50)) for i in range(1_000)], [999]
    )
    for i in (0, 999, 500):
        assert fay.decrypt("ann", sent[i].kind, sent[i].data).data == bytes([i % 256]) * (i % 50)


def test_forty_archived_sessions_and_their_late_frames(twins: Twins, fay: reference.Account) -> None:
    late = []
    for i in range(44):
        fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
        late.append(fay.encrypt("ann", b"late %d" % i))
        sent = fay.encrypt("ann", b"on time")
        twins.run("decrypt", [Cell("ann", "fay", sent.data, sent.kind)])
    inner = [inner_message(row.data) for row in late]
    cells = [Cell("ann", "fay", row.data, "pkmsg") for row in late[::-1]]
    cells += [Cell("ann", "fay", frame, "msg") for frame in inner]
    rows = twins.run("decrypt", cells, [20, 1, 30])
    assert {Status.OK, Status.NO_PREKEY, Status.DUPLICATE, Status.INVALID} == set(statuses(rows))


def inner_message(frame: bytes) -> bytes:
    message = dict(read_protobuf(frame[1:]))[4]
    assert isinstance(message, bytes)
    return message


def test_a_duplicate_ends_a_row_that_was_too_far_ahead_elsewhere(
    twins: Twins, fay: reference.Account
) -> None:
    """The current session does not know the ratchet key, and the counter is beyond a jump from 0."""
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    first = fay.encrypt("ann", b"")
    skip_ahead(fay, "ann", 1_500)
    second = fay.encrypt("ann", b"")
    skip_ahead(fay, "ann", 1_000)
    third, fourth = fay.encrypt("ann", b""), fay.encrypt("ann", b"")
    skip_ahead(fay, "ann", 1_900)
    fifth = fay.encrypt("ann", b"")
    twins.run("decrypt", [Cell("ann", "fay", row.data, "pkmsg") for row in (first, second, third)])
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    restart = fay.encrypt("ann", b"")
    late = [inner_message(row.data) for row in (third, fifth, fourth)]
    broken = damage("flip a bit", "msg", late[1], len(late[1]) - 1, 3)
    cells = [Cell("ann", "fay", restart.data, "pkmsg")]
    cells += [Cell("ann", "fay", frame, "msg") for frame in (late[0], broken, late[1], late[2])]
    expected = [Status.OK, Status.DUPLICATE, Status.TOO_FAR_AHEAD, Status.OK, Status.OK]
    assert statuses(twins.run("decrypt", cells)) == expected


def test_a_jump_too_far_is_refused_before_any_agreement(twins: Twins, fay: reference.Account) -> None:
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    sent = fay.encrypt("ann", b"")
    frame = inner_message(sent.data)
    fields = read_protobuf(frame[1:-8])
    far = [(number, 2_001 if number == 2 else value) for number, value in fields]
    low = [[(n, b"\x05" + point if n == 1 else v) for n, v in far] for point in LOW_ORDER]
    unknown = [(n, b"\x05" + bytes(31) + b"\x07" if n == 1 else v) for n, v in far]
    forged = [frame[:1] + write_protobuf(edit) + frame[-8:] for edit in (*low, unknown)]
    cells = [Cell("ann", "fay", sent.data, "pkmsg"), *(Cell("ann", "fay", f, "msg") for f in forged)]
    rows = twins.run("decrypt", cells)
    assert statuses(rows) == [Status.OK, *[Status.TOO_FAR_AHEAD] * len(forged)]


@pytest.mark.parametrize("how", BUNDLE_EDITS)
@pytest.mark.parametrize("a", range(4))
def test_frames_from_an_edited_bundle(twins: Twins, fay: reference.Account, how: str, a: int) -> None:
    bundle = edit_bundle(how, fay.prekeys(1).bundles()[0], fay, a)
    twins.run("start_sessions", [Cell("ann", "fay", bundle=bundle)])
    twins.run("encrypt", [Cell("ann", "fay", b"if there is a session")])


def edited_first(frame: bytes, **values: reference.Value | None) -> bytes:
    """A first frame with other fields; None takes one away."""
    numbers = {"one_time": 1, "base_key": 2, "identity": 3, "registration_id": 5, "signed": 6}
    fields = dict(read_protobuf(frame[1:]))
    for name, value in values.items():
        fields.pop(numbers[name], None)
        if value is not None:
            fields[numbers[name]] = value
    return frame[:1] + write_protobuf(sorted(fields.items()))


@pytest.mark.parametrize("one_time", [True, False])
def test_the_envelope_of_a_first_frame(twins: Twins, fay: reference.Account, one_time: bool) -> None:
    """What may change in it, and what may not, before and after its session is known."""
    upload = twins.prekeys("ann", 1, False)
    fay.start_sessions("ann", upload.bundles()[0] if one_time else upload.bundle())
    first, second, third = (fay.encrypt("ann", b"%d" % i).data for i in range(3))
    base_key = dict(read_protobuf(first[1:]))[2]
    assert isinstance(base_key, bytes)
    refused = [
        edited_first(first, identity=OTHER_KEY),
        edited_first(first, identity=with_torsion(fay.identity)),
        edited_first(first, base_key=with_torsion(base_key)),
        edited_first(first, base_key=base_key[:32] + bytes([base_key[32] | 0x80])),
        edited_first(first, base_key=OTHER_KEY),
        edited_first(first, one_time=77),
        edited_first(first, one_time=0 if one_time else 1),
        edited_first(first, signed=77),
        edited_first(first, signed=None),
        edited_first(first, base_key=None),
        edited_first(first, identity=None),
    ]
    rows = twins.run("decrypt", [Cell("ann", "fay", frame, "pkmsg") for frame in refused], [3, 5])
    assert set(statuses(rows)) <= {Status.INVALID, Status.NO_PREKEY}
    accepted = [
        first if one_time else edited_first(first, one_time=0),
        edited_first(second, one_time=77, signed=78, registration_id=None),
        edited_first(third, one_time=None, registration_id=2**32 - 1),
    ]
    known = [
        edited_first(second, identity=OTHER_KEY),
        edited_first(third, identity=with_torsion(fay.identity)),
    ]
    frames_in_order = [accepted[0], *known, *accepted[1:]]
    rows = twins.run("decrypt", [Cell("ann", "fay", frame, "pkmsg") for frame in frames_in_order])
    assert statuses(rows) == [Status.OK, Status.INVALID, Status.INVALID, Status.OK, Status.OK]


def test_a_base_key_that_is_not_reduced(twins: Twins, fay: reference.Account) -> None:
    """9 and 9 + p are one point; 9 can be a base key, since 5L - 1 is a clamped scalar and (5L - 1)B = -B."""
    base = reference.KeyPair.of((5 * L - 1).to_bytes(32, "little"))
    assert base.public == b"\x05" + (9).to_bytes(32, "little")
    bundle = twins.prekeys("ann", 1, False).bundles()[0]
    session = reference.Session.initiate(
        fay.identity_pair,
        bundle,
        lambda purpose: base.private if purpose == reference.BASE_KEY else bytes([purpose]) * 32,
    )
    fay.peer_records["ann"] = reference.Peer(bundle.identity, session)
    frame = fay.encrypt("ann", b"nine").data
    other = edited_first(frame, base_key=b"\x05" + (9 + reference.P).to_bytes(32, "little"))
    rows = twins.run("decrypt", [Cell("ann", "fay", each, "pkmsg") for each in (other, frame)])
    assert statuses(rows) == [Status.INVALID, Status.OK]


class Respelled(reference.Spelling):
    """Frames written by a function of their fields."""

    def __init__(self, respell: Callable[[reference.Fields], bytes], version: int = 0x33) -> None:
        self.respell = respell
        self.version = version

    def write(self, fields: reference.Fields) -> bytes:
        return bytes([self.version]) + self.respell(fields)


def among(fields: reference.Fields, before: Callable[[int, reference.Value], reference.Fields]) -> bytes:
    """Each field with others before it."""
    return write_protobuf([each for n, v in fields for each in [*before(n, v), (n, v)]])


def padded_varint(value: int, length: int) -> bytes:
    digits = [value >> 7 * i & 0x7F for i in range(length)]
    return bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])


def with_varints_of(length: int) -> Callable[[reference.Fields], bytes]:
    return lambda fields: b"".join(
        varint(n << 3) + padded_varint(v, length) if isinstance(v, int) else write_protobuf([(n, v)])
        for n, v in fields
    )


def decoy(value: reference.Value) -> reference.Value:
    """Another value of the same shape."""
    if isinstance(value, int):
        return value ^ 1
    return {33: OTHER_KEY, 32: bytes(32)}.get(len(value), b"decoy")


LAWFUL = {
    "ours": reference.Spelling(),
    "version 0x3f": Respelled(write_protobuf, 0x3F),
    "numbers of 64 bits": Respelled(
        lambda f: write_protobuf([(n, v + (7 << 32) if isinstance(v, int) else v) for n, v in f])
    ),
    "varints of ten bytes": Respelled(with_varints_of(10)),
    "64 fields": Respelled(lambda f: write_protobuf([*f, *[(30, 0)] * (64 - len(f))])),
    "large field numbers": Respelled(lambda f: write_protobuf([((1 << 29) - 1, b"unknown"), *f])),
    "known numbers of another type": Respelled(
        lambda f: among(f, lambda n, v: [(n, b"x" if isinstance(v, int) else 5)])
    ),
    "fields twice, the last one counts": Respelled(lambda f: among(f, lambda n, v: [(n, decoy(v))])),
    "fixed-width fields": Respelled(
        lambda f: b"".join(
            varint(n << 3 | 1) + bytes(8) + varint(n << 3 | 5) + bytes(4) + write_protobuf([(n, v)])
            for n, v in f
        )
    ),
}

UNLAWFUL = {
    "version 0x32": Respelled(write_protobuf, 0x32),
    "version 0x43": Respelled(write_protobuf, 0x43),
    "varints of eleven bytes": Respelled(with_varints_of(11)),
    "65 fields": Respelled(lambda f: write_protobuf([*f, *[(30, 0)] * (65 - len(f))])),
    "field 0": Respelled(lambda f: b"\x00\x00" + write_protobuf(f)),
    "field 2^29": Respelled(lambda f: write_protobuf(f) + varint(1 << 32) + b"\0"),
    "a group": Respelled(lambda f: b"\xf3\x01\xf4\x01" + write_protobuf(f)),
    "a length beyond the end": Respelled(lambda f: write_protobuf(f) + b"\xf2\x01\x05abc"),
    "a key without its type, then the true one": Respelled(
        lambda f: among(f, lambda n, v: [(n, v[1:])] if isinstance(v, bytes) and len(v) in (32, 33) else [])
    ),
}


@pytest.mark.parametrize("name", [*LAWFUL, *UNLAWFUL])
def test_spellings(twins: Twins, fay: reference.Account, name: str) -> None:
    """Authentic frames of all four kinds: the MAC and the signature are over the bytes received."""
    group = fay.group(GROUP)
    bundle = twins.prekeys("ann", 1, False).bundles()[0]
    fay.start_sessions("ann", bundle)
    before = twins.world.digest()
    fay.world.spelling = {**LAWFUL, **UNLAWFUL}[name]
    first, distribution, message = fay.encrypt("ann", b"1"), group.distribute(), group.encrypt(b"all")
    rows = twins.run("decrypt", [Cell("ann", "fay", first.data, first.kind)])
    rows += twins.run("group_accept", [Cell("ann", "fay", distribution.data)])
    if name in UNLAWFUL:
        assert twins.world.digest() == before
        fay.world.spelling = reference.Spelling()
        distribution, first = group.distribute(), fay.encrypt("ann", b"1")
        twins.run("decrypt", [Cell("ann", "fay", first.data, first.kind)])
        twins.run("group_accept", [Cell("ann", "fay", distribution.data)])
        fay.world.spelling = UNLAWFUL[name]
        message = group.encrypt(b"all")
    [reply] = twins.run("encrypt", [Cell("ann", "fay", b"2")])
    assert fay.decrypt("ann", reply.kind, reply.data).data == b"2"
    second = fay.encrypt("ann", b"3")
    assert second.kind == "msg"
    rows += twins.run("decrypt", [Cell("ann", "fay", second.data, second.kind)])
    rows += twins.run("group_decrypt", [Cell("ann", "fay", message.data)])
    if name in LAWFUL:
        assert set(statuses(rows)) == {Status.OK}
    elif not name.startswith("a key"):
        assert set(statuses(rows)) == {Status.INVALID}


def test_one_prekey_wanted_by_many_rows(twins: Twins, fay: reference.Account) -> None:
    """The first row that opens has it, whichever session and worker the others belong to."""
    bundle = twins.prekeys("ann", 5, False).bundles()[0]
    fay.start_sessions("ann", bundle)
    first = fay.encrypt("ann", b"first").data
    broken = damage("flip a bit", "pkmsg", first, 100, 1)
    addresses = [f"address {i}" for i in range(40)]
    cells = [Cell("ann", address, broken if i < 7 else first, "pkmsg") for i, address in enumerate(addresses)]
    rows = twins.run("decrypt", cells)
    assert statuses(rows).count(Status.OK) == 1
    assert rows[7].status == Status.OK
    assert rows[7].events & reference.Event.STOCK_LOW


def test_the_stock_runs_low_in_the_order_of_the_rows(twins: Twins) -> None:
    world = reference.World(b"\xf6" * 32)
    cells = []
    for i, bundle in enumerate(twins.prekeys("bob", 12, False).bundles()):
        account = world.account(f"peer {i}", create=True)
        account.start_sessions("bob", bundle)
        row = account.encrypt("bob", b"")
        cells.append(Cell("bob", f"peer {i}", row.data, row.kind))
    rows = twins.run("decrypt", cells[::-1])
    assert [bool(row.events & reference.Event.STOCK_LOW) for row in rows] == [False] * 7 + [True] * 5


def test_both_initiate_again_and_again(twins: Twins) -> None:
    """Crossing first messages within one engine, both directions in one batch."""
    for i in range(6):
        to_bob, to_ann = twins.prekeys("bob", 1, False), twins.prekeys("ann", 1, False)
        starts = [
            Cell("ann", "bob", bundle=to_bob.bundles()[0]),
            Cell("bob", "ann", bundle=to_ann.bundles()[0]),
        ]
        twins.run("start_sessions", starts)
        talk = [Cell("ann", "bob", b"a%d" % i), Cell("bob", "ann", b"b%d" % i)] * 3
        sent = twins.run("encrypt", talk)
        crossing = [
            Cell(cell.peer, str(cell.account), row.data, row.kind)
            for cell, row in zip(talk, sent, strict=True)
        ]
        order = crossing if i % 2 else crossing[::-1]
        rows = twins.run("decrypt", order, [1, 2, 3][: i % 4])
        assert set(statuses(rows)) == {Status.OK}
        again = twins.run("decrypt", order)
        assert Status.OK not in statuses(again)


def test_five_chains_and_what_is_late_on_them(twins: Twins, fay: reference.Account) -> None:
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    late: list[Cell] = []
    for i in range(8):
        rows = [fay.encrypt("ann", b"%d %d" % (i, k)) for k in range(4)]
        late += [Cell("ann", "fay", row.data, row.kind) for row in rows[:2]]
        twins.run("decrypt", [Cell("ann", "fay", rows[3].data, rows[3].kind)])
        [reply] = twins.run("encrypt", [Cell("ann", "fay", b"reply")])
        assert fay.decrypt("ann", reply.kind, reply.data).status == Status.OK
    rows = twins.run("decrypt", late, [5, 5])
    assert statuses(rows).count(Status.OK) == 10


def test_a_too_long_and_an_empty_plaintext(twins: Twins, fay: reference.Account) -> None:
    twins.run("start_sessions", [Cell("ann", "fay", bundle=fay.prekeys(1).bundles()[0])])
    twins.run("group_distribute", [Cell("ann")])
    sizes = [0, reference.MAX_PLAINTEXT + 1, 1, 1 << 20]
    for call in ("encrypt", "group_encrypt"):
        rows = twins.run(call, [Cell("ann", "fay", bytes(size)) for size in sizes])
        assert statuses(rows) == [Status.OK, Status.TOO_LONG, Status.OK, Status.OK]


def test_a_frame_above_the_limit(twins: Twins, fay: reference.Account) -> None:
    """An authentic frame whose unknown fields make it too large to be parsed."""
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    frame = fay.encrypt("ann", b"").data
    room = reference.MAX_FRAME - len(frame) - 6
    fitting = frame + write_protobuf([(30, bytes(room))])
    assert len(fitting) == reference.MAX_FRAME
    rows = twins.run(
        "decrypt", [Cell("ann", "fay", data, "pkmsg") for data in (fitting + b"\0", fitting[:-1], fitting)]
    )
    assert statuses(rows) == [Status.INVALID, Status.INVALID, Status.OK]


def test_a_distribution_above_the_limit(twins: Twins, fay: reference.Account) -> None:
    frame = fay.group(GROUP).distribute().data
    room = reference.MAX_FRAME - len(frame) - 6
    fitting = frame + write_protobuf([(30, bytes(room))])
    assert len(fitting) == reference.MAX_FRAME
    larger = frame + write_protobuf([(30, bytes(room + 1))])
    rows = twins.run("group_accept", [Cell("ann", "fay", data) for data in (larger, fitting)])
    assert statuses(rows) == [Status.INVALID, Status.OK]


def test_a_group_with_everything_late(twins: Twins) -> None:
    fay = reference.World(b"\xf5" * 32).account("fay", create=True).group(GROUP)
    distributions, sent = [], []
    for i in range(7):
        fay.rotate()
        distributions.append(Cell("ann", "fay", fay.distribute().data))
        sent += [Cell("ann", "fay", fay.encrypt(b"%d %d" % (i, k)).data) for k in range(5)]
    rows = twins.run("group_accept", [*distributions, distributions[3], distributions[0]], [2, 4])
    assert set(statuses(rows)) == {Status.OK}
    bad = [
        replace(cell, data=damage("flip a bit", "skmsg", cell.data, 7 * i, i)) for i, cell in enumerate(sent)
    ]
    mixed = [cell for pair in zip(bad, sent[::-1], strict=True) for cell in pair]
    rows = twins.run("group_decrypt", mixed + sent, [50])
    assert {Status.OK, Status.INVALID, Status.NO_SENDER_KEY, Status.DUPLICATE} <= set(statuses(rows))


@pytest.mark.parametrize("jump", [1_999, 2_000, 2_001])
def test_a_jump_of_a_sender_key(twins: Twins, jump: int) -> None:
    fay = reference.World(b"\xf4" * 32).account("fay", create=True).group(GROUP)
    twins.run("group_accept", [Cell("bob", "fay", fay.distribute().data)])
    early = fay.encrypt(b"early").data
    own = fay.account.own_sender_keys
    chain = own[GROUP].chain
    while chain.index < jump:
        chain = chain.next()
    own[GROUP] = replace(own[GROUP], chain=chain)
    landed = fay.encrypt(b"landed").data
    rows = twins.run("group_decrypt", [Cell("bob", "fay", frame) for frame in (landed, early, landed, early)])
    assert rows[0].status == (Status.OK if jump <= 2_000 else Status.TOO_FAR_AHEAD)


def test_the_last_iterations_of_a_sender_key(twins: Twins) -> None:
    fay = reference.World(b"\xf3" * 32).account("fay", create=True).group(GROUP)
    fay.distribute()
    own = fay.account.own_sender_keys
    last = reference.LAST_COUNTER
    own[GROUP] = replace(own[GROUP], chain=replace(own[GROUP].chain, index=last - 3))
    twins.run("group_accept", [Cell("bob", "fay", fay.distribute().data)])
    sent = [fay.encrypt(b"%d" % i) for i in range(4)]
    assert statuses(sent) == [Status.OK] * 3 + [Status.EXHAUSTED]
    order = [2, 0, 2, 1]
    rows = twins.run("group_decrypt", [Cell("bob", "fay", sent[i].data) for i in order])
    assert statuses(rows) == [Status.OK, Status.OK, Status.DUPLICATE, Status.OK]


def test_an_account_that_moves_in(twins: Twins, fay: reference.Account) -> None:
    """With its keys and a first frame on the way; its prekeys' ids go on from where they were."""
    upload = fay.prekeys(3)
    fay.prekeys(2, rotate=True)
    starts = [Cell("ann", "old fay", bundle=bundle) for bundle in upload.bundles()]
    twins.run("start_sessions", starts[:1])
    [sent] = twins.run("encrypt", [Cell("ann", "old fay", b"on its way")])
    signed = [(id_, pair.private, signature) for id_, (pair, signature) in fay.signed.items()]
    one_time = [(id_, pair.private) for id_, pair in fay.one_time.items()]
    twins.engine.import_account(
        "fay",
        identity_private=fay.identity_pair.private,
        registration_id=fay.registration_id,
        signed_prekeys=[{"id": i, "private": private, "signature": sig} for i, private, sig in signed],
        one_time_prekeys=[{"id": i, "private": private} for i, private in one_time],
    )
    twins.world.import_account(
        "fay",
        identity_private=fay.identity_pair.private,
        registration_id=fay.registration_id,
        signed_prekeys=signed,
        one_time_prekeys=one_time,
    )
    twins.compare()
    [got] = twins.run("decrypt", [Cell("fay", "ann", sent.data, sent.kind)])
    assert got.data == b"on its way"
    twins.prekeys("fay", 2, False)
    twins.prekeys("fay", 1, True)


def test_an_untrusted_identity_comes_before_an_unusable_key(fay: reference.Account) -> None:
    """The order of a bundle's checks: shapes, signature, identity, agreement."""
    twins = Twins(refuse=True)
    twins.create("ann")
    twins.run("trust", [Cell("ann", "fay", reference.KeyPair.of(bytes(32)).public)])
    bundle = fay.prekeys(1).bundles()[0]
    unusable = replace(bundle, one_time_prekey=reference.Prekey(7, b"\x05" + bytes(32)))
    unsigned = replace(bundle, signed_prekey=replace(bundle.signed_prekey, signature=bytes(64)))
    cells = [Cell("ann", "fay", bundle=each) for each in (bundle, unusable, unsigned)]
    expected = [Status.UNTRUSTED_IDENTITY, Status.UNTRUSTED_IDENTITY, Status.INVALID_BUNDLE]
    assert statuses(twins.run("start_sessions", cells)) == expected
    twins.close()


def test_only_an_authentic_frame_is_judged_by_its_identity(fay: reference.Account) -> None:
    twins = Twins(refuse=True)
    twins.create("ann")
    twins.run("trust", [Cell("ann", "fay", OTHER_KEY)])
    fay.start_sessions("ann", twins.prekeys("ann", 1, False).bundles()[0])
    frame = fay.encrypt("ann", b"").data
    spent = edited_first(frame, one_time=77)
    broken = damage("flip a bit", "pkmsg", frame, frame.index(fay.identity) + 50, 1)
    cells = [Cell("ann", "fay", each, "pkmsg") for each in (spent, broken, frame)]
    expected = [Status.NO_PREKEY, Status.INVALID, Status.UNTRUSTED_IDENTITY]
    assert statuses(twins.run("decrypt", cells)) == expected
    twins.run("trust", [Cell("ann", "fay", fay.identity)])
    assert statuses(twins.run("decrypt", cells[::-1])) == [Status.OK, Status.INVALID, Status.DUPLICATE]
    twins.close()


@pytest.mark.parametrize("identity", [b"", b"\x05" + bytes(31), b"\x06" + bytes(32), b"\x05" + bytes(33)])
def test_a_malformed_identity_is_no_decision(twins: Twins, identity: bytes) -> None:
    with pytest.raises(interlane.MalformedCall):
        twins.engine.account("ann").trust(["fay"], [identity])
    with pytest.raises(ValueError, match="33 bytes"):
        twins.world.account("ann").trust("fay", identity)


@pytest.mark.parametrize("jump", [0, 2])
def test_a_hostile_sender_uses_the_last_iteration_there_is(twins: Twins, jump: int) -> None:
    """Nobody gets there honestly; the call must neither raise nor lose the rows beside it."""
    fay = reference.World(b"\xf2" * 32).account("fay", create=True).group(GROUP)
    fay.distribute()
    own, last = fay.account.own_sender_keys, reference.LAST_COUNTER
    honest = Cell("bob", "fay", fay.distribute().data)
    message = fay.encrypt(b"honest").data
    key = reference.OwnSenderKey(7, reference.ChainKey(bytes(32), last - jump), own[GROUP].signing)
    hostile = Cell("ann", "fay", key.distribution())
    for _ in range(jump):
        key = replace(key, chain=key.chain.next())
    iv, cipher = reference.group_keys(key.chain.message_seed)
    ciphertext = reference.cbc_encrypt(cipher, iv, b"last")
    signed = reference.Spelling().write([(1, 7), (2, last), (3, ciphertext)])
    final = signed + key.signing.sign(signed, bytes(64))
    twins.run("group_accept", [honest, hostile])
    cells = [Cell("ann", "fay", final), Cell("bob", "fay", message), Cell("ann", "fay", final)]
    twins.run("group_decrypt", cells)


def test_only_rows_of_no_handle(twins: Twins, fay: reference.Account) -> None:
    bundle = fay.prekeys(1).bundles()[0]
    for call in (
        "start_sessions",
        "encrypt",
        "decrypt",
        "group_distribute",
        "group_encrypt",
        "group_decrypt",
    ):
        rows = twins.run(call, [Cell(None, kind="msg", bundle=bundle)] * 3)
        assert statuses(rows) == [Status.UNKNOWN_HANDLE] * 3
    # The rows above drew randomness as the oracle says: what follows is the same for both.
    twins.run("start_sessions", [Cell("ann", "fay", bundle=bundle)])
    twins.run("encrypt", [Cell("ann", "fay", b"")])


def test_every_reopening_goes_on_where_it_was(tmp_path: Path, fay: reference.Account) -> None:
    """The store is closed and opened again after each call."""
    twins = Twins(path=str(tmp_path / "store.db"), threads=2, padding=True)
    fay.world.padding = True
    twins.create("ann")
    twins.reopen(1)
    fay.start_sessions("ann", twins.prekeys("ann", 7, False).bundles()[2])
    late: list[Cell] = []
    for i in range(6):
        twins.reopen(1 + i % 3)
        sent = [fay.encrypt("ann", b"%d" % k) for k in range(5)]
        cells = [Cell("ann", "fay", row.data, row.kind) for row in sent]
        late.append(cells[1])
        twins.run("decrypt", [cells[0], cells[3], cells[2]], [1])
        twins.reopen(1)
        twins.run("decrypt", [cells[4], cells[3], late[0]], [2])
        twins.reopen(3)
        for _ in range(2):
            [reply] = twins.run("encrypt", [Cell("ann", "fay", b"reply")])
            twins.reopen(2)
        assert fay.decrypt("ann", reply.kind, reply.data).data == b"reply"
        twins.run("group_distribute", [Cell("ann")])
        twins.reopen(1)
        twins.run("group_encrypt", [Cell("ann", data=b"to all")] * 2)
    rows = twins.run("decrypt", late)
    assert Status.OK in statuses(rows)
    twins.close()


# --- The receive buffer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("one_time", [True, False])
def test_frames_that_come_again(tmp_path: Path, fay: reference.Account, where: str, one_time: bool) -> None:
    """Within a call and across calls; from another sender; also when their session is long gone."""
    path = ":memory:" if where == "memory" else str(tmp_path / "buffer.db")
    twins = Twins(path=path, threads=2, buffered=True)
    twins.create("ann")
    upload = twins.prekeys("ann", 3, False)
    fay.start_sessions("ann", upload.bundles()[0] if one_time else upload.bundle())
    first = [fay.encrypt("ann", b"%d" % i) for i in range(5)]
    cells = [Cell("ann", "fay", row.data, row.kind) for row in first]
    rows = twins.run("decrypt", [cells[0], cells[0], cells[2], cells[1], cells[2], cells[2]])
    assert statuses(rows) == [Status.OK, Status.REDELIVERED, Status.OK, Status.OK] + [Status.REDELIVERED] * 2
    assert [row.data for row in rows] == [b"0", b"0", b"2", b"1", b"2", b"2"]
    # Another sender's name, and another kind, make it another frame.
    others = [replace(cells[0], peer="gus"), replace(cells[0], kind="msg")]
    assert not {Status.REDELIVERED} & set(statuses(twins.run("decrypt", others)))
    if where == "disk":
        twins.reopen(1)
    twins.run("forget", [Cell("ann", "fay")])
    rows = twins.run("decrypt", cells[:3])
    assert statuses(rows) == [Status.REDELIVERED] * 3
    twins.acknowledge(2)
    rows = twins.run("decrypt", cells[:3], [1, 1, 1])
    assert rows[1].status == Status.REDELIVERED
    if one_time:
        assert statuses(rows)[::2] == [Status.NO_PREKEY] * 2
    twins.compare()
    twins.close()


def test_group_frames_that_come_again(tmp_path: Path, fay: reference.Account) -> None:
    twins = Twins(path=str(tmp_path / "buffer.db"), threads=2, buffered=True)
    twins.create("ann")
    group = fay.group(GROUP)
    twins.run("group_accept", [Cell("ann", "fay", group.distribute().data)])
    cells = [Cell("ann", "fay", group.encrypt(b"%d" % i).data, "skmsg") for i in range(40)]
    twins.run("group_decrypt", [*cells[:20], *cells[10:30], cells[5]], [25])
    twins.reopen(2)
    assert statuses(twins.run("group_decrypt", cells[:30])) == [Status.REDELIVERED] * 30
    twins.acknowledge(1)
    rows = twins.run("group_decrypt", [*cells[20:], cells[39]])
    assert statuses(rows) == [Status.DUPLICATE] * 10 + [Status.OK] * 10 + [Status.REDELIVERED]
    twins.close()
