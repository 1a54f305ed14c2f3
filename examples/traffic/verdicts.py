"""What each line must give, said by the oracle (``tests/reference.py``), not by the engine."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import reference
from reference import Account, Event, Row, Status, World

if TYPE_CHECKING:
    from network import Item


def of(events: list[tuple[str, Item | None]], accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One expectation a line: its status, and text or kind; `"error": true` for a line that is no event."""
    world = World(seed=bytes(32))
    for account in accounts:
        world.import_account(
            account["name"],
            identity_private=_bytes(account["identity_private"]),
            registration_id=account["registration_id"],
            signed_prekeys=[
                (one["id"], _bytes(one["private"]), _bytes(one["signature"]))
                for one in account["signed_prekeys"]
            ],
            one_time_prekeys=[(one["id"], _bytes(one["private"])) for one in account["one_time_prekeys"]],
        )
    desk = Desk(world)
    return [
        {"line": line, **({"error": True} if item is None else desk.takes(item))}
        for line, (_, item) in enumerate(events, start=1)
    ]


class Desk:
    """Takes events one at a time, in order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.holders: set[tuple[str, str, str]] = set()

    def takes(self, item: Item) -> dict[str, Any]:
        event = item.event
        account = self.world.account(event["account"])
        verdict: dict[str, Any] = getattr(self, "_" + event["event"])(account, event)
        opened = verdict.get("text")
        assert opened is None or opened.encode() == item.plaintext, "the oracle opened something else"
        return verdict

    def _account(self, _: Account, __: dict[str, Any]) -> dict[str, Any]:
        return {"status": "OK"}

    def _frame(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        return _opened(account.decrypt(event["peer"], event["kind"], _bytes(event["frame"])))

    def _text(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        return _sealed(account.encrypt(event["peer"], event["text"].encode()))

    def _bundle(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        given = event["bundle"]
        signed, one_time = given["signed_prekey"], given["one_time_prekey"]
        bundle = reference.Bundle(
            registration_id=given["registration_id"],
            identity=_bytes(given["identity"]),
            signed_prekey=reference.SignedPrekey(
                signed["id"], _bytes(signed["public"]), _bytes(signed["signature"])
            ),
            one_time_prekey=reference.Prekey(one_time["id"], _bytes(one_time["public"]))
            if one_time
            else None,
        )
        return _with_events(account.start_sessions(event["peer"], bundle))

    def _distribution(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        row = account.decrypt(event["peer"], event["kind"], _bytes(event["frame"]))
        if row.status != Status.OK:
            return _with_events(row)
        accepted = account.group(event["group"]).accept(event["peer"], row.data)
        return _with_events(Row(accepted.status, events=row.events))

    def _group_frame(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        return _opened(account.group(event["group"]).decrypt(event["peer"], _bytes(event["frame"])))

    def _distribute(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        return _sealed(account.group(event["group"]).distribute())

    def _rotate(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        key = (event["account"], event["group"])
        self.holders = {holder for holder in self.holders if holder[:2] != key}
        return _with_events(account.group(event["group"]).rotate())

    def _group_text(self, account: Account, event: dict[str, Any]) -> dict[str, Any]:
        group, text = account.group(event["group"]), event["text"].encode()
        if "devices" not in event:
            return _sealed(group.encrypt(text))
        distribution = group.distribute().data
        sent = {}
        for device in event["devices"]:
            holder = (event["account"], event["group"], device)
            if holder in self.holders:
                continue
            row = account.encrypt(device, distribution)
            sent[device] = row.status.name
            if row.status == Status.OK:
                self.holders.add(holder)
        return {**_sealed(group.encrypt(text)), "distributions": sent}


def summary(lines: list[str], expected: list[dict[str, Any]]) -> str:
    kinds: Counter[str] = Counter()
    for line, verdict in zip(lines, expected, strict=True):
        if "error" not in verdict:
            kinds[json.loads(line)["event"]] += 1
    statuses = Counter("error" if "error" in verdict else verdict["status"] for verdict in expected)
    flags = Counter(flag for verdict in expected for flag in verdict.get("events", ()))
    return f"{len(lines)} lines\n{dict(kinds)}\n{dict(statuses)}\n{dict(flags)}"


def _opened(row: Row) -> dict[str, Any]:
    opened = {"text": row.data.decode()} if row.status == Status.OK else {}
    return {**_with_events(row), **opened}


def _sealed(row: Row) -> dict[str, Any]:
    return {**_with_events(row), **({"kind": row.kind} if row.status == Status.OK else {})}


def _with_events(row: Row) -> dict[str, Any]:
    flags = [str(flag.name) for flag in Event if flag and flag in row.events]
    return {"status": row.status.name, **({"events": flags} if flags else {})}


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
