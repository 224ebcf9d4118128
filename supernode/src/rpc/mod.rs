//! How a gRPC API is served: with health and reflection, and an end that lets
//! calls under way finish.

mod incoming;
pub mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::Either;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use incoming::incoming;
use tls::Tls;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 512;
/// A caller that does not answer such a question in time is gone.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Requests under way on one connection.
const MAX_STREAMS: u32 = 256;
/// How long calls under way may take after the API began to close.
const DRAIN: Duration = Duration::from_secs(5);

/// Why an API ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It failed while it ran.
    #[error("the API failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The description of the services cannot be offered.
    #[error("the API cannot describe itself: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A port that is listened on and not served yet.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Port {
    /// Listens on `addr`; port 0: any.
    ///
    /// # Errors
    /// What the system says.
    pub async fn listen(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// What is served.
pub struct Api {
    /// The services.
    pub routes: Routes,
    /// Their full names, for the health service.
    pub names: Vec<&'static str>,
    /// Their encoded file descriptor sets, for reflection.
    pub descriptors: Vec<&'static [u8]>,
    /// Turns true when the API closes: streams must end then.
    pub close: watch::Sender<bool>,
    /// Encrypts, and shows who serves; `None`: plain text.
    pub tls: Option<Tls>,
}

impl Api {
    /// Serves until `closing` resolves, then finishes what is under way.
    ///
    /// # Errors
    /// The API ended by itself.
    pub async fn serve(
        self,
        port: Port,
        closing: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let report = async |status| {
            for name in &self.names {
                reporter.set_service_status(name, status).await;
            }
        };
        report(ServingStatus::Serving).await;
        let described = || {
            let all = self.descriptors.iter().copied();
            all.fold(
                tonic_reflection::server::Builder::configure(),
                |builder, set| builder.register_encoded_file_descriptor_set(set),
            )
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = described().build_v1()?;
        // Python's client, among others, asks for the older one only.
        let reflection_alpha = described().build_v1alpha()?;
        let routes = self
            .routes
            .add_service(health)
            .add_service(reflection)
            .add_service(reflection_alpha);
        let mut stop = self.close.subscribe();
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE.0))
            .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
            .max_concurrent_streams(MAX_STREAMS)
            .add_routes(routes);
        let stopped = async move {
            // An error says that the sender is gone, which is the same.
            let _ = stop.wait_for(|closing| *closing).await;
        };
        let incoming = incoming(port.listener, MAX_CONNECTIONS);
        let serve = match self.tls.clone() {
            Some(tls) => {
                let greeted = tls.over(incoming, MAX_CONNECTIONS);
                Either::Left(server.serve_with_incoming_shutdown(greeted, stopped))
            }
            None => Either::Right(server.serve_with_incoming_shutdown(incoming, stopped)),
        };
        tokio::pin!(serve);
        tokio::select! {
            outcome = &mut serve => return Ok(outcome?),
            () = closing => {}
        }
        report(ServingStatus::NotServing).await;
        self.close.send_replace(true);
        match tokio::time::timeout(DRAIN, serve).await {
            Ok(outcome) => Ok(outcome?),
            // Those that remain are cut off when the listener's task ends.
            Err(_) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Api").field(&self.names).finish()
    }
}
