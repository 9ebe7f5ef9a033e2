//! The date of answers.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

thread_local! {
    /// The last one, and until when it holds.
    static LAST: RefCell<Option<(SystemTime, HeaderValue)>> = const { RefCell::new(None) };
}

/// The value of `date` now, made once a second and thread.
pub(crate) fn date() -> HeaderValue {
    let now = SystemTime::now();
    LAST.with_borrow_mut(|last| match last {
        // A clock that was set back makes a new one.
        Some((made, value)) if now.duration_since(*made).is_ok_and(|age| age < Duration::from_secs(1)) => {
            value.clone()
        }
        _ => {
            let text = httpdate::fmt_http_date(now);
            let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
            *last = Some((now, value.clone()));
            value
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_date_and_the_same_one_for_a_while() {
        let date = date();
        let parsed = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
        let off = SystemTime::now().duration_since(parsed).unwrap();
        assert!(off < Duration::from_secs(60), "{off:?}");
    }
}
