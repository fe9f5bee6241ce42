//! The beginning and the end of a command: hardening, words, exit code.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::cli::args::{Cli, Command};
use crate::cli::{run, secrets};
use crate::failure::{Exit, Failure, Result};

/// Runs the program.
pub fn main() -> ExitCode {
    let words = std::env::args_os();
    let cli = match called_as_mount_helper() {
        Some(words) => Cli::parse_from(words),
        None => Cli::parse_from(words),
    };
    log(cli.common.verbose, cli.common.quiet);
    let (json, done) = (cli.common.json, harden().and_then(|()| carry_out(cli)));
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if json {
                println!("{}", serde_json::to_string(&failure).expect("a failure is plain data"));
            }
            eprintln!("rdrivefs: {failure}");
            failure.code.into()
        }
    }
}

fn carry_out(cli: Cli) -> Result<Exit> {
    match cli.command {
        Command::Stretch => secrets::stretch().map(|()| Exit::Done),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "rdrivefs", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        _ => run::run(&cli),
    }
}

/// No core files, no tracing by others of the same user, nothing readable by others.
fn harden() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let io = |what: &'static str| move |e: rustix::io::Errno| Failure::io(what)(e.into());
    rustix::process::setrlimit(Resource::Core, none).map_err(io("forbid core files"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(io("forbid tracing"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

fn log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = format!("{level},quinn=warn,quinn_proto=warn,rustls=warn,fuser=warn");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// `mount -t rdrivefs NAME DIR -o …` calls `mount.rdrivefs NAME DIR [-sfnv] [-o …]`.
fn called_as_mount_helper() -> Option<Vec<std::ffi::OsString>> {
    let mut words = std::env::args_os();
    let own = words.next()?;
    if std::path::Path::new(&own).file_name()? != "mount.rdrivefs" {
        return None;
    }
    let (name, dir) = (words.next()?, words.next()?);
    let mut out = vec![own, "--drive".into(), name, "mount".into(), dir];
    while let Some(word) = words.next() {
        if word == "-o" {
            out.extend(["-o".into(), words.next()?]);
        }
    }
    Some(out)
}
