//! Holding what is under way against what may be.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aiproxy_registry::Registry;
use aiproxy_registry::live::{Kind, Live};
use aiproxy_routing::admit;

/// Something that was under way and has been cut.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Id of the request.
    pub id: String,
    /// `http`, `websocket` or `call`.
    pub kind: &'static str,
    /// Whose it was.
    pub user: String,
    /// The channel that served it.
    pub channel: Option<String>,
    /// The model, as far as it was known.
    pub model: Option<String>,
    /// When it began.
    pub started: SystemTime,
}

impl Cut {
    /// What is said of something that is, or was, under way.
    #[must_use]
    pub fn of(live: &Live) -> Self {
        Self {
            id: live.id.to_string(),
            kind: match live.kind {
                Kind::Http => "http",
                Kind::WebSocket => "websocket",
                Kind::Call => "call",
            },
            user: live.user.to_string(),
            channel: live.channel().map(|id| id.to_string()),
            model: live.model().map(str::to_owned),
            started: live.started,
        }
    }
}

/// What was under way before a change.
pub(super) struct Watch(Vec<Arc<Live>>);

impl Watch {
    pub(super) fn new(registry: &Registry) -> Self {
        Self(registry.live.list().into_iter().filter(|live| live.is_cut().is_none()).collect())
    }

    /// What the change has cut.
    pub(super) fn cut(self) -> Vec<Cut> {
        self.0.iter().filter(|live| live.is_cut().is_some()).map(|live| Cut::of(live)).collect()
    }
}

/// Cuts what may not go on: keys, users and channels that were removed, disabled or have expired.
/// Returns how many requests were cut.
pub fn enforce(registry: &Registry) -> usize {
    let snapshot = registry.snapshot();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    registry.live.cut_where(|live| admit::withdrawn(&snapshot, &live.digest, live.channel().as_deref(), now))
}
