"""The layer rule (CONTRIBUTING.md): who may name whom. It reads the sources, and knows no build."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "rust" / "engine" / "src"
PACKAGE = ROOT / "python" / "interlane"

# Inside the engine: each part, and the parts that it may name.
LEAVES = {"bytes", "error", "limits", "machine", "secret"}
MAY_NAME = {
    "bytes": {"limits"},
    "error": set(),
    "limits": set(),
    "machine": {"error"},
    "secret": set(),
    "wire": LEAVES,
    "ratchet": LEAVES | {"wire"},
    "store": LEAVES,
    "batch": LEAVES | {"wire", "ratchet", "store"},
    # Tests: the engine in a world of their own.
    "simulation": LEAVES | {"wire", "ratchet", "store", "batch"},
}

# The Python package, lowest first: a module may name those of lower rows only.
ORDER = (
    ("_native",),
    ("errors", "inputs", "status"),
    ("keys", "packed", "prekeys"),
    ("aead", "backups"),
    ("engine",),
    ("interlane",),
    ("cli.console", "cli.failure", "cli.lines"),
    ("cli.events", "cli.journal", "cli.store"),
    ("cli.handles", "cli.plan"),
    ("cli.calls",),
    ("cli.show", "cli.summary"),
    ("cli.accounts", "cli.backups", "cli.bench", "cli.measured", "cli.progress"),
    ("cli.relay", "cli.sessions", "cli.shards", "cli.stats"),
    ("cli",),
    ("cli.__main__",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


# --- Rust ---------------------------------------------------------------------------------------------------


def code_of(text: str) -> str:
    """Rust without comments and string literals, lines kept."""
    pattern = r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"'
    return re.sub(pattern, lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)


def re_exports(lib: str) -> dict[str, str]:
    """What `crate::Name` stands for: the part that lib.rs takes the name from."""
    parts: dict[str, str] = {}
    for part, names in re.findall(r"pub use (\w+)::(?:\{([^}]*)\}|\w+)", code_of(lib)):
        parts.update(dict.fromkeys(re.findall(r"\w+", names), part))
    for part, name in re.findall(r"pub use (\w+)::(\w+);", code_of(lib)):
        parts[name] = part
    return parts


def parts_named(text: str, module: tuple[str, ...], exported: dict[str, str]) -> set[str]:
    """The engine's parts that a file names, by `crate::…` or by `super::…` that goes up to the crate."""
    named = set()
    for path, one, group in re.findall(r"\b(crate::|(?:super::)+)(?:(\w+)|\{([^;]*?)\}\s*;)", code_of(text)):
        above = () if path == "crate::" else module[: len(module) - path.count("super")]
        firsts = [one] if one else re.findall(r"(?:^|,)\s*(\w+)", flattened(group))
        for first in firsts:
            part = above[0] if above else exported.get(first, first)
            named.add(part)
    return named & set(MAY_NAME)


def flattened(group: str) -> str:
    """A use group without the groups in it."""
    while (smaller := re.sub(r"\{[^{}]*\}", "", group)) != group:
        group = smaller
    return group


def module_of(file: Path) -> tuple[str, ...]:
    module = file.relative_to(ENGINE).with_suffix("").parts
    return module[:-1] if module[-1] == "mod" else module


def engine_files() -> list[Path]:
    return [file for file in sorted(ENGINE.rglob("*.rs")) if file != ENGINE / "lib.rs"]


@pytest.mark.parametrize("file", engine_files(), ids=lambda file: str(file.relative_to(ENGINE)))
def test_parts_of_the_engine_name_only_lower_ones(file: Path) -> None:
    module = module_of(file)
    assert module[0] in MAY_NAME, f"{module[0]} is a new part of the engine: give it its place in MAY_NAME"
    named = parts_named(file.read_text(), module, re_exports((ENGINE / "lib.rs").read_text()))
    assert named - {module[0]} <= MAY_NAME[module[0]]


