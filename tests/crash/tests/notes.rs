//! What a power cut leaves of files that are not SQLite's.

use std::collections::BTreeSet;
use std::fs;

use interlane_crash::{Dice, Disk};

/// The contents that the note has after power cuts.
fn found(disk: &Disk) -> BTreeSet<Vec<u8>> {
    (0..200).map(|seed| disk.cut(&mut Dice(seed)).files["a.generation"].clone()).collect()
}

fn these(contents: &[&str]) -> BTreeSet<Vec<u8>> {
    contents.iter().map(|content| content.as_bytes().to_vec()).collect()
}

#[test]
fn a_note_does_not_come_back_from_before_its_sync() {
    let folder = std::env::temp_dir().join(format!("interlane-crash-notes-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder");
    let note = |content: &str| fs::write(folder.join("a.generation"), content).expect("a note");
    note("1");
    let disk = Disk::watch(&folder);
    for content in ["2", "3"] {
        note(content);
        disk.now();
    }
    assert_eq!(found(&disk), these(&["1", "2", "3"]), "nothing is synced");
    disk.notes_synced();
    assert_eq!(found(&disk), these(&["3"]), "it is synced");
    note("4");
    assert_eq!(found(&disk), these(&["3", "4"]), "the sync was before");
    drop(disk);
    fs::remove_dir_all(&folder).expect("a folder");
}
