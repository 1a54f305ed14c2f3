"""The benches' report: what is asked of a result, which results are kept, what the README gets of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report

BENCHES = Path(__file__).parent.parent / "benches"


def result(
    work: str, ours: float, peer: str | None = None, theirs: float | None = None, **other: str
) -> report.Result:
    machine = {"backend": "portable", "cpu": "one", "commit": "", **other}
    return report.result(work, rows=1000, ours=ours, peer=peer, theirs=theirs, **machine)


def test_targets_are_the_backends() -> None:
    portable = result("setup", 60_000, report.GO, 240_000)
    lanes = result("setup", 60_000, report.GO, 240_000, backend="avx512")
    assert (portable.target, portable.target_most, portable.met) == (3.5, None, True)
    assert (lanes.target, lanes.target_most, lanes.met) == (3.5, 45_000, False)
    assert result("setup", 40_000, report.GO, 160_000, backend="avx512").met
    assert not result("setup", 40_000, report.GO, 100_000, backend="avx512").met
    assert result("encrypt/list", 1, report.VODOZEMAC, 2).met is None
    assert not result("memory/session", 501).met


@pytest.mark.parametrize("targets", [report.TARGETS, *report.BACKEND_TARGETS.values()])
def test_targets_are_of_works_that_there_are(targets: report.Targets) -> None:
    assert {work for work, _ in targets.ratio} | set(targets.most) <= set(report.WORKS)


def test_limits_are_sums_of_steps() -> None:
    steps = {"x25519": 5_000.0, "x25519/public": 2_000.0, "cbc_hmac": 100.0}
    turn = report.result("turn", backend="b", cpu="c", commit="", rows=1, ours=24_400, steps=steps)
    assert (turn.limit, turn.limit_ns, turn.limit_ratio) == (
        "2 x25519 + 1 x25519/public + 2 cbc_hmac",
        12_200,
        2,
    )
    # One of its steps is not measured.
    assert report.result("setup", backend="b", cpu="c", commit="", rows=1, ours=1, steps=steps).limit is None


def test_a_newer_result_replaces_that_of_the_same_machine_and_peer() -> None:
    old = [
        result("turn", 1, report.GO, 2),
        result("turn", 1, report.WACORE, 2),
        result("turn", 1, report.GO, 2, cpu="other"),
        result("turn", 1, report.GO, 2, backend="avx2"),
    ]
    new = result("turn", 9, report.GO, 2)
    kept = report.merged(old, [new])
    assert len(kept) == len(old)
    assert new in kept
    assert [row for row in kept if row.ns == 1] == report.merged(old[1:], [])


def test_a_file_of_results_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    assert report.load() == []
    rows = report.merged([], [result("turn", 1.25, report.GO, 2), result("memory/pending", 400)])
    report.save(rows)
    assert report.load() == rows


def test_a_block_of_the_readme_has_the_results_that_it_names() -> None:
    text = "before\n<!-- results: one, backend portable -->\nold\n<!-- end of results -->\nafter\n"
    made = report.readme(text, [result("turn", 1500, report.GO, 4500), result("turn", 7, cpu="other")])
    assert f"| `turn` | 1.5 µs | go.mau.fi/libsignal | 4.5 µs | 3 {report.TIMES} |" in made
    assert "old" not in made
    assert "7 ns" not in made
    assert made.startswith("before\n<!-- results")
    assert made.endswith("<!-- end of results -->\nafter\n")
    assert report.readme(made, [result("turn", 1500, report.GO, 4500)]) == made
    with pytest.raises(KeyError, match="portable"):
        report.readme(text, [result("turn", 7, cpu="other")])


def test_the_benches_readme_names_every_work_and_no_other() -> None:
    table = (BENCHES / "README.md").read_text(encoding="utf-8").split("## What is measured")[1]
    _, _, *rows = [line for line in table.split("\n## ")[0].splitlines() if line.startswith("|")]
    first_cells = [row.split("|")[1] for row in rows]
    named = [work for cell in first_cells for work in re.findall("`(.*?)`", cell)]
    assert sorted(set(named)) == sorted(report.WORKS)
    assert {row.work for row in report.load()} <= set(report.WORKS)
