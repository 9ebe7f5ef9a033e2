//! Data channels: what one leg opens is opened on the other, and messages go from one to the other.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::peer_connection::event::RTCDataChannelEvent;
use rtc::peer_connection::transport::RTCSctpTransportState;
use rtc::shared::error::Error;

use crate::leg::Leg;

/// Channels of a call, at most.
const MOST: usize = 64;

/// A data channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Its counterpart on the other leg.
    pub(crate) peer: Option<RTCDataChannelId>,
    open: bool,
    /// What came before it was open: whether it is text, and the message.
    early: VecDeque<(bool, BytesMut)>,
    early_bytes: usize,
    /// To be closed once the early messages have gone.
    closing: bool,
}

/// Follows what happens to channels of `near` on `far`. Gives the number of messages that were lost.
pub(crate) fn event(near: &mut Leg, far: &mut Leg, event: &RTCDataChannelEvent, now: Instant) -> u64 {
    match event {
        RTCDataChannelEvent::OnOpen(id) => opened(near, far, *id, now),
        RTCDataChannelEvent::OnClose(id) => {
            near.later.retain(|later| later != id);
            let Some(channel) = near.channels.remove(id) else { return 0 };
            if let Some(peer) = channel.peer {
                match far.channels.get_mut(&peer) {
                    Some(other) if !other.open && !other.early.is_empty() => other.closing = true,
                    _ => close(far, peer),
                }
            }
            0
        }
        _ => 0,
    }
}

/// Opens what has waited for the far leg. Whether there was anything.
pub(crate) fn begin(near: &mut Leg, far: &mut Leg, now: Instant) -> bool {
    if near.later.is_empty() || !stands(far) {
        return false;
    }
    for id in std::mem::take(&mut near.later) {
        opened(near, far, id, now);
    }
    true
}

/// Whether channels can be opened. While SCTP shakes hands, the library loses the message that opens one.
fn stands(leg: &mut Leg) -> bool {
    leg.connection.sctp().is_some_and(|sctp| sctp.state() == RTCSctpTransportState::Connected)
}

fn close(leg: &mut Leg, id: RTCDataChannelId) {
    leg.channels.remove(&id);
    if let Some(mut channel) = leg.connection.data_channel(id) {
        let _ = channel.close();
    }
}

fn opened(near: &mut Leg, far: &mut Leg, id: RTCDataChannelId, now: Instant) -> u64 {
    if near.opener == Some(id) {
        return 0;
    }
    if let Some(channel) = near.channels.get_mut(&id) {
        channel.open = true;
        channel.early_bytes = 0;
        let closing = channel.closing;
        let early = std::mem::take(&mut channel.early);
        let lost =
            early.into_iter().filter_map(|(text, data)| send_now(near, id, text, data, now).err()).count();
        if closing {
            close(near, id);
        }
        return lost as u64;
    }
    if !stands(far) && near.later.len() < MOST {
        near.later.push(id);
        return 0;
    }
    let Some(channel) = near.connection.data_channel(id) else { return 0 };
    let label = channel.label().to_owned();
    let init = RTCDataChannelInit {
        ordered: channel.ordered(),
        max_packet_life_time: channel.max_packet_life_time(),
        max_retransmits: channel.max_retransmits(),
        protocol: channel.protocol().to_owned(),
        negotiated: None,
    };
    if near.channels.len() >= MOST || !stands(far) {
        tracing::debug!(side = ?near.side, "one data channel too many is closed");
        close(near, id);
        return 0;
    }
    match far.connection.create_data_channel(&label, Some(init)).map(|channel| channel.id()) {
        Ok(peer) => {
            near.channels.insert(id, Channel { peer: Some(peer), open: true, ..Channel::default() });
            far.channels.insert(peer, Channel { peer: Some(id), ..Channel::default() });
        }
        Err(error) => {
            tracing::debug!(side = ?far.side, %error, "a data channel could not be opened");
            close(near, id);
        }
    }
    0
}

/// Sends on a channel, or holds the message until the channel is open.
///
/// # Errors
/// The library's: above all that the message is larger than the peer takes.
pub(crate) fn send(
    leg: &mut Leg,
    id: RTCDataChannelId,
    text: bool,
    data: BytesMut,
    now: Instant,
) -> Result<(), Error> {
    let Some(channel) = leg.channels.get_mut(&id) else { return Err(Error::ErrDataChannelClosed) };
    if !channel.open {
        channel.early_bytes += data.len();
        channel.early.push_back((text, data));
        return Ok(());
    }
    send_now(leg, id, text, data, now)
}

fn send_now(
    leg: &mut Leg,
    id: RTCDataChannelId,
    text: bool,
    data: BytesMut,
    now: Instant,
) -> Result<(), Error> {
    let Some(mut channel) = leg.connection.data_channel(id) else { return Err(Error::ErrDataChannelClosed) };
    if text {
        // What is no UTF-8 is no text, whatever its label says (RFC 8831, section 6.6).
        let text = String::from_utf8(data.into()).map_err(|_| Error::ErrDataChannelClosed)?;
        channel.send_text(now, text)
    } else {
        channel.send(now, data)
    }
}

/// Bytes that wait to be taken by the peer.
pub(crate) fn waiting(leg: &mut Leg) -> usize {
    let Leg { channels, connection, .. } = leg;
    let of = |(id, channel): (&RTCDataChannelId, &Channel)| {
        channel.early_bytes + connection.data_channel(*id).map_or(0, |channel| channel.outstanding_bytes())
    };
    channels.iter().map(of).sum()
}
