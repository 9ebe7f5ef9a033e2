//! A caller, a call and a platform on one network.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aiproxy_core::ports::{CallCause, CallGuard, CallLimits, CallTerms, CallUse, EndOrder, ReadModels, Side};
use bytes::{Bytes, BytesMut};
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::rtp::Packet;
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::network::{Network, Weather};
use crate::bridge::{Bridge, Out};
use crate::handshake::Handshake;
use crate::sdp::Codec;
use crate::{peer, setup};

pub(super) const CALLER: &str = "10.0.0.1:1000";
pub(super) const PLATFORM: &str = "10.0.0.2:2000";
const PORT: &str = "10.0.0.9:3478";
const LEG: &str = "10.0.0.9:50000";

pub(super) fn limits() -> CallLimits {
    CallLimits {
        setup: Duration::from_secs(15),
        idle: Duration::from_secs(60),
        total: None,
        grace: Duration::from_millis(2500),
        message_bytes: 224 << 10,
        held_bytes: 1 << 20,
        report: None,
    }
}

pub(super) fn codec(number: u8, name: &str, clock: u32, channels: u16) -> Codec {
    Codec {
        number,
        name: name.to_ascii_lowercase(),
        written: name.to_owned(),
        clock,
        channels,
        parameters: if name == "opus" { "minptime=10;useinbandfec=1".to_owned() } else { String::new() },
    }
}

pub(super) fn opus(number: u8) -> Vec<Codec> {
    vec![codec(number, "opus", 48_000, 2)]
}

/// A peer of ours, as a browser or a platform would be one.
pub(super) struct Peer {
    pub(super) pc: RTCPeerConnection,
    pub(super) address: SocketAddr,
    pub(super) state: Option<RTCPeerConnectionState>,
    pub(super) tracks: Vec<(String, u32)>,
    pub(super) packets: Vec<Packet>,
    pub(super) open: Vec<RTCDataChannelId>,
    pub(super) closed: usize,
    pub(super) messages: Vec<(RTCDataChannelId, bool, Vec<u8>)>,
    /// It takes no messages.
    pub(super) stalled: bool,
    /// It sends messages of any size.
    pub(super) reckless: bool,
    handshake: Handshake,
}

impl Peer {
    pub(super) fn new(address: &str, codecs: &[Codec], message_bytes: u32, now: Instant) -> Self {
        let limits = CallLimits {
            held_bytes: 1 << 20,
            message_bytes: message_bytes.saturating_sub(32 << 10),
            ..limits()
        };
        let fragment = aiproxy_core::ids::random_key("", 12);
        Self {
            pc: peer::connection(&fragment, codecs, &limits, now).unwrap(),
            address: address.parse().unwrap(),
            state: None,
            tracks: Vec::new(),
            packets: Vec::new(),
            open: Vec::new(),
            closed: 0,
            messages: Vec::new(),
            stalled: false,
            reckless: false,
            handshake: Handshake::default(),
        }
    }

    pub(super) fn add_track(&mut self, codec: &Codec) {
        self.add_track_of(std::slice::from_ref(codec));
    }

    /// A track that may be in any of these formats.
    pub(super) fn add_track_of(&mut self, codecs: &[Codec]) {
        let (track, id, ssrc) = peer::track(&codecs[0]);
        let sender = self.pc.add_track(track).unwrap();
        let all = codecs.iter().map(peer::parameters).collect();
        self.pc.rtp_transceiver(sender.into()).unwrap().set_codec_preferences(all).unwrap();
        self.tracks.push((id, ssrc));
    }

    pub(super) fn add_channel(&mut self, label: &str) -> RTCDataChannelId {
        self.pc.create_data_channel(label, None).unwrap().id()
    }

    pub(super) fn add_channel_with(&mut self, label: &str, init: RTCDataChannelInit) -> RTCDataChannelId {
        self.pc.create_data_channel(label, Some(init)).unwrap().id()
    }

    pub(super) fn offer(&mut self, now: Instant) -> String {
        let offer = self.pc.create_offer(None).unwrap();
        self.pc.set_local_description(now, offer).unwrap();
        self.pc.local_description().unwrap().sdp
    }

