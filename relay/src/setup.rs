//! Setting a call up, in the two halves around the platform's answer.

use std::net::SocketAddr;
use std::time::Instant;

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::{CallLimits, CallTerms, Side};
use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::shared::error::Error;

use crate::bridge::Bridge;
use crate::leg::{Leg, Line};
use crate::peer::{self, AUDIO_LEVEL};
use crate::sdp::{self, Codec, Description, Kind, Section};

/// Why a call cannot be set up: whose fault it is, and a sentence.
pub(crate) type Problem = (ErrorKind, String);

/// A call whose platform has not answered.
pub(crate) struct Offered {
    caller_offer: String,
    caller: Description,
    platform: Leg,
    limits: CallLimits,
    /// The offer for the platform.
    pub(crate) offer: String,
}

/// The first half: the platform is offered what of the caller's offer can be relayed. `at`: where the
/// platform's leg can be reached.
///
/// # Errors
/// What is wrong with the caller's offer.
pub(crate) fn begin(
    text: &str,
    at: &[SocketAddr],
    fragment: &str,
    limits: CallLimits,
    now: Instant,
) -> Result<Offered, Problem> {
    let caller = sdp::read(text)
        .map_err(|why| (ErrorKind::BadRequest, format!("The offer cannot be read: {why}.")))?;
    let relayed = || caller.media().enumerate().filter(|(_, section)| is_relayed(section));
    if relayed().next().is_none() && caller.data().is_none() {
        let message = "The offer has nothing that can be relayed: sound in Opus, PCMU, PCMA or G.722, or data channels.";
        return Err((ErrorKind::BadRequest, message.to_owned()));
    }
    let codecs: Vec<Codec> = once_each(relayed().flat_map(|(_, section)| &section.codecs));
    let theirs = message_bytes(&caller).min(limits.message_bytes);
    let make = || -> Result<(Leg, String), Error> {
        let mut leg = Leg::new(Side::Platform, fragment, peer::connection(fragment, &codecs, &limits, now)?);
        for (far, section) in relayed() {
            leg.offer(section, far)?;
        }
        if caller.data().is_some_and(|section| !section.refused) {
            leg.offer_data()?;
        }
        let offer = leg.connection.create_offer(None)?;
        leg.connection.set_local_description(now, offer)?;
        let offer = sdp::with_message_bytes(&described(&mut leg.connection, at)?, theirs);
        Ok((leg, offer))
    };
    let (platform, offer) = make().map_err(|error| ours("the offer for the platform", &error))?;
    Ok(Offered { caller_offer: sdp::without_candidates(text, &caller), caller, platform, limits, offer })
}

impl Offered {
    /// The second half: takes the platform's answer, and makes the one for the caller, whose leg can be
    /// reached at these addresses.
    ///
    /// # Errors
    /// What is wrong with the platform's answer; or with the caller's offer, which the library reads
    /// only now.
    pub(crate) fn finish(
        self,
        answer: &str,
        at: &[SocketAddr],
        fragment: &str,
        terms: CallTerms,
        now: Instant,
    ) -> Result<(Bridge, String), Problem> {
        let Self { caller_offer, caller, mut platform, limits, .. } = self;
        let theirs = sdp::read(answer).map_err(|why| {
            (ErrorKind::UpstreamProtocol, format!("The platform's answer cannot be read: {why}."))
        })?;
        // The library takes the smaller of both sizes for both directions; what holds is looked at here.
        let plain = sdp::with_message_bytes(&sdp::plain_candidates(answer, &theirs), peer::capacity(&limits));
        platform.takes = message_bytes(&theirs).min(limits.message_bytes);
        RTCSessionDescription::answer(plain)
            .and_then(|plain| platform.connection.set_remote_description(now, plain))
            .map_err(|error| {
                (
                    ErrorKind::UpstreamProtocol,
                    format!("The platform's answer does not fit the offer: {error}."),
                )
            })?;
        agreed(&mut platform, &theirs);

        let offered = sdp::read(&caller_offer).map_err(|why| (ErrorKind::Internal, why))?;
        let accepted: Vec<Option<(usize, Section)>> = offered
            .media()
            .enumerate()
            .map(|(index, section)| {
                let line = platform.lines.iter().position(|line| line.far == Some(index))?;
                let answer = theirs.media().nth(line).filter(|answer| !answer.refused)?;
                let mut section = section.clone();
                section.codecs.retain(|codec| answer.codecs.iter().any(|known| known.is(codec)));
                (!section.codecs.is_empty()).then_some((line, section))
            })
            .collect();
        let codecs = once_each(accepted.iter().flatten().flat_map(|(_, section)| &section.codecs));
        let most = message_bytes(&theirs).min(limits.message_bytes);
        let make = || -> Result<(Leg, String), Error> {
            let mut leg =
                Leg::new(Side::Caller, fragment, peer::connection(fragment, &codecs, &limits, now)?);
            leg.takes = message_bytes(&caller).min(limits.message_bytes);
            let offer = sdp::with_message_bytes(&caller_offer, peer::capacity(&limits));
            leg.connection.set_remote_description(now, RTCSessionDescription::offer(offer)?)?;
            for accepted in &accepted {
                match accepted {
                    Some((far, section)) => leg.accept(section, &section.codecs[0], *far)?,
                    None => leg.lines.push(Line::default()),
                }
            }
            let answer = leg.connection.create_answer(None)?;
            leg.connection.set_local_description(now, answer)?;
            let answer = sdp::with_message_bytes(&described(&mut leg.connection, at)?, most);
            Ok((leg, answer))
        };
        let (mut leg, answer) = make()
            .map_err(|error| (ErrorKind::BadRequest, format!("The offer cannot be answered: {error}.")))?;
        for (index, line) in platform.lines.iter_mut().enumerate() {
            let near = accepted.iter().position(|it| it.as_ref().is_some_and(|(far, _)| *far == index));
            line.far = near;
        }
        let answer = sdp::candidates_everywhere(&answer);
        let answer = sdp::refusing(&answer, &refused(&caller, &accepted, &theirs));
        let description = sdp::read(&answer).map_err(|why| (ErrorKind::Internal, why))?;
        agreed(&mut leg, &description);
        map(&mut leg, &platform);
        map(&mut platform, &leg);
        Ok((Bridge::new(leg, platform, limits, terms, now), answer))
    }
}

