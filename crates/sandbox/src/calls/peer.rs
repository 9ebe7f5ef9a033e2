//! The sandbox's end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCDtlsTransportState};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio::sync::{mpsc, watch};
use webrtc::data_channel::DataChannel;
use webrtc::error::{Error, Result};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    register_default_interceptors,
};
use webrtc::runtime::TokioRuntime;

use super::codecs;

/// Tracks and channels that wait to be looked at; beyond it they are not heard.
const ARRIVALS: usize = 64;
/// Tracks that are sent back.
const TRACKS: usize = 8;
/// What a data channel may have under way before its sender waits, in bytes.
const SENT_AHEAD: usize = 1 << 20;
/// The largest message on a data channel, in bytes.
const MESSAGE: u32 = 256 << 10;
/// Without a sign of the peer: disconnected after the first, failed after the second.
const SILENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(5));
/// Paths are tried this often, and this many times.
const CHECK: (Duration, u16) = (Duration::from_millis(50), 100);
/// A sign of life is sent this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What the caller opens.
pub(super) enum Arrival {
    Track(Arc<dyn TrackRemote>),
    Channel(Arc<dyn DataChannel>),
}

/// A connection that has not been closed: [`Peer::close`] has to be called, since its driver goes on.
pub(super) struct Peer {
    connection: Arc<dyn PeerConnection>,
    pub(super) state: watch::Receiver<RTCPeerConnectionState>,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    gathered: watch::Receiver<bool>,
}

impl Peer {
    /// A connection with a port on this address.
    pub(super) async fn bind(address: IpAddr) -> Result<Peer> {
        let mut media = codecs::engine()?;
        let interceptors = register_default_interceptors(Registry::new(), &mut media)?;
        let now = Some(Duration::ZERO);
        let settings = SettingEngineBuilder::new()
            .with_answering_dtls_role(RTCDtlsRole::Client)
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(MESSAGE))
            // The first pair that works is taken: there are no better ones to wait for.
            .with_host_acceptance_min_wait(now)
            .with_prflx_acceptance_min_wait(now)
            .with_srflx_acceptance_min_wait(now)
            .with_ice_connection_attempts(Some(CHECK.0), Some(CHECK.1))
            .with_ice_timeouts(Some(SILENCE.0), Some(SILENCE.1), Some(KEEP_ALIVE))
            .build();
        let (state_is, state) = watch::channel(RTCPeerConnectionState::New);
        let (arrived, arrivals) = mpsc::channel(ARRIVALS);
        let (gathered_is, gathered) = watch::channel(false);
        let connection = Box::pin(
            PeerConnectionBuilder::new()
                .with_media_engine(media)
                .with_interceptor_registry(interceptors)
                .with_setting_engine(settings)
                .with_runtime(Arc::new(TokioRuntime))
                .with_handler(Arc::new(Handler { state_is, arrived, gathered_is }))
                .with_data_channel_send_buffer_limit(SENT_AHEAD)
                .with_udp_addrs(vec![SocketAddr::from((address, 0))])
                .build(),
        )
        .await?;
        Ok(Peer { connection: Arc::new(connection), state, arrivals, gathered })
    }

    /// The answer to an offer, with all candidates.
    pub(super) async fn answer(&mut self, offer: &str) -> Result<String> {
        let connection = &self.connection;
        connection.set_remote_description(RTCSessionDescription::offer(offer.to_owned())?).await?;
        for codec in codecs::wanted(offer).into_iter().take(TRACKS) {
            connection.add_track(echo_track(codec)?).await?;
        }
        let answer = connection.create_answer(None).await?;
        connection.set_local_description(answer).await?;
        let stopped = || Error::Other("the connection stopped".to_owned());
        self.gathered.wait_for(|gathered| *gathered).await.map_err(|_| stopped())?;
        Ok(connection.local_description().await.ok_or_else(stopped)?.sdp)
    }

    /// Opens a data channel; it can be written to when it says so.
    pub(super) async fn open(&self, label: &str) -> Result<Arc<dyn DataChannel>> {
        self.connection.create_data_channel(label, None).await
    }

    /// The track that goes out where this one comes in, and its SSRC.
    pub(super) async fn way_back(&self, track: &Arc<dyn TrackRemote>) -> Option<(Arc<dyn TrackLocal>, u32)> {
        let id = track.track_id().await;
        for transceiver in self.connection.get_transceivers().await {
            let Ok(Some(receiver)) = transceiver.receiver().await else { continue };
            if receiver.track().track_id().await == id {
                let sender = transceiver.sender().await.ok()??;
                let ssrc = *sender.track().ssrcs().await.first()?;
                return Some((Arc::clone(sender.track()), ssrc));
            }
        }
        None
    }

    /// Whether the caller closed the connection, which no event tells.
    pub(super) async fn left(&self) -> bool {
        let transport = match self.connection.sctp().await {
            Some(sctp) => Some(sctp.transport()),
            None => match self.connection.get_receivers().await.first() {
                Some(receiver) => receiver.transport().await.unwrap_or_default(),
                None => None,
            },
        };
        match transport {
            Some(transport) => matches!(transport.state().await, Ok(RTCDtlsTransportState::Closed)),
            None => false,
        }
    }

    pub(super) async fn close(&self) {
        // Closed it is, whatever it says.
        let _ = self.connection.close().await;
    }
}

fn echo_track(codec: RTCRtpCodec) -> Result<Arc<dyn TrackLocal>> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Error::Other(error.to_string()))?;
    let ssrc = u32::from_be_bytes(random);
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec,
        ..Default::default()
    };
    let track = format!("sound-{ssrc:08x}");
    let track = MediaStreamTrack::new(
        "sandbox".to_owned(),
        track.clone(),
        track,
        RtpCodecKind::Audio,
        vec![encoding],
    );
    Ok(Arc::new(TrackLocalStaticRTP::new(track)))
}

/// Hands on what the connection tells; it runs on the connection's driver and must not wait.
struct Handler {
    state_is: watch::Sender<RTCPeerConnectionState>,
    arrived: mpsc::Sender<Arrival>,
    gathered_is: watch::Sender<bool>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered_is.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state_is.send_replace(state);
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        // A caller who opens more is not heard on them.
        let _ = self.arrived.try_send(Arrival::Channel(channel));
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.arrived.try_send(Arrival::Track(track));
    }
}
