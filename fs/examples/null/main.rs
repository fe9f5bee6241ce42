//! Mounts a filesystem that lives in memory, to see what kernel and adapter cost by themselves:
//!
//!     cargo run --release -p rdrivefs --example null -- DIR [-o OPTIONS]
//!
//! It is the ceiling that `fs_bench rows` measures a drive against: see tests/bench/README.md.
//! It ends when it is unmounted, or at SIGTERM, and everything in it is gone.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a bench, not a product")]

mod memory;

use std::path::PathBuf;
use std::sync::Arc;

use rdrivefs::mount::{Options, mount};
use rdrivefs_sync::remote::env::Env;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: null DIR [-o OPTIONS]")?);
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        if arg == "-o" {
            let list = args.next().ok_or("-o needs a list")?;
            options = options.parse(list.to_str().ok_or("options are text")?)?;
        }
    }
    let core = Arc::new(memory::Memory::new(Env::real()));
    let mounted = mount(&dir, &options, &[], core, Env::real())?;
    mounted.unmount_on_signals()?;
    println!("mounted on {}", mounted.point().display());
    Ok(mounted.wait()?)
}
