//! Authentication of controllers and agents, and the errors when nobody answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use super::Behaviour;
use hop::client::Error;
use hop::client::connection::Connection;
use hop_proto::tls;
use hop_proto::v1::ErrorReason;
use hop_tests::{Options, Target, VirtualRouter};
use rustix::net::{AddressFamily, SocketType};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, DigitallySignedStruct, SignatureScheme};

pub const ALL: &[Behaviour] = &behaviours! {
    Portable:
        unknown_router_lists_the_known_ones,
        router_that_is_off_is_unreachable,
        slow_router_times_out,
        http_server_is_not_an_agent,
        router_with_another_key_gets_nothing,
        unauthorized_controller_learns_its_fingerprint,
        client_without_key_is_refused,
        client_with_other_ciphers_is_refused,
        revoked_key_fails_at_next_call;
};

fn unknown_router_lists_the_known_ones(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.hop().args(["info", "-r", "nowhere"]).run();
    ran.assert_fails(125, "there is no router named nowhere; enrolled: router");
}

fn router_that_is_off_is_unreachable(target: Target) {
    let router = VirtualRouter::start(target);
    // A port that is taken, so that no other test gets it, and that nobody listens on.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    router.enrol("off", &port.to_string(), router.fingerprint);
    let ran = router.hop().args(["info", "-r", "off"]).run();
    ran.assert_fails(125, &format!("off at {port} cannot be reached"));
    assert!(ran.stderr().contains("caused by: Connection refused"), "{}", ran.stderr());
    let ran = router.hop().args(["info", "-r", "nameless"]).run();
    ran.assert_fails(125, "there is no router named nameless");
}

fn slow_router_times_out(target: Target) {
    let router = VirtualRouter::start(target);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    router.enrol("silent", &silent.local_addr().unwrap().to_string(), router.fingerprint);
    let ran = router.hop().args(["info", "-r", "silent", "--connect-timeout", "300ms"]).run();
    ran.assert_fails(125, "did not answer within 300ms");
}

fn http_server_is_not_an_agent(target: Target) {
    let router = VirtualRouter::start(target);
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    router.enrol("http", &http.local_addr().unwrap().to_string(), router.fingerprint);
    std::thread::spawn(move || {
        for peer in http.incoming() {
            let mut peer = peer.unwrap();
            let mut hello = [0; 64];
            peer.read_exact(&mut hello).unwrap();
            // The peer may have gone already.
            let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let ran = router.hop().args(["info", "-r", "http"]).run();
    ran.assert_fails(125, "is not hopd");
}

fn router_with_another_key_gets_nothing(target: Target) {
    let router = VirtualRouter::start(target);
    let other = format!("SHA256:{}", "0".repeat(64)).parse().unwrap();
    router.enrol("changed", &router.address, other);
    let program = hop_tests::fixture(target, "both-outputs");
    let ran = router.hop().args(["exec", "-r", "changed"]).arg(program).run();
    ran.assert_fails(125, "has another key than the enrolled one");
    router.assert_serves_on();
}

fn unauthorized_controller_learns_its_fingerprint(target: Target) {
    let router = VirtualRouter::start_with(target, &Options { unauthorized: true, ..Options::default() });
    let own = router.home().identity().unwrap().fingerprint();
    let ran = router.exec("both-outputs").run();
    ran.assert_fails(125, &format!("router does not know this controller's key {own}"));
    // The file counts at the next handshake.
    router.write_authorized(&format!("{own}\n"));
    router.assert_serves_on();
}

/// Believes whatever answers, to get as far as the agent lets a stranger.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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

/// The alert by which the agent ends the connection of a client with this configuration.
fn alert_for(router: &VirtualRouter, mut config: rustls::ClientConfig) -> Option<AlertDescription> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = rustls::ClientConnection::new(Arc::new(config), tls::server_name()).unwrap();
    let mut socket = std::net::TcpStream::connect(&router.address).unwrap();
    socket.set_read_timeout(Some(hop_tests::TIMEOUT)).unwrap();
    let mut stream = rustls::Stream::new(&mut client, &mut socket);
    let error = stream.read(&mut [0; 1]).unwrap_err();
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        other => panic!("{other}"),
    }
}

fn builder(
    provider: rustls::crypto::CryptoProvider,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
}

/// Supports raw public keys, and has none.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn client_without_key_is_refused(target: Target) {
    let router = VirtualRouter::start(target);
    let keyless =
        builder(rustls::crypto::ring::default_provider()).with_client_cert_resolver(Arc::new(NoKey));
    assert_eq!(alert_for(&router, keyless), Some(AlertDescription::CertificateRequired));
    // A client that does not support raw public keys fails earlier.
    let stranger = builder(rustls::crypto::ring::default_provider()).with_no_client_auth();
    assert_eq!(alert_for(&router, stranger), Some(AlertDescription::HandshakeFailure));
    router.assert_serves_on();
}

fn client_with_other_ciphers_is_refused(target: Target) {
    let router = VirtualRouter::start(target);
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..rustls::crypto::ring::default_provider()
    };
    // With our cipher, the agent would request its key (see `client_without_key_is_refused`).
    let config = builder(provider).with_client_cert_resolver(Arc::new(NoKey));
    assert_eq!(alert_for(&router, config), Some(AlertDescription::HandshakeFailure));
    router.assert_serves_on();
}

fn revoked_key_fails_at_next_call(target: Target) {
    let router = VirtualRouter::start(target);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = router.home().identity().unwrap();
        let opened = Connection::open(&router.entry(), &identity, hop_tests::TIMEOUT).await;
        let (mut connection, _) = opened.unwrap();
        router.write_authorized("");
        match connection.info().await {
            Err(Error::Refused { reason: ErrorReason::NotAuthorized, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}
