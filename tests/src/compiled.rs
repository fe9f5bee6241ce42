//! Small programs in C for what Rust forbids itself here: mappings, and ioctls of filesystems.
//!
//! `cc` is on every machine that builds this workspace: the libraries it links need it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::run;

/// Compiles `source` into `dir` under this name.
///
/// # Panics
/// When there is no compiler, or it does not like the source.
pub fn compiled(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (text, program) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&text, source).expect("a source can be written");
    let said = run(Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&program).arg(&text));
    assert_eq!(said.code, Some(0), "{name}.c: {said:?}");
    program
}
