//! What tests may know of a call: `/sandbox/calls`.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::lock;
use super::offer::Offer;

/// RTP payloads that are remembered, by the begin of their hashes: a minute and a half of sound.
const PAYLOADS: usize = 4500;

/// One call as the platform saw it.
#[derive(Clone, Debug)]
pub struct SeenCall {
    /// `rtc_…`, as in the answer's `Location`.
    pub id: String,
    /// The path of the offer, without query.
    pub path: String,
    /// The model asked for.
    pub model: String,
    /// `new`, `connecting`, `connected`, `disconnected`, `failed`, `closed` while it goes on, then `ended`.
    pub state: String,
    /// Why it ended: `hangup`, `peer`, `failed`, `setup`, `limit`, `shutdown`, `refused` or `caller`.
    pub ended: Option<&'static str>,
    /// The offer's SDP.
    pub offer: String,
    /// The answer's SDP.
    pub answer: String,
    /// RTP packets received, and sent back.
    pub packets_in: u64,
    /// See `packets_in`.
    pub packets_out: u64,
    /// Of each RTP payload in order of arrival the first 8 bytes of its SHA-256, of all tracks together; at
    /// most 4500.
    pub payloads: Vec<u64>,
    /// Label, protocol and whether ordered, of each data channel.
    pub channels: Vec<(String, String, bool)>,
    /// Messages received on data channels, and their bytes.
    pub messages: u64,
    /// See `messages`.
    pub message_bytes: u64,
}

impl SeenCall {
    pub(crate) fn to_json(&self) -> Value {
        let candidates = |sdp: &str| {
            let lines = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let payloads = self.payloads.iter().fold(String::new(), |mut text, payload| {
            let _ = write!(text, "{payload:016x}");
            text
        });
        let channels: Vec<Value> = self
            .channels
            .iter()
            .map(|(label, protocol, ordered)| json!({"label": label, "protocol": protocol, "ordered": ordered}))
            .collect();
        json!({
            "id": self.id,
            "path": self.path,
            "model": self.model,
            "state": self.state,
            "ended": self.ended,
            "offer": self.offer,
            "answer": self.answer,
            "remote_candidates": candidates(&self.offer),
            "local_candidates": candidates(&self.answer),
            "packets_in": self.packets_in,
            "packets_out": self.packets_out,
            "payloads": payloads,
            "channels": channels,
            "messages": self.messages,
            "message_bytes": self.message_bytes,
        })
    }

    pub(super) fn packet(&mut self, payload: &Bytes) {
        self.packets_in += 1;
        if self.payloads.len() < PAYLOADS {
            let hash = Sha256::digest(payload);
            let begin = hash.first_chunk().copied().unwrap_or_default();
            self.payloads.push(u64::from_be_bytes(begin));
        }
    }

    pub(super) fn message(&mut self, bytes: usize) {
        self.messages += 1;
        self.message_bytes += bytes as u64;
    }
}

pub(super) type Record = Arc<Mutex<SeenCall>>;

pub(super) fn open(id: &str, offer: &Offer) -> Record {
    Arc::new(Mutex::new(SeenCall {
        id: id.to_owned(),
        path: offer.path.clone(),
        model: offer.model.clone(),
        state: "new".to_owned(),
        ended: None,
        offer: offer.sdp.clone(),
        answer: String::new(),
        packets_in: 0,
        packets_out: 0,
        payloads: Vec::new(),
        channels: Vec::new(),
        messages: 0,
        message_bytes: 0,
    }))
}

pub(super) fn close(record: &Record) {
    let mut record = lock(record);
    "ended".clone_into(&mut record.state);
    // Nobody said why: its task broke off.
    record.ended.get_or_insert("failed");
}
