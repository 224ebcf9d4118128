//! Peers of another protocol version, on either side of a session.

use std::net::SocketAddr;
use std::time::Duration;

use canopy_core::contact::Contact;
use canopy_leaf::Identity;
use canopy_overlay::fabric::{FabricConfig, yardstick};
use canopy_proto::{Message, wire};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::daemon::{BOUND, Daemon};

/// Bytes of a frame's header: length, kind, request id.
const HEADER: usize = 9;

/// A peer that speaks versions this program does not know.
struct Newer {
    identity: Identity,
    endpoint: quinn::Endpoint,
}

impl Newer {
    fn bind() -> Self {
        let identity = Identity::from_secret([77; 32]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = FabricConfig::new(identity.clone(), listen, "canopy");
        let (server, client) = yardstick(&config).expect("valid");
        let mut endpoint = quinn::Endpoint::server(server, listen).expect("a port");
        endpoint.set_default_client_config(client);
        Self { identity, endpoint }
    }

    /// Sends a hello of kind 0.
    async fn hello(&self, send: &mut SendStream) {
        let hello = wire::Hello {
            version_min: 1000,
            version_max: 1001,
            network: "canopy".into(),
            topology: wire::Topology::Elected.into(),
            contact: Some(Contact::sign(&self.identity, &[], "", 1).signed.clone()),
            ..Default::default()
        };
        let body = hello.encode_to_vec();
        let length = (body.len() as u32).to_be_bytes();
        let frame = [&length[..], &[0; HEADER - 4], &body].concat();
        send.write_all(&frame).await.expect("the peer reads");
    }
}

/// The refusal that comes instead of a hello.
async fn refusal(mut recv: RecvStream) -> wire::Refusal {
    let all = timeout(BOUND, recv.read_to_end(64 * 1024)).await;
    let bytes = all.expect("in time").expect("a stream that ends");
    assert_eq!(bytes[4], 1, "a frame of another kind: {bytes:?}");
    wire::Refusal::decode(&bytes[HEADER..]).expect("a refusal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_version_is_told_and_does_no_harm() {
    let base = tempfile::tempdir().expect("a directory");
    let leaf = Daemon::start(&base.path().join("asked"), &[]).await;
    let newer = Newer::bind();
    let connecting = newer.endpoint.connect(leaf.listen, "canopy.invalid");
    let connection = connecting.expect("valid").await.expect("a connection");
    let (mut send, recv) = connection.open_bi().await.expect("a stream");
    newer.hello(&mut send).await;
    let no = refusal(recv).await;
    assert_eq!(no.code(), wire::refusal::Code::Version);
    assert!(no.message.contains("upgrade the older"), "{}", no.message);

    // The other way round: whoever joins by it says why that failed.
    let addr = newer.endpoint.local_addr().expect("bound");
    let serve = tokio::spawn(async move {
        while let Some(incoming) = newer.endpoint.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            if let Ok((mut send, _recv)) = connection.accept_bi().await {
                newer.hello(&mut send).await;
                // Until the peer has read it and hung up.
                let _ = timeout(Duration::from_secs(10), connection.closed()).await;
            }
        }
    });
    let mut joins = Daemon::start(&base.path().join("joins"), &[addr]).await;
    let message = joins.event("warning").await["message"].to_string();
    assert!(message.contains("upgrade the older"), "{message}");
    serve.abort();
    let status = leaf.status().await;
    assert_eq!(status.node_id, leaf.node_id);
}
