//! One direction of a socket: read, follow, write.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::SocketStream;
use aiproxy_taps::socket::{Named, UNREADABLE};
use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::buffer::Buffer;
use crate::frame::{Piece, Violation, Walker};
use crate::gather::Gather;
use crate::mask;
use crate::observe::Observer;

/// What happened in a direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Bytes were read or written, so many of them handed on.
    Moved(usize),
    /// The source has ended, or broke.
    SourceEnded,
    /// The destination takes nothing any more.
    SinkBroken,
    /// What was read behind what may pass is no frame.
    Violation(Violation),
    /// A close frame is on its way.
    Close(Option<u16>),
    /// The caller said what it may not, as a model; the message has not passed whole.
    Refused(ErrorKind),
}

/// Whether the caller may ask for a model.
type Admits<'a> = &'a dyn Fn(&Named) -> bool;

/// What a look at the bytes of a buffer gave.
struct Look {
    ready: usize,
    event: Option<Event>,
}

/// One direction.
pub(crate) struct Way {
    walker: Walker,
    pub(crate) observer: Observer,
    remask: bool,
    /// While there is one, messages are held and rewritten.
    gather: Option<Box<Gather>>,
    /// Old mask and new one of the data frame under way, one applied to the other.
    swap: [u8; 4],
    /// What came with the handshake and has not been looked at.
    ahead: Bytes,
    buffer: Option<Buffer>,
    /// Bytes of our own that are first in the buffer, which nobody is told that the source sent.
    ours: usize,
    /// `buffer[sent..ready]` waits to be written.
    sent: usize,
    ready: usize,
    /// The beginning of a header or of a control frame.
    held: Vec<u8>,
    flush: bool,
    /// Since when the destination has taken nothing of what waits for it.
    pub(crate) stalled: Option<Instant>,
    /// Where the first byte of the buffer's frame under way stands, if it is in there.
    frame_at: Option<usize>,
    /// The destination is in the middle of a frame whose rest will not come.
    severed: bool,
    /// What was read last may not pass.
    refused: bool,
    /// The first model that was named.
    pub(crate) model: Option<String>,
    /// A close frame has passed: nothing comes after it.
    pub(crate) closed: bool,
    /// No new frame passes any more; then this frame goes out, if there is one.
    stopping: bool,
    last: Option<Vec<u8>>,
    /// The destination was told that nothing more comes.
    pub(crate) shut: bool,
    /// The source has ended.
    pub(crate) ended: bool,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Way {
    pub(crate) fn new(
        walker: Walker,
        observer: Observer,
        remask: bool,
        gather: Option<Box<Gather>>,
        ahead: Bytes,
    ) -> Self {
        Self {
            walker,
            observer,
            remask,
            gather,
            swap: [0; 4],
            // What is empty may still hold on to the buffer that it was read into.
            ahead: if ahead.is_empty() { Bytes::new() } else { ahead },
            buffer: None,
            ours: 0,
            sent: 0,
            ready: 0,
            held: Vec::new(),
            flush: false,
            stalled: None,
            frame_at: None,
            severed: false,
            refused: false,
            model: None,
            closed: false,
            stopping: false,
            last: None,
            shut: false,
            ended: false,
            frames: 0,
            bytes: 0,
        }
    }

    /// Has the destination hear this frame before any of the source's.
    pub(crate) fn begin_with(&mut self, frame: Vec<u8>) {
        (self.ours, self.ready) = (frame.len(), frame.len());
        self.buffer = Some(Buffer::from(frame));
    }

    /// Lets the frame under way pass, then this one, and then nothing.
    pub(crate) fn stop(&mut self, last: Option<Vec<u8>>) {
        if !self.stopping {
            self.stopping = true;
            self.last = last.filter(|_| !self.closed);
        }
    }

    /// Goes as far as it can without waiting.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn SocketStream,
        to: &mut dyn SocketStream,
        admits: Admits<'_>,
    ) -> Poll<Event> {
        if self.sent < self.ready {
            return self.write(cx, to);
        }
        if self.flush {
            if ready!(Pin::new(&mut *to).poll_flush(cx)).is_err() {
                return self.broken();
            }
            self.flush = false;
        }
        if self.shut {
            return self.discard(cx, from);
        }
        // What was refused or is held was not handed on: the destination is where the frame before ended.
        let unbroken = !self.severed && (self.refused || self.gather.is_some() || self.walker.at_boundary());
        if self.stopping && (unbroken || self.severed || self.ended) {
            if let Some(frame) = self.last.take().filter(|_| unbroken) {
                let buffer = self.buffer.insert(Buffer::take());
                buffer[..frame.len()].copy_from_slice(&frame);
                (self.sent, self.ready) = (0, frame.len());
                self.closed = true;
                return self.write(cx, to);
            }
            // That it is gone already is no news.
            let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
            self.shut = true;
            return Poll::Ready(Event::Moved(0));
        }
        if self.closed || self.ended || self.refused {
            return self.discard(cx, from);
        }
        self.read(cx, from, to, admits)
    }

