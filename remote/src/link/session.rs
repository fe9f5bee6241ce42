//! A session: one live connection to a node, from the dial to the welcome.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, Endpoint, VarInt};
use tokio::task::JoinSet;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::{PublicKey, SecretKey};
use crate::link::credentials::Credentials;
use crate::link::quic;
use crate::link::tls::{self, Pin};
use crate::link::url::{self, NodeUrl};
use crate::store::Body;
use crate::wire::{Answer, Call, Fault, VERSION, close, frame, record, reset};

/// How long a node may take to answer a dial, hello included.
const DIAL: Duration = Duration::from_secs(5);
/// How long a dial has for itself before the next address is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// TLS wants a name although a raw key has none; it is never sent.
const NO_NAME: &str = "rdrivefs";
/// The number TLS gives "no application protocol" (RFC 8446), as QUIC carries it (RFC 9001).
const NO_ALPN: u64 = 0x100 + 120;
/// All that TLS can complain about, as QUIC carries it.
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

const CORRUPT: u64 = reset::CORRUPT as u64;
const FAILED: u64 = reset::FAILED as u64;

/// A connection that was welcomed.
pub(super) struct Session {
    endpoint: Endpoint,
    pub(super) connection: quinn::Connection,
}

impl Session {
    /// Dials every address of the node's name, each a little after the one before, until one
    /// answers, and says hello: nobody says of an address that it is dead.
    pub(super) async fn open(url: &NodeUrl, who: &Credentials, env: &Env) -> Result<Self> {
        Self::reach(url, &who.device, Some(who), env).await
    }

    /// The same for somebody who says something else than hello.
    pub(super) async fn reach(
        url: &NodeUrl,
        device: &SecretKey,
        hello: Option<&Credentials>,
        env: &Env,
    ) -> Result<Self> {
        let dialled = tokio::time::timeout(DIAL, async {
            let found = lookup(url).await?.into_iter();
            let mut dials = JoinSet::new();
            for (wait, address) in (0..).map(|nth| nth * STAGGER).zip(found.take(ADDRESSES_MAX)) {
                let (url, env) = (url.clone(), env.clone());
                let (device, hello) = (device.clone(), hello.cloned());
                dials.spawn(async move {
                    tokio::time::sleep(wait).await;
                    Self::dial(address, &url, &device, hello.as_ref(), &env).await
                });
            }
            let mut last = Error::Unreachable(format!("{} has no address", url.host));
            while let Some(done) = dials.join_next().await {
                match done.expect("dialling does not panic") {
                    Err(error @ Error::Unreachable(_)) => last = error,
                    done => return done,
                }
            }
            Err(last)
        });
        dialled.await.unwrap_or_else(|_| Err(silent(url)))
    }

    async fn dial(
        to: SocketAddr,
        url: &NodeUrl,
        device: &SecretKey,
        hello: Option<&Credentials>,
        env: &Env,
    ) -> Result<Self> {
        let (endpoint, connecting, pin) = connect(to, url, device, env)?;
        let connection = connecting.await.map_err(|e| refusal(&e, &pin))?;
        let session = Self { endpoint, connection };
        if let Some(who) = hello {
            session.hello(url, who).await?;
        }
        Ok(session)
    }

    /// The key a node shows while a connection is tried that comes about only if it is the URL's.
    pub(super) async fn shown_key(
        url: &NodeUrl,
        who: &Credentials,
        env: &Env,
    ) -> Result<PublicKey> {
        let asked = tokio::time::timeout(DIAL, async {
            let mut last = Error::Unreachable(format!("{} has no address", url.host));
            for to in lookup(url).await? {
                let (_endpoint, connecting, pin) = connect(to, url, &who.device, env)?;
                match connecting.await {
                    Ok(_) => return Ok(url.key),
                    Err(e) => match pin.shown() {
                        Some(key) => return Ok(key),
                        None => last = refusal(&e, &pin),
                    },
                }
            }
            Err(last)
        });
        asked.await.unwrap_or_else(|_| Err(silent(url)))
    }