/// Sections of the caller's offer that are refused, as the platform refuses their counterparts.
fn refused(caller: &Description, accepted: &[Option<(usize, Section)>], theirs: &Description) -> Vec<usize> {
    let mut media = accepted.iter();
    let mut out = Vec::new();
    for (index, section) in caller.sections.iter().enumerate() {
        let stands = match section.kind {
            Kind::Data => theirs.data().is_some_and(|data| !data.refused),
            _ => media.next().is_some_and(Option::is_some),
        };
        if !stands {
            out.push(index);
        }
    }
    out
}

fn is_relayed(section: &Section) -> bool {
    section.kind == Kind::Audio && !section.refused && !section.codecs.is_empty()
}

/// Bytes of a message that the side takes.
fn message_bytes(description: &Description) -> u32 {
    match description.message_bytes {
        Some(0) => u32::MAX,
        Some(bytes) => bytes,
        None => 65_536,
    }
}

fn once_each<'a>(codecs: impl Iterator<Item = &'a Codec>) -> Vec<Codec> {
    let mut out: Vec<Codec> = Vec::new();
    for codec in codecs {
        if !out.iter().any(|known| known.number == codec.number || known == codec) {
            out.push(codec.clone());
        }
    }
    out
}

fn described(connection: &mut RTCPeerConnection, at: &[SocketAddr]) -> Result<String, Error> {
    for address in at {
        peer::reachable(connection, *address)?;
    }
    Ok(connection.local_description().ok_or(Error::ErrSessionDescriptionMissingIceUfrag)?.sdp)
}

fn ours(what: &str, error: &Error) -> Problem {
    tracing::warn!(%error, what, "a description could not be made");
    (ErrorKind::BadRequest, format!("The offer cannot be relayed: {error}."))
}

/// Notes what an answer says about the leg's lines.
fn agreed(leg: &mut Leg, answer: &Description) {
    for (line, section) in leg.lines.iter_mut().zip(answer.media()) {
        line.codecs.clone_from(&section.codecs);
        line.extensions.clone_from(&section.extensions);
    }
}

/// How what comes on `near` is called on `far`.
fn map(near: &mut Leg, far: &Leg) {
    for line in &mut near.lines {
        let Some(other) = line.far.and_then(|index| far.lines.get(index)) else { continue };
        line.numbers = line
            .codecs
            .iter()
            .filter_map(|codec| {
                let same = other.codecs.iter().find(|known| known.is(codec))?;
                Some((codec.number, same.number))
            })
            .collect();
        let level =
            |line: &Line| line.extensions.iter().find(|(_, uri)| uri == AUDIO_LEVEL).map(|(id, _)| *id);
        line.levels = level(line).zip(level(other));
    }
}
