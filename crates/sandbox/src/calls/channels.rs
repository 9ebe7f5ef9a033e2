//! What is said on data channels: events go to the session, everything else goes back.

use std::sync::Arc;

use bytes::BytesMut;
use serde_json::Value;
use tokio::sync::mpsc;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};

use super::lock;
use super::record::Record;
use super::talk::Input;

/// What the types of a realtime session's events begin with.
const EVENTS: [&str; 5] =
    ["session.", "conversation.", "input_audio_buffer.", "output_audio_buffer.", "response."];

/// A channel that the caller opened. It speaks events when its label says so: `oai-events`,
/// `realtime-channel` and the like.
pub(super) async fn theirs(channel: Arc<dyn DataChannel>, inputs: mpsc::Sender<Input>, record: Record) {
    let label = channel.label().await.unwrap_or_default();
    let speaks = label.contains("events") || label.starts_with("realtime");
    note(&channel, &label, &record).await;
    if speaks && inputs.send(Input::Channel(Arc::clone(&channel))).await.is_err() {
        return;
    }
    hear(channel, speaks, inputs, record).await;
}

/// A channel that the sandbox opened: it speaks events as soon as it is open.
pub(super) async fn ours(channel: Arc<dyn DataChannel>, inputs: mpsc::Sender<Input>, record: Record) {
    loop {
        match channel.poll().await {
            Some(DataChannelEvent::OnOpen) => break,
            Some(_) => {}
            None => return,
        }
    }
    let label = channel.label().await.unwrap_or_default();
    note(&channel, &label, &record).await;
    if inputs.send(Input::Channel(Arc::clone(&channel))).await.is_ok() {
        hear(channel, true, inputs, record).await;
    }
}

async fn note(channel: &Arc<dyn DataChannel>, label: &str, record: &Record) {
    let protocol = channel.protocol().await.unwrap_or_default();
    let ordered = channel.ordered().await.unwrap_or(true);
    lock(record).channels.push((label.to_owned(), protocol, ordered));
}

async fn hear(channel: Arc<dyn DataChannel>, speaks: bool, inputs: mpsc::Sender<Input>, record: Record) {
    while let Some(event) = channel.poll().await {
        match event {
            DataChannelEvent::OnMessage(message) => {
                lock(&record).message(message.data.len());
                let heard = match event_of(&message).filter(|_| speaks) {
                    Some(event) => inputs.send(Input::Event(event)).await.is_ok(),
                    None => send_back(&channel, &message).await,
                };
                if !heard {
                    return;
                }
            }
            DataChannelEvent::OnClose => return,
            _ => {}
        }
    }
}

fn event_of(message: &RTCDataChannelMessage) -> Option<Value> {
    if !message.is_string {
        return None;
    }
    let event: Value = serde_json::from_slice(&message.data).ok()?;
    let kind = event["type"].as_str()?;
    EVENTS.iter().any(|begin| kind.starts_with(begin)).then_some(event)
}

async fn send_back(channel: &Arc<dyn DataChannel>, message: &RTCDataChannelMessage) -> bool {
    match std::str::from_utf8(&message.data) {
        Ok(text) if message.is_string => channel.send_text(text).await.is_ok(),
        _ => channel.send(BytesMut::from(&message.data[..])).await.is_ok(),
    }
}
