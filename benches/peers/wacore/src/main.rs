//! The crate `wacore-libsignal` as a peer: run as a process of its own, on its public interface alone.
//!
//! It speaks two requests of `tests/peers`: `{"op":"hello"}` and `{"op":"bench","work","rows","bytes"}`, a JSON object a
//! line, and answers each with one. `bench` gives `{"ns"}`, nanoseconds a row of a loop in this process. With the argument
//! `--x25519=graviola` the engine agrees on keys by graviola, through its hook for crypto providers: its best form.

#![forbid(unsafe_code)]

mod best_form;
mod party;
mod works;

use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--x25519=graviola"] => best_form::install()?,
        _ => return Err("usage: wacore-peer [--x25519=graviola]".into()),
    }
    for line in stdin().lock().lines() {
        let reply = answer(&line?).unwrap_or_else(|refusal| json!({ "error": refusal.to_string() }));
        writeln!(stdout(), "{reply}")?;
    }
    Ok(())
}

fn answer(line: &str) -> Result<Value> {
    let request: Value = serde_json::from_str(line)?;
    match request["op"].as_str() {
        Some("hello") => Ok(json!({ "name": "wacore-libsignal", "version": "0.7.0", "can": ["bench"] })),
        Some("bench") => {
            let work = request["work"].as_str().ok_or("work must be a name")?;
            let number =
                |field: &str| request[field].as_u64().filter(|&n| n > 0).ok_or("rows and bytes are at least 1");
            Ok(json!({ "ns": works::measure(work, number("rows")? as usize, number("bytes")? as usize)? }))
        }
        _ => Err("no such op".into()),
    }
}
