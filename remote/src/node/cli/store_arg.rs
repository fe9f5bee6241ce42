//! Which store directory a command is about.

use std::path::PathBuf;

use crate::node::cli::explain::Failure;
use crate::node::place::Place;

/// Where the node keeps everything.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArg {
    /// The store directory [default: /var/lib/rdrivefs-node, or ~/.local/share/rdrivefs-node]
    #[arg(long, env = "RDRIVEFS_NODE_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreArg {
    /// The directory that is meant.
    pub(super) fn dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.store {
            return Ok(dir.clone());
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/rdrivefs-node"));
        }
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        match data.filter(|dir| dir.is_absolute()).or_else(home) {
            Some(dir) => Ok(dir.join("rdrivefs-node")),
            None => Err(Failure::new(2, "no store directory", Some("name one with --store DIR"))),
        }
    }

    /// The directory, made if it is not there.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        Ok(Place::open(self.dir()?)?)
    }
}
