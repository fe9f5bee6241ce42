//! Peers that do not keep to the protocol: other keys, other words, silence, floods.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Drive, config, eventually};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::SecretKey;
use rdrivefs_remote::node::{Config, Limits, Node};
use rdrivefs_remote::store::Store;
use rdrivefs_remote::wire::{self, Answer, Call, Fault, Reply, Request, frame, record};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt as _;

const SPKI: &str = "302a300506032b6570032100";
const PKCS8: &str = "302e020100300506032b657004220420";

/// Takes any server.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A client of the test's own making.
struct Raw {
    provider: CryptoProvider,
    alpn: &'static [u8],
    key: Option<SecretKey>,
    endpoint: Endpoint,
}

impl Raw {
    fn new() -> Self {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
        let key = Some(SecretKey::generate(&Env::real()));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { provider, alpn: wire::ALPN, key, endpoint }
    }

    async fn connect(&self, node: &Node) -> Result<Connection, quinn::ConnectionError> {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        let mut config = match &self.key {
            None => config.with_no_client_auth(),
            Some(key) => {
                let der = [&hex::decode(PKCS8).unwrap()[..], key.seed()].concat();
                let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
                let spki = [&hex::decode(SPKI).unwrap()[..], &key.public().0].concat();
                let signer = self.provider.key_provider.load_private_key(der).unwrap();
                let key = CertifiedKey::new(vec![CertificateDer::from(spki)], signer);
                let key = AlwaysResolvesClientRawPublicKeys::new(Arc::new(key));
                config.with_client_cert_resolver(Arc::new(key))
            }
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        let connection = self.endpoint.connect_with(config, node.addr(), "x").unwrap().await?;
        // In TLS 1.3 a client learns only afterwards that the server did not like its key.
        match tokio::time::timeout(Duration::from_millis(300), connection.closed()).await {
            Ok(error) => Err(error),
            Err(_) => Ok(connection),
        }
    }
}

async fn node(limits: Limits) -> (tempfile::TempDir, Node, Drive) {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let node = Node::start(Config { limits, ..config(dir.path()) }).await.unwrap();
    (dir, node, drive)
}

#[tokio::test(flavor = "multi_thread")]
async fn s36_only_the_hybrid_key_exchange_and_our_protocol_are_spoken() {
    let (_dir, node, _drive) = node(Limits::default()).await;
    Raw::new().connect(&node).await.expect("the control: what is right comes through");

    let mut classical = Raw::new();
    classical.provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    assert!(classical.connect(&node).await.is_err(), "a recording of this could be opened one day");

    let mut other = Raw::new();
    other.alpn = b"h3";
    assert!(other.connect(&node).await.is_err());

    let mut nobody = Raw::new();
    nobody.key = None;
    assert!(nobody.connect(&node).await.is_err(), "a client must prove a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn s42_lies_in_a_hello_are_answered_or_cut_never_believed() {
    let (_dir, node, drive) = node(Limits::default()).await;
    let mut noise: Vec<Vec<u8>> = [0u32, 4097, 1 << 31, u32::MAX]
        .iter()
        .map(|len| [&len.to_le_bytes()[..], &[0xff; 64]].concat())
        .collect();
    noise.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    for bytes in noise {
        let connection = Raw::new().connect(&node).await.unwrap();
        let (mut to, mut from) = connection.open_bi().await.unwrap();
        to.write_all(&bytes).await.unwrap();
        to.shutdown().await.unwrap();
        let reply: Reply = frame::read_head(&mut from, "reply").await.unwrap();
        assert!(matches!(reply.answer, Answer::Failed(Fault::Malformed(_))), "{reply:?}");
    }
    // A certificate of 2⁶³ bytes, and one larger than may be.
    for body in [1 << 63, wire::MEMBERSHIP_BYTES_MAX + 1] {
        let connection = Raw::new().connect(&node).await.unwrap();
        let fault = say(&connection, &Request { call: hello(&drive, vec![1]), body }).await;
        assert!(matches!(fault, Fault::Malformed(_)), "{fault:?}");
    }
    // Versions we do not speak, and another question before the hello.
    let connection = Raw::new().connect(&node).await.unwrap();
    let fault = say(&connection, &Request { call: hello(&drive, vec![2, 9]), body: 0 }).await;
    assert_eq!(fault, Fault::UnknownVersion(1));
    let connection = Raw::new().connect(&node).await.unwrap();
    let fault = say(&connection, &Request { call: Call::Space, body: 0 }).await;
    assert!(matches!(fault, Fault::Malformed(_)), "{fault:?}");
    assert!(drive.link(&node.url(), &drive.root).await.is_ok(), "the node is well");
}

fn hello(drive: &Drive, versions: Vec<u16>) -> Call {
    Call::Hello { versions, drive: drive.id(), root: drive.root.public(), invite: None }
}

async fn say(connection: &Connection, request: &Request) -> Fault {
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    frame::send(&mut to, request, &[]).await.unwrap();
    to.shutdown().await.unwrap();
    let reply: Reply = frame::read_head(&mut from, "reply").await.unwrap();
    let Answer::Failed(fault) = reply.answer else { panic!("{reply:?}") };
    fault
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_idle_handshakes_lock_nobody_out() {
    let limits = Limits { pending: 40, hello_ms: 3_000, ..Limits::default() };
    let (_dir, node, drive) = node(limits).await;
    let mut idle = tokio::task::JoinSet::new();
    let node = Arc::new(node);
    for _ in 0..160 {
        let node = node.clone();
        idle.spawn(async move {
            let raw = Raw::new();
            // Whoever comes after too many others pushes the oldest out.
            let connection = raw.connect(&node).await;
            (raw, connection)
        });
    }
    let mut open: Vec<_> = Vec::new();
    while let Some(done) = idle.join_next().await {
        open.push(done.unwrap());
    }
    let env = Env::real();
    let began = env.instant();
    let link = drive.link(&node.url(), &drive.root).await.expect("an honest client comes in");
    assert!(env.instant().since(began) < Duration::from_secs(1));
    link.space().await.unwrap();
    let lingering = || {
        let alive = |c: &Result<Connection, _>| matches!(c, Ok(c) if c.close_reason().is_none());
        open.iter().filter(|(_, connection)| alive(connection)).count()
    };
    assert!(lingering() <= 40, "{} idle connections", lingering());
    eventually(Duration::from_secs(6), async || lingering() == 0).await;
    link.space().await.expect("who said hello stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_streams_that_say_nothing_end() {
    let limits = Limits { hello_ms: 500, ..Limits::default() };
    let (_dir, node, drive) = node(limits).await;
    let mut raw = Raw::new();
    raw.key = Some(drive.root.clone());
    let connection = raw.connect(&node).await.unwrap();
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    frame::send(&mut to, &Request { call: hello(&drive, vec![1]), body: 0 }, &[]).await.unwrap();
    to.shutdown().await.unwrap();
    let reply: Reply = frame::read_head(&mut from, "reply").await.unwrap();
    assert_eq!(reply.answer, Answer::Welcome { version: 1 });
    let mut drips = Vec::new();
    for _ in 0..100 {
        let (mut to, from) = connection.open_bi().await.unwrap();
        to.write_all(&[40]).await.unwrap();
        drips.push((to, from));
    }
    for (_to, mut from) in drips {
        let end = tokio::time::timeout(Duration::from_secs(3), from.read_to_end(100)).await;
        assert!(end.expect("the node lets go").is_ok_and(|bytes| bytes.is_empty()));
    }
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    frame::send(&mut to, &Request { call: Call::Space, body: 0 }, &[]).await.unwrap();
    to.shutdown().await.unwrap();
    let reply: Reply = frame::read_head(&mut from, "reply").await.unwrap();
    assert!(matches!(reply.answer, Answer::Space { .. }), "the connection goes on");
    // A second hello is refused.
    let fault = say(&connection, &Request { call: hello(&drive, vec![1]), body: 0 }).await;
    assert!(matches!(fault, Fault::Malformed(_)));
}

/// A connection that was welcomed.
async fn welcomed(node: &Node, drive: &Drive) -> (Raw, Connection) {
    let mut raw = Raw::new();
    raw.key = Some(drive.root.clone());
    let connection = raw.connect(node).await.unwrap();
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    frame::send(&mut to, &Request { call: hello(drive, vec![1]), body: 0 }, &[]).await.unwrap();
    to.shutdown().await.unwrap();
    let reply: Reply = frame::read_head(&mut from, "reply").await.unwrap();
    assert_eq!(reply.answer, Answer::Welcome { version: 1 });
    (raw, connection)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_fill_no_more_memory_than_is_set_aside() {
    let (_dir, node, drive) = node(Limits::default()).await;
    let (_raw, connection) = welcomed(&node, &drive).await;
    const LEN: usize = rdrivefs_remote::entry::ENTRY_BYTES_MAX;
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (mut to, from) = connection.open_bi().await.unwrap();
        let request = Request { call: Call::Append, body: LEN as u64 };
        sending.spawn(async move {
            frame::send(&mut to, &request, &vec![0; LEN - 1]).await.unwrap();
            (to, from)
        });
    }
    let mut taken = Vec::new();
    let all = async {
        while let Some(done) = sending.join_next().await {
            taken.push(done.unwrap());
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), all).await;
    assert!(taken.len() <= 4, "the node took {} bodies", taken.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_denied_during_a_hello_stays_out() {
    let (dir, node, mut drive) = node(Limits::default()).await;
    let device = drive.add_device();
    let shown = record::write_entries(&drive.credentials(&device).membership);
    let mut raw = Raw::new();
    raw.key = Some(device);
    let connection = raw.connect(&node).await.unwrap();
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    let request = Request { call: hello(&drive, vec![1]), body: shown.len() as u64 };
    frame::send(&mut to, &request, &shown[..shown.len() - 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drive.deny(dir.path());
    tokio::time::sleep(Duration::from_millis(500)).await;
    to.write_all(&shown[shown.len() - 1..]).await.unwrap();
    to.shutdown().await.unwrap();
    let reply: Reply = frame::read_head(&mut from, "reply").await.expect("an answer, no panic");
    assert!(matches!(reply.answer, Answer::Failed(Fault::Refused(_))), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_hellos_without_a_body_keep_no_one_else_waiting() {
    let (dir, node, drive) = node(Limits::default()).await;
    let other = Drive::new();
    other.allow(dir.path(), "");
    eventually(Duration::from_secs(5), async || other.link(&node.url(), &other.root).await.is_ok())
        .await;
    let (node, drive) = (Arc::new(node), Arc::new(drive));
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (node, drive) = (node.clone(), drive.clone());
        floods.spawn(async move {
            let raw = Raw::new();
            let connection = raw.connect(&node).await.unwrap();
            let (mut to, from) = connection.open_bi().await.unwrap();
            let request = Request { call: hello(&drive, vec![1]), body: 1 << 20 };
            frame::send(&mut to, &request, &[]).await.unwrap();
            (raw, connection, to, from)
        });
    }
    let held = floods.join_all().await;
    let env = Env::real();
    for honest in [&other, &*drive] {
        let began = env.instant();
        honest.link(&node.url(), &honest.root).await.unwrap();
        let took = env.instant().since(began);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    drop(held);
}
