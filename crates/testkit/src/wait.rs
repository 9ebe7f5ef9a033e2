//! Waiting with a bound.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// The longest wait for anything that a test expects. Passing tests never get near it.
pub const BOUND: Duration = Duration::from_secs(10);

/// How often something is looked at that gives no event.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for `future`.
///
/// # Panics
/// After [`BOUND`], naming what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {BOUND:?} for {what}"),
    }
}

/// Looks again and again until `look` finds something. For things that give no event.
///
/// # Panics
/// After [`BOUND`], naming what was waited for.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(LOOK).await;
        }
    })
    .await
}
