"""Sender keys: one message of each of many senders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import interlane
import numpy as np
import pytest
from conftest import Live, Sizes, Versus
from interlane import Engine, Rows
from linked import MEMORY, PLAINTEXT, Handles, Packed, accounts, address
from report import GO, WACORE

GROUP = "120363000000000000@g.us"


@dataclass(frozen=True)
class Senders:
    """Row `n` of `sending` is a sender key of ours, row `n` of `opening` is the same one at a member's."""

    near: Engine
    far: Engine
    sending: Handles
    opening: Handles
    plaintexts: Packed

    def send(self) -> Rows:
        return self.near.group_encrypt(self.sending, self.plaintexts.data, self.plaintexts.offsets)

    def open(self, sent: Rows) -> Rows:
        return self.far.group_decrypt(self.opening, sent.data, sent.offsets)

    def check(self, opened: Rows) -> None:
        assert opened.ok.all()
        assert np.array_equal(opened.offsets, self.plaintexts.offsets)
        assert np.array_equal(opened.data, self.plaintexts.data)


@pytest.fixture(scope="module")
def senders(sizes: Sizes) -> Iterator[Senders]:
    rows = sizes.rows
    near, far = interlane.open(MEMORY, threads=1), interlane.open(MEMORY, threads=1)
    # The senders of one group and the groups of one sender are the same work; so each row has its own group.
    groups = [f"{n}-{GROUP}" for n in range(rows)]
    sending = near.groups(accounts(near, rows), groups)
    opening = far.groups(accounts(far, rows), groups, [address(n) for n in range(rows)])
    distributed = near.group_distribute(sending)
    assert distributed.ok.all()
    assert far.group_accept(opening, distributed.data, distributed.offsets).ok.all()
    made = Senders(near, far, sending, opening, Packed.repeated(PLAINTEXT, rows))
    made.check(made.open(made.send()))
    yield made
    near.close()
    far.close()


@pytest.mark.parametrize("peer", [GO, WACORE])
def bench_group_send(versus: Versus, senders: Senders, live: Live, peer: str) -> None:
    sent: list[Rows] = []

    def prepare() -> None:
        while sent:
            senders.check(senders.open(sent.pop()))

    def ours(_: None) -> None:
        sent.append(senders.send())

    rows, theirs = len(senders.sending), live.clock(peer, "group/send")
    versus("group/send", peer, rows=rows, prepare=prepare, ours=ours, theirs=theirs)
    prepare()


@pytest.mark.parametrize("peer", [GO, WACORE])
def bench_group_open(versus: Versus, senders: Senders, live: Live, peer: str) -> None:
    opened: list[Rows] = []

    def prepare() -> Rows:
        while opened:
            senders.check(opened.pop())
        return senders.send()

    def ours(sent: Rows) -> None:
        opened.append(senders.open(sent))

    rows, theirs = len(senders.opening), live.clock(peer, "group/open")
    versus("group/open", peer, rows=rows, prepare=prepare, ours=ours, theirs=theirs)
    senders.check(opened.pop())
