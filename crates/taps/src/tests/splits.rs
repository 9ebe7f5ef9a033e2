//! However the bytes are cut into pieces, nothing changes.

use proptest::prelude::*;

use super::fixtures::{ALL, Fixture};
use super::strip::stripped;
use super::tapped;
use crate::report::Usage;

#[test]
fn any_one_split_gives_the_same_usage() {
    for fixture in ALL {
        let bytes = fixture.body.as_bytes();
        for at in 0..=bytes.len() {
            let mut tap = fixture.tap();
            tap.feed(&bytes[..at]);
            tap.feed(&bytes[at..]);
            assert_eq!(tap.finish(true), (fixture.expected)(), "{} split at {at}", fixture.name);
        }
        for step in 1..20 {
            assert_eq!(
                tapped(fixture, bytes, step, true),
                (fixture.expected)(),
                "{} by {step}",
                fixture.name
            );
        }
    }
}

#[test]
fn wherever_it_breaks_off_the_pieces_do_not_matter() {
    for fixture in ALL {
        let bytes = fixture.body.as_bytes();
        for end in (0..bytes.len()).step_by(7) {
            let whole = tapped(fixture, &bytes[..end], bytes.len(), false);
            assert_eq!(tapped(fixture, &bytes[..end], 3, false), whole, "{} up to {end}", fixture.name);
        }
    }
}

/// Line ends of another kind, or data over several lines: the same events.
fn rewritten(fixture: &Fixture, how: usize) -> String {
    let body = fixture.body.replace("\r\n", "\n");
    match how {
        0 => body.replace('\n', "\r\n"),
        1 => body.replace('\n', "\r"),
        2 => format!("\u{feff}: hello\n\n{body}"),
        3 => body.replace("data: ", "data:"),
        // A line feed between tokens of JSON is white space.
        _ => body.replace(",\"", ",\ndata: \""),
    }
}

#[test]
fn every_way_to_write_events_gives_the_same_usage() {
    for fixture in ALL.iter().filter(|f| f.stream) {
        for how in 0..5 {
            let body = rewritten(fixture, how);
            for step in [1, 2, 3, 5, 64, body.len()] {
                let usage = tapped(fixture, body.as_bytes(), step, true);
                assert_eq!(usage, (fixture.expected)(), "{} rewritten {how}, by {step}", fixture.name);
            }
        }
    }
}

fn cut<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn random_splits_change_nothing(
        fixture in 0..ALL.len(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        how in 0..6usize,
    ) {
        let fixture = &ALL[fixture];
        let body = if fixture.stream && how < 5 { rewritten(fixture, how) } else { fixture.body.to_owned() };
        let pieces = cut(body.as_bytes(), &at);
        let mut tap = fixture.tap();
        pieces.iter().for_each(|piece| tap.feed(piece));
        prop_assert_eq!(tap.finish(true), (fixture.expected)());

        let (whole, _) = stripped(&[body.as_bytes()]);
        let (parts, _) = stripped(&pieces);
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn random_bytes_give_one_answer_however_they_are_split(
        fixture in 0..ALL.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let fixture = &ALL[fixture];
        let whole: Usage = tapped(fixture, &bytes, bytes.len(), true);
        let mut tap = fixture.tap();
        cut(&bytes, &at).iter().for_each(|piece| tap.feed(piece));
        prop_assert_eq!(tap.finish(true), whole);
    }
}
