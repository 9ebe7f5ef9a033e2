//! A call without sockets and without a clock: two legs, and what goes from one to the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aiproxy_core::ports::{CallCause, CallGuard, CallLimits, CallTerms, CallUse, Side};
use aiproxy_core::{CallFigures, ErrorKind};
use bytes::BytesMut;
use rtc::peer_connection::event::{RTCPeerConnectionEvent, RTCTrackEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::rtp::Packet;
use rtc::sansio::Protocol as _;

use crate::channels;
use crate::leg::Leg;
use crate::messages::{self, Messages};

/// A packet to be sent.
pub(crate) struct Out {
    /// To whom.
    pub(crate) side: Side,
    /// Where that is.
    pub(crate) to: SocketAddr,
    pub(crate) packet: BytesMut,
}

/// The first byte of a DTLS record that is no handshake.
const APPLICATION_DATA: u8 = 23;
/// How often a packet is taken from a side whose counterpart takes nothing.
const TRICKLE: Duration = Duration::from_millis(250);

/// The far side takes nothing.
#[derive(Debug)]
pub(crate) struct Jam {
    pub(crate) since: Instant,
    /// What came since.
    bytes: usize,
    last: Instant,
}

/// A call.
pub(crate) struct Bridge {
    caller: Leg,
    platform: Leg,
    limits: CallLimits,
    messages: Messages,
    pub(crate) guard: Box<dyn CallGuard>,
    answered: Instant,
    /// Since when both legs have stood.
    standing: Option<Instant>,
    /// When something passed last.
    active: Instant,
    dropped: u64,
}

impl Bridge {
    pub(crate) fn new(
        caller: Leg,
        platform: Leg,
        limits: CallLimits,
        terms: CallTerms,
        now: Instant,
    ) -> Self {
        Self {
            caller,
            platform,
            limits,
            messages: Messages::new(terms.metered, terms.models),
            guard: terms.guard,
            answered: now,
            standing: None,
            active: now,
            dropped: 0,
        }
    }

    fn leg(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Caller => &mut self.caller,
            Side::Platform => &mut self.platform,
        }
    }

    /// Takes a packet of this side that came from `from` to `local`.
    pub(crate) fn feed(
        &mut self,
        side: Side,
        packet: BytesMut,
        from: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) {
        if packet.first() == Some(&APPLICATION_DATA) && !self.has_room(side, packet.len(), now) {
            return;
        }
        self.leg(side).feed(packet, from, local, now);
    }

    /// Whether one more packet of a data channel may come in. While the far side takes nothing, the
    /// library holds what the near one sends, up to a number of messages of whatever size. Beyond the
    /// bound its packets are left to be sent again, but for a few, so that it does not give up.
    fn has_room(&mut self, side: Side, bytes: usize, now: Instant) -> bool {
        let held = self.limits.held_bytes;
        if channels::waiting(self.leg(other(side))) < held {
            self.leg(side).jam = None;
            return true;
        }
        let jam = self.leg(side).jam.get_or_insert(Jam { since: now, bytes: 0, last: now });
        jam.bytes += bytes;
        if jam.bytes > held && now < jam.last + TRICKLE {
            return false;
        }
        jam.last = now;
        true
    }

    /// Packets that never got here.
    pub(crate) fn lose(&mut self, packets: u64) {
        self.dropped += packets;
    }

    /// Moves what can be moved, and gives what is to be sent.
    ///
    /// # Errors
    /// Why the call has ended.
    pub(crate) fn drain(&mut self, out: &mut Vec<Out>, now: Instant) -> Result<(), CallCause> {
        loop {
            let moved = self.drain_leg(Side::Caller, out, now)? | self.drain_leg(Side::Platform, out, now)?;
            if !moved {
                break;
            }
        }
        for side in [Side::Caller, Side::Platform] {
            if self.leg(side).closed() {
                return Err(CallCause::Closed(side));
            }
        }
        Ok(())
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// Why the call has ended.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), CallCause> {
        for leg in [&mut self.caller, &mut self.platform] {
            if let Err(error) = leg.connection.handle_timeout(now) {
                // A handshake that was repeated in vain.
                tracing::debug!(side = ?leg.side, %error, "a leg failed");
                return Err(if leg.up { CallCause::Lost(leg.side) } else { CallCause::Unreached(leg.side) });
            }
        }
        match self.standing {
            None if now >= self.answered + self.limits.setup => {
                let side = if self.platform.up { Side::Caller } else { Side::Platform };
                Err(CallCause::Unreached(side))
            }
            Some(_) if now >= self.active + self.limits.idle => Err(CallCause::Idle),
            Some(_) if let Some(side) = self.jammed(now) => Err(CallCause::Lost(side)),
            _ if self.limits.total.is_some_and(|total| now >= self.answered + total) => Err(CallCause::Total),
            _ => Ok(()),
        }
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub(crate) fn deadline(&mut self, now: Instant) -> Instant {
        let own = match self.standing {
            None => self.answered + self.limits.setup,
            Some(_) => self.active + self.limits.idle,
        };
        let total = self.limits.total.map(|total| self.answered + total);
        let legs = [&mut self.caller, &mut self.platform].map(|leg| leg.connection.poll_timeout());
        legs.into_iter().flatten().chain(total).fold(own, Instant::min).max(now)
    }

    /// The side that has taken no message for as long as silence may last.
    fn jammed(&self, now: Instant) -> Option<Side> {
        let long = |leg: &Leg| leg.jam.as_ref().is_some_and(|jam| now >= jam.since + self.limits.idle);
        match (long(&self.caller), long(&self.platform)) {
            (true, _) => Some(Side::Platform),
            (_, true) => Some(Side::Caller),
            _ => None,
        }
    }

    /// Says goodbye to both sides.
    pub(crate) fn close(&mut self, out: &mut Vec<Out>, now: Instant) {
        for side in [Side::Caller, Side::Platform] {
            let leg = self.leg(side);
            if let Err(error) = leg.connection.close() {
                tracing::trace!(?side, %error, "a leg closed with an error");
            }
            let _ = leg.connection.handle_timeout(now);
            send(leg, out, now);
        }
    }

    /// What has passed so far.
    pub(crate) fn so_far(&mut self, now: Instant) -> CallUse {
        let usage = self.messages.usage();
        CallUse { figures: self.figures(now), usage, model: self.messages.model.clone() }
    }

    /// What has passed in all.
    pub(crate) fn settle(&mut self, complete: bool, now: Instant) -> CallUse {
        let usage = self.messages.settle(complete);
        CallUse { figures: self.figures(now), usage, model: self.messages.model.take() }
    }

    fn figures(&mut self, now: Instant) -> CallFigures {
        self.caller.measure();
        self.platform.measure();
        CallFigures {
            setup: self.standing.map(|standing| standing - self.answered),
            connected: self.standing.map_or(Duration::ZERO, |standing| now - standing),
            caller: self.caller.figures,
            platform: self.platform.figures,
            dropped: self.dropped,
        }
    }

    /// Whether anything was moved to the other leg.
    fn drain_leg(&mut self, side: Side, out: &mut Vec<Out>, now: Instant) -> Result<bool, CallCause> {
        let mut moved = false;
        loop {
            let mut any = send(self.leg(side), out, now);
            let (near, far) = pair(&mut self.caller, &mut self.platform, side);
            if channels::begin(near, far, now) {
                (any, moved) = (true, true);
            }
            while let Some(event) = self.leg(side).connection.poll_event() {
                any = true;
                moved |= self.event(side, event, now)?;
            }
            while let Some(TaggedRTCMessage { message, .. }) = self.leg(side).connection.poll_media_read() {
                any = true;
                if let RTCMessage::RtpPacket(track, packet) = message {
                    moved |= self.forward(side, &track, packet, now);
                }
            }
            // While the far side takes nothing, nothing is read: SCTP's window then holds the near one.
            let held = self.limits.held_bytes;
            while self.leg(side).later.is_empty() && channels::waiting(self.leg(other(side))) < held {
                let Some(TaggedRTCMessage { message, .. }) = self.leg(side).connection.poll_data_read()
                else {
                    break;
                };
                any = true;
                if let RTCMessage::DataChannelMessage(id, message) = message {
                    moved = true;
                    self.message(side, id, message.is_string, message.data, now);
                }
            }
            if !any {
                return Ok(moved);
            }
        }
    }

    fn event(&mut self, side: Side, event: RTCPeerConnectionEvent, now: Instant) -> Result<bool, CallCause> {
        match event {
            RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => match state {
                RTCPeerConnectionState::Connected => {
                    self.leg(side).up = true;
                    if self.standing.is_none() && self.caller.up && self.platform.up {
                        self.standing = Some(now);
                        self.active = now;
                        self.guard.connected();
                    }
                    Ok(true)
                }
                RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => {
                    let up = self.leg(side).up;
                    Err(if up { CallCause::Lost(side) } else { CallCause::Unreached(side) })
                }
                _ => Ok(false),
            },
            RTCPeerConnectionEvent::OnTrack(RTCTrackEvent::OnOpen(track)) => {
                let leg = self.leg(side);
                if let Some(line) = leg.line_of(track.receiver_id) {
                    leg.tracks.insert(track.track_id, line);
                }
                Ok(false)
            }
            RTCPeerConnectionEvent::OnDataChannel(event) => {
                let (near, far) = pair(&mut self.caller, &mut self.platform, side);
                self.dropped += channels::event(near, far, &event, now);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Passes a packet on: its payload, sequence number and timestamp as they are.
    fn forward(&mut self, side: Side, track: &str, mut packet: Packet, now: Instant) -> bool {
        let (near, far) = pair(&mut self.caller, &mut self.platform, side);
        let Some(line) = near.tracks.get(track).map(|index| &mut near.lines[*index]) else { return false };
        let header = &mut packet.header;
        let clock = line.codecs.iter().find(|codec| codec.number == header.payload_type);
        let clock = clock.map_or(48_000, |codec| codec.clock);
        line.stream.received(header.ssrc, header.sequence_number, header.timestamp, clock, now);
        let line = &*line;
        let number = line.numbers.iter().find(|(here, _)| *here == header.payload_type);
        let to = line.far.and_then(|index| far.lines.get(index)?.track.as_ref());
        let (Some((_, number)), Some((id, ssrc)), true) = (number, to, far.up) else {
            // Before the far leg stands there is nobody to hear it.
            self.dropped += u64::from(far.up);
            return false;
        };
        header.payload_type = *number;
        header.ssrc = *ssrc;
        header.csrc.clear();
        let level = line.levels.and_then(|(here, there)| {
            let loud = header.extensions.iter().find(|extension| extension.id == here)?;
            Some((there, loud.payload.clone()))
        });
        // All four, or the next extension that is set makes a header that peers drop.
        header.extension = false;
        header.extension_profile = 0;
        header.extensions.clear();
        header.extensions_padding = 0;
        if let Some((id, payload)) = level {
            let _ = header.set_extension(id, payload);
        }
        let bytes = packet.payload.len() as u64;
        let message = RTCMessage::RtpPacket(id.clone(), packet);
        if let Err(error) = far.connection.handle_write(TaggedRTCMessage { now, message }) {
            tracing::trace!(?side, %error, "packet not passed on");
            self.dropped += 1;
            return false;
        }
        near.figures.packets += 1;
        near.figures.media_bytes += bytes;
        self.active = now;
        true
    }

    fn message(
        &mut self,
        side: Side,
        id: rtc::data_channel::RTCDataChannelId,
        text: bool,
        data: BytesMut,
        now: Instant,
    ) {
        let guard = &self.guard;
        let pass = match side {
            Side::Platform => {
                self.messages.down(text, &data);
                true
            }
            Side::Caller => self.messages.up(text, &data, &**guard),
        };
        let (near, far) = pair(&mut self.caller, &mut self.platform, side);
        let bytes = data.len();
        let notice = match Some(far.takes).filter(|most| bytes > *most as usize) {
            _ if !pass => {
                let kind = ErrorKind::ModelNotAllowed;
                Some(messages::refusal(kind.code(), kind.message()))
            }
            Some(most) => {
                let sentence = format!("The message has {bytes} bytes; the other side takes {most}.");
                Some(messages::refusal("message_too_large", &sentence))
            }
            None => None,
        };
        if let Some(notice) = notice {
            // To whom does not listen nothing is said.
            if channels::waiting(near) < self.limits.held_bytes {
                let _ = channels::send(near, id, true, notice.as_bytes().into(), now);
            }
            self.dropped += 1;
            return;
        }
        self.active = now;
        let Some(peer) = near.channels.get(&id).and_then(|channel| channel.peer) else {
            self.dropped += 1;
            return;
        };
        match channels::send(far, peer, text, data, now) {
            Ok(()) => {
                near.figures.messages += 1;
                near.figures.message_bytes += bytes as u64;
            }
            Err(error) => {
                tracing::debug!(?side, %error, "message not passed on");
                self.dropped += 1;
            }
        }
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Caller => Side::Platform,
        Side::Platform => Side::Caller,
    }
}

fn pair<'a>(caller: &'a mut Leg, platform: &'a mut Leg, near: Side) -> (&'a mut Leg, &'a mut Leg) {
    match near {
        Side::Caller => (caller, platform),
        Side::Platform => (platform, caller),
    }
}

fn send(leg: &mut Leg, out: &mut Vec<Out>, now: Instant) -> bool {
    let before = out.len();
    while let Some(packet) = leg.connection.poll_write() {
        leg.leaves(&packet.message, now);
        out.push(Out { side: leg.side, to: packet.transport.peer_addr, packet: packet.message });
    }
    out.len() > before
}
