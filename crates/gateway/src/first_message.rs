//! Keys in the first messages of WebSockets: the caller's out, the channel's in.

use std::borrow::Cow;
use std::sync::Arc;

use aiproxy_config::model::{Channel, Snapshot};
use aiproxy_core::ports::MessageEdit;
use aiproxy_core::{ErrorKind, Secret};
use aiproxy_platform::first_message::{self, FirstMessage};
use aiproxy_platform::{Placement, Pointer};
use aiproxy_routing::{Target, identify};
use aiproxy_taps::fields;

/// Where callers of a socket may put their Proxy-Key in its first message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// Where the API of the path has it.
    usual: Vec<Pointer>,
    /// Where channels' platforms want it: what a platform takes there, its clients send there.
    channels: Vec<Pointer>,
    /// Later messages may hold it as well.
    every: bool,
    /// It was found in one of them.
    found: bool,
}

impl Places {
    /// None where no channel serves the path: nobody is waited for in vain. A `custom` channel, which
    /// serves every path, has to be named.
    pub(crate) fn of(target: &Target<'_>, snapshot: &Snapshot) -> Self {
        let named = |channel: &&Arc<Channel>| match target.channel.as_deref() {
            Some(name) => *channel.id == *name,
            None => channel.platform.id != "custom" && channel.platform.serves(target.route.family).is_some(),
        };
        let serving = || snapshot.channels.iter().filter(named);
        let row = first_message::of(&target.normal).filter(|_| serving().next().is_some());
        let usual = row.map_or(&[][..], |row| row.keys).iter().filter_map(|text| Pointer::parse(text));
        Self {
            usual: usual.collect(),
            channels: serving().flat_map(|channel| wanted(channel)).collect(),
            every: row.is_some_and(|row| row.every),
            found: false,
        }
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.usual.is_empty() && self.channels.is_empty()
    }

    /// The key that stands there.
    ///
    /// # Errors
    /// [`ErrorKind::MissingKey`], [`ErrorKind::ConflictingKeys`].
    pub(crate) fn find<'a>(&mut self, message: &'a [u8]) -> Result<Cow<'a, str>, ErrorKind> {
        let places: Vec<Pointer> = self.usual.iter().chain(&self.channels).cloned().collect();
        let key = identify::message_key(None, fields::strings(message, &places).unwrap_or_default())?;
        self.found = true;
        Ok(key)
    }

    /// What has to be done to the messages of a socket to this channel; none where keys stand
    /// elsewhere on both sides.
    pub(crate) fn edit(&self, channel: &Channel, proxy_key: &str) -> Option<Box<dyn MessageEdit>> {
        let wanted: Vec<Pointer> = wanted(channel).collect();
        let others = if self.found { &*self.channels } else { &[] };
        let callers: Vec<Pointer> = self.usual.iter().chain(&wanted).chain(others).cloned().collect();
        if callers.is_empty() {
            return None;
        }
        Some(Box::new(KeySwap {
            callers,
            every: self.every,
            wanted,
            key: channel.api_key.clone(),
            proxy_key: Secret::new(proxy_key.to_owned()),
            begun: false,
        }))
    }
}

