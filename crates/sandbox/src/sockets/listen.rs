//! Deepgram's live transcription: sound in binary messages, transcripts and a closing account in JSON.

use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Ended, Socket, parameter, say};
use crate::ids::hex;
use crate::route::State;

/// One stream of sound; what is "heard" is how many bytes came.
pub(super) struct Listen {
    socket: Socket,
    request_id: String,
    model: String,
    channels: u32,
    interim: bool,
    /// Seconds of a byte.
    byte: f64,
    /// Bytes of sound until now, and of these what final results have told of.
    heard: u64,
    told: u64,
    hash: Sha256,
}

impl Listen {
    pub(super) fn new(state: &Arc<State>, socket: Socket, query: &str) -> Listen {
        let number = |name: &str| parameter(query, name).and_then(|value| value.parse::<u32>().ok());
        let channels = number("channels").unwrap_or(1).max(1);
        // 16 bits a sample; other encodings are not told apart.
        let rate = number("sample_rate").unwrap_or(16_000).max(1);
        Listen {
            socket,
            request_id: state.ids.uuid(),
            model: parameter(query, "model").unwrap_or("base").to_owned(),
            channels,
            interim: parameter(query, "interim_results") == Some("true"),
            byte: 1.0 / (2.0 * f64::from(rate) * f64::from(channels)),
            heard: 0,
            told: 0,
            hash: Sha256::new(),
        }
    }

    pub(super) async fn run(mut self) -> Ended {
        while let Some(message) = self.socket.next().await {
            match message? {
                Message::Binary(sound) => {
                    self.hash.update(&sound);
                    self.heard += sound.len() as u64;
                    self.tell(!self.interim, false).await?;
                }
                Message::Text(text) => {
                    let asked = serde_json::from_str::<Value>(&text).unwrap_or_default();
                    match asked["type"].as_str() {
                        Some("KeepAlive") => {}
                        Some("Finalize") => self.tell(true, true).await?,
                        Some("CloseStream") => return self.end().await,
                        _ => return self.refuse().await,
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn seconds(&self, bytes: u64) -> f64 {
        bytes as f64 * self.byte
    }

    /// What was heard since the last final result.
    async fn tell(&mut self, is_final: bool, from_finalize: bool) -> Ended {
        let bytes = self.heard - self.told;
        let results = json!({
            "type": "Results",
            "channel_index": [0, self.channels],
            "start": self.seconds(self.told),
            "duration": self.seconds(bytes),
            "is_final": is_final,
            "speech_final": is_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [
                {"transcript": format!("{bytes} bytes"), "confidence": 1.0, "words": []},
            ]},
            "metadata": {"request_id": self.request_id, "model_info": {"name": self.model}},
        });
        if is_final {
            self.told = self.heard;
        }
        say(&mut self.socket, &results).await
    }

    /// The rest, the account, and the close.
    async fn end(mut self) -> Ended {
        if self.told < self.heard {
            self.tell(true, false).await?;
        }
        let account = json!({
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": hex(&self.hash.clone().finalize()),
            "duration": self.seconds(self.heard),
            "channels": self.channels,
            "models": [self.model],
        });
        say(&mut self.socket, &account).await?;
        self.close(CloseCode::Normal, "").await
    }

    async fn refuse(self) -> Ended {
        self.close(CloseCode::Policy, "DATA-0000: The payload cannot be decoded as audio.").await
    }

    async fn close(mut self, code: CloseCode, reason: &'static str) -> Ended {
        self.socket.close(Some(CloseFrame { code, reason: reason.into() })).await?;
        // The peer's answer.
        while let Some(Ok(_)) = self.socket.next().await {}
        Ok(())
    }
}
