//! What a plain YAML scalar means: the core schema of YAML 1.2 (section 10.3.2).

use std::sync::Arc;

use crate::tree::{Number, Value};

/// The value of a scalar that is neither quoted nor a block.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::Text(Arc::from(text)), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let (whole, float) = if let Some(digits) = text.strip_prefix("0x") {
        radix(digits, 16)?
    } else if let Some(digits) = text.strip_prefix("0o") {
        radix(digits, 8)?
    } else {
        decimal(text)?
    };
    Some(Number { text: Arc::from(text), whole, float })
}

fn radix(digits: &str, radix: u32) -> Option<(Option<i64>, f64)> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(match i64::from_str_radix(digits, radix) {
        Ok(whole) => (Some(whole), whole as f64),
        Err(_) => (None, f64::INFINITY),
    })
}

fn decimal(text: &str) -> Option<(Option<i64>, f64)> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            return Some((None, if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }));
        }
        ".nan" | ".NaN" | ".NAN" => return (text == unsigned).then_some((None, f64::NAN)),
        _ => {}
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) && !unsigned.is_empty() {
        let whole: Option<i64> = text.parse().ok();
        return Some((whole, text.parse().ok()?));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !digits(before) || !digits(after) || (before.is_empty() && after.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    Some((None, text.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for (text, expected) in [
            ("", "Null"),
            ("~", "Null"),
            ("true", "Bool(true)"),
            ("yes", "yes"),
            ("off", "off"),
            ("1", "1"),
            ("-1", "-1"),
            ("+7", "7"),
            ("0138", "138"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.5", "1.5"),
            (".5", "0.5"),
            ("1.", "1"),
            ("1e3", "1000"),
            ("1_000", "1_000"),
            ("2026-12-31", "2026-12-31"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("1.2.3", "1.2.3"),
            (".", "."),
            ("-", "-"),
            ("e5", "e5"),
            ("inf", "inf"),
            (".inf", "inf"),
        ] {
            let found = match resolve(text) {
                Value::Text(text) => text.to_string(),
                Value::Number(number) => {
                    number.whole.map_or_else(|| number.float.to_string(), |n| n.to_string())
                }
                other => format!("{other:?}"),
            };
            assert_eq!(found, expected, "{text}");
        }
    }
}
