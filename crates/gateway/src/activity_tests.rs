//! Time limits, in time that is paused.

use std::path::Path;

use aiproxy_config::{Source, load_str};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{advance, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn registry() -> Arc<Registry> {
    let source = Source { name: "test".into(), base: Path::new(".").to_owned() };
    Arc::new(Registry::new(load_str("users: {}\n", &source, &|_| None).unwrap().snapshot))
}

/// Whether this was asked for.
async fn told(notify: &Notify) -> bool {
    timeout(Duration::ZERO, notify.notified()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_caller_takes_nothing_is_given_up_and_the_others_are_not() {
    let work = async {
        let (registry, connections) = (registry(), Rc::<Connections>::default());
        let entry = connections.enter(Doing::Head);
        entry.activity.shared.set(true);
        let begin = || {
            let under_way = entry.activity.begin(&registry);
            let task = spawn_local(std::future::pending::<()>());
            entry.activity.serves(task.abort_handle());
            (under_way, task)
        };
        let ((mut stalled, first), (mut waiting, second)) = (begin(), begin());
        stalled.handed(Some(10), false);
        waiting.handed(Some(10), false);
        // It took that, and the platform has nothing more for now.
        waiting.handed(None, false);
        advance(WRITE_STALL).await;
        connections.tick(&Limits::default());
        tokio::task::yield_now().await;
        assert!(!first.is_finished());
        advance(SECOND).await;
        connections.tick(&Limits::default());
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(!second.is_finished());
        assert_eq!(registry.status.requests.load(Ordering::Relaxed), 2);
        drop((stalled, waiting));
        assert_eq!(registry.status.requests.load(Ordering::Relaxed), 0);
        assert_eq!(entry.activity.doing.get(), Doing::Idle);
        // What a connection serves ends with it.
        let (_under_way, third) = begin();
        drop(entry);
        assert!(third.await.unwrap_err().is_cancelled());
        assert_eq!(connections.len(), 0);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_caller_is_told_before_it_is_cut() {
    let connections = Rc::<Connections>::default();
    let limits = Limits { connection_age: Some(SECOND * 1000), ..Limits::default() };
    let (one, two) = (connections.enter(Doing::Idle), connections.enter(Doing::Idle));
    two.activity.shared.set(true);
    advance(limits.keep_alive).await;
    connections.tick(&limits);
    assert!(!told(&one.activity.cut).await && !told(&two.activity.retire).await);
    advance(SECOND).await;
    connections.tick(&limits);
    assert!(told(&one.activity.cut).await && told(&two.activity.retire).await);
    assert!(!told(&two.activity.cut).await);
    connections.tick(&limits);
    assert!(told(&two.activity.cut).await);
    // Age is no reason to cut what is at work.
    let three = connections.enter(Doing::Request);
    advance(SECOND * 1001).await;
    connections.tick(&limits);
    connections.tick(&limits);
    assert!(told(&three.activity.retire).await);
    assert!(!told(&three.activity.cut).await);
}

#[tokio::test(start_paused = true)]
async fn each_stage_has_its_own_limit() {
    let limits = Limits { handshake_timeout: SECOND * 3, header_timeout: SECOND * 7, ..Limits::default() };
    for (doing, limit) in [
        (Doing::Opening, limits.header_timeout),
        (Doing::Handshake, limits.handshake_timeout),
        (Doing::Head, limits.header_timeout),
        (Doing::Idle, limits.keep_alive),
    ] {
        let connections = Rc::<Connections>::default();
        let entry = connections.enter(doing);
        advance(limit).await;
        connections.tick(&limits);
        assert!(!told(&entry.activity.cut).await, "{doing:?}");
        advance(SECOND).await;
        connections.tick(&limits);
        assert!(told(&entry.activity.cut).await, "{doing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn credit_is_spent_by_frames_and_earned_by_time_and_work() {
    let (registry, connections) = (registry(), Rc::<Connections>::default());
    let entry = connections.enter(Doing::Idle);
    let activity = &entry.activity;
    activity.shared.set(true);
    assert!(activity.pay(frames::full()));
    assert!(!activity.pay(1));
    connections.tick(&Limits::default());
    assert!(activity.pay(frames::A_SECOND - 1));
    let mut under_way = activity.begin(&registry);
    under_way.handed(Some(0), true);
    drop(under_way);
    assert!(activity.pay(frames::A_REQUEST + frames::piece(0)));
    // Work that was broken off earns nothing,
    drop(activity.begin(&registry));
    assert!(!activity.pay(1));
    // unless it had been worked on: then the frame that broke it off is free.
    let under_way = activity.begin(&registry);
    advance(WORKED).await;
    drop(under_way);
    assert!(activity.pay(frames::A_RESET - 1));
}

#[tokio::test(start_paused = true)]
async fn own_answers_that_nobody_takes_are_given_up_soon() {
    let work = async {
        let (registry, connections) = (registry(), Rc::<Connections>::default());
        let entry = connections.enter(Doing::Head);
        entry.activity.shared.set(true);
        let begin = || {
            let mut under_way = entry.activity.begin(&registry);
            let task = spawn_local(std::future::pending::<()>());
            entry.activity.serves(task.abort_handle());
            under_way.answers(None);
            (under_way, task)
        };
        let (_one, task) = begin();
        assert_eq!(registry.status.requests.load(Ordering::Relaxed), 0, "it takes no place");
        advance(OWN_STALL).await;
        connections.tick(&Limits::default());
        tokio::task::yield_now().await;
        assert!(!task.is_finished() && !told(&entry.activity.cut).await);
        advance(SECOND).await;
        connections.tick(&Limits::default());
        assert!(task.await.unwrap_err().is_cancelled());
        // Many at once are no good sign at all, unless they are taken at once.
        let _many: Vec<_> = (0..=OWN_WAITING).map(|_| begin()).collect();
        connections.tick(&Limits::default());
        assert!(!told(&entry.activity.cut).await);
        advance(SECOND).await;
        connections.tick(&Limits::default());
        assert!(told(&entry.activity.cut).await);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_caller_who_does_not_answer_the_parting_word_is_cut_once_it_has_nothing_under_way() {
    let (registry, connections) = (registry(), Rc::<Connections>::default());
    let entry = connections.enter(Doing::Head);
    entry.activity.shared.set(true);
    let under_way = entry.activity.begin(&registry);
    entry.activity.retiring();
    advance(PARTING * 5).await;
    connections.tick(&Limits::default());
    assert!(!told(&entry.activity.cut).await);
    // The last bytes of its answer are still on their way.
    drop(under_way);
    entry.activity.wrote(false);
    connections.tick(&Limits::default());
    assert!(!told(&entry.activity.cut).await);
    entry.activity.wrote(true);
    connections.tick(&Limits::default());
    assert!(told(&entry.activity.cut).await);
}
