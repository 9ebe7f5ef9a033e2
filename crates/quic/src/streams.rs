//! Streams that go one way: the control streams, and those of QPACK.
//!
//! What a peer may say there is little, and none of it is kept: settings that matter to nobody here,
//! where it goes away, and that it uses no dynamic table.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::task::spawn_local;

use crate::code::Code;
use crate::flood;
use crate::shared::Shared;
use crate::varint;

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

const SETTINGS: u64 = 0x4;
const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;
const CANCEL_PUSH: u64 = 0x3;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;

/// The longest frame that is read on a control stream: SETTINGS with some greasing.
const LONGEST: u64 = 4096;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// Serves the connection's streams until it ends. The tasks run on this thread.
pub(crate) fn serve(shared: &Rc<Shared>, side: Side) {
    let speaking = Rc::clone(shared);
    spawn_local(async move {
        if speak(&speaking).await.is_err() && speaking.quic.close_reason().is_none() {
            speaking.fail(Code::CLOSED_CRITICAL_STREAM);
        }
    });
    let listening = Rc::clone(shared);
    spawn_local(async move {
        let seen = Rc::<Cell<[bool; 4]>>::default();
        while let Ok(stream) = listening.quic.accept_uni().await {
            listening.pay(flood::LITTLE);
            let (shared, seen) = (Rc::clone(&listening), Rc::clone(&seen));
            spawn_local(async move {
                let (ended, outcome) = (shared.quic.clone(), listen(&shared, side, stream, &seen).await);
                if let (Err(code), None) = (outcome, ended.close_reason()) {
                    shared.fail(code);
                }
            });
        }
    });
}

/// Our control stream: settings at first, then where we go away.
async fn speak(shared: &Shared) -> Result<(), quinn::WriteError> {
    let mut control = shared.quic.open_uni().await?;
    let mut hello = BytesMut::new();
    varint::write(CONTROL, &mut hello);
    let mut settings = BytesMut::new();
    varint::write(MAX_FIELD_SECTION_SIZE, &mut settings);
    varint::write(shared.limits.bytes as u64, &mut settings);
    frame(SETTINGS, &settings, &mut hello);
    control.write_chunk(hello.freeze()).await?;
    loop {
        let changed = shared.goodbye.changed.notified();
        if let Some(id) = shared.goodbye.send.take() {
            let (mut payload, mut goaway) = (BytesMut::new(), BytesMut::new());
            varint::write(id, &mut payload);
            frame(GOAWAY, &payload, &mut goaway);
            control.write_chunk(goaway.freeze()).await?;
        }
        tokio::select! {
            () = changed => {}
            // It asks us to be silent, or the connection is over.
            _ = control.stopped() => return Err(quinn::WriteError::ClosedStream),
        }
    }
}

