//! Active health checks: a GET with the channel's key, on the channel's own interval.
//!
//! Any answer below 500 but 401 is healthy: what counts is that the platform is there and knows
//! the key. A channel that fails often enough becomes a last resort; its breaker is not touched.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Channel, HealthCheck, Status};
use aiproxy_registry::Registry;
use aiproxy_upstream::tls::TlsConfigs;
use aiproxy_upstream::{BodyWatch, Pool, Source};
use http::{Request, StatusCode};
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How long a platform has to answer a check.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks every channel that asks for it, until dropped. Runs on a `LocalSet`.
pub async fn run(registry: Arc<Registry>) {
    let pool = Rc::new(Pool::new(Arc::new(TlsConfigs::default())));
    let mut due: HashMap<Arc<str>, Instant> = HashMap::new();
    let mut tick = interval(Duration::from_millis(250));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let snapshot = registry.snapshot();
        let now = Instant::now();
        due.retain(|id, _| match snapshot.channel(id) {
            Some(channel) if channel.health.is_none() => {
                // Nobody would ever find it healthy again.
                registry.health.get(id).checked(true, 1);
                false
            }
            channel => channel.is_some(),
        });
        for channel in snapshot.channels.iter().filter(|channel| channel.status == Status::Active) {
            let Some(check) = &channel.health else { continue };
            let next = due.entry(Arc::clone(&channel.id)).or_insert(now);
            // A shorter interval after a reload counts at once.
            *next = (*next).min(now + check.interval);
            if *next <= now {
                *next = now + check.interval;
                spawn_local(check_one(
                    Rc::clone(&pool),
                    Arc::clone(&registry),
                    Arc::clone(channel),
                    check.clone(),
                ));
            }
        }
        pool.sweep();
    }
}

async fn check_one(pool: Rc<Pool>, registry: Arc<Registry>, channel: Arc<Channel>, check: HealthCheck) {
    let outcome = timeout(PATIENCE, ask(&pool, &channel, &check)).await;
    let healthy = matches!(&outcome, Ok(Ok(status)) if !status.is_server_error() && *status != StatusCode::UNAUTHORIZED);
    if registry.snapshot().channel(&channel.id).is_none_or(|channel| channel.health.is_none()) {
        return;
    }
    match registry.health.get(&channel.id).checked(healthy, check.threshold) {
        Some(true) => tracing::info!(channel = %channel.id, "healthy again"),
        Some(false) => {
            let why = match outcome {
                Err(_) => "no answer in time".to_owned(),
                Ok(Err(error)) => error,
                Ok(Ok(status)) => format!("answered {status}"),
            };
            tracing::warn!(channel = %channel.id, why, "the health check fails; other channels are preferred");
        }
        None => {}
    }
}

async fn ask(pool: &Pool, channel: &Arc<Channel>, check: &HealthCheck) -> Result<StatusCode, String> {
    let slot = pool.slot(channel);
    let (uri, headers) = slot
        .prepared()
        .own(&channel.base.path, &check.path)
        .map_err(|_| "the path of the health check is not a valid URL".to_owned())?;
    let watch = BodyWatch::new();
    let source = Source::empty();
    let mut request = Request::new(source.attempt(Rc::clone(&watch)));
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    // The body is of no interest: dropping it closes the connection.
    let answer = slot.send(request, &watch).await.map_err(|error| error.to_string())?;
    Ok(answer.response.status())
}
