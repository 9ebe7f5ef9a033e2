//! Usage to money.
//!
//! Money is counted in millionths of a currency's unit, in integers. Prices are millionths per
//! million tokens, so that a token costs `price / 1_000_000` millionths.

use std::sync::Arc;

use aiproxy_core::{Cost, Usage};

use crate::glob;

const MILLION: u128 = 1_000_000;

/// Prices of one model, in millionths of the currency's unit. A kind without a price costs what
/// the kind that it is part of costs, and a kind that is part of none costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    /// Per million tokens of input.
    pub input: u64,
    /// Per million tokens of output.
    pub output: u64,
    /// Per million tokens of input read from the cache.
    pub cached: Option<u64>,
    /// Per million tokens of input written to the cache.
    pub cache_written: Option<u64>,
    /// Per million tokens of thoughts.
    pub reasoning: Option<u64>,
    /// Per million tokens of sound in the input.
    pub audio_input: Option<u64>,
    /// Per million tokens of sound in the output.
    pub audio_output: Option<u64>,
    /// Per million tokens of images in the input.
    pub image_input: Option<u64>,
    /// Per million tokens of images in the output.
    pub image_output: Option<u64>,
    /// Per second of sound or video.
    pub second: u64,
    /// Per image made.
    pub image: u64,
    /// Per million characters spoken.
    pub characters: u64,
}

impl Price {
    /// What the use costs, rounded to the nearest millionth.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> i64 {
        let tokens = &usage.tokens;
        let input = shares(
            tokens.input,
            self.input,
            &[
                (tokens.cached, self.cached),
                (tokens.cache_written, self.cache_written),
                (tokens.audio_input, self.audio_input),
                (tokens.image_input, self.image_input),
            ],
        );
        let output = shares(
            tokens.output,
            self.output,
            &[
                (tokens.reasoning, self.reasoning),
                (tokens.audio_output, self.audio_output),
                (tokens.image_output, self.image_output),
            ],
        );
        let characters = u128::from(usage.characters) * u128::from(self.characters);
        let images = u128::from(usage.images) * u128::from(self.image) * MILLION;
        // To the nearest microsecond; floats beyond the integers saturate.
        let micros = (usage.seconds.unwrap_or(0.0) * MILLION as f64).round() as u64;
        let seconds = u128::from(micros) * u128::from(self.second);
        let sum = [input, output, characters, images, seconds].into_iter().fold(0, u128::saturating_add);
        i64::try_from((sum.saturating_add(MILLION / 2)) / MILLION).unwrap_or(i64::MAX)
    }
}

/// The cost of a whole at `price`, save for parts with a price of their own. Parts that say more
/// than the whole are cut, so that no token is paid twice.
fn shares(whole: u64, price: u64, parts: &[(u64, Option<u64>)]) -> u128 {
    let mut rest = whole;
    let mut sum = 0;
    for (tokens, own) in parts {
        let part = (*tokens).min(rest);
        rest -= part;
        sum += u128::from(part) * u128::from(own.unwrap_or(price));
    }
    sum + u128::from(rest) * u128::from(price)
}

/// Prices by model, in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceTable {
    /// The currency's code, as `USD`.
    pub currency: Arc<str>,
    /// Patterns of model names (`*` is any run of characters) and what they cost; the first that
    /// matches counts.
    pub rows: Vec<(String, Price)>,
}

impl PriceTable {
    /// What `model` costs.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<&Price> {
        self.rows.iter().find(|(pattern, _)| glob::matches(pattern, model)).map(|(_, price)| price)
    }

    /// What the use cost. `model` is the one asked for; where it has no price, the one served
    /// counts. `None`: neither has.
    #[must_use]
    pub fn cost(&self, usage: &Usage, model: Option<&str>) -> Option<Cost> {
        let of = |model: Option<&str>| self.price(model?);
        let price = of(model).or_else(|| of(usage.model.as_deref()))?;
        Some(Cost { micros: price.cost(usage), currency: Arc::clone(&self.currency) })
    }
}

/// An amount as people write it, in millionths: 2.5 is 2500000. `None` for what is no price:
/// negative, not finite, or above a billion.
#[must_use]
pub fn millionths(amount: f64) -> Option<u64> {
    (0.0..=1e9).contains(&amount).then(|| (amount * MILLION as f64).round() as u64)
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
