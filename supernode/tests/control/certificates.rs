//! Callers that show certificates: whom they are of, and what is said to a bad one.

use canopy_core::identity::Identity;
use canopy_proto::control as pb;
use canopy_proto::control::control_client::ControlClient;
use canopy_supernode::control::{Control, ControlConfig, ControlError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::sync::oneshot;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity as Shown};

use crate::access::{files, private};
use crate::overlay::{host, within};

/// An authority that vouches for callers.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority of {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// A certificate and its key, for `name`, until the end of `year`.
    fn certificate(&self, name: &str, from: i32, year: i32) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Shown::from_pem(certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_admits_whom_it_names_and_a_bad_one_is_told_why() {
    let home = tempfile::tempdir().unwrap();
    let (mut config, vouching) = files(home.path());
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let access = "ada operate certificate\neve view certificate\n";
    config.access = Some(private(home.path().join("access"), access));
    let alone = Control::bind(config.clone()).await.unwrap_err();
    assert!(alone.to_string().contains("--control-client-ca"), "{alone}");
    config.client_ca = Some(private(home.path().join("ca.pem"), &ours.pem));
    let open = ControlConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        ..config.clone()
    };
    let open = Control::bind(open).await.unwrap_err();
    assert!(matches!(open, ControlError::Alone), "{open}");

    let control = Control::bind(config).await.unwrap();
    let port = control.addr().port();
    let operator = Identity::from_secret([41; 32]);
    let one = host(&operator, 1, Some(20_000_000), "", &[]).await;
    let (close, closing) = oneshot::channel::<()>();
    let served = tokio::spawn(control.serve(one.clone(), async move {
        let _ = closing.await;
    }));
    let client = async |shown: Option<Shown>| {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(vouching.clone()));
        if let Some(shown) = shown {
            tls = tls.identity(shown);
        }
        let channel = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
        let channel = channel.tls_config(tls).unwrap().connect().await.unwrap();
        ControlClient::new(channel)
    };
    let ask = pb::GetOverviewRequest {};
    for (shown, says) in [
        (None, "neither a token"),
        (Some(ours.certificate("ada", 2020, 2021)), "has expired"),
        (Some(ours.certificate("ada", 2100, 2101)), "not valid yet"),
        (
            Some(theirs.certificate("ada", 2020, 2100)),
            "signed by nobody",
        ),
        (Some(ours.certificate("mallory", 2020, 2100)), "access file"),
    ] {
        let mut client = client(shown).await;
        let refused = within(client.get_overview(ask)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{says}");
        assert!(refused.message().contains(says), "{}", refused.message());
    }
    let mut eve = client(Some(ours.certificate("eve", 2020, 2100))).await;
    assert!(within(eve.get_overview(ask)).await.is_ok());
    let cordon = pb::CordonRequest::default();
    let refused = within(eve.cordon(cordon.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("eve"), "{}", refused.message());

    let mut events = one.events();
    let mut ada = client(Some(ours.certificate("ada", 2020, 2100))).await;
    within(ada.cordon(cordon)).await.unwrap();
    let told = async {
        loop {
            let words = events.recv().await.unwrap().kind.to_string();
            if words.starts_with("cordon by") {
                return words;
            }
        }
    };
    assert_eq!(within(told).await, "cordon by ada");
    drop((eve, ada));
    let _ = close.send(());
    within(served).await.unwrap().unwrap();
    within(one.close()).await;
}
