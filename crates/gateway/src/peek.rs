//! The beginning of a body, read ahead for the model.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Limits, User};
use aiproxy_core::ErrorKind;
use aiproxy_routing::Refusal;
use aiproxy_routing::admit;
use aiproxy_routing::model::{Finding, Scan};
use aiproxy_routing::objects::Reference;
use aiproxy_upstream::{BodyFailure, Incoming, Inspect, Pace};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use crate::metering::{Asked, Prompt};
use crate::objects::BodyGuard;
use crate::record::Record;

/// Bookkeeping of one frame, in bytes: a body of tiny chunks is mostly that.
const FRAME_BYTES: usize = 128;

/// What was read, and what is left.
pub(crate) struct Peeked {
    /// Frames read ahead, to be sent first.
    pub(crate) ahead: VecDeque<Frame<Bytes>>,
    /// The rest of the body.
    pub(crate) rest: Option<Incoming>,
    /// How fast the body has come so far.
    pub(crate) pace: Pace,
    scan: Scan,
    ended: bool,
}

impl Peeked {
    /// A body without a beginning to look into.
    pub(crate) fn unread(body: Option<Incoming>, scan: Scan, limits: &Limits) -> Self {
        let ended = body.as_ref().is_none_or(http_body::Body::is_end_stream);
        // An empty body names no model, whatever its headers say.
        let scan = if ended { Scan::Opaque(None) } else { scan };
        let pace = Pace::at_least(limits.min_body_rate);
        Self { ahead: VecDeque::new(), rest: body, pace, scan, ended }
    }

    /// Whether the whole body was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended
    }

    /// The model; `Err` says why none can be read.
    pub(crate) fn model(&self) -> Result<Option<&str>, &'static str> {
        match self.scan.finding() {
            Finding::Model(model) => Ok(Some(model)),
            Finding::Absent => Ok(None),
            Finding::Pending if self.ended => Err("the body ends early"),
            Finding::Pending => Err("it is not within the part of the body that AIProxy reads ahead"),
            Finding::Unreadable(reason) => Err(reason),
        }
    }

    /// Whether there is a body at all.
    pub(crate) fn has_body(&self) -> bool {
        !self.ahead.is_empty() || !self.ended
    }

    /// References to objects in what was read.
    pub(crate) fn references(&mut self) -> Result<Vec<Reference>, &'static str> {
        self.scan.take_references()
    }

    /// What the body's `store` says, as far as it was read.
    pub(crate) fn stored(&self) -> Option<bool> {
        self.scan.stored()
    }

    /// Goes on looking at the rest of the body: of a caller who is limited to certain models, where
    /// objects are kept apart, and where the prompt is weighed.
    pub(crate) fn guard(
        &mut self,
        user: &Arc<User>,
        objects: Option<BodyGuard>,
        prompt: Option<Prompt>,
    ) -> Option<Box<dyn Inspect>> {
        if self.ended {
            return None;
        }
        let user = (!user.models.is_none()).then(|| Arc::clone(user));
        let watched = !matches!(self.scan, Scan::Opaque(_)) && (user.is_some() || objects.is_some());
        if !watched && prompt.is_none() {
            return None;
        }
        let scan = std::mem::replace(&mut self.scan, Scan::Opaque(None));
        let scan = if watched { scan } else { Scan::Opaque(None) };
        let (user, objects) = if watched { (user, objects) } else { (None, None) };
        Some(Box::new(Guard { scan, user, objects, prompt }))
    }
}

/// What is looked for in the beginning of a body.
pub(crate) struct Wanted<'a> {
    pub(crate) scan: Scan,
    pub(crate) asked: &'a Asked,
}

/// Reads frames until the scanner has seen what it looks for (the whole body, where that may refer to
/// objects) and usage can be asked for, the bound is reached, or the body ends. The body is taken only on success: the rest of a refused one is still to be
/// thrown away.
///
/// # Errors
/// [`ErrorKind::RequestTimeout`] after `patience` without a byte, [`ErrorKind::BodyTooLarge`],
/// [`ErrorKind::BadRequest`] where the body breaks.
pub(crate) async fn peek(
    body: &mut Option<Incoming>,
    wanted: Wanted<'_>,
    limits: &Limits,
    patience: Duration,
    record: &mut Record,
) -> Result<Peeked, Refusal> {
    let Wanted { mut scan, asked } = wanted;
    let mut ahead = VecDeque::new();
    let (mut bytes, mut ended) = (0, false);
    let mut pace = Pace::at_least(limits.min_body_rate);
    if let Some(body) = body {
        while (scan.wants_more() || asked.wants_whole())
            && bytes + ahead.len() * FRAME_BYTES < limits.peek_bytes
            && !body.is_end_stream()
        {
            pace.waiting(Instant::now);
            let frame = timeout(patience, body.frame()).await.map_err(|_| ErrorKind::RequestTimeout)?;
            let Some(frame) = frame else {
                ended = true;
                break;
            };
            let frame = frame.map_err(|error| {
                if BodyFailure::of(&error) == BodyFailure::CallerGone {
                    record.caller_gone();
                }
                Refusal::new(ErrorKind::BadRequest, "The request body is malformed.")
            })?;
            if let Some(data) = frame.data_ref() {
                bytes += data.len();
                if !pace.came(data.len(), Instant::now) {
                    return Err(ErrorKind::RequestTimeout.into());
                }
                if bytes as u64 > limits.body_bytes {
                    return Err(ErrorKind::BodyTooLarge.into());
                }
                scan.feed(data);
                if let Some(prompt) = &asked.prompt {
                    prompt.borrow_mut().feed(data);
                }
            }
            ahead.push_back(frame);
        }
    }
    let rest = body.take();
    let ended = ended || rest.as_ref().is_none_or(http_body::Body::is_end_stream);
    Ok(Peeked { ahead, rest: rest.filter(|_| !ended), pace, scan, ended })
}

/// Refuses a second model, a late one that the user may not use, and somebody else's objects, before
/// the platform has the whole body.
struct Guard {
    scan: Scan,
    /// Where a limit on models applies.
    user: Option<Arc<User>>,
    objects: Option<BodyGuard>,
    prompt: Option<Prompt>,
}

impl Inspect for Guard {
    fn inspect(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if let Some(prompt) = &self.prompt {
            prompt.borrow_mut().feed(bytes);
        }
        self.scan.feed(bytes);
        if let Some(objects) = &self.objects {
            objects.check(&mut self.scan)?;
        }
        let Some(user) = &self.user else { return Ok(()) };
        match self.scan.finding() {
            Finding::Unreadable(reason) => Err(reason),
            Finding::Model(model) if !admit::allows_model(user, model) => {
                Err("the body names a model that this Proxy-Key may not use")
            }
            _ => Ok(()),
        }
    }
}