    async fn hello(&self, url: &NodeUrl, who: &Credentials) -> Result<()> {
        let invite = who.invite.as_ref().or(url.invite.as_ref());
        let call = Call::Hello {
            versions: vec![VERSION],
            drive: who.drive,
            root: who.root,
            invite: invite.map(|text| url::parse_invite(text)).transpose()?,
        };
        let entries = record::write_entries(&who.membership);
        match self.exchange(call, Body::bytes(entries.into())).await?.0 {
            Answer::Welcome { version: VERSION } => Ok(()),
            Answer::Welcome { version } => {
                Err(Error::UnknownVersion { what: "the node", version: version.into() })
            }
            _ => Err(Error::malformed("reply", "no welcome")),
        }
    }

    /// One request and its reply on a stream of its own.
    pub(super) async fn exchange(&self, call: Call, body: Body) -> Result<(Answer, Bytes)> {
        let (to, mut from) = self.connection.open_bi().await.map_err(|e| lost(&e))?;
        let place = match call {
            Call::Get { id, start, .. } => Some((id, start)),
            _ => None,
        };
        let asked = frame::ask(&mut from, to, call, body).await;
        let Err(Error::Unreachable(_)) = asked else { return asked };
        // A reply that the node broke off with a reason is no broken link.
        let cut = tokio::time::timeout(Duration::ZERO, from.received_reset()).await;
        match (cut.ok().and_then(Result::ok).flatten().map(u64::from), place, asked) {
            (Some(CORRUPT), Some((id, offset)), _) => Err(Error::Corrupt { id, offset }),
            (Some(FAILED), ..) => Err(Fault::Failed("the node failed".to_owned()).into()),
            // What ended the connection tells more than what broke the stream.
            (_, _, Err(Error::Unreachable(why))) => {
                Err(self.connection.close_reason().map_or(Error::Unreachable(why), |e| lost(&e)))
            }
            (_, _, other) => other,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Says goodbye and waits, for a moment, until it was said.
    pub(super) async fn close(&self) {
        self.connection.close(VarInt::from_u32(close::DONE), b"");
        let _ = tokio::time::timeout(Duration::from_millis(200), self.endpoint.wait_idle()).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(close::DONE), b"");
    }
}

async fn lookup(url: &NodeUrl) -> Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    Ok(found.map_err(|e| Error::Unreachable(format!("{}: {e}", url.host)))?.collect())
}

fn silent(url: &NodeUrl) -> Error {
    Error::Unreachable(format!("{}:{} did not answer", url.host, url.port))
}

/// Begins a connection that comes about only with the URL's key.
fn connect(
    to: SocketAddr,
    url: &NodeUrl,
    device: &SecretKey,
    env: &Env,
) -> Result<(Endpoint, quinn::Connecting, Arc<Pin>)> {
    let local: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = quic::endpoint(SocketAddr::new(local, 0), None, env.random(), env)?;
    let (crypto, pin) = tls::client(device, url.key)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    // A node opens no streams.
    config.transport_config(quic::transport(0, quic::CONNECTION_WINDOW, quic::STREAM_WINDOW));
    let connecting = endpoint
        .connect_with(config, to, NO_NAME)
        .map_err(|e| Error::Unreachable(format!("{to}: {e}")))?;
    Ok((endpoint, connecting, pin))
}

/// Why a handshake failed.
fn refusal(error: &ConnectionError, pin: &Pin) -> Error {
    if let Some(changed) = pin.mismatch() {
        return changed;
    }
    match error {
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_ALPN => {
            Error::UnknownVersion { what: "the node's protocol", version: 0 }
        }
        ConnectionError::TransportError(e) if TLS_ALERTS.contains(&e.code.into()) => {
            Error::Forged("the node did not prove a raw public key")
        }
        other => lost(other),
    }
}

/// Why a connection ended.
fn lost(error: &ConnectionError) -> Error {
    if let ConnectionError::ApplicationClosed(close) = error {
        let why = String::from_utf8_lossy(&close.reason).into_owned();
        return match u32::try_from(u64::from(close.error_code)) {
            Ok(close::REFUSED) => Error::Refused(why),
            Ok(close::BUSY) => Error::Busy { retry_ms: 1000 },
            Ok(close::STOPPING) => Error::Unreachable("the node is stopping".to_owned()),
            _ => Error::Unreachable(format!("the node hung up: {why}")),
        };
    }
    Error::Unreachable(error.to_string())
}
