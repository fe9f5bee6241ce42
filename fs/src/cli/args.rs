//! The words of the command line; man/rdrivefs.1 says what each means.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// One folder that is a real filesystem, holds everything, is sealed before it leaves this
/// computer, and can prove that what was sent away is still there.
#[derive(Debug, Parser)]
#[command(name = "rdrivefs", version, max_term_width = 100, infer_long_args = false)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// The drive, where this device has several
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) drive: Option<String>,
    /// One JSON document on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Say more; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(value_parser = ["auto", "always", "never"])]
    pub(super) color: String,
    /// A file with the passphrase, - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Paths are those of the drive, beginning with /
    #[arg(long, global = true)]
    pub(super) drive_path: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make this device's identity and a drive, or come back to one
    Init(Init),
    /// Mount the drive
    Mount(Mount),
    /// Wait until all is durable here, then unmount
    Unmount {
        /// The folder
        dir: Option<PathBuf>,
        /// Do not wait for uploads
        #[arg(long)]
        now: bool,
    },
    /// Drive, mount, cache, remotes; of a PATH where its files stand
    Status {
        /// A file or folder of the drive
        path: Option<PathBuf>,
        /// Say it again whenever it changes
        #[arg(long)]
        watch: bool,
    },
    /// Push and pull until this device and every reachable remote agree
    Sync(Timeout),
    /// Send what remotes lack
    Push(Timeout),
    /// Receive what remotes have
    Pull(Timeout),
    /// Where sealed bytes are kept
    #[command(subcommand)]
    Remote(Remote),
    /// Ask remotes for random slices of what they should hold
    Verify(Verify),
    /// Drop local copies of what remotes have proven
    Evict(Evict),
    /// Keep on this computer always
    Pin(Paths),
    /// Keep no longer
    Unpin(Paths),
    /// Bring now
    Fetch(Paths),
    /// List files of the drive
    Ls {
        /// Where to begin
        prefix: Option<PathBuf>,
        /// How many levels
        #[arg(long, value_name = "N")]
        depth: Option<usize>,
    },
    /// Copy files into the drive; - is standard input
    Put {
        /// The files, and last where in the drive they go
        #[arg(required = true, num_args = 2.., value_name = "FILE")]
        paths: Vec<PathBuf>,
    },
    /// Copy files out of the drive; - is standard output
    Get {
        /// The paths in the drive, and last where they go
        #[arg(required = true, num_args = 2.., value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Remove files of the drive, folders with all that is in them
    Rm(Paths),
    /// The layers a file is made of
    Layers {
        /// The file; all layers without one
        path: Option<PathBuf>,
    },
    /// The versions a file had, the latest first
    Versions {
        /// The file
        path: PathBuf,
    },
    /// Let a file hold again what it held; what it holds now stays in its history
    Restore {
        /// The file, alone for the version before the present one, or with @VERSION or @TIME
        #[arg(value_name = "PATH[@VERSION]")]
        path: PathBuf,
    },
    /// Have back what was removed
    Undelete {
        /// Where it was
        path: PathBuf,
    },
    /// Take the drive, or a folder or file of it, back to what it was
    Rewind {
        /// Only this, with everything below it
        path: Option<PathBuf>,
        /// When: 2026-11-25T18:00:00Z, 2h ago, yesterday 18:00
        #[arg(long, value_name = "TIME", value_parser = super::when::moment_ms)]
        to: u64,
    },
    /// What devices did not agree on, and settling it
    #[command(args_conflicts_with_subcommands = true)]
    Conflicts {
        #[command(subcommand)]
        resolve: Option<Resolve>,
    },
    /// The drive's signed log
    Log {
        /// Only that of a device: its number, or how its key begins
        #[arg(long, value_name = "D")]
        device: Option<String>,
    },
    /// The devices of the drive
    #[command(subcommand)]
    Device(Device),
    /// Keys
    #[command(subcommand)]
    Key(Key),
    /// Check index, journal, cache, remotes and clock
    Doctor {
        /// Mend what can be mended
        #[arg(long)]
        repair: bool,
    },
    /// Measure this machine
    Bench,
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Stretches a passphrase, in a process that gives its memory back
    #[command(hide = true, name = "__stretch")]
    Stretch,
    /// Breaks off a mount whose daemon has died
    #[command(hide = true, name = "__guard")]
    Guard {
        /// The daemon's process
        daemon: u32,
        /// The minor number of the mount's device
        minor: u32,
        /// The folder
        point: PathBuf,
    },
}

