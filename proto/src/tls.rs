//! TLS between two identities: version 1.3, X25519, ChaCha20-Poly1305, Ed25519, raw public keys (RFC 7250).
//!
//! There are no certificates, so there is no authority, no name and no date: a router's clock says 1970 when it boots.
//! A key identifies a side, and the other side either has the fingerprint of that key or ends the handshake.
//!
//! **Invariants:** neither side trusts a key on first use, and no peer can negotiate a weaker version or suite.

use std::fmt;
use std::sync::Arc;

use ring::error::Unspecified;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring as provider;
use rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256 as RINGS_SUITE;
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    PeerMisbehaved, ServerConfig, SignatureScheme, SupportedCipherSuite,
};

use crate::identity::{Fingerprint, Identity, public_key};

/// The application protocol of the connection (RFC 7301): HTTP/2, as gRPC demands.
const ALPN: &[u8] = b"h2";

/// Decides which controllers may use the agent. TLS calls it once for each handshake, so that a change takes effect at
/// once.
pub trait Authorized: Send + Sync + fmt::Debug {
    /// True if the controller with this fingerprint may connect.
    fn is_authorized(&self, fingerprint: &Fingerprint) -> bool;
}

/// Provides the identity that a server proves. TLS calls it once for each handshake, so that a change takes effect at
/// once.
pub trait CurrentIdentity: Send + Sync + fmt::Debug {
    /// The identity for the next handshake.
    fn current(&self) -> Identity;
}

/// An identity that never changes.
impl CurrentIdentity for Identity {
    fn current(&self) -> Identity {
        self.clone()
    }
}

/// The agent's side: proves `identity`, and accepts the controllers that are `authorized`. `suite` is an implementation
/// of TLS13_CHACHA20_POLY1305_SHA256.
///
/// # Errors
/// The cipher suite is not one of TLS 1.3.
pub fn server_config(
    identity: &Identity,
    authorized: Arc<dyn Authorized>,
    suite: SupportedCipherSuite,
) -> Result<ServerConfig, Error> {
    server_config_with(Arc::new(identity.clone()), authorized, suite)
}

/// The agent's side with an identity that may change while it serves.
///
/// # Errors
/// The cipher suite is not one of TLS 1.3.
pub fn server_config_with(
    identity: Arc<dyn CurrentIdentity>,
    authorized: Arc<dyn Authorized>,
    suite: SupportedCipherSuite,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto_provider(suite)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AuthorizedControllers(authorized)))
        .with_cert_resolver(Arc::new(CurrentKey(identity)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would skip the check that the controller is still authorized.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The keys of an agent: one, or the old and the new one during a key rotation.
#[derive(Clone, Debug)]
pub struct Pinned(Vec<Fingerprint>);

impl From<Fingerprint> for Pinned {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(vec![fingerprint])
    }
}

impl From<Vec<Fingerprint>> for Pinned {
    fn from(fingerprints: Vec<Fingerprint>) -> Self {
        Self(fingerprints)
    }
}

/// The controller's side: proves `identity`, and accepts only an agent that proves a `pinned` key.
///
/// # Errors
/// The cipher suite is not one of TLS 1.3.
pub fn client_config(identity: &Identity, pinned: impl Into<Pinned>) -> Result<ClientConfig, Error> {
    let provider = crypto_provider(RINGS_SUITE);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAgent(pinned.into())))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A TLS client must name its server; a pinned key needs no name. This one is reserved (RFC 6761, section 6.4).
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("hop.invalid").unwrap_or_else(|_| unreachable!("a valid DNS name"))
}

/// One suite, one group, one signature. `ring::default_provider()` would link RSA and the NIST curves, about 100 kB.
fn crypto_provider(suite: SupportedCipherSuite) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![provider::kx_group::X25519],
        // Only certificates would need these.
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &SystemRandom,
        key_provider: &NoKeyFiles,
    }
}

/// The algorithm by which the other side signs.
const SIGNATURE: SignatureScheme = SignatureScheme::ED25519;

#[derive(Debug)]
struct SystemRandom;

impl SecureRandom for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
    }
}

/// An [`Identity`] brings its key ready to sign; a configuration never loads one.
#[derive(Debug)]
struct NoKeyFiles;

impl KeyProvider for NoKeyFiles {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("a key comes from an Identity".to_owned()))
    }
}

