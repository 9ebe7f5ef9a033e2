//! Bodies at the end of a connection between two ends of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;

use super::{Body, BodyError, Receiver};
use crate::code::Code;
use crate::head::HeadLimits;
use crate::shared::Shared;

/// Two ends of a connection, and what keeps them going.
struct Pair {
    caller: quinn::Connection,
    called: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

impl Pair {
    async fn new() -> Self {
        let issued = rcgen::generate_simple_self_signed(vec!["relay.test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = &[&rustls::version::TLS13];
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let tls = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        let tls = tls.with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let there = quinn::Endpoint::server(server, any).unwrap();

        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let tls = builder.with_protocol_versions(versions).unwrap();
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let here = quinn::Endpoint::client(any).unwrap();
        let connecting = here.connect_with(client, there.local_addr().unwrap(), "relay.test").unwrap();
        let accepting = async { there.accept().await.unwrap().await.unwrap() };
        let (caller, called) = tokio::join!(async { connecting.await.unwrap() }, accepting);
        Self { caller, called, _endpoints: [here, there] }
    }

    /// A stream on which these bytes have come, and the body that they are.
    async fn body(&self, bytes: &[u8], headers: &HeaderMap) -> (quinn::SendStream, Body) {
        let (mut send, _) = self.caller.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let (_, recv) = self.called.accept_bi().await.unwrap();
        let limits = HeadLimits { bytes: 1000, fields: 10 };
        let shared = Shared::new(self.called.clone(), limits, true);
        (send, Body::new(Receiver::new(recv, shared, Code::NO_ERROR), headers))
    }

    /// Returns once all that the caller has said before has come.
    async fn settle(&self) {
        let (mut send, _) = self.caller.open_bi().await.unwrap();
        send.write_all(b"mark").await.unwrap();
        let (_, mut recv) = self.called.accept_bi().await.unwrap();
        recv.read_exact(&mut [0; 4]).await.unwrap();
    }
}

async fn piece(body: &mut Body) -> Option<Result<Vec<u8>, BodyError>> {
    Some(body.frame().await?.map(|frame| frame.into_data().unwrap().to_vec()))
}

#[tokio::test]
async fn a_reset_between_two_pieces_is_no_end() {
    let pair = Pair::new().await;
    let (mut send, mut body) = pair.body(b"\x00\x01a\x00\x01b", &HeaderMap::new()).await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), b"a");
    send.reset(Code::REQUEST_CANCELLED.wire()).unwrap();
    pair.settle().await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), b"b");
    assert!(!body.is_end_stream());
    let end = piece(&mut body).await;
    assert!(matches!(end, Some(Err(BodyError::Reset(0x10c)))), "{end:?}");
    assert!(piece(&mut body).await.is_none());
}

#[tokio::test]
async fn a_body_that_says_its_length_is_whole_only_at_its_end() {
    let headers = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, HeaderValue::from(2))]);
    let pair = Pair::new().await;
    let (mut send, mut body) = pair.body(b"\x00\x01a\x00\x01b", &headers).await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), b"a");
    assert_eq!(body.size_hint().exact(), Some(1));
    tokio::select! {
        biased;
        piece = piece(&mut body) => panic!("{piece:?}"),
        () = pair.settle() => {}
    }
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(1), false));
    send.finish().unwrap();
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), b"b");
    assert!(piece(&mut body).await.is_none());

    let (mut send, mut body) = pair.body(b"\x00\x02ab", &headers).await;
    send.write_all(b"\x00\x01c").await.unwrap();
    let end = piece(&mut body).await;
    assert!(matches!(end, Some(Err(BodyError::Malformed(_)))), "{end:?}");
}