#[derive(Debug, Default, Args)]
pub(super) struct Init {
    /// What the drive is called on this device
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Keep the keys in a file that needs no passphrase
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(super) no_passphrase: bool,
    /// Write the recovery phrase into a file, mode 0600
    #[arg(long, value_name = "FILE", conflicts_with = "recover")]
    pub(super) recovery_file: Option<PathBuf>,
    /// Come back to a drive with the phrase in a file, - for standard input
    #[arg(long, value_name = "FILE", requires = "remote")]
    pub(super) recover: Option<PathBuf>,
    /// A remote that keeps that drive
    #[arg(long, value_name = "URL", requires = "recover")]
    pub(super) remote: Option<String>,
    /// Join a drive with the code that `device add` prints on another device, - for standard input
    #[arg(long, value_name = "CODE", conflicts_with_all = ["recover", "recovery_file"])]
    pub(super) join: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Mount {
    /// The folder; ~/Drive without one
    pub(super) dir: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub(super) foreground: bool,
    /// Mount options, with commas between them
    #[arg(short = 'o', value_name = "OPTS")]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Timeout {
    /// How long at most: 30s, 5m, 2h
    #[arg(long, value_name = "T", value_parser = super::places::duration_ms)]
    pub(super) timeout: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Remote {
    /// Add a remote
    Add {
        /// What to call it
        name: String,
        /// rdrive://HOST:PORT?key=…[&invite=…], - for standard input
        url: String,
    },
    /// All remotes
    List,
    /// Forget a remote; what it holds stays there
    Remove {
        /// Which
        name: String,
    },
    /// Accept a remote's new key
    Trust {
        /// Which
        name: String,
        /// The fingerprint its keeper told you
        fingerprint: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// How many challenges
    #[arg(long, value_name = "N", conflicts_with_all = ["confidence", "all"])]
    pub(super) samples: Option<u64>,
    /// How sure to be, as 99.9% or 0.999
    #[arg(long, value_name = "C", value_parser = super::places::share)]
    pub(super) confidence: Option<f64>,
    /// To have met a loss of this share, as 1% or 0.01
    #[arg(long, value_name = "F", value_parser = super::places::share)]
    pub(super) loss: Option<f64>,
    /// Everything, once
    #[arg(long)]
    pub(super) all: bool,
    /// The local cache instead of remotes
    #[arg(long, conflicts_with = "remote")]
    pub(super) local: bool,
    /// Only this remote
    #[arg(long, value_name = "NAME")]
    pub(super) remote: Option<String>,
    /// Only what lies below
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Evict {
    /// What to drop
    #[arg(required_unless_present = "free")]
    pub(super) paths: Vec<PathBuf>,
    /// Drop the oldest until so much is free: 10G, 500MiB
    #[arg(long, value_name = "SIZE", value_parser = super::places::size)]
    #[arg(conflicts_with = "paths")]
    pub(super) free: Option<u64>,
    /// Say what would be dropped and what not, and why
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Paths {
    /// Files or folders of the drive
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// All devices
    List,
    /// Let another computer in: prints a one-time code for `init --join`
    Add(DeviceAdd),
    /// Take a device out of the drive, for good
    Revoke {
        /// Its number, name, key, or the beginning of its fingerprint
        device: String,
    },
    /// Name this device
    Name {
        /// What it is called on all devices
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct DeviceAdd {
    /// The remote to meet at; the first that answers without one
    #[arg(long, value_name = "NAME")]
    pub(super) remote: Option<String>,
    /// Let whoever comes with the code in without asking
    #[arg(long)]
    pub(super) yes: bool,
    /// How long the code is good for: at most 10m, the default
    #[arg(long, value_name = "T", value_parser = super::places::duration_ms)]
    pub(super) expires: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Fingerprints; no secret
    Show,
    /// Seal the keys of this device with a new passphrase
    Passphrase {
        /// Read the new one from this file, - for standard input
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        new_passphrase_file: Option<PathBuf>,
        /// Keep the keys in a file that only you can read
        #[arg(long, conflicts_with = "new_passphrase_file")]
        no_passphrase: bool,
    },
    /// Begin an epoch: what is written from now on is sealed with a new key
    Rotate,
    /// The recovery phrase
    #[command(subcommand)]
    Recovery(Recovery),
}

#[derive(Debug, Subcommand)]
pub(super) enum Recovery {
    /// See whether the words you wrote down are this drive's
    Test {
        /// Read them from this file, - for standard input
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Resolve {
    /// Settle one: what stays, stays on every device
    Resolve {
        /// Either side of it
        path: PathBuf,
        /// What this device made, what another made, or both
        #[arg(long, value_name = "SIDE", value_parser = ["mine", "theirs", "both"])]
        keep: String,
    },
}
