//! DashScope's inference tasks.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Ended, Socket, say};

/// DashScope's tasks on one socket, one after the other.
pub(super) struct Tasks {
    socket: Socket,
    /// The id of the task under way.
    task: Value,
    characters: usize,
    seconds: u64,
}

impl Tasks {
    async fn emit(&mut self, event: &str, payload: Value) -> Ended {
        let header = json!({"task_id": self.task, "event": event, "attributes": {}});
        say(&mut self.socket, &json!({"header": header, "payload": payload})).await
    }

    pub(super) fn new(socket: Socket) -> Tasks {
        Tasks { socket, task: Value::Null, characters: 0, seconds: 0 }
    }

    pub(super) async fn run(mut self) -> Ended {
        while let Some(message) = self.socket.next().await {
            match message? {
                Message::Text(text) => {
                    let event = serde_json::from_str::<Value>(&text).unwrap_or_default();
                    self.hear(&event).await?;
                }
                // Sound to be recognised.
                Message::Binary(sound) => {
                    self.seconds += 1;
                    let sentence = json!({"text": format!("{} bytes", sound.len()), "sentence_end": true});
                    let payload =
                        json!({"output": {"sentence": sentence}, "usage": {"duration": self.seconds}});
                    self.emit("result-generated", payload).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn hear(&mut self, event: &Value) -> Ended {
        match event["header"]["action"].as_str().unwrap_or_default() {
            "run-task" => {
                self.task = event["header"]["task_id"].clone();
                (self.characters, self.seconds) = (0, 0);
                self.emit("task-started", json!({})).await
            }
            "continue-task" => {
                let text = event["payload"]["input"]["text"].as_str().unwrap_or_default();
                self.characters += text.chars().count();
                self.socket.send(Message::binary(text.as_bytes().to_vec())).await?;
                let usage = json!({"characters": self.characters});
                self.emit("result-generated", json!({"output": {}, "usage": usage})).await
            }
            "finish-task" => {
                let usage = match self.seconds {
                    0 => json!({"characters": self.characters}),
                    seconds => json!({"duration": seconds}),
                };
                self.emit("task-finished", json!({"output": {}, "usage": usage})).await
            }
            other => {
                let header = json!({"task_id": self.task, "event": "task-failed", "error_code": "InvalidParameter",
                    "error_message": format!("unknown action '{other}'"), "attributes": {}});
                say(&mut self.socket, &json!({"header": header, "payload": {}})).await
            }
        }
    }
}
