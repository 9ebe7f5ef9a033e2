//! A small request, and a platform that answers it at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::common::single_threaded;

pub(crate) const BODY: &str =
    r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How long is a piece of string?"}]}"#;
pub(crate) const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Twice as long as half of it."},"finish_reason":"stop"}],"usage":{"prompt_tokens":14,"completion_tokens":9,"total_tokens":23}}"#;

/// Reads one message with a content length; returns its head.
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
) -> io::Result<String> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length: usize = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
            .unwrap_or(0);
        if filled >= end + 4 + length {
            return Ok(head);
        }
    }
}

/// A platform that answers every request at once; a thread of this process.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = single_threaded()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let answer: Arc<str> = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {}\r\n\r\n{ANSWER}",
                ANSWER.len()
            )
            .into();
            loop {
                let (mut stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while read_message(&mut stream, &mut buffer).await.is_ok() {
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            io::Result::Ok(())
        })
    });
    Ok(address)
}
