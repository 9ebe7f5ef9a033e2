//! One leg of a call: a peer connection, its media lines and its data channels.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aiproxy_core::LegFigures;
use aiproxy_core::ports::Side;
use bytes::BytesMut;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::transport::RTCDtlsTransportState;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{
    RTCRtpReceiverId, RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit,
};
use rtc::sansio::Protocol as _;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use crate::bridge::Jam;
use crate::channels::Channel;
use crate::handshake::{self, Handshake};
use crate::peer;
use crate::sdp::{Codec, Direction, Section};
use crate::stream::{self, Stream};
use crate::stun;

/// Checks of ours that are waited for, and addresses of a peer, at most.
const CHECKS: usize = 128;
const PEERS: usize = 16;
/// Of those, how many come at once; the others one after the other.
const PEERS_AT_FIRST: usize = 8;
const MOVE_EVERY: Duration = Duration::from_secs(5);
/// Streams of a peer, at most: a few for each line.
const STREAMS: usize = 64;
/// The stream of a channel that exists so that there is a section for others. Nobody counts up to it.
const OPENER_STREAM: u16 = 1022;

/// One media line of a leg.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Its counterpart on the other leg.
    pub(crate) far: Option<usize>,
    /// Our track on it and its SSRC, where the peer receives.
    pub(crate) track: Option<(String, u32)>,
    /// Formats that were agreed upon.
    pub(crate) codecs: Vec<Codec>,
    pub(crate) extensions: Vec<(u8, String)>,
    /// Payload types of what comes, and what they are on the other leg.
    pub(crate) numbers: Vec<(u8, u8)>,
    /// Likewise header extensions.
    pub(crate) levels: Option<(u8, u8)>,
    /// What comes on it.
    pub(crate) stream: Stream,
}

/// One leg.
pub(crate) struct Leg {
    pub(crate) side: Side,
    pub(crate) connection: RTCPeerConnection,
    /// By the index of the library's transceivers.
    pub(crate) lines: Vec<Line>,
    /// Lines by the library's ids of the peer's tracks.
    pub(crate) tracks: HashMap<String, usize>,
    pub(crate) channels: HashMap<RTCDataChannelId, Channel>,
    pub(crate) opener: Option<RTCDataChannelId>,
    /// Channels of the peer that have no counterpart yet: the other leg cannot open any.
    pub(crate) later: Vec<RTCDataChannelId>,
    /// Bytes of a message that the peer takes.
    pub(crate) takes: u32,
    /// It stands.
    pub(crate) up: bool,
    pub(crate) figures: LegFigures,
    /// What our descriptions call this side.
    fragment: String,
    /// Our last checks, and when they left.
    asked: VecDeque<([u8; 12], Instant)>,
    /// Where checks came from, or their answers: only from there anything else is taken.
    peers: Vec<SocketAddr>,
    /// Streams of packets that have come.
    streams: Vec<u32>,
    /// When the last of them came.
    moved: Option<Instant>,
    /// The last check that nominated a pair before one had succeeded. A controlled agent of this library
    /// forgets it, which costs half a second: it is shown again then.
    nominated: Option<(BytesMut, SocketAddr, SocketAddr)>,
    handshake: Handshake,
    /// The far side takes nothing of what comes here.
    pub(crate) jam: Option<Jam>,
}

impl Leg {
    pub(crate) fn new(side: Side, fragment: &str, connection: RTCPeerConnection) -> Self {
        Self {
            side,
            connection,
            lines: Vec::new(),
            tracks: HashMap::new(),
            channels: HashMap::new(),
            opener: None,
            later: Vec::new(),
            takes: 0,
            up: false,
            figures: LegFigures::default(),
            fragment: fragment.to_owned(),
            asked: VecDeque::new(),
            peers: Vec::new(),
            streams: Vec::new(),
            moved: None,
            nominated: None,
            handshake: Handshake::default(),
            jam: None,
        }
    }

    /// Offers what a section of the other side offers.
    ///
    /// # Errors
    /// The library's; a section without formats is a mistake of the caller of this.
    pub(crate) fn offer(&mut self, section: &Section, far: usize) -> Result<(), Error> {
        let first = section.codecs.first().ok_or(Error::ErrCodecNotFound)?;
        let direction = match section.direction {
            Direction::Both => RTCRtpTransceiverDirection::Sendrecv,
            Direction::Send => RTCRtpTransceiverDirection::Sendonly,
            Direction::Receive => RTCRtpTransceiverDirection::Recvonly,
            Direction::Neither => RTCRtpTransceiverDirection::Inactive,
        };
        let mut init = RTCRtpTransceiverInit { direction, streams: Vec::new(), send_encodings: Vec::new() };
        let mut sent = None;
        let id = if section.sends() {
            let (track, id, ssrc) = peer::track(first);
            sent = Some((id, ssrc));
            init.streams.push("aiproxy".to_owned());
            self.connection.add_transceiver_from_track(track, Some(init))?
        } else {
            self.connection.add_transceiver_from_kind(RtpCodecKind::Audio, Some(init))?
        };
        let all = section.codecs.iter().map(peer::parameters).collect();
        self.connection
            .rtp_transceiver(id)
            .ok_or(Error::ErrRTPTransceiverNotExisted)?
            .set_codec_preferences(all)?;
        self.lines.push(Line { far: Some(far), track: sent, ..Line::default() });
        Ok(())
    }

