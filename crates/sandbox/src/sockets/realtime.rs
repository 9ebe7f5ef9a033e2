//! Realtime sessions over a WebSocket: one of its own, or one of a call.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Ended, Socket, say};
use crate::calls::Sideband;
use crate::route::State;
use crate::session::Session;

/// Says back what is said.
pub(super) async fn run(state: &Arc<State>, mut socket: Socket, model: &str, beta: bool) -> Ended {
    let mut session = Session::new(state, model, Value::Null);
    if beta {
        say(&mut socket, &session.refuse_beta()).await?;
        let code = CloseCode::from(4000);
        socket.close(Some(CloseFrame { code, reason: "beta_api_shape_disabled".into() })).await?;
        // The peer's answer.
        while let Some(Ok(_)) = socket.next().await {}
        return Ok(());
    }
    say(&mut socket, &session.greet()).await?;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            for event in session.hear_text(&text) {
                say(&mut socket, &event).await?;
            }
        }
    }
    Ok(())
}

/// Hears what is said in a call, and says something in it.
pub(super) async fn join(mut socket: Socket, mut call: Sideband) -> Ended {
    loop {
        tokio::select! {
            event = call.events.recv() => match event {
                Some(event) => socket.send(Message::text(event)).await?,
                // The call is over, or this one was too far behind.
                None => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let event = serde_json::from_str(&text).unwrap_or(Value::Null);
                    if !call.say(event).await {
                        break;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
    let reason = "The call has ended.";
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: reason.into() })).await?;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}
