"""Makes the planned calls and turns their rows into answers."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

import interlane
from interlane.cli.handles import Column, Handles, Place, each, no_account
from interlane.cli.plan import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from interlane.cli.events import Event

Answer = dict[str, Any]


class Calls:
    """The engine as the relay uses it. `plaintexts_as_data`: plaintexts are always base64, UTF-8 or not."""

    def __init__(self, engine: interlane.Engine, *, plaintexts_as_data: bool = False) -> None:
        self.engine = engine
        self.plaintexts_as_data = plaintexts_as_data
        self._handles = Handles(engine)
        self._rotated: set[tuple[str, str]] = set()
        self._opened: dict[int, interlane.Row] = {}  # by line: a distribution between its two rows
        self._received: list[tuple[interlane.Rows, list[int]]] = []  # not acknowledged yet, with their lines
        self._given: set[tuple[Place, str, bytes]] = set()  # the frames whose plaintexts they are
        self.recovered = 0  # plaintexts that the receive buffer had kept through a crash

    def answer(self, events: Sequence[Event], done: Callable[[Event, Answer], None]) -> None:
        """Gives `done` an answer for each event. When the store fails, those that have one are final."""
        self._opened.clear()
        for call in plan(events):
            answers: list[Answer | None] = getattr(self, "_" + call.verb)(call.events)
            for event, answer in zip(call.events, answers, strict=True):
                if answer is not None:
                    done(event, answer)

    def acknowledge(self, lines: Container[int]) -> None:
        """The answers of these lines are safe: what they opened may leave the receive buffer."""
        for rows, received in self._received:
            rows.ack([at for at, line in enumerate(received) if line in lines])
        self._received.clear()
        self._given.clear()

    # Accounts.

    def _account(self, events: Sequence[Event]) -> list[Answer]:
        return [self._made_account(event) for event in events]

    def _made_account(self, event: Event) -> Answer:
        try:
            account = self.engine.account(event.account, create=True)
        except interlane.MalformedCall as malformed:
            return {"error": str(malformed)}
        known = {"identity": _text(account.identity), "registration_id": account.registration_id}
        return {"status": "OK", **known, "stock": account.stock}

    def _prekeys(self, events: Sequence[Event]) -> list[Answer]:
        def prekeys(account: interlane.Account, event: Event) -> Answer:
            return {
                "status": "OK",
                "prekeys": upload_json(account.prekeys(event.one_time, rotate=event.rotate)),
            }

        return self._one_by_one(events, prekeys)

    def _trust(self, events: Sequence[Event]) -> list[Answer]:
        return self._one_by_one(
            events, lambda account, event: _sealed(account.trust([event.peer], [event.identity])[0])
        )

    def _forget(self, events: Sequence[Event]) -> list[Answer]:
        return self._one_by_one(events, lambda account, event: _sealed(account.forget([event.peer])[0]))

    # Pairwise.

    def _start(self, events: Sequence[Event]) -> list[Answer | None]:
        return self._rows("start", events, self.engine.start_sessions, lambda event: event.bundle)

    def _encrypt(self, events: Sequence[Event]) -> list[Answer | None]:
        return self._rows("encrypt", events, self.engine.encrypt, _data)

    def _decrypt(self, events: Sequence[Event]) -> list[Answer | None]:
        def decrypt(handles: Column, frames: list[tuple[str, bytes]]) -> interlane.Rows:
            return self.engine.decrypt(handles, [kind for kind, _ in frames], [data for _, data in frames])

        return self._rows(
            "decrypt", events, decrypt, lambda event: (event.kind, event.data), self._opened_answer
        )

    def _opened_answer(self, event: Event, row: interlane.Row) -> Answer | None:
        if event.event == "frame":
            return self._plaintext_answer(event, row)
        row = self._first_given("decrypt", event, row)
        if row.status != interlane.Status.OK:
            return _status(row)
        self._opened[event.line] = row
        return None

    # Groups.

    def _group_distribute(self, events: Sequence[Event]) -> list[Answer | None]:
        return self._rows(
            "group_distribute", events, lambda handles, _: self.engine.group_distribute(handles)
        )

    def _group_accept(self, events: Sequence[Event]) -> list[Answer | None]:
        """Those whose pairwise frame did not open have their answer already."""

        def frame(event: Event) -> bytes:
            return self._opened[event.line].data if event.line in self._opened else event.data

        def answer(event: Event, row: interlane.Row) -> Answer:
            opened = self._opened.get(event.line)
            return _status(row) if opened is None else _status(row, opened.events)

        some = [event for event in events if not event.kind or event.line in self._opened]
        made = self._rows("group_accept", some, self.engine.group_accept, frame, answer)
        answers = dict(zip((event.line for event in some), made, strict=True))
        return [answers.get(event.line) for event in events]

    def _group_encrypt(self, events: Sequence[Event]) -> list[Answer | None]:
        return self._rows("group_encrypt", events, self.engine.group_encrypt, _data)

    def _group_decrypt(self, events: Sequence[Event]) -> list[Answer | None]:
        return self._rows("group_decrypt", events, self.engine.group_decrypt, _data, self._plaintext_answer)

    def _group_rotate(self, events: Sequence[Event]) -> list[Answer | None]:
        return self._rows("group_rotate", events, lambda handles, _: self.engine.group_rotate(handles))

    def _group_fan(self, events: Sequence[Event]) -> list[Answer]:
        """A group message with the distribution for the devices that lack it."""

        def fan(account: interlane.Account, event: Event) -> Answer:
            if event.in_doubt and (event.account, event.group) not in self._rotated:
                # The engine counts devices as served whose distributions were lost: see journal.py.
                account.group(event.group).rotate()
                self._rotated.add((event.account, event.group))
            made = account.group(event.group).encrypt(event.data, list(event.devices or ()))
            pairwise = zip(made.devices, made.distributions, strict=True)
            distributions = [{"peer": device, **_sealed(row)} for device, row in pairwise]
            return {**_sealed(made.message[0]), "distributions": distributions}

        return self._one_by_one(events, fan)

    # Rows.

    def _rows(
        self,
        verb: str,
        events: Sequence[Event],
        make: Callable[[Column, Any], interlane.Rows],
        argument: Callable[[Event], Any] = lambda _: None,
        answer: Callable[[Event, interlane.Row], Answer | None] | None = None,
    ) -> list[Answer | None]:
        """One engine call over the events that have a handle, each with its argument; the others: errors."""
        found = self._handles.of([Place.of(verb, event) for event in events])
        handles = {event.line: handle for event, handle in zip(events, found, strict=True)}
        answers: dict[int, Answer | None] = {
            line: {"error": handle} for line, handle in handles.items() if isinstance(handle, str)
        }

        def call(some: Sequence[Event]) -> interlane.Rows:
            column = np.array([handles[event.line] for event in some], dtype=np.uint64)
            rows = make(column, [argument(event) for event in some])
            if verb in ("decrypt", "group_decrypt"):
                self._received.append((rows, [event.line for event in some]))
            return rows

        for some, rows in each([event for event in events if event.line not in answers], call):
            for at, event in enumerate(some):
                if isinstance(rows, str):
                    answers[event.line] = {"error": rows}
                else:
                    answers[event.line] = answer(event, rows[at]) if answer else _sealed(rows[at])
        return [answers[event.line] for event in events]

    def _one_by_one(
        self, events: Sequence[Event], make: Callable[[interlane.Account, Event], Answer]
    ) -> list[Answer]:
        """For what is rare, or is a call by nature."""
        answers = []
        for event in events:
            try:
                answers.append(make(self.engine.account(event.account), event))
            except interlane.UnknownAccount:
                answers.append({"error": no_account(event.account)})
            except interlane.MalformedCall as malformed:
                answers.append({"error": str(malformed)})
        return answers

    def _first_given(self, verb: str, event: Event, row: interlane.Row) -> interlane.Row:
        """A frame of the receive buffer is given to the line that asks first; to others it is a duplicate."""
        if row.status not in (interlane.Status.OK, interlane.Status.REDELIVERED):
            return row
        frame = (Place.of(verb, event), event.kind, event.data)
        if frame in self._given:
            return interlane.Row(interlane.Status.DUPLICATE, "none", b"", NO_EVENT)
        self._given.add(frame)
        self.recovered += row.status == interlane.Status.REDELIVERED
        return row._replace(status=interlane.Status.OK)

    def _plaintext_answer(self, event: Event, row: interlane.Row) -> Answer:
        verb = "group_decrypt" if event.event == "group_frame" else "decrypt"
        row = self._first_given(verb, event, row)
        if row.status != interlane.Status.OK:
            return _status(row)
        if not self.plaintexts_as_data:
            try:
                return {**_status(row), "text": row.data.decode()}
            except UnicodeDecodeError:
                pass
        return {**_status(row), "data": _text(row.data)}


NO_EVENT = interlane.Event(0)


def _status(row: interlane.Row, more: interlane.Event = NO_EVENT) -> Answer:
    events = [flag.name for flag in interlane.Event if flag in row.events | more]
    return {"status": row.status.name, **({"events": events} if events else {})}


def _sealed(row: interlane.Row) -> Answer:
    """A row that made bytes for the network, or none at all."""
    return {**_status(row), **({"kind": row.kind, "frame": _text(row.data)} if row.data else {})}


def _data(event: Event) -> bytes:
    return event.data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def upload_json(upload: interlane.Upload) -> dict[str, Any]:
    """What the chat server is to be given: a bundle's shape, with all its one-time prekeys."""
    signed = upload.signed_prekey
    return {
        "registration_id": upload.registration_id,
        "identity": _text(upload.identity),
        "signed_prekey": {
            "id": signed.id,
            "public": _text(signed.public),
            "signature": _text(signed.signature),
        },
        "one_time_prekeys": [{"id": one.id, "public": _text(one.public)} for one in upload.one_time_prekeys],
    }