    /// After the peer's offer has been applied: sends on a section where the peer receives.
    ///
    /// # Errors
    /// The library's.
    pub(crate) fn accept(&mut self, section: &Section, codec: &Codec, far: usize) -> Result<(), Error> {
        let mut sent = None;
        if section.receives() {
            let (track, id, ssrc) = peer::track(codec);
            self.connection.add_track(track)?;
            sent = Some((id, ssrc));
        }
        self.lines.push(Line { far: Some(far), track: sent, ..Line::default() });
        Ok(())
    }

    /// Has a section for data channels in its offer.
    ///
    /// # Errors
    /// The library's.
    pub(crate) fn offer_data(&mut self) -> Result<(), Error> {
        let init = RTCDataChannelInit { negotiated: Some(OPENER_STREAM), ..Default::default() };
        self.opener = Some(self.connection.create_data_channel("", Some(init))?.id());
        Ok(())
    }

    /// The line on which the peer's track of this receiver comes.
    pub(crate) fn line_of(&self, receiver: RTCRtpReceiverId) -> Option<usize> {
        (0..self.lines.len()).find(|index| RTCRtpReceiverId::from(*index) == receiver)
    }

    /// Takes a packet that came from `from` to `local`.
    pub(crate) fn feed(&mut self, packet: BytesMut, from: SocketAddr, local: SocketAddr, now: Instant) {
        if !self.admits(&packet, from, now) {
            return;
        }
        let first_success = !self.up && stun::is_success(&packet);
        if !self.up && stun::nominates(&packet) {
            self.nominated = Some((packet.clone(), from, local));
        }
        self.read(packet, from, local, now);
        if first_success && let Some((packet, from, local)) = self.nominated.take() {
            self.read(packet, from, local, now);
        }
        if self.up {
            self.nominated = None;
        }
    }

    /// Whether the library is to see a packet. Anybody can send anything to a port, and it takes most of
    /// that for the peer's; so what shows no knowledge of this call is nobody's.
    fn admits(&mut self, packet: &[u8], from: SocketAddr, now: Instant) -> bool {
        if stun::is_request(packet) {
            let ours = stun::asked(packet) == Some(&*self.fragment);
            return ours && self.knows(from, now);
        }
        if stun::is_response(packet) {
            let transaction = stun::transaction(packet);
            let Some(at) = self.asked.iter().position(|(known, _)| Some(*known) == transaction) else {
                return false;
            };
            if let Some((_, left)) = self.asked.remove(at) {
                self.figures.rtt = Some(now.saturating_duration_since(left));
            }
            return self.knows(from, now);
        }
        if !self.peers.contains(&from) || stun::is_message(packet) {
            return false;
        }
        match stream::ssrc(packet) {
            Some(ssrc) => self.hears(ssrc),
            None => !handshake::is_dtls(packet) || self.handshake.admits(packet, self.up),
        }
    }

    /// Whether a stream is heard: the library keeps something for each as long as the call goes on.
    fn hears(&mut self, ssrc: u32) -> bool {
        let known = self.streams.contains(&ssrc);
        if !known && self.streams.len() < STREAMS {
            self.streams.push(ssrc);
            return true;
        }
        known
    }

    /// Whether the address of a packet that knows the call is taken for the peer's. Each new one is sent
    /// checks, and could be somebody else's: there are a few at the beginning, and one now and then.
    fn knows(&mut self, from: SocketAddr, now: Instant) -> bool {
        if self.peers.contains(&from) {
            return true;
        }
        let last = self.moved.is_some_and(|moved| now < moved + MOVE_EVERY);
        if self.peers.len() >= PEERS_AT_FIRST && last {
            return false;
        }
        if self.peers.len() == PEERS {
            self.peers.remove(0);
        }
        self.peers.push(from);
        self.moved = Some(now);
        true
    }

    fn read(&mut self, message: BytesMut, peer_addr: SocketAddr, local_addr: SocketAddr, now: Instant) {
        let transport =
            TransportContext { local_addr, peer_addr, ecn: None, transport_protocol: TransportProtocol::UDP };
        // What it cannot read it drops: anybody can send anything to a port.
        if let Err(error) = self.connection.handle_read(TaggedBytesMut { now, transport, message }) {
            tracing::trace!(side = ?self.side, %error, "packet not read");
        }
    }

    /// Whether the peer has said that it is through (a DTLS `close_notify`): the library's state does
    /// not tell.
    pub(crate) fn closed(&mut self) -> bool {
        let by_data = self.connection.sctp().map(|sctp| sctp.transport().state());
        let state = match by_data {
            Some(state) => Some(state),
            None => self
                .connection
                .rtp_sender(RTCRtpSenderId::from(0))
                .and_then(|sender| sender.transport().map(|transport| transport.state())),
        };
        self.up && state == Some(RTCDtlsTransportState::Closed)
    }

    /// A packet leaves.
    pub(crate) fn leaves(&mut self, packet: &[u8], now: Instant) {
        if stun::is_request(packet)
            && let Some(transaction) = stun::transaction(packet)
        {
            if self.asked.len() == CHECKS {
                self.asked.pop_front();
            }
            self.asked.push_back((transaction, now));
        }
    }

    /// Adds up what its lines have seen.
    pub(crate) fn measure(&mut self) {
        self.figures.lost = self.lines.iter().map(|line| line.stream.lost()).sum();
        self.figures.jitter = self.lines.iter().map(|line| line.stream.jitter()).max().unwrap_or_default();
    }
}
