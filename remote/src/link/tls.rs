//! TLS 1.3 with raw public keys (RFC 7250) on both sides, and nothing else.
//!
//! The key exchange is X25519MLKEM768 alone, so that what is recorded today stays closed; the only
//! signatures are ed25519. There is no X.509, no name check, no 0-RTT and no resumption: a
//! connection proves both keys afresh or does not come about. The client pins the node's key; the
//! node takes any client key here and asks the membership log afterwards.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme, version,
};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::identity::{PublicKey, SecretKey};
use crate::wire::ALPN;

/// What an ed25519 `SubjectPublicKeyInfo` begins with (RFC 8410); the key follows.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
/// What an ed25519 PKCS #8 key begins with (RFC 8410); the seed follows.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// The key a client expects, and the one it was shown.
#[derive(Debug)]
pub(super) struct Pin {
    pinned: PublicKey,
    shown: Mutex<Option<PublicKey>>,
    provider: Arc<CryptoProvider>,
}

/// Takes any client that proves an ed25519 key.
#[derive(Debug)]
struct AnyDevice {
    provider: Arc<CryptoProvider>,
}

/// The client's side, which accepts `pinned` and no other node.
pub(super) fn client(
    secret: &SecretKey,
    pinned: PublicKey,
) -> Result<(QuicClientConfig, Arc<Pin>)> {
    let provider = provider();
    let pin = Arc::new(Pin { pinned, shown: Mutex::new(None), provider: provider.clone() });
    let key = certified(secret, &provider)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(pin.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    Ok((QuicClientConfig::try_from(config).map_err(setup)?, pin))
}

/// The node's side.
pub(crate) fn server(secret: &SecretKey) -> Result<QuicServerConfig> {
    let provider = provider();
    let key = certified(secret, &provider)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(Arc::new(AnyDevice { provider }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(setup)
}

/// The key the other side of an established connection has proven.
pub(crate) fn peer(connection: &quinn::Connection) -> Result<PublicKey> {
    let shown =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer>>().ok());
    match shown.as_deref().map(Vec::as_slice) {
        Some([only]) => key_of(only).ok_or(Error::Forged("not an ed25519 raw public key")),
        _ => Err(Error::Forged("no raw public key was shown")),
    }
}

impl Pin {
    /// The key the node showed, if it came to that.
    pub(super) fn shown(&self) -> Option<PublicKey> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key the node showed, where it is not the pinned one.
    pub(super) fn mismatch(&self) -> Option<Error> {
        let shown = self.shown()?;
        (shown != self.pinned).then(|| Error::NodeKeyChanged {
            pinned: self.pinned.fingerprint(),
            shown: shown.fingerprint(),
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    // The fastest first: bulk is bound by this cipher and all three are beyond attack.
    provider.cipher_suites.sort_by_key(|s| s.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn certified(secret: &SecretKey, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let pkcs8 = Zeroizing::new([&PKCS8_PREFIX[..], secret.seed()].concat());
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&pkcs8[..]));
    let key = provider.key_provider.load_private_key(der.clone_key()).map_err(setup)?;
    let spki = [&SPKI_PREFIX[..], &secret.public().0].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key)))
}

fn key_of(spki: &CertificateDer<'_>) -> Option<PublicKey> {
    let key = spki.as_ref().strip_prefix(&SPKI_PREFIX[..])?;
    key.try_into().ok().map(PublicKey)
}

fn setup(error: impl std::fmt::Display) -> Error {
    Error::Io {
        what: "setting up TLS".to_owned(),
        source: std::io::Error::other(error.to_string()),
    }
}

/// A refusal that says no more than that the key is not the right one.
fn wrong_key(why: &'static str) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(
        Error::Forged(why),
    ))))
}

fn signature(
    provider: &CryptoProvider,
    message: &[u8],
    spki: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(wrong_key("not signed with ed25519"));
    }
    let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &spki, signed, algorithms)
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = key_of(end_entity).filter(|_| intermediates.is_empty());
        let key = key.ok_or_else(|| wrong_key("not an ed25519 raw public key"))?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        if key != self.pinned {
            return Err(wrong_key("not the pinned key"));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(wrong_key("TLS 1.2 is not spoken here"))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature(&self.provider, message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match key_of(end_entity) {
            Some(_) if intermediates.is_empty() => Ok(ClientCertVerified::assertion()),
            _ => Err(wrong_key("not an ed25519 raw public key")),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(wrong_key("TLS 1.2 is not spoken here"))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature(&self.provider, message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
