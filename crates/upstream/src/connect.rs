//! Addresses, TCP, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aiproxy_config::model::{BaseUrl, Channel};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{ConnectError, SendError};
use crate::request_body::RequestBody;
use crate::tls::TlsConfigs;

/// An open connection. Dropping it closes it, whatever is under way on it: that is how an
/// exchange is cancelled, and how a platform that has stopped reading is left.
#[derive(Debug)]
pub struct Conn {
    /// Sends requests over it.
    pub sender: SendRequest<RequestBody>,
    task: AbortHandle,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens an HTTP/1.1 connection to the channel's platform. The connection's own task runs on
/// this thread and ends with the connection.
///
/// # Errors
/// [`SendError::Connect`]; resolving, connecting and TLS together are bounded by
/// `timeouts.connect`.
pub async fn open(channel: &Channel, configs: &TlsConfigs) -> Result<Conn, SendError> {
    let base = &channel.base;
    let dial = async {
        let tcp = dial(base).await?;
        if !base.tls {
            return handshake(tcp).await;
        }
        let config = configs.get(channel.ca_pem.as_ref())?;
        let name = ServerName::try_from(base.host.clone())
            .map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream =
            TlsConnector::from(Arc::clone(&config)).connect(name, tcp).await.map_err(ConnectError::Tls)?;
        handshake(stream).await
    };
    timeout(channel.timeouts.connect, dial).await.unwrap_or(Err(SendError::Connect(ConnectError::Timeout)))
}

async fn handshake<S>(stream: S) -> Result<Conn, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    // One flat write for head and body is cheaper than a vectored one at the sizes seen here.
    let (sender, connection) = http1::Builder::new()
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(SendError::Broken)?;
    let task = tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Conn { sender, task: task.abort_handle() })
}

async fn dial(base: &BaseUrl) -> Result<TcpStream, ConnectError> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let addresses = resolve(base).await?;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(ConnectError::Tcp(last))
}

async fn resolve(base: &BaseUrl) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = base.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, base.port)]);
    }
    let found =
        tokio::net::lookup_host((base.host.as_str(), base.port)).await.map_err(ConnectError::Resolve)?;
    Ok(found.collect())
}
