//! QUIC endpoints with every limit spelled out, for links and nodes alike.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::env::Env;
use crate::error::{Error, Result};

/// Concurrent exchanges of one connection: quinn allocates slots for them ahead, so it stays low.
pub(crate) const STREAMS_MAX: u32 = 128;
/// Bytes a peer may send on one stream ahead of the reader: 100 MB/s at 20 ms of round trip.
pub(crate) const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes a peer may send on one connection ahead of the readers.
pub(crate) const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes we keep for sending again until they are acknowledged.
const SEND_WINDOW: u64 = 8 << 20;
/// A peer that is silent for so long is gone.
const IDLE: Duration = Duration::from_secs(10);
/// How often a quiet link says that it lives: three chances within [`IDLE`].
const KEEPALIVE: Duration = Duration::from_secs(3);
/// Asked from the kernel for each socket, lest a burst on a fast network overruns it.
const SOCKET_BUFFER: usize = 4 << 20;
/// The largest packet looked for: an Ethernet frame less headers.
const MTU_MAX: u16 = 1452;
/// Connection ids are random and of this length; a stranger cannot guess one.
const CID_BYTES: usize = 8;

/// Limits for either side: streams the peer may open, bytes it may send ahead of us.
pub(crate) fn transport(
    peer_streams_max: u32,
    window: u32,
    stream_window: u32,
) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(peer_streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(stream_window))
        .receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("ten seconds fit")))
        .keep_alive_interval(Some(KEEPALIVE))
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(None)
        .allow_spin(false)
        .enable_segmentation_offload(true);
    Arc::new(config)
}

/// An endpoint bound to `local`; `reset_key` lets a restarted node tell its old peers at once.
pub(crate) fn endpoint(
    local: SocketAddr,
    server: Option<quinn::ServerConfig>,
    reset_key: [u8; 32],
    env: &Env,
) -> Result<Endpoint> {
    let what = || format!("binding UDP {local}");
    let socket = socket(local).map_err(Error::io(what()))?;
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
    let cid_env = env.clone();
    config.cid_generator(move || Box::new(RandomIds(cid_env.clone())));
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(config, server, socket, runtime).map_err(Error::io(what()))
}

fn socket(local: SocketAddr) -> std::io::Result<UdpSocket> {
    let family = match local.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if local.is_ipv6() {
        // One socket for both worlds, where the system allows it.
        let _ = sockopt::set_ipv6_v6only(&socket, false);
    }
    // The forced form passes the system's ceiling but needs a privilege; the other takes what it gets.
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    }
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    rustix::net::bind(&socket, &local)?;
    Ok(UdpSocket::from(socket))
}

/// Stateless resets are keyed hashes of connection ids.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature = signature.try_into().map_err(|_| CryptoError)?;
        // Comparing two `Hash`es takes constant time.
        let same = blake3::keyed_hash(&self.0, data) == blake3::Hash::from_bytes(signature);
        if same { Ok(()) } else { Err(CryptoError) }
    }
}

/// Ids that say nothing, so that packets for a connection of a process before this one are
/// answered with a stateless reset instead of silence.
struct RandomIds(Env);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.random::<CID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
