//! The command line of `rdrivefs-node`: words in, words out. Everything it does is in the modules
//! beside it; sentences for people are written only here.

mod commands;
mod serve;
mod store_arg;
mod explain;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::identity::PublicKey;
use crate::node::allow::parse_key;
use crate::node::cli::explain::Failure;
use crate::node::cli::store_arg::StoreArg;
use crate::node::cli::units::{Size, Span};

/// Keeps sealed bytes for rdrivefs drives.
#[derive(Debug, Parser)]
#[command(name = "rdrivefs-node", version, propagate_version = true)]
struct Cli {
    /// Report as one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// Say less
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colours
    #[arg(long, global = true, default_value = "auto")]
    color: clap::ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node in the foreground; prints its URL once it answers
    Serve(serve::Args),
    /// Show the node's public key and the URL to give to clients
    Key {
        #[command(flatten)]
        store: StoreArg,
    },
    /// Print a one-time URL that authorises one drive
    Invite {
        #[command(flatten)]
        store: StoreArg,
        /// Bytes the drive may use, such as 200G [default: the node's]
        #[arg(long, value_name = "SIZE")]
        quota: Option<Size>,
        /// How long the invite is good, such as 12h or 7d
        #[arg(long, value_name = "T", default_value = "7d")]
        expires: Span,
    },
    /// Authorise a drive by its root key
    Allow {
        #[command(flatten)]
        store: StoreArg,
        /// The drive's root key: 64 hexadecimal digits
        #[arg(value_parser = key)]
        key: PublicKey,
        /// Bytes the drive may use, such as 200G [default: the node's]
        #[arg(long, value_name = "SIZE")]
        quota: Option<Size>,
    },
    /// Withdraw a drive's authorisation; its bytes stay
    Deny {
        #[command(flatten)]
        store: StoreArg,
        /// The drive's root key: 64 hexadecimal digits
        #[arg(value_parser = key)]
        key: PublicKey,
    },
    /// List the authorised drives
    List {
        #[command(flatten)]
        store: StoreArg,
    },
    /// Read everything stored again and report rot
    Scrub {
        #[command(flatten)]
        store: StoreArg,
        /// At most so many bytes a second, such as 50M
        #[arg(long, value_name = "B/s")]
        rate: Option<Size>,
    },
    /// Show spaces, bytes, quotas, connections and rates
    Status {
        #[command(flatten)]
        store: StoreArg,
    },
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Runs the program; the exit code is one of CLI's table.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Nothing this program makes is anybody else's to read.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    start_log(&cli);
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => failure.report(cli.json),
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Serve(args) => serve::run(args, cli.json)?,
        Command::Key { store } => commands::key(&store.place()?, cli.json)?,
        Command::Invite { store, quota, expires } => {
            commands::invite(&store.place()?, *quota, *expires, cli.json)?;
        }
        Command::Allow { store, key, quota } => {
            commands::allow(&store.place()?, key, *quota, cli.json)?;
        }
        Command::Deny { store, key } => commands::deny(&store.place()?, key, cli.json)?,
        Command::List { store } => commands::list(&store.place()?, cli.json)?,
        Command::Scrub { store, rate } => {
            return commands::scrub(&store.place()?, *rate, cli.json, cli.quiet);
        }
        Command::Status { store } => commands::status(&store.place()?, cli.json)?,
        Command::Completions { shell } => {
            let mut out = std::io::stdout().lock();
            clap_complete::generate(*shell, &mut Cli::command(), "rdrivefs-node", &mut out);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs go to stderr; `RUST_LOG` overrides the flags.
fn start_log(cli: &Cli) {
    let serving = matches!(cli.command, Command::Serve(_));
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) if serving => "info",
        (false, 0) => "warn",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // The libraries below speak only when something is wrong, unless all is asked for.
    let quiet = format!("warn,rdrivefs_remote={level},rdrivefs_node={level}");
    let words = if cli.verbose > 1 { "trace".to_owned() } else { quiet };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(words));
    let colour = match cli.color {
        clap::ColorChoice::Always => true,
        clap::ColorChoice::Never => false,
        clap::ColorChoice::Auto => std::io::IsTerminal::is_terminal(&std::io::stderr()),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
}

fn key(text: &str) -> Result<PublicKey, String> {
    parse_key(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_of_the_contract_parse() {
        let key = "ab".repeat(32);
        for line in [
            "serve --listen 127.0.0.1:0 --store S --http 127.0.0.1:0 --quota 10G --retain 30d",
            "key --store S",
            "invite --store S --quota 10GiB --expires 2h --json",
            &format!("allow {key} --quota 1T --store S"),
            &format!("deny {key}"),
            "list --json",
            "scrub --rate 50M",
            "status -v",
            "completions fish",
        ] {
            let words = std::iter::once("rdrivefs-node").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in ["", "serve --quota ten", "allow abc", "invite --expires never", "fly"] {
            let words = std::iter::once("rdrivefs-node").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
