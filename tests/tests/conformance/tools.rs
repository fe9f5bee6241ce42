//! Where the suites' programs are.
//!
//! `tests/tools` installs those that come from the cargo registry, once, below the target folder;
//! `tests/run` calls it before the tests begin, and a test that is run alone calls it itself. The
//! rest are system packages, which `packaging/needs` knows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdrivefs_tests::world::program;

/// Building two suites on a busy machine with little memory.
const INSTALL_MAX: Duration = Duration::from_secs(3_000);

/// A program of the system.
///
/// # Panics
/// When it is missing: a suite that did not run must not pass.
pub fn system(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = places.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("(missing) {name} is not installed: run packaging/needs test"))
}

/// A program that `tests/tools` installs.
///
/// # Panics
/// When it is missing and cannot be installed.
pub fn installed(name: &str) -> PathBuf {
    let rdrivefs = program("rdrivefs");
    let target = rdrivefs.ancestors().nth(2).unwrap();
    let path = target.join("tools/bin").join(name);
    if !path.is_file() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
        let mut install = Command::new(script);
        let status = install.arg(target).stdin(std::process::Stdio::null()).spawn();
        wait(status.unwrap(), INSTALL_MAX);
    }
    assert!(path.is_file(), "(missing) {name} could not be installed: run tests/tools");
    path
}

fn wait(mut child: std::process::Child, limit: Duration) {
    let end = crate::child::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if crate::child::now() > end {
            drop(child.kill());
            drop(child.wait());
            panic!("tests/tools did not end in {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