fn frame(kind: u64, payload: &[u8], out: &mut BytesMut) {
    varint::write(kind, out);
    varint::write(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// One stream of the peer, from its first byte.
async fn listen(
    shared: &Shared,
    side: Side,
    stream: quinn::RecvStream,
    seen: &Cell<[bool; 4]>,
) -> Result<(), Code> {
    let mut stream = Pieces { stream, chunk: Bytes::new() };
    // It may end before it has said what it is (section 6.2).
    let Some(kind) = stream.varint().await else { return Ok(()) };
    if let Some(index) = usize::try_from(kind).ok().filter(|kind| *kind < 4) {
        let mut all = seen.get();
        if kind != PUSH && std::mem::replace(&mut all[index], true) {
            return Err(Code::STREAM_CREATION_ERROR);
        }
        seen.set(all);
    }
    match kind {
        CONTROL => control(shared, side, &mut stream).await,
        // Only servers push, and only where they were told that they may.
        PUSH if side == Side::Server => Err(Code::STREAM_CREATION_ERROR),
        PUSH => Err(Code::ID_ERROR),
        ENCODER => encoder(&mut stream).await,
        DECODER => decoder(&mut stream).await,
        _ => {
            shared.pay(flood::SOME);
            let _ = stream.stream.stop(Code::STREAM_CREATION_ERROR.wire());
            Ok(())
        }
    }
}

async fn control(shared: &Shared, side: Side, stream: &mut Pieces) -> Result<(), Code> {
    let (mut settled, mut pushes) = (false, 0);
    loop {
        let kind = stream.varint().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?;
        let length = stream.varint().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?;
        if !std::mem::replace(&mut settled, true) {
            if kind != SETTINGS {
                return Err(Code::MISSING_SETTINGS);
            }
            settings(&stream.payload(length).await?)?;
            continue;
        }
        shared.pay(flood::SOME);
        match kind {
            GOAWAY => {
                let id = whole(&stream.payload(length).await?)?;
                let before = shared.goodbye.came.get();
                let foreign = side == Side::Client && id % 4 != 0;
                if foreign || before.is_some_and(|before| id > before) {
                    return Err(Code::ID_ERROR);
                }
                shared.goodbye.came.set(Some(id));
            }
            MAX_PUSH_ID if side == Side::Server => {
                let most = whole(&stream.payload(length).await?)?;
                // It cannot be taken back (section 7.2.7).
                if most < pushes {
                    return Err(Code::ID_ERROR);
                }
                pushes = most;
            }
            // Nothing was pushed that could be cancelled.
            CANCEL_PUSH => {
                whole(&stream.payload(length).await?)?;
                return Err(Code::ID_ERROR);
            }
            // DATA, HEADERS, SETTINGS once more, PUSH_PROMISE, MAX_PUSH_ID of a server, what HTTP/2 had.
            0x0..=0x9 | 0xd => return Err(Code::FRAME_UNEXPECTED),
            _ => stream.skip(length).await?,
        }
    }
}

/// Reads settings for what is wrong with them; what they say changes nothing here.
fn settings(mut bytes: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !bytes.is_empty() {
        let (id, size) = varint::read(bytes).ok_or(Code::FRAME_ERROR)?;
        bytes = &bytes[size..];
        let (_, size) = varint::read(bytes).ok_or(Code::FRAME_ERROR)?;
        bytes = &bytes[size..];
        // Those of HTTP/2 (section 7.2.4.1), and what is said twice.
        if matches!(id, 0x2..=0x5) || seen.contains(&id) || seen.len() >= 64 {
            return Err(Code::SETTINGS_ERROR);
        }
        seen.push(id);
    }
    Ok(())
}

/// A frame that holds one integer.
fn whole(bytes: &[u8]) -> Result<u64, Code> {
    match varint::read(bytes) {
        Some((value, size)) if size == bytes.len() => Ok(value),
        _ => Err(Code::FRAME_ERROR),
    }
}

/// Our decoder has no dynamic table: its capacity may be set to none at all, and nothing else said.
async fn encoder(stream: &mut Pieces) -> Result<(), Code> {
    const SET_CAPACITY_TO_NONE: u8 = 0x20;
    while let Some(byte) = stream.byte().await {
        if byte != SET_CAPACITY_TO_NONE {
            return Err(Code::QPACK_ENCODER_STREAM_ERROR);
        }
    }
    Err(Code::CLOSED_CRITICAL_STREAM)
}

/// Our encoder uses no dynamic table: there is nothing to acknowledge, but streams may be cancelled.
async fn decoder(stream: &mut Pieces) -> Result<(), Code> {
    while let Some(byte) = stream.byte().await {
        if byte & 0xc0 != 0x40 {
            return Err(Code::QPACK_DECODER_STREAM_ERROR);
        }
        if byte & 0x3f == 0x3f {
            // The rest of the stream's number.
            for place in 0.. {
                match stream.byte().await {
                    Some(more) if more & 0x80 != 0 && place < 9 => {}
                    Some(more) if more & 0x80 == 0 => break,
                    Some(_) => return Err(Code::QPACK_DECODER_STREAM_ERROR),
                    None => return Err(Code::CLOSED_CRITICAL_STREAM),
                }
            }
        }
    }
    Err(Code::CLOSED_CRITICAL_STREAM)
}

/// A stream that is read in small pieces.
struct Pieces {
    stream: quinn::RecvStream,
    chunk: Bytes,
}

impl Pieces {
    /// None at its end, however that came.
    async fn byte(&mut self) -> Option<u8> {
        while self.chunk.is_empty() {
            self.chunk = self.stream.read_chunk(1024, true).await.ok()??.bytes;
        }
        Some(self.chunk.get_u8())
    }

    async fn varint(&mut self) -> Option<u64> {
        let mut bytes = [0; varint::LONGEST];
        bytes[0] = self.byte().await?;
        let length = varint::length(bytes[0]);
        for place in bytes.iter_mut().take(length).skip(1) {
            *place = self.byte().await?;
        }
        varint::read(&bytes[..length]).map(|(value, _)| value)
    }

    async fn payload(&mut self, length: u64) -> Result<Vec<u8>, Code> {
        if length > LONGEST {
            return Err(Code::EXCESSIVE_LOAD);
        }
        let mut out = Vec::new();
        for _ in 0..length {
            out.push(self.byte().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?);
        }
        Ok(out)
    }

    async fn skip(&mut self, length: u64) -> Result<(), Code> {
        let mut left = length;
        while left > 0 {
            if self.chunk.is_empty() {
                self.chunk =
                    Bytes::copy_from_slice(&[self.byte().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?]);
            }
            let now = left.min(self.chunk.len() as u64);
            self.chunk.advance(usize::try_from(now).unwrap_or(self.chunk.len()));
            left -= now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_http2_and_those_said_twice_are_errors() {
        assert_eq!(settings(&[]), Ok(()));
        assert_eq!(settings(&[1, 0, 7, 0, 6, 0x80, 0, 1, 0, 0x21, 5]), Ok(()));
        for bad in [&[2, 0][..], &[3, 1], &[4, 1], &[5, 1], &[6, 1, 6, 1]] {
            assert_eq!(settings(bad), Err(Code::SETTINGS_ERROR), "{bad:?}");
        }
        for torn in [&[6][..], &[0x40], &[6, 0x80, 0]] {
            assert_eq!(settings(torn), Err(Code::FRAME_ERROR), "{torn:?}");
        }
    }
}
