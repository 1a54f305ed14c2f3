"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report

README = Path(__file__).parent.parent / "README.md"


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(README), "exec"), {"__name__": "readme"})  # noqa: S102 - our own text
    printed = capsys.readouterr().out
    assert "OK pkmsg" in printed
    assert "[b'hello', b'hallo']" in printed


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / link).exists(), link


def test_the_tables_of_the_readme_are_the_committed_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert report.README_BLOCK.search(text)
    assert report.readme(text, report.load()) == text, "python benches/report.py --readme"
