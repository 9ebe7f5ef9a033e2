//! What has to be known of session descriptions (RFC 8866), and the few changes that are made to them.

use std::fmt::Write as _;

/// Bytes of a description, at most.
pub(crate) const MOST_BYTES: usize = 64 * 1024;
/// Media sections of a description, at most.
const MOST_SECTIONS: usize = 16;
/// Formats of a section, at most.
const MOST_FORMATS: usize = 64;

/// Which way media flows, as the side sees it that wrote the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    Send,
    Receive,
    Neither,
}

/// One format of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Codec {
    /// Payload type.
    pub(crate) number: u8,
    /// Encoding name, in small letters.
    pub(crate) name: String,
    /// As it was written.
    pub(crate) written: String,
    pub(crate) clock: u32,
    pub(crate) channels: u16,
    pub(crate) parameters: String,
}

impl Codec {
    /// Whether both are the same format under whatever number.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let channels = |codec: &Self| codec.channels.max(1);
        self.name == other.name && self.clock == other.clock && channels(self) == channels(other)
    }

    /// What is passed on without a look at the payload.
    fn is_relayed(&self) -> bool {
        let sound = self.number < 128 && self.channels <= 2 && (8000..=192_000).contains(&self.clock);
        sound && matches!(self.name.as_str(), "opus" | "pcmu" | "pcma" | "g722" | "telephone-event")
    }
}

/// What kind of media a section is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    Data,
    Other,
}

/// One media section.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) kind: Kind,
    pub(crate) direction: Direction,
    /// Its port is 0 and it is no part of a bundle.
    pub(crate) refused: bool,
    pub(crate) mid: String,
    /// Formats that are relayed, in the order of preference.
    pub(crate) codecs: Vec<Codec>,
    /// Header extensions: id and URI.
    pub(crate) extensions: Vec<(u8, String)>,
}

impl Section {
    /// Whether packets can come from the side that wrote it.
    pub(crate) fn sends(&self) -> bool {
        !self.refused && matches!(self.direction, Direction::Both | Direction::Send)
    }

    /// Whether packets can go to the side that wrote it.
    pub(crate) fn receives(&self) -> bool {
        !self.refused && matches!(self.direction, Direction::Both | Direction::Receive)
    }
}

/// A description, as far as it matters.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// Media sections in their order.
    pub(crate) sections: Vec<Section>,
    /// The largest message that the side takes: 65,536 bytes where it says nothing (RFC 8841), any
    /// size for 0.
    pub(crate) message_bytes: Option<u32>,
}

impl Description {
    pub(crate) fn media(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| section.kind != Kind::Data)
    }

    pub(crate) fn data(&self) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == Kind::Data)
    }
}

