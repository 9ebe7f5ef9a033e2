//! Requests that act upon a call: hangup, refer and the like, and sidebands.
//!
//! A call is known by our id, which says nothing to the platform: it is replaced by the platform's, and
//! the request goes to the call's channel. Somebody else's call is there for nobody. Ids that are not
//! ours, such as those of calls that came in over SIP, pass as they are.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::User;
use aiproxy_core::ErrorKind;
use aiproxy_platform::placement::query_pairs;
use aiproxy_registry::Registry;
use aiproxy_registry::calls::Call;
use aiproxy_routing::{Plan, Refusal, Target};
use http::Method;
use tokio::time::{Instant, sleep};

use super::ID;

/// How long a hangup waits for both legs to be gone.
const GONE_TIME: Duration = Duration::from_secs(2);

/// A call that a request is about.
pub(crate) struct Joined {
    call: Arc<Call>,
    id: String,
}

impl Joined {
    /// The call that the request names in its path or query, if it names one of ours.
    ///
    /// # Errors
    /// [`ErrorKind::CallNotFound`] where it is not under way, or not this user's.
    pub(crate) fn find(
        registry: &Registry,
        user: &User,
        target: &Target<'_>,
        query: Option<&str>,
    ) -> Result<Option<Self>, ErrorKind> {
        let in_path = target.path.split('/').find(|segment| segment.starts_with(ID)).map(str::to_owned);
        let in_query = || {
            query_pairs(query)
                .find(|(name, value)| name == "call_id" && value.starts_with(ID))
                .map(|(_, value)| value.to_owned())
        };
        let Some(id) = in_path.or_else(in_query) else { return Ok(None) };
        let call = registry.calls.get(&id).filter(|call| call.live.user == user.id);
        call.map(|call| Some(Self { call, id })).ok_or(ErrorKind::CallNotFound)
    }

    /// Whether the request hangs the call up.
    pub(crate) fn hangs_up(&self, method: &Method, target: &Target<'_>) -> bool {
        method == Method::POST && target.path.ends_with(&format!("/{}/hangup", self.id))
    }

    /// Hangs up, and waits until both legs are gone.
    pub(crate) async fn hang_up(&self, registry: &Registry) {
        self.call.live.hang_up();
        let end = Instant::now() + GONE_TIME;
        while registry.calls.get(&self.id).is_some() && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The plan with the call's channel only, and the platform's id in its path.
    ///
    /// # Errors
    /// [`ErrorKind::CallNotFound`].
    pub(crate) fn narrow(&self, mut plan: Plan) -> Result<Plan, Refusal> {
        let platform = self.call.platform_id.as_deref().ok_or(ErrorKind::CallNotFound)?;
        plan.candidates.retain(|candidate| candidate.channel.id == self.call.channel);
        if plan.candidates.is_empty() {
            return Err(ErrorKind::CallNotFound.into());
        }
        for candidate in &mut plan.candidates {
            candidate.path = candidate.path.replace(&self.id, platform);
        }
        Ok(plan)
    }

    /// The query with the platform's id.
    pub(crate) fn query<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let platform = self.call.platform_id.as_deref().unwrap_or_default();
        query.map(|query| match query.contains(&self.id) {
            true => Cow::Owned(query.replace(&self.id, platform)),
            false => Cow::Borrowed(query),
        })
    }
}
