//! Which backend is taken. The variable is the process's, so each case is a process of its own.

use interlane_lanes::TILE;
use interlane_lanes::isa::{BACKEND_VARIABLE, Backend};
use std::process::Command;

/// To start it again; under an emulator, whose words `tests/tiers` gives.
fn this_program() -> Command {
    let program = std::env::current_exe().expect("this test");
    let runner = std::env::var("INTERLANE_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

/// Runs `shows_what_is_detected` with the variable set or not, and gives what it prints.
fn detected(value: Option<&str>) -> String {
    let mut child = this_program();
    child.args(["--exact", "shows_what_is_detected", "--ignored", "--nocapture"]).env_remove(BACKEND_VARIABLE);
    if let Some(value) = value {
        child.env(BACKEND_VARIABLE, value);
    }
    let output = child.output().expect("a process");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
#[ignore = "a child of the test below"]
fn shows_what_is_detected() {
    match Backend::detect() {
        Ok(backend) => println!("detected {}", backend.name()),
        Err(error) => println!("refused {error}"),
    }
}

#[test]
fn the_variable_forces_a_backend() {
    assert!(detected(None).contains(&format!("detected {}", Backend::available()[0].name())));
    for backend in Backend::available() {
        assert!(detected(Some(backend.name())).contains(&format!("detected {}", backend.name())));
    }
    for wrong in ["warp", "", "Portable"] {
        let text = detected(Some(wrong));
        assert!(text.contains("refused") && text.contains(BACKEND_VARIABLE), "{text}");
        assert!(text.contains(&format!("{wrong:?}")) && text.contains("portable"), "{text}");
    }
}

#[test]
fn every_kernel_has_a_runner() {
    for backend in Backend::available() {
        let kernels = backend.kernels();
        let mut names: Vec<_> = kernels.iter().map(|runner| runner.kernel).collect();
        names.dedup();
        assert_eq!(names.len(), kernels.len());
        for name in [
            "sha256",
            "sha512",
            "hmac",
            "hkdf",
            "chain",
            "cbc/encrypt",
            "cmac",
            "gcm",
            "chacha20poly1305",
            "x25519",
            "xeddsa/sign",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        for runner in kernels {
            // The crate is named where it has rows to run.
            let lanes_alone = runner.lanes.is_some_and(|lanes| lanes.fewest == 1);
            assert!(!runner.by_row.is_empty() && runner.to_string().contains(runner.by_row) != lanes_alone);
            // Lanes that pay for some number of rows pay for a tile at the latest, and have a name.
            assert!(runner.lanes.is_none_or(|lanes| !lanes.runs.is_empty() && (1..=TILE).contains(&lanes.fewest)));
            assert!(backend.name() != "portable" || runner.lanes.is_none());
        }
    }
}
