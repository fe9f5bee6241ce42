//! Status: what a node says about itself, to whoever may open its socket.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::env::Instant;
use crate::error::Result;
use crate::node::keeper::Keeper;

/// A node as of now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it runs; if not, only the spaces are known.
    pub running: bool,
    /// What clients are told.
    pub url: String,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// The authorised drives.
    pub spaces: Vec<SpaceStatus>,
    /// The open connections.
    pub connections: Vec<ConnectionStatus>,
    /// Requests since the start, by kind.
    pub requests: BTreeMap<String, u64>,
    /// Failed requests since the start, by kind.
    pub failures: BTreeMap<String, u64>,
    /// Connections refused since the start.
    pub refused: u64,
    /// Bytes of blobs and entries that came in since the start.
    pub bytes_in: u64,
    /// Bytes of slices and entries that went out since the start.
    pub bytes_out: u64,
}

/// One drive's space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceStatus {
    /// The drive's id.
    pub drive: String,
    /// Its root key.
    pub key: String,
    /// Blobs stored.
    pub blobs: u64,
    /// Bytes stored, proofs and logs included.
    pub used_bytes: u64,
    /// Bytes reserved for puts under way.
    pub reserved_bytes: u64,
    /// Bytes allowed, if there is a limit.
    pub quota_bytes: Option<u64>,
    /// Devices of the drive that are not revoked.
    pub devices: u64,
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// The device's key.
    pub device: String,
    /// Its drive.
    pub drive: String,
    /// Where it comes from.
    pub address: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// What it asked so far.
    pub requests: u64,
}

/// Answers on the store's socket; a store whose path is too long for one does without.
pub(super) fn start(keeper: Arc<Keeper>, url: String) -> Option<JoinHandle<()>> {
    let path = keeper.place.socket();
    let _ = std::fs::remove_file(&path);
    let bound = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => Some(tokio::spawn(serve(listener, keeper, url))),
        Err(error) => {
            tracing::warn!(%error, "no status socket: `status` will not show connections");
            None
        }
    }
}

async fn serve(listener: UnixListener, keeper: Arc<Keeper>, url: String) {
    let began = keeper.config.env.instant();
    while let Ok((mut stream, _)) = listener.accept().await {
        match status(&keeper, &url, began).await {
            Ok(status) => {
                let text = serde_json::to_vec(&status).expect("a status is plain data");
                let _ = stream.write_all(&text).await;
            }
            Err(error) => tracing::error!(%error, "no status"),
        }
    }
}

async fn status(keeper: &Keeper, url: &str, began: Instant) -> Result<Status> {
    let mut spaces = Vec::new();
    for space in keeper.spaces() {
        let used = space.used().await?;
        let membership = space.membership().await;
        let active = membership.members().iter().filter(|member| member.revoked.is_none());
        spaces.push(SpaceStatus {
            drive: space.drive().to_string(),
            key: space.root().to_string(),
            blobs: used.blobs,
            used_bytes: used.used,
            reserved_bytes: space.reserved(),
            quota_bytes: used.quota,
            devices: active.count() as u64,
        });
    }
    let connections = keeper.sessions.all();
    let mut connections: Vec<_> = connections
        .iter()
        .map(|session| ConnectionStatus {
            device: session.device.to_string(),
            drive: session.space.drive().to_string(),
            address: session.address.to_string(),
            since_ms: session.since.0,
            requests: session.requests.load(Ordering::Relaxed),
        })
        .collect();
    connections.sort_by_key(|c| c.since_ms);
    let uptime = keeper.config.env.instant().since(began);
    let named = |counts: BTreeMap<&'static str, u64>| {
        counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    };
    let metrics = &keeper.metrics;
    Ok(Status {
        running: true,
        url: url.to_owned(),
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        spaces,
        connections,
        requests: named(metrics.requests()),
        failures: named(metrics.failures()),
        refused: metrics.turned_away.load(Ordering::Relaxed),
        bytes_in: metrics.bytes_in.load(Ordering::Relaxed),
        bytes_out: metrics.bytes_out.load(Ordering::Relaxed),
    })
}