/// What a path's first message says besides.
pub(crate) fn row(target: &Target<'_>) -> Option<&'static FirstMessage> {
    first_message::of(&target.normal)
}

fn wanted(channel: &Channel) -> impl Iterator<Item = Pointer> {
    channel.socket_placement.iter().filter_map(|place| match place {
        Placement::FirstMessage { pointer } => Some(pointer.clone()),
        _ => None,
    })
}

struct KeySwap {
    /// Where the caller's may stand.
    callers: Vec<Pointer>,
    every: bool,
    wanted: Vec<Pointer>,
    key: Secret,
    proxy_key: Secret,
    /// The first message has passed.
    begun: bool,
}

impl MessageEdit for KeySwap {
    fn edit(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, ErrorKind> {
        let first = !std::mem::replace(&mut self.begun, true);
        let wanted = if first { &*self.wanted } else { &[] };
        let proxy_key = self.proxy_key.expose();
        let mut edited = match fields::strings(message, &self.callers) {
            Ok(found) => {
                identify::message_key(Some(proxy_key), found)?;
                fields::edit(message, &self.callers, None).map_err(|_| ErrorKind::BadRequest)?
            }
            // There is no place for the channel's key, or it is not what it looks like, and others may
            // read it more generously.
            Err(fields::NotAnObject) if !wanted.is_empty() || message.trim_ascii().starts_with(b"{") => {
                return Err(ErrorKind::BadRequest);
            }
            Err(fields::NotAnObject) => None,
        };
        // In another spelling of the message or the member it would go on.
        if fields::holds(edited.as_deref().unwrap_or(message), proxy_key) {
            return Err(ErrorKind::BadRequest);
        }
        for pointer in wanted {
            let before = edited.as_deref().unwrap_or(message);
            let after = fields::edit(before, &[], Some((pointer, self.key.expose())));
            edited = after.map_err(|_| ErrorKind::BadRequest)?.or(edited);
        }
        Ok(edited)
    }

    fn wants_more(&self) -> bool {
        !self.begun || self.every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap(callers: &[&str], wanted: &[&str], every: bool) -> KeySwap {
        let pointers = |list: &[&str]| list.iter().filter_map(|text| Pointer::parse(text)).collect();
        KeySwap {
            callers: pointers(callers),
            every,
            wanted: pointers(wanted),
            key: Secret::new("sk-channel".into()),
            proxy_key: Secret::new("pk_caller".into()),
            begun: false,
        }
    }

    fn edited(swap: &mut KeySwap, message: &str) -> Result<Option<String>, ErrorKind> {
        let edited = swap.edit(message.as_bytes())?;
        Ok(edited.map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn the_channel_s_key_comes_where_the_caller_s_was() {
        let mut same = swap(&["/key"], &["/key"], false);
        assert_eq!(
            edited(&mut same, r#"{"key":"pk_caller","text":" "}"#),
            Ok(Some(r#"{"text":" ","key":"sk-channel"}"#.into()))
        );
        assert!(!same.wants_more());
        let mut from_header = swap(&["/key"], &["/auth/token"], false);
        assert_eq!(
            edited(&mut from_header, r#"{"text":" "}"#),
            Ok(Some(r#"{"text":" ","auth":{"token":"sk-channel"}}"#.into()))
        );
        let mut to_header = swap(&["/key", "/authorization"], &[], true);
        for message in [r#"{"key":"pk_caller"}"#, r#"{"authorization":"Bearer pk_caller","key":""}"#] {
            assert_eq!(edited(&mut to_header, message), Ok(Some("{}".into())), "{message}");
        }
        assert_eq!(edited(&mut to_header, r#"{ "text": "x" }"#), Ok(None));
        assert_eq!(edited(&mut to_header, "no object"), Ok(None));
        for message in [
            r#"{"KEY":"pk_caller"}"#,
            "\u{feff}{\"key\":\"pk_caller\"}",
            r#"{"key":"pk_caller",}"#,
            r#"{"KEY":"pk\u005fcaller"}"#,
            r#"{"n":NaN,"key":"pk_other"}"#,
        ] {
            assert_eq!(edited(&mut to_header, message), Err(ErrorKind::BadRequest), "{message}");
        }
        assert!(to_header.wants_more());
    }

    #[test]
    fn a_second_key_and_a_message_without_a_place_are_refused() {
        let mut swap = swap(&["/key"], &["/key"], true);
        assert_eq!(edited(&mut swap, r#"{"key":"pk_other"}"#), Err(ErrorKind::ConflictingKeys));
        swap.begun = false;
        for message in ["[]", "x", "", "{"] {
            swap.begun = false;
            assert_eq!(edited(&mut swap, message), Err(ErrorKind::BadRequest), "{message}");
        }
    }
}
