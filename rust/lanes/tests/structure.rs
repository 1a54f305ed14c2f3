//! The rules that the compiler does not check.

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