    pub(super) fn answer(&mut self, offer: &str, now: Instant) -> String {
        self.pc.set_remote_description(now, RTCSessionDescription::offer(offer.to_owned()).unwrap()).unwrap();
        let answer = self.pc.create_answer(None).unwrap();
        self.pc.set_local_description(now, answer).unwrap();
        peer::reachable(&mut self.pc, self.address).unwrap();
        self.pc.local_description().unwrap().sdp
    }

    pub(super) fn answered(&mut self, answer: &str, now: Instant) {
        let answer = match self.reckless {
            true => crate::sdp::with_message_bytes(answer, 262_144),
            false => answer.to_owned(),
        };
        let answer = RTCSessionDescription::answer(answer).unwrap();
        self.pc.set_remote_description(now, answer).unwrap();
        // Checks need a candidate to go out from.
        peer::reachable(&mut self.pc, self.address).unwrap();
    }

    pub(super) fn up(&self) -> bool {
        self.state == Some(RTCPeerConnectionState::Connected)
    }

    pub(super) fn say(&mut self, track: usize, number: u8, sequence: u16, payload: &[u8], now: Instant) {
        let (id, ssrc) = self.tracks[track].clone();
        let mut packet = Packet { payload: Bytes::copy_from_slice(payload), ..Packet::default() };
        packet.header.version = 2;
        packet.header.ssrc = ssrc;
        packet.header.payload_type = number;
        packet.header.sequence_number = sequence;
        packet.header.timestamp = u32::from(sequence) * 960;
        self.pc.handle_write(TaggedRTCMessage { now, message: RTCMessage::RtpPacket(id, packet) }).unwrap();
    }

    pub(super) fn text(&mut self, id: RTCDataChannelId, text: &str, now: Instant) {
        self.pc.data_channel(id).unwrap().send_text(now, text).unwrap();
    }

    pub(super) fn channel(&mut self, label: &str) -> Option<RTCDataChannelId> {
        let open = self.open.clone();
        open.into_iter().find(|id| self.pc.data_channel(*id).is_some_and(|it| it.label() == label))
    }

    fn poll(&mut self) -> Vec<(SocketAddr, BytesMut)> {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            while let Some(packet) = self.pc.poll_write() {
                out.push((packet.transport.peer_addr, packet.message));
            }
            while let Some(event) = self.pc.poll_event() {
                match event {
                    RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => self.state = Some(state),
                    RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                        self.open.push(id);
                    }
                    RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnClose(_)) => {
                        self.closed += 1;
                    }
                    _ => {}
                }
            }
            while let Some(message) = self.pc.poll_media_read() {
                if let RTCMessage::RtpPacket(_, packet) = message.message {
                    self.packets.push(packet);
                }
            }
            while !self.stalled
                && let Some(message) = self.pc.poll_data_read()
            {
                if let RTCMessage::DataChannelMessage(id, message) = message.message {
                    self.messages.push((id, message.is_string, message.data.to_vec()));
                }
            }
            if out.len() == before {
                return out;
            }
        }
    }
}

/// What the guard heard and is to say.
#[derive(Default)]
pub(super) struct Told {
    pub(super) connected: usize,
    pub(super) so_far: Vec<CallUse>,
    pub(super) models: Option<Vec<String>>,
}

struct Guard(Rc<RefCell<Told>>);

impl CallGuard for Guard {
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<EndOrder> {
        Poll::Pending
    }

    fn admits(&self, model: &str) -> bool {
        self.0.borrow().models.as_ref().is_none_or(|models| models.iter().any(|known| known == model))
    }

    fn connected(&self) {
        self.0.borrow_mut().connected += 1;
    }

    fn so_far(&self, figures: CallUse) {
        self.0.borrow_mut().so_far.push(figures);
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) caller: Peer,
    pub(super) platform: Peer,
    pub(super) bridge: Bridge,
    pub(super) ended: Option<CallCause>,
    pub(super) told: Rc<RefCell<Told>>,
    pub(super) network: Network,
    /// Where the caller's packets seem to come from.
    pub(super) seen: SocketAddr,
    /// Sides that cannot be reached.
    pub(super) gone: Vec<SocketAddr>,
    pub(super) caller_answer: String,
    pub(super) traffic: HashMap<SocketAddr, usize>,
}

