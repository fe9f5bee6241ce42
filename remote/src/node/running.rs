//! A running node: started, asked about itself, and stopped without losing what it was told.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use quinn::{Endpoint, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::link::{NodeUrl, quic, tls};
use crate::node::allow::Allow;
use crate::node::config::Config;
use crate::node::keeper::Keeper;
use crate::node::place::{Lock, Place};
use crate::node::{http, listen, session, status};
use crate::wire::close;

/// Authorisations are read again this often even if the kernel says nothing (network disks).
const RELOAD: Duration = Duration::from_secs(2);
/// What changes at a time is read at a time, and no burst of changes keeps us busy.
const SETTLE: Duration = Duration::from_millis(50);
/// Separates the key of stateless resets from every other use of the node's seed.
const RESET_CONTEXT: &str = "rdrivefs v1 stateless reset";

/// A node at work. Dropping it without [`Node::shutdown`] ends it at once, as a crash would.
pub struct Node {
    keeper: Arc<Keeper>,
    endpoint: Endpoint,
    addr: SocketAddr,
    http: Option<SocketAddr>,
    accepting: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    _lock: Lock,
}

impl Node {
    /// Starts a node; when this returns it answers. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// [`Error::Io`] with `ResourceBusy` when another node has the store, with `AddrInUse` when
    /// another program has the port; [`Error::UnknownVersion`] for a store of another version.
    pub async fn start(config: Config) -> Result<Self> {
        let place = Place::open(&config.store)?;
        let lock = place.lock()?;
        let key = place.key(&config.env)?;
        let allow = Allow::open(&place)?;
        let keeper = Keeper::new(config, key.public(), place, allow);
        for (root, grant) in keeper.allow.all() {
            // One drive that is damaged must not take the node from all others; its devices are
            // told at hello.
            if let Err(error) = keeper.space(&root, grant.quota).await {
                let drive = DriveId::of(&root);
                tracing::error!(%drive, %error, "a drive does not open and is not served");
            }
        }
        keeper.invites.sweep(keeper.config.env.wall_ms())?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::server(&key)?));
        server.transport_config(quic::transport(1, listen::GATE_WINDOW, session::STREAM_WINDOW));
        let reset = blake3::derive_key(RESET_CONTEXT, key.seed());
        let env = &keeper.config.env;
        let endpoint = quic::endpoint(keeper.config.listen, Some(server), reset, env)?;
        let addr = endpoint.local_addr().map_err(Error::io("asking for the port"))?;
        let (http, web) = match keeper.config.http {
            Some(at) => http::start(at, keeper.clone()).await.map(|(a, t)| (Some(a), Some(t)))?,
            None => (None, None),
        };
        let accepting = tokio::spawn(listen::run(endpoint.clone(), keeper.clone()));
        let mut helpers = vec![tokio::spawn(reload(keeper.clone()))];
        helpers.extend(web);
        let mut node = Self { keeper, endpoint, addr, http, accepting, helpers, _lock: lock };
        let url = node.url().to_string();
        node.leave_url(&url)?;
        node.helpers.extend(status::start(node.keeper.clone(), url));
        Ok(node)
    }

    /// The address listened on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the metrics, if there is one.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The node's key.
    pub fn key(&self) -> PublicKey {
        self.keeper.key
    }

    /// What clients are told; where the node listens everywhere and nothing else was advertised,
    /// it names the loopback.
    pub fn url(&self) -> NodeUrl {
        let host = match (&self.keeper.config.advertise, self.addr.ip()) {
            (Some(name), _) => name.clone(),
            (None, IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => {
                Ipv4Addr::LOCALHOST.to_string()
            }
            (None, ip) => ip.to_string(),
        };
        NodeUrl { host, port: self.addr.port(), key: self.keeper.key, invite: None }
    }

    /// Leaves the URL where other commands look for it. Without room for that nothing stands there: a
    /// full disk is no reason not to serve what is on it.
    fn leave_url(&self, url: &str) -> Result<()> {
        let place = &self.keeper.place;
        if place.url().as_deref() == Some(url) {
            return Ok(());
        }
        match place.write("listen", format!("{url}\n").as_bytes()) {
            Err(Error::Io { what, source }) if source.kind() == ErrorKind::StorageFull => {
                tracing::warn!(what, "the disk is full: new blobs are refused, the rest is served");
                place.remove("listen").map(drop)
            }
            written => written,
        }
    }

    /// Takes no more requests, finishes those under way within the drain time, and ends.
    pub async fn shutdown(mut self) {
        self.keeper.stopping.send_replace(true);
        let drain = Duration::from_millis(self.keeper.config.limits.drain_ms);
        if tokio::time::timeout(drain, &mut self.accepting).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        self.endpoint.close(VarInt::from_u32(close::STOPPING), b"the node is stopping");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(close::STOPPING), b"the node is stopping");
        self.accepting.abort();
        for helper in &self.helpers {
            helper.abort();
        }
        let _ = std::fs::remove_file(self.keeper.place.socket());
    }
}

/// Reads authorisations again when their directory changes.
async fn reload(keeper: Arc<Keeper>) {
    let (changed, mut changes) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too, and would have us read for ever.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // One waiting notice is enough for any number of changes.
            let _ = changed.try_send(());
        }
    });
    let watching = watcher.and_then(|mut watcher| {
        watcher.watch(&keeper.place.authorized(), RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watching {
        tracing::warn!(%error, "cannot watch authorized_keys: reading it every two seconds");
    }
    loop {
        // A watcher that failed has dropped its sender; then only the clock remains.
        let told = async {
            if changes.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(RELOAD, told).await;
        tokio::time::sleep(SETTLE).await;
        match keeper.allow.reload() {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => {
                for session in keeper.sessions.all() {
                    if gone.contains(&session.space.drive()) {
                        session.close(close::REFUSED, "the drive is no longer authorised");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "authorisations could not be read"),
        }
        for space in keeper.spaces() {
            if let Some(grant) = keeper.allow.get(&space.root()) {
                space.set_quota(grant.quota.or(keeper.config.quota));
            }
        }
    }
}
