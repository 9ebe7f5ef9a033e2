use aiproxy_core::usage::Tokens;

use super::{Price, PriceTable, millionths};
use aiproxy_core::Usage;

fn table() -> PriceTable {
    let of = |amount| millionths(amount).expect("a price");
    PriceTable {
        currency: "USD".into(),
        rows: vec![
            (
                "gpt-4o-mini*".to_owned(),
                Price { input: of(0.15), output: of(0.6), cached: Some(of(0.075)), ..Price::default() },
            ),
            ("gpt-4o*".to_owned(), Price { input: of(2.5), output: of(10.0), ..Price::default() }),
            (
                "claude-*".to_owned(),
                Price {
                    input: of(3.0),
                    output: of(15.0),
                    cached: Some(of(0.3)),
                    cache_written: Some(of(3.75)),
                    ..Price::default()
                },
            ),
            ("whisper-1".to_owned(), Price { second: of(0.0001), ..Price::default() }),
            ("dall-e-3".to_owned(), Price { image: of(0.04), ..Price::default() }),
            ("cosyvoice*".to_owned(), Price { characters: of(200.0), ..Price::default() }),
        ],
    }
}

fn used(tokens: Tokens) -> Usage {
    Usage { tokens, ..Usage::default() }
}

#[test]
fn usage_costs_what_the_table_says() {
    let tokens = |input, output| Tokens { input, output, ..Tokens::default() };
    for (model, usage, cost) in [
        ("gpt-4o-2024-08-06", used(tokens(1_000_000, 0)), Some(2_500_000)),
        ("gpt-4o", used(tokens(1000, 500)), Some(2500 + 5000)),
        // The first row that matches.
        ("gpt-4o-mini", used(tokens(1000, 0)), Some(150)),
        ("gpt-4o-mini", used(Tokens { cached: 400, ..tokens(1000, 0) }), Some(90 + 30)),
        // Parts larger than the whole are not paid twice.
        ("gpt-4o-mini", used(Tokens { cached: 4000, ..tokens(1000, 0) }), Some(75)),
        (
            "claude-sonnet-4-5",
            used(Tokens { cached: 20, cache_written: 10, ..tokens(130, 503) }),
            // 100 · 3 + 20 · 0.3 + 10 · 3.75 + 503 · 15 = 7888.5
            Some(7889),
        ),
        ("whisper-1", Usage { seconds: Some(60.0), ..Usage::default() }, Some(6000)),
        ("dall-e-3", Usage { images: 2, ..Usage::default() }, Some(80_000)),
        ("cosyvoice-v2", Usage { characters: 14, ..Usage::default() }, Some(2800)),
        ("unknown", used(tokens(1, 1)), None),
        ("alias", Usage { model: Some("GPT-4o".to_owned()), ..used(tokens(1000, 0)) }, Some(2500)),
        ("gpt-4o", used(tokens(u64::MAX, u64::MAX)), Some(i64::MAX)),
        (
            "whisper-1",
            Usage { seconds: Some(f64::INFINITY), ..Usage::default() },
            Some(1_844_674_407_370_955),
        ),
        ("whisper-1", Usage { seconds: Some(f64::NAN), ..Usage::default() }, Some(0)),
    ] {
        assert_eq!(table().cost(&usage, Some(model)).map(|cost| cost.micros), cost, "{model} {usage:?}");
    }
}

#[test]
fn prices_are_amounts() {
    assert_eq!(millionths(0.15), Some(150_000));
    assert_eq!(millionths(0.0), Some(0));
    for no in [-0.1, f64::NAN, f64::INFINITY, 1e10] {
        assert_eq!(millionths(no), None, "{no}");
    }
}