impl World {
    /// Sets a call up as the crate's users do. The peers have their tracks and channels.
    pub(super) fn new(
        (mut caller, mut platform): (Peer, Peer),
        limits: CallLimits,
        models: Option<Vec<String>>,
        (seed, weather): (u64, Weather),
        now: Instant,
    ) -> Self {
        let told = Rc::new(RefCell::new(Told { models, ..Told::default() }));
        let offer = caller.offer(now);
        let offered = setup::begin(&offer, &[LEG.parse().unwrap()], "legfragment00001", limits, now).unwrap();
        let answer = platform.answer(&offered.offer, now);
        let read = if told.borrow().models.is_some() { ReadModels::All } else { ReadModels::First };
        let terms = CallTerms { metered: true, models: read, guard: Box::new(Guard(Rc::clone(&told))) };
        let at = [PORT.parse().unwrap()];
        let (bridge, caller_answer) = offered.finish(&answer, &at, "portfragment0001", terms, now).unwrap();
        caller.answered(&caller_answer, now);
        let network = Network::new(seed, weather);
        let seen = caller.address;
        let (gone, traffic) = (Vec::new(), HashMap::new());
        Self { now, caller, platform, bridge, ended: None, told, network, seen, gone, caller_answer, traffic }
    }

    /// Lets things happen until `done` or for so long; says whether it is done.
    pub(super) fn until(&mut self, within: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + within;
        loop {
            self.flush();
            if done(self) {
                return true;
            }
            let clocks = [
                self.caller.pc.poll_timeout(),
                self.platform.pc.poll_timeout(),
                self.ended.is_none().then(|| self.bridge.deadline(self.now)),
                self.network.next(),
            ];
            let next = clocks.into_iter().flatten().min().unwrap_or(end);
            // A clock that is due again and again moves on by a little, as with a real one.
            self.now = next.max(self.now + Duration::from_micros(200));
            if self.now > end {
                self.now = end;
                return false;
            }
            self.deliver();
            let now = self.now;
            for peer in [&mut self.caller, &mut self.platform] {
                // A handshake that came to nothing shows in what is asserted.
                if peer.pc.poll_timeout().is_some_and(|at| at <= now) {
                    let _ = peer.pc.handle_timeout(now);
                }
            }
            if self.ended.is_none()
                && self.bridge.deadline(now) <= now
                && let Err(cause) = self.bridge.tick(now)
            {
                self.ended = Some(cause);
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    fn flush(&mut self) {
        let now = self.now;
        for side in [Side::Caller, Side::Platform] {
            let peer = if side == Side::Caller { &mut self.caller } else { &mut self.platform };
            let from = if side == Side::Caller { self.seen } else { peer.address };
            for (to, packet) in peer.poll() {
                if !self.gone.contains(&from) {
                    *self.traffic.entry(to).or_default() += 1;
                    self.network.send(from, to, packet, now);
                }
            }
        }
        if self.ended.is_none() {
            let mut out = Vec::new();
            if let Err(cause) = self.bridge.drain(&mut out, now) {
                self.ended = Some(cause);
                self.bridge.close(&mut out, now);
            }
            for Out { side, to, packet } in out {
                let from = if side == Side::Caller { PORT } else { LEG };
                if !self.gone.contains(&to) {
                    self.network.send(from.parse().unwrap(), to, packet, now);
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, packet)) = self.network.arrive(self.now) {
            let now = self.now;
            if to.to_string() == PORT {
                self.bridge.feed(Side::Caller, packet, from, to, now);
            } else if to.to_string() == LEG {
                self.bridge.feed(Side::Platform, packet, from, to, now);
            } else {
                let peer = if to == self.platform.address { &mut self.platform } else { &mut self.caller };
                if peer.address != to && to != self.seen {
                    continue;
                }
                // A peer of the same library has the same trouble.
                let dtls = crate::handshake::is_dtls(&packet);
                let through = peer.up();
                if dtls && !peer.handshake.admits(&packet, through) {
                    continue;
                }
                let transport = TransportContext {
                    local_addr: peer.address,
                    peer_addr: from,
                    ecn: None,
                    transport_protocol: TransportProtocol::UDP,
                };
                let _ = peer.pc.handle_read(TaggedBytesMut { now, transport, message: packet });
            }
            self.flush();
        }
    }

    pub(super) fn connect(&mut self) {
        assert!(
            self.until(Duration::from_secs(14), |world| world.caller.up()
                && world.platform.up()
                && world.told.borrow().connected == 1),
            "caller {:?}, platform {:?}, ended {:?}",
            self.caller.state,
            self.platform.state,
            self.ended
        );
    }
}
