//! One thread that carries taps, platforms and their sockets, so that they go on while a test's
//! own thread is busy or blocked (a script that runs, the end of an `App`).

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

static HANDLE: OnceLock<Handle> = OnceLock::new();

/// Runs the future on the thread of the network.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    HANDLE.get_or_init(start).spawn(future)
}

/// Runs the future there and waits for it.
///
/// # Panics
/// When it panics.
pub(crate) async fn run<F>(future: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    spawn(future).await.expect("the task on the network's thread")
}

fn start() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("network".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .expect("a thread");
    handle
}