/// The only check of the other side's key. `ApplicationVerificationFailure` becomes the alert `access_denied` (RFC
/// 8446, section 6.2), by which a controller recognises that it is not authorized.
fn check_key(
    presented: &CertificateDer<'_>,
    is_known: impl FnOnce(&Fingerprint) -> bool,
) -> Result<(), Error> {
    if is_known(&Fingerprint::of(presented)) {
        Ok(())
    } else {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

fn check_signature(
    message: &[u8],
    presented: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = public_key(presented).ok_or(CertificateError::BadEncoding)?;
    if signature.scheme != SIGNATURE {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    match UnparsedPublicKey::new(&ED25519, key).verify(message, signature.signature()) {
        Ok(()) => Ok(HandshakeSignatureValid::assertion()),
        Err(Unspecified) => Err(CertificateError::BadSignature.into()),
    }
}

/// TLS 1.2 is compiled out; the traits still ask.
fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
}

#[derive(Debug)]
struct PinnedAgent(Pinned);

impl ServerCertVerifier for PinnedAgent {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_key(key, |fingerprint| self.0.0.contains(fingerprint)).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SIGNATURE]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The agent's raw public key, as it is at each handshake.
#[derive(Debug)]
struct CurrentKey(Arc<dyn CurrentIdentity>);

impl ResolvesServerCert for CurrentKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().certified())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AuthorizedControllers(Arc<dyn Authorized>);

impl ClientCertVerifier for AuthorizedControllers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_key(key, |fingerprint| self.0.is_authorized(fingerprint))
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SIGNATURE]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustls::{AlertDescription, ClientConnection, ServerConnection};

    use super::*;

    #[derive(Debug)]
    struct Only(Fingerprint);

    impl Authorized for Only {
        fn is_authorized(&self, fingerprint: &Fingerprint) -> bool {
            *fingerprint == self.0
        }
    }

    fn identity() -> Identity {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(&dir.path().join("key")).unwrap()
    }

    /// Passes bytes between both ends in memory until neither has any left to send.
    fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            let served = server.process_new_packets();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
            served?;
        }
        Ok(())
    }

    fn connect(client: ClientConfig, server: ServerConfig) -> (Result<(), Error>, ClientConnection) {
        let mut client = ClientConnection::new(Arc::new(client), server_name()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        (handshake(&mut client, &mut server), client)
    }

    #[test]
    fn mutually_pinned_peers_agree_on_suite() {
        let (agent, controller) = (identity(), identity());
        let server = server_config(&agent, Arc::new(Only(controller.fingerprint())), RINGS_SUITE).unwrap();
        let client = client_config(&controller, agent.fingerprint()).unwrap();
        let (result, client) = connect(client, server);
        assert_eq!(result, Ok(()));
        assert!(!client.is_handshaking());
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(
            client.negotiated_cipher_suite().unwrap().suite(),
            rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        );
    }

    #[test]
    fn agent_with_another_key_is_refused() {
        let controller = identity();
        let server =
            server_config(&identity(), Arc::new(Only(controller.fingerprint())), RINGS_SUITE).unwrap();
        let client = client_config(&controller, identity().fingerprint()).unwrap();
        let expected = Err(CertificateError::ApplicationVerificationFailure.into());
        assert_eq!(connect(client, server).0, expected);
    }

    #[test]
    fn either_pinned_key_is_accepted() {
        let controller = identity();
        let agents = [identity(), identity()];
        let pinned: Vec<_> = agents.iter().map(Identity::fingerprint).collect();
        for (agent, is_accepted) in agents.iter().zip([true, true]).chain([(&identity(), false)]) {
            let server = server_config(agent, Arc::new(Only(controller.fingerprint())), RINGS_SUITE).unwrap();
            let client = client_config(&controller, pinned.clone()).unwrap();
            assert_eq!(connect(client, server).0.is_ok(), is_accepted);
        }
    }

    #[test]
    fn stolen_public_key_is_refused() {
        let (agent, controller, thief) = (identity(), identity(), identity());
        let server = server_config(&agent, Arc::new(Only(controller.fingerprint())), RINGS_SUITE).unwrap();
        let stolen = CertifiedKey::new(controller.certified().cert.clone(), thief.certified().key.clone());
        let mut client = client_config(&controller, agent.fingerprint()).unwrap();
        client.client_auth_cert_resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(stolen)));
        assert_eq!(connect(client, server).0, Err(Error::AlertReceived(AlertDescription::DecryptError)));
    }

    #[test]
    fn non_ed25519_key_is_refused() {
        let spki = identity().certified().cert[0].to_vec();
        assert!(public_key(&spki).is_some());
        let broken =
            [&spki[1..], &spki[..43], &[&spki[..], &[0]].concat(), &[&[0; 12][..], &spki[12..]].concat()];
        assert!(broken.iter().all(|spki| public_key(spki).is_none()));
    }

    #[test]
    fn unauthorized_controller_gets_access_denied_alert() {
        let agent = identity();
        let server = server_config(&agent, Arc::new(Only(agent.fingerprint())), RINGS_SUITE).unwrap();
        let client = client_config(&identity(), agent.fingerprint()).unwrap();
        assert_eq!(connect(client, server).0, Err(Error::AlertReceived(AlertDescription::AccessDenied)));
    }
}
