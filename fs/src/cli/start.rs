//! The beginning and the end of a command: hardening, words, exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::cli::args::{Cli, Command, Common};
use crate::cli::paint::{Paint, Style};
use crate::cli::{run, say, secrets};
use crate::failure::{Exit, Failure, Result};
use crate::mount::keep;

/// Runs the program.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&words) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    log(&cli.common);
    let paint = Paint::err(&cli.common.color);
    let (json, done) = (cli.common.json, harden().and_then(|()| carry_out(cli)));
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if json {
                let failure = serde_json::to_string(&failure).expect("a failure is plain data");
                say::print(&format!("{failure}\n"));
            }
            eprintln!("{} {failure}", paint.paint(Style::Bad, "rdrivefs:"));
            failure.code.into()
        }
    }
}

fn carry_out(cli: Cli) -> Result<Exit> {
    match cli.command {
        Command::Stretch => secrets::stretch().map(|()| Exit::Done),
        Command::Guard { daemon, minor, point } => {
            keep(daemon, minor, &point).map(|()| Exit::Done).map_err(Failure::io("guard the mount"))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rdrivefs", &mut script);
            say::print(&String::from_utf8_lossy(&script));
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

/// The words; what is wrong with them is coloured as they say themselves.
fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let given = words.iter().position(|word| word == "--color").and_then(|at| words.get(at + 1));
    let says = |when: &str| {
        given.is_some_and(|word| word == when)
            || words.iter().any(|word| *word == *format!("--color={when}"))
    };
    let choice = match (says("never"), says("always")) {
        (true, _) => ColorChoice::Never,
        (_, true) => ColorChoice::Always,
        _ => ColorChoice::Auto,
    };
    let matches = Cli::command().color(choice).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

fn log(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = format!("{level},quinn=warn,quinn_proto=warn,rustls=warn,fuser=warn");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(Paint::err(&common.color).is_on())
        .with_writer(std::io::stderr)
        .init();
}
