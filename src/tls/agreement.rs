//! How one side wants to talk, made once and used for each of its connections.

use std::fmt;
use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};

use super::session::Session;
use super::verify::PinnedKeys;
use crate::trust::{Book, Fingerprint, OwnKey};

/// Says which peers may speak.
pub trait Trusted: fmt::Debug + Send + Sync {
    /// Whether whoever has this key may. Asked in each handshake, so that an answer may change.
    fn trusts(&self, peer: Fingerprint) -> bool;
}

/// One key alone.
impl Trusted for Fingerprint {
    fn trusts(&self, peer: Fingerprint) -> bool {
        peer == *self
    }
}

/// Those whom a server's list names.
impl Trusted for Book {
    fn trusts(&self, peer: Fingerprint) -> bool {
        self.find(&peer).is_some()
    }
}

/// Whoever has a key, for peers that prove by something else who they are.
#[derive(Clone, Copy, Debug)]
pub struct Anybody;

impl Trusted for Anybody {
    fn trusts(&self, _peer: Fingerprint) -> bool {
        true
    }
}

/// One side's own key and whom it trusts, for connections of either role.
#[derive(Clone)]
pub struct Agreement {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: Fingerprint,
}

/// The protocol within TLS (RFC 7301), by its major version: whatever else the peer offers is not
/// for us.
const PROTOCOL: &[u8] = b"zferry/1";

impl Agreement {
    /// With our key, and those whom we trust.
    pub fn new(own: &OwnKey, trusted: Arc<dyn Trusted>) -> Result<Agreement, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(PinnedKeys { trusted, algorithms });
        let key = Arc::new(certified(own, &provider)?);
        let (client, server) =
            (client(&provider, &verifier, &key)?, server(provider, verifier, key)?);
        Ok(Agreement { client: Arc::new(client), server: Arc::new(server), own: own.fingerprint() })
    }

    /// The side that connects.
    pub fn connect(&self) -> Result<Session, Error> {
        // The peer is known by its key: a name would only tell listeners more.
        let nobody = ServerName::try_from("zferry.invalid").map_err(|_| Error::EncryptError)?;
        let connection = ClientConnection::new(Arc::clone(&self.client), nobody)?;
        Ok(Session::new(connection.into()))
    }

    /// The side that was connected to.
    pub fn accept(&self) -> Result<Session, Error> {
        Ok(Session::new(ServerConnection::new(Arc::clone(&self.server))?.into()))
    }

    /// What the peers know us by.
    pub fn own(&self) -> Fingerprint {
        self.own
    }
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agreement({})", self.own)
    }
}

fn certified(own: &OwnKey, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.pkcs8().to_vec()));
    let private = provider.key_provider.load_private_key(private)?;
    Ok(CertifiedKey::new(vec![CertificateDer::from(own.public().to_vec())], private))
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<PinnedKeys>,
    key: &Arc<CertifiedKey>,
) -> Result<ClientConfig, Error> {
    let (verifier, key) = (Arc::clone(verifier), Arc::clone(key));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

fn server(
    provider: Arc<CryptoProvider>,
    verifier: Arc<PinnedKeys>,
    key: Arc<CertifiedKey>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A sender takes anything that it did not ask for as the end of its connection.
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}
