//! A call from its offer to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::RTCPeerConnectionState;

use super::offer::{Offer, invalid};
use super::peer::{Arrival, Peer};
use super::record::Record;
use super::talk::{self, Input};
use super::{Place, channels, codecs, lock};
use crate::session::Session;
use crate::shape::Fault;

/// From the offer until both ends are connected.
const SETUP: Duration = Duration::from_secs(15);
/// Whether the caller has left is looked at this often.
const GLANCE: Duration = Duration::from_millis(250);
/// Tracks and channels of one call.
const ARRIVALS: usize = 64;

/// What connects a call with the rest of the sandbox.
pub(super) struct Wires {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) heard: mpsc::Receiver<Input>,
    pub(super) ending: watch::Receiver<Option<&'static str>>,
}

/// Answers the offer and stays until the call ends.
pub(super) async fn live(
    place: Place,
    offer: Offer,
    wires: Wires,
    answered: oneshot::Sender<Result<String, Fault>>,
) {
    let deadline = Instant::now() + SETUP;
    let calls = &place.state.calls;
    let mut peer = match Peer::bind(calls.address).await {
        Ok(peer) => peer,
        Err(error) => {
            refuse(&place.record, answered, invalid(format!("No connection: {error}.")));
            return;
        }
    };
    let answer = match timeout(SETUP, peer.answer(&offer.sdp)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            peer.close().await;
            refuse(&place.record, answered, invalid(format!("The SDP offer is invalid: {error}.")));
            return;
        }
        Err(_) => {
            peer.close().await;
            refuse(&place.record, answered, invalid("The SDP offer could not be answered in time."));
            return;
        }
    };
    lock(&place.record).answer.clone_from(&answer);
    let why = if answered.send(Ok(answer)).is_ok() {
        listen(&place, &offer, &mut peer, wires, deadline).await
    } else {
        "caller"
    };
    lock(&place.record).ended = Some(why);
    peer.close().await;
}

fn refuse(record: &Record, answered: oneshot::Sender<Result<String, Fault>>, fault: Fault) {
    lock(record).ended = Some("refused");
    // Who has gone need not know.
    let _ = answered.send(Err(fault));
}

/// Until something ends the call; why it did.
async fn listen(
    place: &Place,
    offer: &Offer,
    peer: &mut Peer,
    Wires { inputs, heard, mut ending }: Wires,
    deadline: Instant,
) -> &'static str {
    let record = &place.record;
    // All of them end with the call: the set aborts what it holds.
    let mut tasks = JoinSet::new();
    let session = Session::new(&place.state, &offer.model, offer.session.clone());
    tasks.spawn(talk::talk(session, heard));
    if let Some(label) = offer.opens
        && codecs::has_channels(&offer.sdp)
        && let Ok(channel) = peer.open(label).await
    {
        tasks.spawn(channels::ours(channel, inputs.clone(), Arc::clone(record)));
    }
    let limit = Instant::now() + place.state.calls.longest;
    let mut glances = interval(GLANCE);
    glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = false;
    let mut arrivals = 0;
    loop {
        tokio::select! {
            changed = peer.state.changed() => {
                if changed.is_err() {
                    return "failed";
                }
                let state = *peer.state.borrow_and_update();
                lock(record).state = state.to_string();
                match state {
                    RTCPeerConnectionState::Connected => connected = true,
                    RTCPeerConnectionState::Closed => return "peer",
                    RTCPeerConnectionState::Failed => return "failed",
                    _ => {}
                }
            }
            Some(arrival) = peer.arrivals.recv(), if arrivals < ARRIVALS => {
                arrivals += 1;
                match arrival {
                    Arrival::Track(track) => {
                        let back = peer.way_back(&track).await;
                        tasks.spawn(echo(track, back, Arc::clone(record)));
                    }
                    Arrival::Channel(channel) => {
                        tasks.spawn(channels::theirs(channel, inputs.clone(), Arc::clone(record)));
                    }
                }
            }
            why = asked(&mut ending) => return why,
            () = sleep_until(deadline), if !connected => return "setup",
            () = sleep_until(limit) => return "limit",
            _ = glances.tick(), if connected => {
                if peer.left().await {
                    return "peer";
                }
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Waits until somebody asks for the end.
async fn asked(ending: &mut watch::Receiver<Option<&'static str>>) -> &'static str {
    ending.wait_for(Option::is_some).await.ok().and_then(|why| *why).unwrap_or("shutdown")
}

/// Sends each packet back with the payload it came with.
async fn echo(track: Arc<dyn TrackRemote>, back: Option<(Arc<dyn TrackLocal>, u32)>, record: Record) {
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(mut packet) = event else { continue };
        lock(&record).packet(&packet.payload);
        let Some((back, ssrc)) = &back else { continue };
        packet.header.ssrc = *ssrc;
        // Its extensions are numbered by the other direction.
        packet.header.extension = false;
        packet.header.extensions.clear();
        if back.write_rtp(packet).await.is_err() {
            return;
        }
        lock(&record).packets_out += 1;
    }
}