/// Reads a description.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn read(text: &str) -> Result<Description, String> {
    if text.len() > MOST_BYTES {
        return Err(format!("it has {} bytes; {MOST_BYTES} are allowed", text.len()));
    }
    // What some take for the end of a line and others do not would be read as lines of its own elsewhere.
    let odd = |letter: &char| {
        (letter.is_control() && !matches!(letter, '\r' | '\n' | '\t'))
            || matches!(letter, '\u{2028}' | '\u{2029}')
    };
    if let Some(letter) = text.chars().find(odd) {
        return Err(format!("it has the character U+{:04X}", u32::from(letter)));
    }
    if text.replace("\r\n", "\n").contains('\r') {
        return Err("a line ends with a carriage return alone".to_owned());
    }
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end()));
    if lines.next().is_none_or(|(_, line)| line != "v=0") {
        return Err("it does not begin with 'v=0'".to_owned());
    }
    let mut sections: Vec<Section> = Vec::new();
    let mut message_bytes = None;
    let (mut ufrag, mut fingerprint) = (false, false);
    for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let bytes = line.as_bytes();
        if bytes.len() < 2 || bytes[1] != b'=' || !bytes[0].is_ascii_lowercase() {
            return Err(format!("line {at} is not of the form 'a=…'"));
        }
        if let Some(media) = line.strip_prefix("m=") {
            if sections.len() == MOST_SECTIONS {
                return Err(format!(
                    "line {at} begins media section {}; {MOST_SECTIONS} are allowed",
                    MOST_SECTIONS + 1
                ));
            }
            sections.push(section(media).ok_or_else(|| format!("line {at} is no media section"))?);
            continue;
        }
        let Some(attribute) = line.strip_prefix("a=") else { continue };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        ufrag |= name == "ice-ufrag";
        fingerprint |= name == "fingerprint";
        let Some(section) = sections.last_mut() else { continue };
        match name {
            "mid" => value.clone_into(&mut section.mid),
            "sendrecv" => section.direction = Direction::Both,
            "sendonly" => section.direction = Direction::Send,
            "recvonly" => section.direction = Direction::Receive,
            "inactive" => section.direction = Direction::Neither,
            "bundle-only" => section.refused = false,
            "extmap" => extension(section, value),
            "rtpmap" => rtpmap(section, value).ok_or_else(|| format!("line {at} is no rtpmap"))?,
            "fmtp" => {
                if let Some((number, parameters)) = value.split_once(' ')
                    && let Some(codec) = numbered(section, number)
                {
                    parameters.trim().clone_into(&mut codec.parameters);
                }
            }
            "max-message-size" if section.kind == Kind::Data => {
                message_bytes =
                    Some(value.trim().parse().map_err(|_| format!("line {at}: '{value}' is no size"))?);
            }
            _ => {}
        }
    }
    if sections.is_empty() {
        return Err("it has no media section".to_owned());
    }
    if !ufrag || !fingerprint {
        return Err("it has no 'a=ice-ufrag' or no 'a=fingerprint': only ICE with DTLS is relayed".to_owned());
    }
    for section in &mut sections {
        section.codecs.retain(Codec::is_relayed);
        // The library takes all of one name for the same.
        let clock = section.codecs.first().map(|first| first.clock);
        let is_event = |codec: &Codec| codec.name == "telephone-event";
        let kept = section.codecs.iter().find(|codec| is_event(codec) && Some(codec.clock) == clock);
        let kept =
            kept.or_else(|| section.codecs.iter().find(|codec| is_event(codec))).map(|codec| codec.number);
        section.codecs.retain(|codec| !is_event(codec) || Some(codec.number) == kept);
    }
    Ok(Description { sections, message_bytes })
}

fn section(media: &str) -> Option<Section> {
    let mut words = media.split_ascii_whitespace();
    let kind = match words.next()? {
        "audio" => Kind::Audio,
        "video" => Kind::Video,
        "application" => Kind::Data,
        _ => Kind::Other,
    };
    let refused = words.next()? == "0";
    words.next()?;
    let numbers = words.take(MOST_FORMATS).filter_map(|word| word.parse().ok());
    let codecs = match kind {
        Kind::Data => Vec::new(),
        _ => numbers.map(fixed).collect(),
    };
    Some(Section {
        kind,
        direction: Direction::Both,
        refused,
        mid: String::new(),
        codecs,
        extensions: Vec::new(),
    })
}

/// A format of which nothing but its number is known: some numbers have a meaning (RFC 3551).
fn fixed(number: u8) -> Codec {
    let written = match number {
        0 => "PCMU",
        8 => "PCMA",
        9 => "G722",
        _ => "",
    };
    Codec {
        number,
        name: written.to_ascii_lowercase(),
        written: written.to_owned(),
        clock: 8000,
        channels: 0,
        parameters: String::new(),
    }
}

fn numbered<'a>(section: &'a mut Section, number: &str) -> Option<&'a mut Codec> {
    let number: u8 = number.parse().ok()?;
    section.codecs.iter_mut().find(|codec| codec.number == number)
}

fn rtpmap(section: &mut Section, value: &str) -> Option<()> {
    let (number, format) = value.split_once(' ')?;
    let mut words = format.trim().split('/');
    let name = words.next()?;
    let clock = words.next()?.parse().ok()?;
    let channels = words.next().map_or(Some(0), |word| word.parse().ok())?;
    if let Some(codec) = numbered(section, number) {
        codec.name = name.to_ascii_lowercase();
        name.clone_into(&mut codec.written);
        (codec.clock, codec.channels) = (clock, channels);
    }
    Some(())
}

fn extension(section: &mut Section, value: &str) {
    if let Some((id, uri)) = value.split_once(' ')
        && let Some(Ok(id)) = id.split('/').next().map(str::parse)
        && section.extensions.len() < MOST_FORMATS
    {
        let uri = uri.split_ascii_whitespace().next().unwrap_or_default();
        section.extensions.push((id, uri.to_owned()));
    }
}

/// A caller's offer as the library is to have it: without candidates, since a caller is taken to be
/// where its own checks come from and nobody is to choose whom we send packets to; and with the maps
/// that fixed payload types may do without.
pub(crate) fn without_candidates(offer: &str, description: &Description) -> String {
    rewritten(offer, |line| !line.starts_with("a=candidate:") && line != "a=end-of-candidates", description)
}

