//! A WebRTC caller in the test's own process, light enough to have many of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::data_channel::RTCDataChannelId;
use rtc::ice::candidate::CandidateConfig;
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, configure_rtcp_reports};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{RTCDtlsTransportState, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp::Packet;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::net::UdpSocket;

use crate::Ask;

/// The payload type that it offers for Opus.
const OPUS: u8 = 111;
/// How long anything that is waited for may take.
const BOUND: Duration = Duration::from_secs(60);

/// A caller with one track of Opus and the data channel `oai-events`.
pub struct Caller {
    pc: RTCPeerConnection,
    socket: UdpSocket,
    local: SocketAddr,
    track: String,
    ssrc: u32,
    sequence: u16,
    channel: RTCDataChannelId,
    open: bool,
    up: bool,
    ended: bool,
    /// Status of the answer to the offer.
    pub status: u16,
    /// `Location` of that answer.
    pub location: String,
    /// The answer's body.
    pub answer: String,
    /// Payloads that came back.
    pub heard: usize,
    /// Texts that came.
    pub messages: Vec<String>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Caller {
    /// Offers a call there.
    ///
    /// # Panics
    /// When there is no answer, or one that a peer connection does not take.
    pub async fn place(to: SocketAddr, target: &str, key: &str) -> Self {
        Self::place_from(Ipv4Addr::LOCALHOST.into(), to, target, key).await
    }

    /// As [`place`](Self::place), with its media at this address.
    ///
    /// # Panics
    /// As there.
    pub async fn place_from(own: IpAddr, to: SocketAddr, target: &str, key: &str) -> Self {
        let socket = UdpSocket::bind((own, 0)).await.expect("a UDP socket");
        let local = socket.local_addr().expect("its address");
        let mut pc = connection();
        let mut seed = [0; 4];
        seed[..2].copy_from_slice(&local.port().to_be_bytes());
        seed[2..].copy_from_slice(b"au");
        let ssrc = u32::from_be_bytes(seed);
        let track = format!("audio{ssrc}");
        pc.add_track(media(&track, ssrc)).expect("a track");
        let channel = pc.create_data_channel("oai-events", None).expect("a data channel").id();
        let now = Instant::now();
        let offer = pc.create_offer(None).expect("an offer");
        pc.set_local_description(now, offer).expect("a local description");
        let offer = pc.local_description().expect("a local description").sdp;
        let ask = Ask::new(to, key, "POST", target).header("content-type", "application/sdp");
        let mut answered = ask.body(offer).send().await;
        let location = answered.header("location").unwrap_or_default().to_owned();
        let answer = answered.text().await;
        let status = answered.status.as_u16();
        if answered.status.is_success() {
            let answer = RTCSessionDescription::answer(answer.clone()).expect("an SDP");
            pc.set_remote_description(Instant::now(), answer).expect("a fitting answer");
            let candidate = CandidateHostConfig {
                base_config: CandidateConfig {
                    network: "udp".to_owned(),
                    address: local.ip().to_string(),
                    port: local.port(),
                    component: 1,
                    ..Default::default()
                },
                ..Default::default()
            };
            let candidate = candidate.new_candidate_host().expect("a candidate");
            let candidate = RTCIceCandidate::from(&candidate).to_json().expect("a candidate");
            pc.add_local_candidate(candidate).expect("a candidate");
        }
        Self {
            pc,
            socket,
            local,
            track,
            ssrc,
            sequence: 0,
            channel,
            open: false,
            up: false,
            ended: false,
            status,
            location,
            answer,
            heard: 0,
            messages: Vec::new(),
        }
    }

    /// Waits until it is connected and its channel is open.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn connected(&mut self) {
        assert!(self.drive(BOUND, |it| it.up && it.open).await, "{} is not connected", self.location);
    }

    /// Sends packets of sound, 20 ms apart, until so many have come back.
    ///
    /// # Panics
    /// When they do not.
    pub async fn talk(&mut self, packets: usize) {
        let wanted = self.heard + packets;
        for _ in 0..packets * 20 + 500 {
            self.say();
            if self.drive(Duration::from_millis(20), |it| it.heard >= wanted).await {
                return;
            }
        }
        panic!("{}: {} of {packets} packets came back", self.location, self.heard);
    }

    /// Sends one packet of sound.
    pub fn say(&mut self) {
        let mut packet = Packet { payload: Bytes::from_static(&[0x5a; 60]), ..Packet::default() };
        packet.header.version = 2;
        packet.header.ssrc = self.ssrc;
        packet.header.payload_type = OPUS;
        packet.header.sequence_number = self.sequence;
        packet.header.timestamp = u32::from(self.sequence) * 960;
        self.sequence = self.sequence.wrapping_add(1);
        let message = RTCMessage::RtpPacket(self.track.clone(), packet);
        let _ = self.pc.handle_write(TaggedRTCMessage { now: Instant::now(), message });
    }

    /// Sends a text.
    ///
    /// # Panics
    /// When the channel is not open.
    pub fn text(&mut self, text: &str) {
        let mut channel = self.pc.data_channel(self.channel).expect("a data channel");
        channel.send_text(Instant::now(), text).expect("an open channel");
    }

    /// Lets time pass.
    pub async fn pass(&mut self, time: Duration) {
        self.drive(time, |_| false).await;
    }

    /// Waits until the other side has ended the call.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(&mut self) {
        assert!(self.drive(BOUND, |it| it.ended).await, "{} goes on", self.location);
    }

    /// Says goodbye.
    pub async fn close(&mut self) {
        let _ = self.pc.close();
        self.drive(Duration::from_millis(20), |_| false).await;
    }

    async fn drive(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + time;
        let mut buffer = vec![0; 2048];
        loop {
            self.poll();
            if done(self) {
                return true;
            }
            let now = Instant::now();
            if now >= end {
                return false;
            }
            let least = now + Duration::from_millis(1);
            let wake = self.pc.poll_timeout().map_or(end, |at| at.clamp(least, end.max(least)));
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received {
                        self.feed(&buffer[..length], from);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            let now = Instant::now();
            if self.pc.poll_timeout().is_some_and(|at| at <= now) {
                let _ = self.pc.handle_timeout(now);
            }
        }
    }

    fn feed(&mut self, packet: &[u8], peer_addr: SocketAddr) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        let message = BytesMut::from(packet);
        let _ = self.pc.handle_read(TaggedBytesMut { now: Instant::now(), transport, message });
    }

    fn poll(&mut self) {
        loop {
            let mut any = false;
            while let Some(event) = self.pc.poll_event() {
                any = true;
                match event {
                    RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => match state {
                        RTCPeerConnectionState::Connected => self.up = true,
                        RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => self.ended = true,
                        _ => {}
                    },
                    RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(_)) => self.open = true,
                    _ => {}
                }
            }
            while let Some(read) = self.pc.poll_read() {
                any = true;
                match read.message {
                    RTCMessage::RtpPacket(..) => self.heard += 1,
                    RTCMessage::DataChannelMessage(_, message) if message.is_string => {
                        self.messages.push(String::from_utf8_lossy(&message.data).into_owned());
                    }
                    _ => {}
                }
            }
            while let Some(packet) = self.pc.poll_write() {
                any = true;
                let socket = socket2::SockRef::from(&self.socket);
                let _ = socket.send_to(&packet.message, &packet.transport.peer_addr.into());
            }
            if !any {
                break;
            }
        }
        let state = self.pc.sctp().map(|sctp| sctp.transport().state());
        self.ended |= self.up && state == Some(RTCDtlsTransportState::Closed);
    }
}

fn codec() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "audio/opus".to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

fn media(id: &str, ssrc: u32) -> MediaStreamTrack {
    let coding = RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() };
    let encoding =
        RTCRtpEncodingParameters { rtp_coding_parameters: coding, codec: codec(), ..Default::default() };
    MediaStreamTrack::new(
        "test".to_owned(),
        id.to_owned(),
        "audio".to_owned(),
        RtpCodecKind::Audio,
        vec![encoding],
    )
}

fn connection() -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    let opus = RTCRtpCodecParameters { payload_type: OPUS, rtp_codec: codec() };
    engine.register_codec(opus, RtpCodecKind::Audio).expect("a codec");
    let settings = SettingEngineBuilder::new()
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(500))
        .with_host_acceptance_min_wait(Some(Duration::ZERO))
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(settings)
        .with_media_engine(engine)
        .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
        .build(Instant::now())
        .expect("a peer connection")
}
