//! The rules that the compiler does not check.

use interlane_lanes::isa::Backend;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 10, "the sources are there");
    let name = |path: &Path| path.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).expect("a text"))).collect()
}

#[test]
fn intrinsics_and_detection_are_in_isa_alone() {
    let mut detections = 0;
    for (name, text) in all() {
        for word in ["core::arch", "std::arch", "feature_detected!", "target_feature(", "cpufeatures"] {
            if text.contains(word) {
                assert!(name.starts_with("isa/"), "{name} names {word}");
                detections += 1;
            }
        }
    }
    assert!(detections > 0, "the search finds the one in isa/portable.rs");
}

#[test]
fn isa_names_no_kernel_and_nothing_names_a_protocol() {
    for (name, text) in all() {
        if name.starts_with("isa/") {
            assert!(!text.contains("crate::kernels") && !text.contains("super::kernels"), "{name}");
        }
        for word in ["interlane::", "serde", "rusqlite", "Session"] {
            assert!(!text.contains(word), "{name} names {word}");
        }
    }
}

#[test]
fn unsafe_is_in_the_vector_instruction_sets_alone() {
    let all = all();
    let root = &all.iter().find(|(name, _)| name == "lib.rs").expect("lib.rs").1;
    assert!(root.contains("#![deny(unsafe_code)]"));
    for (name, text) in &all {
        let vectors = ["isa/avx2/", "isa/avx512/", "isa/neon/"].iter().any(|folder| name.starts_with(folder));
        assert!(vectors || !text.contains("unsafe {") && !text.contains("allow(unsafe_code"), "{name}");
    }
}

/// An attribute left off makes right results many times slower, without a warning.
#[test]
fn kernels_are_inlined_into_their_backend() {
    let mut found = 0;
    for (name, text) in all() {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let takes_isa = line.contains("fn ")
                && (line.contains("<I: Isa") || line.contains("<I: Words") || line.contains("isa: I"));
            if takes_isa && !line.ends_with(';') {
                found += 1;
                assert_eq!(lines[number - 1], "#[inline(always)]", "{name}:{}: {line}", number + 1);
            }
        }
    }
    assert!(found > 30, "{found}");
}

/// docs/lanes.md says how much faster than portable each kernel is in lanes, and why where that is less than twice.
#[test]
fn kernels_that_are_not_twice_as_fast_have_their_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lanes.md");
    let text = fs::read_to_string(path).expect("docs/lanes.md");
    let head = "| kernel | avx512 | avx2 | avx512, Zen 5 | avx2, Zen 5 | why less than 2 |";
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| *line != head)
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut looked_at = 0;
    for backend in Backend::available() {
        // What runs under an emulator alone has no times.
        let Some(column) = ["avx512", "avx2"].iter().position(|name| *name == backend.name()) else { continue };
        for runner in backend.kernels().into_iter().filter(|runner| runner.lanes.is_some()) {
            let name = format!("`{}`", runner.kernel);
            let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name} has no figure"));
            let times: f64 = row[1 + column].parse().expect("a number");
            assert!(times >= 2.0 || !row[5].is_empty(), "{name} on {}: {times}, and no reason", backend.name());
            looked_at += 1;
        }
    }
    assert!(looked_at > 0 || Backend::available().iter().all(|backend| !backend.name().starts_with("avx")));
    assert_eq!(rows.len(), Backend::portable().kernels().len(), "a line for each kernel, and for nothing else");
}

/// A standard and its mathematics come first.
#[test]
fn kernel_files_open_with_their_standard() {
    for (name, text) in all().iter().filter(|(name, _)| name.starts_with("kernels/") && !name.ends_with("mod.rs")) {
        assert!(text.starts_with("//! "), "{name}");
        let opening: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(opening.contains('§') && opening.contains("```text"), "{name}");
        let text = text.split("#[cfg(test)]").next().expect("the kernel");
        if let Some(kernel) = text.find(" Kernel for ") {
            assert!(kernel > text.find("pub struct ").expect("its arguments"), "{name}: public items first");
        }
    }
}
