//! Operations by kind, kept in `benches/counts.md`: a change of a kernel shows there what it costs.

use crate::shapes::{Avx2, Avx512, Neon, Shape};
use crate::tally::{LIMBS, NAMES, Tally};
use crate::tile;
use interlane_lanes::isa::TILE;
use std::fmt::Write;
use std::path::Path;

const COMMAND: &str = "INTERLANE_COUNTS=write cargo test --release -p interlane-lanes --test checks counts";

const OPENING: &str = "\
# Operations of a tile

What every kernel does for 32 rows on each instruction set, by kind: a cost that noise cannot touch. A test compares; made by

```
COMMAND
```

- An operation is one of the traits in `rust/lanes/src/isa`, on one vector (`transpose` and `join`: on four). Most are one
  instruction. `madd51` is half of a product by doubles; `rotr`, `xor3`, `choose` and `majority` of words are one instruction on
  `avx512` and up to three elsewhere; `aes` and `clmul` on `avx2` are one for each half of a vector.
- `load` and `store` are of vectors gathered from rows or scattered to them. Constants, which stay in registers or come with
  an instruction, are not counted, nor is what a row does alone: padding.
- SHA-256 is counted as computed from words. `avx2` and `neon` have it computed by SHA instructions where the CPU has those.
- The table of the base point is there before.
";

/// A table: a kernel a line, with the kinds that any of them needs.
fn table(kinds: std::ops::Range<usize>, lines: &[(&str, Tally)], to: &mut String) {
    let used: Vec<usize> = kinds.filter(|kind| lines.iter().any(|(_, tally)| tally[*kind] > 0)).collect();
    let row = |name: &str, cells: Vec<String>, all: &str, each: &str| {
        format!("| {name} | {} | {all} | {each} |\n", cells.join(" | "))
    };
    let names = used.iter().map(|kind| format!("`{}`", NAMES[*kind])).collect();
    to.push_str(&row("kernel", names, "all", "a row"));
    to.push_str(&row("---", vec!["--:".to_owned(); used.len()], "--:", "--:"));
    for (name, tally) in lines {
        let all: u64 = used.iter().map(|kind| tally[*kind]).sum();
        let cells = used.iter().map(|kind| tally[*kind].to_string()).collect();
        to.push_str(&row(&format!("`{name}`"), cells, &all.to_string(), &format!("{:.1}", all as f64 / TILE as f64)));
    }
}

fn count<S: Shape>(to: &mut String) {
    let lanes = S::WIDTH / 2;
    writeln!(to, "\n## `{}`: {} words, {lanes} limbs a vector", S::NAME, S::WIDTH).expect("a string");
    let (mut words, mut limbs) = (Vec::new(), Vec::new());
    tile::words::<S>(|name, tally| words.push((name, tally)));
    tile::limbs::<S>(|name, tally| limbs.push((name, tally)));
    to.push_str("\nHashes and ciphers.\n\n");
    table(0..LIMBS, &words, to);
    to.push_str("\nPoly1305 in those, SHA-512, and curves.\n\n");
    for (_, tally) in &mut words {
        tally[..LIMBS].fill(0);
    }
    words.retain(|(_, tally)| *tally != [0; NAMES.len()]);
    table(0..NAMES.len(), &[words, limbs].concat(), to);
}

#[test]
fn counts_are_as_kept() {
    let mut counts = OPENING.replace("COMMAND", COMMAND);
    count::<Avx512>(&mut counts);
    count::<Avx2>(&mut counts);
    count::<Neon>(&mut counts);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/counts.md");
    if std::env::var_os("INTERLANE_COUNTS").is_some_and(|what| what == "write") {
        std::fs::write(&kept, &counts).expect("written");
    }
    let kept = std::fs::read_to_string(&kept).expect("benches/counts.md");
    for (line, (kept, counted)) in kept.lines().zip(counts.lines()).enumerate() {
        assert_eq!(kept, counted, "line {} of benches/counts.md; to write it anew: {COMMAND}", line + 1);
    }
    assert!(kept == counts, "benches/counts.md has other lines; to write it anew: {COMMAND}");
}
