//! TLS of an API whose callers may show certificates.
//!
//! Any certificate whose key the caller holds is let through the handshake, and
//! judged with each call: so that who shows a wrong one is told what is wrong, by
//! an answer, and not by a connection that breaks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use futures_util::stream::{Stream, StreamExt};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::incoming::Connection;

/// Longest wait for a caller's side of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How an API encrypts, and shows who it is.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Of a certificate chain and its private key, PEM. If `asks`, callers may show
    /// certificates of theirs.
    ///
    /// # Errors
    /// They cannot be used, and why.
    pub fn of(pem: &str, asks: bool) -> Result<Self, String> {
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
        let key = key.map_err(|error| format!("the private key: {error}"))?;
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match asks {
            true => builder.with_client_cert_verifier(Arc::new(Anybody::new(&provider))),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Connections whose handshake succeeded, at most `most` handshakes at a time.
    pub(super) fn over(
        self,
        incoming: impl Stream<Item = io::Result<Connection>>,
        most: usize,
    ) -> impl Stream<Item = io::Result<TlsStream<Connection>>> {
        let acceptor = TlsAcceptor::from(self.0);
        let greeted = incoming.map(move |connection| {
            let acceptor = acceptor.clone();
            async move {
                let greeted = timeout(HANDSHAKE, acceptor.accept(connection?)).await;
                greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        });
        greeted.buffer_unordered(most).filter_map(|greeted| {
            if let Err(error) = &greeted {
                tracing::debug!(%error, "rpc.handshake");
            }
            future::ready(greeted.ok().map(Ok))
        })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Takes any certificate whose key the caller holds.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anybody {
    fn new(provider: &CryptoProvider) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Judges the certificates that callers show.
#[derive(Clone, Debug)]
pub struct Authority(Arc<dyn ClientCertVerifier>);

impl Authority {
    /// The certificates, PEM, that vouch for those of callers.
    ///
    /// # Errors
    /// They cannot be used, and why.
    pub fn of(pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        Ok(Self(verifier))
    }

    /// Whether a chain that was shown is good now.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let Some((own, rest)) = chain.split_first() else {
            return Err("no certificate was shown".to_owned());
        };
        let judged = self.0.verify_client_cert(own, rest, UnixTime::now());
        judged.map(|_| ()).map_err(|error| words(&error))
    }
}

fn words(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else {
        return format!("this client certificate cannot be used: {error}");
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "this client certificate has expired; have another one signed".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "this client certificate is not valid yet; check the clocks, or have another one signed"
                .to_owned()
        }
        // The second: of an authority that only has the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "this client certificate is signed by nobody that the host's --control-client-ca names; have one signed by that authority"
                .to_owned()
        }
        error => format!("this client certificate cannot be used ({error}); have another one signed"),
    }
}

/// Whether a certificate is of `name`: among its subject's alternative names, as
/// DNS has it.
pub fn names(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    let name = ServerName::try_from(name);
    match (parsed, name) {
        (Ok(parsed), Ok(name)) => rustls::client::verify_server_name(&parsed, &name).is_ok(),
        _ => false,
    }
}
