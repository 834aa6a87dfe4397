//! The same through TLS: the tap lies above it.

use std::sync::Arc;

use futures_util::stream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tonic::Request;
use tonic::transport::Endpoint;

use super::lab::{Client, msg, start};
use crate::instrument::grpc::{Connect, Limits, MetadataKeys, ServeConfig, TlsConnector};
use crate::model::Transport;
use crate::registry::{Registry, clock};

#[tokio::test]
async fn frames_are_read_above_tls_on_both_sides() {
    let certificate = CertificateDer::from(include_bytes!("tls/cert.der").as_slice());
    let key = PrivatePkcs8KeyDer::from(include_bytes!("tls/key.der").as_slice());
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key))
        .unwrap();
    let server = start(ServeConfig { tls: Some(Arc::new(tls)), ..ServeConfig::default() }).await;

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::new(Arc::new(tls), "localhost".try_into().unwrap());
    let registry = Arc::new(Registry::default());
    let connect = Connect {
        registry: registry.clone(),
        limits: Limits::default(),
        metadata: MetadataKeys::default(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = connect.now(endpoint, connector).await.unwrap();
    let client = Client { registry: registry.clone(), channel };
    for call in 0..5 {
        let messages = stream::iter([msg(call)]);
        let mut answers = client.call("/t.T/Echo", Request::new(messages)).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), msg(call));
    }
    let mut held = client.call("/t.T/Mute", Request::new(stream::pending())).await.unwrap();
    for registry in [&registry, &server.registry] {
        let seen = registry.connections.snapshot(clock::now(), &[]).remove(0);
        assert!(seen.tls && seen.transport == Transport::Tcp);
        assert_eq!(seen.tcp.is_some(), cfg!(target_os = "linux"));
        let http2 = seen.http2.unwrap();
        assert_eq!((http2.lost, http2.open_streams), (false, 1));
        let stream = registry.streams.snapshot(clock::now()).live.remove(0);
        assert_eq!(stream.wire.unwrap().stream_id, 11);
    }
    // A socket that speaks no TLS is let go of, and stays in no list.
    let stranger = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stranger.writable().await.unwrap();
    stranger.try_write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    while server.registry.connections.len() != 1 {
        tokio::task::yield_now().await;
    }
    drop((client, server.stop));
    assert!(held.message().await.is_err());
}
