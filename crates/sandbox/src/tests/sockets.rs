use super::*;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

pub(super) type Client = WebSocketStream<TcpStream>;

/// Opens a socket with this one header besides those of every handshake; the subprotocol taken up.
pub(super) async fn open(
    sandbox: &Sandbox,
    path: &str,
    header: (&'static str, &str),
) -> Result<(Client, String), u16> {
    let mut request = format!("ws://{}{path}", sandbox.addr()).into_client_request().unwrap();
    request.headers_mut().insert(header.0, header.1.parse().unwrap());
    let stream = TcpStream::connect(sandbox.addr()).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, answer)) => {
            let chosen = answer.headers().get("sec-websocket-protocol");
            Ok((socket, chosen.map_or_else(String::new, |chosen| chosen.to_str().unwrap().to_owned())))
        }
        Err(Error::Http(answer)) => {
            let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
            assert_eq!((&body["err_code"], body["request_id"].is_string()), (&json!("INVALID_AUTH"), true));
            Err(answer.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn event(socket: &mut Client) -> Value {
    serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn deepgram_transcribes_whoever_says_its_key_as_deepgrams_clients_do() {
    let sandbox = sandbox().await;
    let path = "/v1/listen?model=nova-3&sample_rate=8000&channels=2";
    for (header, chosen) in [
        (("authorization", "Token sk-test-0123456789"), ""),
        (("authorization", "bearer sk-test-0123456789"), ""),
        (("sec-websocket-protocol", "token, sk-test-0123456789"), "token"),
    ] {
        let (mut socket, protocol) = open(&sandbox, path, header).await.unwrap();
        assert_eq!(protocol, chosen);
        for start in [0.0, 1.0] {
            socket.send(Message::binary(vec![0; 32_000])).await.unwrap();
            let heard = event(&mut socket).await;
            assert_eq!((&heard["is_final"], &heard["start"]), (&json!(true), &json!(start)));
        }
        socket.send(Message::text(json!({"type": "CloseStream"}).to_string())).await.unwrap();
        let account = event(&mut socket).await;
        assert_eq!((&account["type"], &account["duration"]), (&json!("Metadata"), &json!(2.0)));
        assert_eq!((&account["channels"], &account["models"]), (&json!(2), &json!(["nova-3"])));
        let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("no close frame") };
        assert_eq!(u16::from(close.code), 1000);
    }
    for header in [
        ("authorization", "Token sk-other"),
        ("sec-websocket-protocol", "token, sk-other"),
        ("sec-websocket-protocol", "sk-test-0123456789"),
        ("sec-websocket-protocol", "openai-insecure-api-key.sk-test-0123456789"),
    ] {
        assert_eq!(open(&sandbox, path, header).await.err(), Some(401), "{header:?}");
    }
    let shown = format!("{:?}", sandbox.requests());
    assert!(shown.contains("token, <key>") && shown.contains("token, <other>"), "{shown}");
}
