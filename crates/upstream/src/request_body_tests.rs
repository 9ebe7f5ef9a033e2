use http_body::Body as _;

use super::*;

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn source(texts: &[&'static str], replay: Option<Replay>) -> Rc<Source> {
    Source::new(texts.iter().copied().map(data).collect(), None, 1 << 20, None, "pk_0123456789", replay)
}

fn next(body: &mut RequestBody) -> Option<Result<String, ()>> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match Pin::new(body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => {
            Some(Ok(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()))
        }
        Poll::Ready(Some(Err(_))) => Some(Err(())),
        Poll::Ready(None) => None,
        Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn another_attempt_begins_at_the_first_byte_and_ends_the_one_before() {
    let budget = Arc::<ReplayBudget>::default();
    let source =
        source(&["ab", "cd"], Some(Replay { bytes: 1000, total: 1000, budget: Arc::clone(&budget) }));
    assert_eq!(budget.used(), 2 * PIECE_BYTES);
    let mut first = source.attempt(BodyWatch::new());
    assert_eq!(first.size_hint().exact(), Some(4));
    assert_eq!(next(&mut first), Some(Ok("ab".into())));
    assert_eq!(first.size_hint().exact(), Some(2));
    let watch = BodyWatch::new();
    let mut second = source.attempt(Rc::clone(&watch));
    assert_eq!(next(&mut first), Some(Err(())));
    assert!(!first.is_end_stream());
    assert_eq!(next(&mut second), Some(Ok("ab".into())));
    assert!(!watch.done());
    assert_eq!(next(&mut second), Some(Ok("cd".into())));
    assert!(watch.done() && second.is_end_stream());
    assert_eq!(watch.bytes(), 4);
    assert_eq!(next(&mut second), None);
    drop((first, second, source));
    assert_eq!(budget.used(), 0);
}

#[test]
fn beyond_the_bounds_nothing_is_kept_and_everything_passes() {
    let budget = Arc::<ReplayBudget>::default();
    for replay in [
        None,
        Some(Replay { bytes: 3, total: 5, budget: Arc::clone(&budget) }),
        Some(Replay { bytes: 100, total: 3, budget: Arc::default() }),
    ] {
        let source = source(&["ab", "cd"], replay);
        assert!(!source.replayable());
        let mut body = source.attempt(BodyWatch::new());
        assert_eq!(next(&mut body), Some(Ok("ab".into())));
        assert_eq!(next(&mut body), Some(Ok("cd".into())));
        assert_eq!(next(&mut body), None);
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_empty_body_is_done_at_once() {
    let source = source(&[], None);
    assert!(source.is_empty());
    let watch = BodyWatch::new();
    assert!(source.attempt(Rc::clone(&watch)).is_end_stream());
    assert!(watch.done());
}

#[test]
fn a_trailer_that_holds_the_key_is_taken_out() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-debug", "key pk_0123456789".parse().unwrap());
    trailers.insert("authorization", "Bearer other".parse().unwrap());
    trailers.insert("x-kept", "1".parse().unwrap());
    let source = Source::new([Frame::trailers(trailers)].into(), None, 1 << 20, None, "pk_0123456789", None);
    let mut body = source.attempt(BodyWatch::new());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else { panic!("a frame") };
    let left = frame.into_trailers().unwrap();
    assert_eq!(left.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-kept"]);
}

#[test]
fn over_http3_a_malformed_body_is_told_from_a_caller_who_is_gone() {
    let why = |error| BodyFailure::of(&IncomingError::Quic(error));
    assert_eq!(why(BodyError::Malformed("more than was announced")), BodyFailure::Malformed);
    assert_eq!(why(BodyError::Reset(0x010c)), BodyFailure::CallerGone);
}
