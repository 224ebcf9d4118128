//! A control plane that other machines reach: TLS, tokens and rights.

use std::path::{Path, PathBuf};

use canopy_core::identity::Identity;
use canopy_proto::control as pb;
use canopy_proto::control::control_client::ControlClient;
use canopy_supernode::control::{Control, ControlConfig, ControlError};
use tokio::sync::oneshot;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request};

use crate::overlay::{host, until, within};

const ADA: &str = "operate-0123456789abcdef0123456789abcdef";
const EVE: &str = "view-0123456789abcdef0123456789abcdef";

pub(crate) fn private(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}

/// A control plane's files, and the certificate that vouches for it.
pub(crate) fn files(home: &Path) -> (ControlConfig, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    let pem = format!("{certificate}{}", made.signing_key.serialize_pem());
    let config = ControlConfig {
        listen: ([0, 0, 0, 0], 0).into(),
        tls: Some(private(home.join("control.pem"), &pem)),
        access: Some(private(
            home.join("access"),
            &format!("ada operate {ADA}\neve view {EVE}\n"),
        )),
        client_ca: None,
    };
    (config, certificate)
}

fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let shown = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", shown);
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_network_a_caller_needs_tls_a_token_and_the_right() {
    let home = tempfile::tempdir().unwrap();
    let (config, certificate) = files(home.path());
    let control = Control::bind(config).await.unwrap();
    let port = control.addr().port();
    let one = host(
        &Identity::from_secret([31; 32]),
        1,
        Some(20_000_000),
        "",
        &[],
    )
    .await;
    let (close, closing) = oneshot::channel::<()>();
    let served = tokio::spawn(control.serve(one.clone(), async move {
        let _ = closing.await;
    }));
    let channel = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
    let channel = channel.tls_config(tls).unwrap().connect().await.unwrap();
    let mut client = ControlClient::new(channel);

    let ask = pb::GetOverviewRequest {};
    for wrong in [None, Some("wrong"), Some(&ADA[1..]), Some("")] {
        let refused = client.get_overview(with(wrong, ask)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{wrong:?}");
        assert!(
            refused.message().contains("Bearer"),
            "{}",
            refused.message()
        );
    }
    for right in [ADA, EVE] {
        assert!(client.get_overview(with(Some(right), ask)).await.is_ok());
    }
    let cordon = pb::CordonRequest {
        caller: "mallory".into(),
        ..Default::default()
    };
    let refused = client
        .cordon(with(Some(EVE), cordon.clone()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("eve"), "{}", refused.message());
    let drain = with(Some(EVE), pb::DrainRequest::default());
    assert_eq!(
        client.drain(drain).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert!(!one.figures().cordoned);
    let mut events = one.events();
    client.cordon(with(Some(ADA), cordon)).await.unwrap();
    until("it is cordoned", async || one.figures().cordoned).await;
    // The name is that of the token, whatever is claimed.
    let told = async {
        loop {
            let words = events.recv().await.unwrap().kind.to_string();
            if words.starts_with("cordon by") {
                return words;
            }
        }
    };
    assert_eq!(within(told).await, "cordon by ada");

    // Nobody speaks in plain text, or to somebody whom nobody vouches for.
    let plain = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let plain = plain.connect().await;
    let refused = match plain {
        Ok(channel) => ControlClient::new(channel)
            .get_overview(with(Some(ADA), ask))
            .await
            .is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(other.cert.pem()));
    let stranger = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    assert!(stranger.tls_config(tls).unwrap().connect().await.is_err());
    drop(client);
    let _ = close.send(());
    within(served).await.unwrap().unwrap();
    within(one.close()).await;
}

#[tokio::test]
async fn what_would_be_open_or_cannot_be_used_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (config, _) = files(home.path());
    for (tls, access) in [
        (None, None),
        (config.tls.clone(), None),
        (None, config.access.clone()),
    ] {
        let config = ControlConfig {
            tls,
            access,
            ..config.clone()
        };
        let error = Control::bind(config).await.unwrap_err();
        assert!(matches!(error, ControlError::Open(_)), "{error}");
    }
    let damaged = private(home.path().join("damaged.pem"), "no certificate");
    for tls in [damaged, home.path().join("missing.pem")] {
        let config = ControlConfig {
            tls: Some(tls),
            ..config.clone()
        };
        let error = Control::bind(config).await.unwrap_err();
        assert!(matches!(error, ControlError::Tls { .. }), "{error}");
    }
    // On loopback, tokens may go in plain text.
    let local = ControlConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        ..config
    };
    assert!(Control::bind(local).await.is_ok());
}