/// A platform's answer as the library is to have it: names that would have to be resolved and
/// candidates over TCP are left out.
pub(crate) fn plain_candidates(answer: &str, description: &Description) -> String {
    let usable = |line: &str| {
        let Some(candidate) = line.strip_prefix("a=candidate:") else { return true };
        let mut words = candidate.split_ascii_whitespace().skip(2);
        let udp = words.next().is_some_and(|word| word.eq_ignore_ascii_case("udp"));
        udp && words.nth(1).is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok())
    };
    rewritten(answer, usable, description)
}

fn rewritten(text: &str, keep: impl Fn(&str) -> bool, description: &Description) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    let mut sections = description.sections.iter();
    let mut missing = String::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && keep(line)) {
        if line.starts_with("m=") {
            out.push_str(&missing);
            missing = sections.next().map(|section| unmapped(section, text)).unwrap_or_default();
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    out.push_str(&missing);
    out
}

fn unmapped(section: &Section, text: &str) -> String {
    let mut maps = String::new();
    for codec in section.codecs.iter().filter(|codec| matches!(codec.number, 0 | 8 | 9)) {
        if !text.contains(&format!("a=rtpmap:{} ", codec.number)) {
            let _ = write!(maps, "a=rtpmap:{} {}/{}\r\n", codec.number, codec.written, codec.clock);
        }
    }
    maps
}

/// The answer with its candidates in every section. They belong to the bundle, of which the first section
/// is enough; aiortc takes those of the last section of a kind, and none where it has none.
pub(crate) fn candidates_everywhere(answer: &str) -> String {
    let is_candidate = |line: &str| line.starts_with("a=candidate:");
    let lines = || answer.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let candidates: String =
        lines().filter(|line| is_candidate(line)).map(|line| format!("{line}\r\n")).collect();
    let mut out = String::with_capacity(answer.len() * 2);
    let mut owed = false;
    for line in lines() {
        if line.starts_with("m=") && std::mem::replace(&mut owed, true) {
            out.push_str(&candidates);
        }
        owed &= !is_candidate(line);
        out.push_str(line);
        out.push_str("\r\n");
    }
    if owed {
        out.push_str(&candidates);
    }
    out
}

/// The description with this size of messages, where it has a section for data channels.
pub(crate) fn with_message_bytes(text: &str, bytes: u32) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut data = false;
    let attribute = format!("a=max-message-size:{bytes}\r\n");
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("m=") {
            if data {
                out.push_str(&attribute);
            }
            data = line.starts_with("m=application ");
        }
        if !line.starts_with("a=max-message-size:") {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    if data {
        out.push_str(&attribute);
    }
    out
}

/// The answer with these sections refused: their port is 0, and they are no part of the bundle.
pub(crate) fn refusing(answer: &str, refused: &[usize]) -> String {
    if refused.is_empty() {
        return answer.to_owned();
    }
    let mids = mids(answer);
    let gone = |mid: &str| refused.iter().any(|at| mids.get(*at).is_some_and(|known| known == mid));
    let mut out = String::with_capacity(answer.len());
    let (mut at, mut skip) = (None::<usize>, false);
    for line in answer.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            let index = at.map_or(0, |at| at + 1);
            at = Some(index);
            skip = refused.contains(&index);
            if skip {
                let mut words: Vec<&str> = media.split(' ').collect();
                if let Some(port) = words.get_mut(1) {
                    *port = "0";
                }
                let _ = write!(out, "m={}\r\nc=IN IP4 0.0.0.0\r\n", words.join(" "));
                if let Some(mid) = mids.get(index).filter(|mid| !mid.is_empty()) {
                    let _ = write!(out, "a=mid:{mid}\r\n");
                }
                out.push_str("a=inactive\r\n");
                continue;
            }
        }
        if skip {
            continue;
        }
        if let Some(bundle) = line.strip_prefix("a=group:BUNDLE") {
            let kept: Vec<&str> = bundle.split_ascii_whitespace().filter(|mid| !gone(mid)).collect();
            let _ = write!(out, "a=group:BUNDLE {}\r\n", kept.join(" "));
            continue;
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    out
}

fn mids(text: &str) -> Vec<String> {
    let mut mids = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("m=") {
            mids.push(String::new());
        } else if let (Some(mid), Some(last)) = (line.strip_prefix("a=mid:"), mids.last_mut()) {
            mid.clone_into(last);
        }
    }
    mids
}