    fn write(&mut self, cx: &mut Context<'_>, to: &mut dyn SocketStream) -> Poll<Event> {
        let Some(buffer) = &self.buffer else { return Poll::Pending };
        let Poll::Ready(taken) = Pin::new(to).poll_write(cx, &buffer[self.sent..self.ready]) else {
            self.stalled.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        self.stalled = None;
        let Ok(taken @ 1..) = taken else { return self.broken() };
        self.sent += taken;
        let ours = taken.min(self.ours);
        self.ours -= ours;
        self.bytes += (taken - ours) as u64;
        if self.sent == self.ready {
            (self.sent, self.ready) = (0, 0);
            self.buffer = None;
            self.flush = true;
        }
        Poll::Ready(Event::Moved(taken))
    }

    fn broken(&mut self) -> Poll<Event> {
        (self.sent, self.ready, self.flush) = (0, 0, false);
        self.stalled = None;
        self.buffer = None;
        self.shut = true;
        Poll::Ready(Event::SinkBroken)
    }

    /// Reads for nobody: what still comes must not keep the source from hearing us.
    fn discard(&mut self, cx: &mut Context<'_>, from: &mut dyn SocketStream) -> Poll<Event> {
        if self.ended {
            return Poll::Pending;
        }
        let mut buffer = Buffer::take();
        let mut into = ReadBuf::new(&mut buffer);
        match ready!(Pin::new(from).poll_read(cx, &mut into)) {
            Ok(()) if !into.filled().is_empty() => Poll::Ready(Event::Moved(0)),
            Ok(()) | Err(_) => {
                self.ended = true;
                Poll::Ready(Event::SourceEnded)
            }
        }
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn SocketStream,
        to: &mut dyn SocketStream,
        admits: Admits<'_>,
    ) -> Poll<Event> {
        let mut buffer = Buffer::take();
        let held = self.held.len();
        let filled = if self.ahead.has_remaining() {
            let room = self.ahead.len().min(buffer.len() - held);
            self.ahead.copy_to_slice(&mut buffer[held..held + room]);
            if self.ahead.is_empty() {
                // Its memory may be a whole read buffer.
                self.ahead = Bytes::new();
            }
            held + room
        } else {
            let mut into = ReadBuf::new(&mut buffer[held..]);
            match ready!(Pin::new(from).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => held + into.filled().len(),
                Ok(()) | Err(_) => {
                    self.ended = true;
                    self.severed = !self.walker.at_boundary() && self.gather.is_none();
                    return Poll::Ready(Event::SourceEnded);
                }
            }
        };
        buffer[..held].copy_from_slice(&self.held);
        self.held = Vec::new();
        if self.gather.is_some() {
            let mut out = Vec::new();
            let event = self.hold(&mut buffer[..filled], &mut out, admits);
            (self.sent, self.ready) = (0, out.len());
            if !out.is_empty() {
                self.buffer = Some(Buffer::from(out));
            }
            return Poll::Ready(event.unwrap_or(Event::Moved(0)));
        }
        let look = self.look(&mut buffer[..filled], admits);
        (self.sent, self.ready) = (0, look.ready);
        if look.ready > 0 {
            self.buffer = Some(buffer);
            if look.event.is_none()
                && let Poll::Ready(event) = self.write(cx, to)
            {
                return Poll::Ready(event);
            }
        }
        Poll::Ready(look.event.unwrap_or(Event::Moved(0)))
    }

    /// Follows the frames in these bytes; how many of them may pass.
    fn look(&mut self, bytes: &mut [u8], admits: Admits<'_>) -> Look {
        let mut at = 0;
        self.frame_at = None;
        let event = loop {
            if at == bytes.len() || (self.stopping && self.walker.at_boundary()) {
                break None;
            }
            if self.walker.at_boundary() {
                self.frame_at = Some(at);
            }
            let piece = match self.walker.next(&bytes[at..]) {
                Ok(piece) => piece,
                Err(violation) => {
                    self.refused = true;
                    break Some(Event::Violation(violation));
                }
            };
            match piece {
                Piece::Partial => {
                    self.held = bytes[at..].to_vec();
                    break None;
                }
                Piece::Header(length) => {
                    self.frames += 1;
                    if self.remask {
                        self.swap = new_mask(&mut bytes[at..at + length]);
                    }
                    at += length;
                    if self.walker.at_boundary() && self.walker.is_last() {
                        self.message_ended();
                    }
                }
                Piece::Payload { bytes: length, frame_ends } => {
                    self.payload(&mut bytes[at..at + length], frame_ends);
                    at += length;
                }
                Piece::Control(length) => {
                    self.frames += 1;
                    self.control(&mut bytes[at..at + length]);
                    at += length;
                }
                Piece::Close(length, code) => {
                    self.frames += 1;
                    self.control(&mut bytes[at..at + length]);
                    self.closed = true;
                    at += length;
                    break Some(Event::Close(code));
                }
            }
            if !self.observer.take_models().iter().all(|model| self.admit(model, admits)) {
                // The message stays incomplete, so the platform does nothing about it: either its
                // frame has not begun to pass, or the rest of it never will.
                self.severed = self.frame_at.is_none();
                self.refused = true;
                at = self.frame_at.unwrap_or(0);
                break Some(Event::Refused(ErrorKind::ModelNotAllowed));
            }
        };
        Look { ready: at, event }
    }

    /// As [`look`](Self::look), where messages are held: what may pass goes to `out`.
    fn hold(&mut self, bytes: &mut [u8], out: &mut Vec<u8>, admits: Admits<'_>) -> Option<Event> {
        let mut at = 0;
        while at < bytes.len() && !self.stopping {
            let piece = match self.walker.next(&bytes[at..]) {
                Ok(piece) => piece,
                Err(violation) => {
                    self.refused = true;
                    return Some(Event::Violation(violation));
                }
            };
            let mut ended = false;
            match piece {
                Piece::Partial => {
                    self.held = bytes[at..].to_vec();
                    return None;
                }
                Piece::Header(length) => {
                    self.frames += 1;
                    at += length;
                    ended = self.walker.at_boundary() && self.walker.is_last();
                }
                Piece::Payload { bytes: length, frame_ends } => {
                    let (key, passed) = self.walker.mask();
                    let payload = &bytes[at..at + length];
                    let fits =
                        |gather: &mut Box<Gather>| gather.payload(payload, key, passed - length as u64);
                    if !self.gather.as_mut().is_some_and(fits) {
                        self.refused = true;
                        return Some(Event::Violation(Violation::TooLarge));
                    }
                    at += length;
                    ended = frame_ends && self.walker.is_last();
                }
                Piece::Control(length) | Piece::Close(length, _) => {
                    self.frames += 1;
                    self.control(&mut bytes[at..at + length]);
                    out.extend_from_slice(&bytes[at..at + length]);
                    at += length;
                }
            }
            if let Piece::Close(_, code) = piece {
                self.closed = true;
                return Some(Event::Close(code));
            }
            if ended {
                if let Err(kind) = self.whole(out, admits) {
                    self.refused = true;
                    return Some(Event::Refused(kind));
                }
                if self.gather.is_none() {
                    let rest = [&bytes[at..], &self.ahead].concat();
                    self.ahead = Bytes::from(rest);
                    return None;
                }
            }
        }
        None
    }

    /// A held message has ended.
    fn whole(&mut self, out: &mut Vec<u8>, admits: Admits<'_>) -> Result<(), ErrorKind> {
        let Some(mut gather) = self.gather.take() else { return Ok(()) };
        let text = self.walker.message_is_text() == Some(true);
        self.observer.payload(gather.message(), text, [0; 4], 0);
        self.message_ended();
        if !self.observer.take_models().iter().all(|model| self.admit(model, admits)) {
            return Err(ErrorKind::ModelNotAllowed);
        }
        gather.ended(text, out)?;
        if gather.wants_more() {
            self.gather = Some(gather);
        }
        Ok(())
    }

    fn admit(&mut self, model: &Named, admits: Admits<'_>) -> bool {
        if self.model.is_none() && model.name != UNREADABLE {
            self.model = Some(model.name.clone());
            self.observer.found();
        }
        admits(model)
    }

    fn payload(&mut self, bytes: &mut [u8], frame_ends: bool) {
        let (key, passed) = self.walker.mask();
        let at = passed - bytes.len() as u64;
        let text = self.walker.message_is_text() == Some(true);
        self.observer.payload(bytes, text, key, at);
        if self.remask {
            mask::apply(bytes, self.swap, at);
        }
        if frame_ends && self.walker.is_last() {
            self.message_ended();
        }
    }

    fn message_ended(&mut self) {
        let text = self.walker.message_is_text() == Some(true);
        self.walker.message_ended();
        self.observer.message_ended(text);
    }

    fn control(&self, frame: &mut [u8]) {
        if self.remask {
            let (header, payload) = frame.split_at_mut(6);
            let swap = new_mask(header);
            mask::apply(payload, swap, 0);
        }
    }
}

/// Puts a fresh mask at the end of a header; the old one and it, one applied to the other.
fn new_mask(header: &mut [u8]) -> [u8; 4] {
    let Some(mask) = header.last_chunk_mut::<4>() else { return [0; 4] };
    let (old, new) = (*mask, mask::fresh());
    *mask = new;
    std::array::from_fn(|index| old[index] ^ new[index])
}