def test_the_rule_would_notice() -> None:
    exported = {"Engine": "batch", "Status": "error"}
    assert parts_named("use crate::batch::plan;", ("wire",), exported) == {"batch"}
    assert parts_named("use crate::{limits::{A, B}, store};", ("wire", "x"), exported) == {"limits", "store"}
    assert parts_named("let e = crate::Engine::open();", ("ratchet", "x"), exported) == {"batch"}
    assert parts_named("use super::super::store::Key;", ("ratchet", "x"), exported) == {"store"}
    assert parts_named("use super::chain_key::X;", ("ratchet", "x"), exported) == {"ratchet"}
    assert parts_named('// crate::batch\nlet a = "crate::store";', ("wire",), exported) == set()
    assert re_exports("pub use error::{Error, Status};\npub use rows::Rows;")["Rows"] == "rows"


def dependencies(crate: str) -> set[str]:
    manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text())
    return set(manifest.get("dependencies", {}))


def test_crates_depend_one_way() -> None:
    assert not {name for name in dependencies("lanes") if name.startswith("interlane")}
    assert {name for name in dependencies("engine") if name.startswith("interlane")} == {"interlane-lanes"}


def rust_files() -> list[Path]:
    return sorted(path for crate in (ROOT / "rust").iterdir() for path in crate.rglob("*.rs"))


def test_the_lanes_know_no_protocol() -> None:
    words = r"\b(session|prekey|sender_?key|ratchet|signal_?message|interlane)\b"
    for file in (ROOT / "rust" / "lanes" / "src").rglob("*.rs"):
        assert not re.search(words, code_of(file.read_text()), re.IGNORECASE), file


def test_instruction_sets_are_named_in_isa_only() -> None:
    isa = ROOT / "rust" / "lanes" / "src" / "isa"
    for file in rust_files():
        if isa not in file.parents:
            found = re.search(
                r"\b(core|std)::arch\b|feature_detected!|target_feature\b", code_of(file.read_text())
            )
            assert found is None, (file, found)


def test_unsafe_is_in_its_fence() -> None:
    """Instruction sets and bindings; in tests, an allocator that looks at what is freed."""
    lanes = ROOT / "rust" / "lanes" / "src" / "isa"
    fence = [lanes / name for name in ("avx2", "avx512", "neon")]
    fence += [ROOT / "rust" / "python", ROOT / "rust" / "c"]
    for file in rust_files():
        outside = not any(folder in file.parents for folder in fence)
        if outside and "src" in file.relative_to(ROOT / "rust").parts:
            assert not re.search(r"\bunsafe\b(?!_)", code_of(file.read_text())), file
    assert "#![forbid(unsafe_code)]" in (ENGINE / "lib.rs").read_text()


# --- Python -------------------------------------------------------------------------------------------------


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "interlane"


def imports(text: str, module: str, is_package: bool) -> set[str]:
    """The package's modules that a module imports, by their names inside the package."""
    above = module.split(".") if module != "interlane" else []
    if not is_package:
        above = above[:-1]
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "interlane"}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(["interlane", *above[: len(above) - node.level + 1], *filter(None, [base])])
            if base.split(".")[0] == "interlane":
                found |= {f"{base}.{alias.name}" for alias in node.names}
    return {known(path.removeprefix("interlane").removeprefix(".")) for path in found}


def known(path: str) -> str:
    """The module in `module.name`: the longest part that is one."""
    while path and path not in RANK:
        path = path.rpartition(".")[0]
    return path or "interlane"


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", python_files(), ids=name_of)
def test_python_imports_downwards(file: Path) -> None:
    module = name_of(file)
    assert module in RANK, f"{module} is a new module: give it its place in ORDER"
    upwards = {
        other
        for other in imports(file.read_text(), module, file.name == "__init__.py")
        if RANK[other] >= RANK[module]
    }
    assert not upwards


def test_the_python_rule_would_notice() -> None:
    assert imports("from .engine import Engine", "keys", False) == {"engine"}
    assert imports("from . import _native", "engine", False) == {"_native"}
    assert imports("import interlane", "cli.plan", False) == {"interlane"}
    assert imports("from interlane.cli.calls import Calls", "cli.plan", False) == {"cli.calls"}
    assert imports("from interlane.cli import events", "cli.relay", False) == {"cli.events"}
    assert imports("import numpy\nfrom os import path", "engine", False) == set()
