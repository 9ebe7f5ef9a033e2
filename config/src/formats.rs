//! What the schema's `x-kind` asks of a text or number.

use crate::complaint::{Complaint, shown};
use crate::suggest::nearest;
use crate::tree::{Number, Value};
use crate::{base_url, headers, moment, net, paths, units};

/// Checks a value against a kind. Secrets are not this function's business.
pub(crate) fn check(kind: &str, value: &Value) -> Result<(), Complaint> {
    match value {
        Value::Text(text) => check_text(kind, text),
        Value::Number(number) => check_number(kind, number),
        _ => Ok(()),
    }
}

fn check_number(kind: &str, number: &Number) -> Result<(), Complaint> {
    match kind {
        "duration" => units::seconds(number.float).map(drop),
        "size" => units::bytes(number.float).map(drop),
        "retry-status" => retry_status(number),
        _ => Ok(()),
    }
}

fn check_text(kind: &str, text: &str) -> Result<(), Complaint> {
    match kind {
        "duration" => units::duration(text).map(drop),
        "size" => units::size(text).map(drop),
        "cidr" => net::cidr(text).map(drop),
        "ip" => net::address(text).map(drop),
        "host" => net::host(text),
        "listen" => net::listen(text).map(drop),
        "listen-or-off" => net::listen_or_off(text).map(drop),
        "origin" => net::origin(text),
        "url" => base_url::parse(text).map(drop),
        "moment" => moment::parse(text).map(drop),
        "path-pattern" => paths::pattern(text).map(drop),
        "path-prefix" => paths::prefix(text).map(drop),
        "request-path" => paths::request(text).map(drop),
        "header-name" => headers::name(text).map(drop),
        "token" => headers::token(text),
        "json-pointer" => json_pointer(text),
        "id" => id(text),
        "channel-id" => channel_id(text),
        "model" => model(text),
        "one-model" => one_model(text),
        "path" => path(text),
        "currency" => currency(text),
        "pem-file" => pem_file(text),
        "access-log" => access_log(text),
        "log-level" => log_level(text),
        _ => Ok(()),
    }
}

fn retry_status(number: &Number) -> Result<(), Complaint> {
    if number.whole.is_some_and(|status| status == 429 || (500..=599).contains(&status)) {
        return Ok(());
    }
    Err(Complaint::new(
        format!("another channel is not tried after {}", shown(&number.text)),
        "write statuses from 500 to 599; 429 and 503 always count",
    ))
}

fn id(text: &str) -> Result<(), Complaint> {
    let clean = !text.is_empty()
        && text.len() <= 128
        && text.trim() == text
        && !text.contains(|c: char| c.is_control() || c == '"' || c == '\\');
    if clean {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} cannot be an id", shown(text)),
        "use up to 128 letters, digits, `_` and `-`, with no space around them",
    ))
}

fn channel_id(text: &str) -> Result<(), Complaint> {
    let clean = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if clean {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} cannot be the id of a channel", shown(text)),
        "use up to 64 ASCII letters, digits, `.`, `_` and `-`, since callers may write it in a URL; `name` takes any text",
    ))
}

fn currency(text: &str) -> Result<(), Complaint> {
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} is not the code of a currency", shown(text)),
        "write one such as `USD` or `CNY`",
    ))
}

fn json_pointer(text: &str) -> Result<(), Complaint> {
    if aiproxy_platform::Pointer::parse(text).is_some() {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} does not point to a member", shown(text)),
        "write a JSON pointer such as `/xi_api_key` or `/auth/token`",
    ))
}

/// A model that is asked for by its name, not by a pattern.
fn one_model(text: &str) -> Result<(), Complaint> {
    model(text)?;
    if !text.contains('*') && text.len() <= 256 {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} is not the name of one model", shown(text)),
        "write a name such as `gpt-realtime`, without `*`",
    ))
}

fn model(text: &str) -> Result<(), Complaint> {
    if !text.is_empty() && text.trim() == text && !text.contains(char::is_control) {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} is not the name of a model", shown(text)),
        "write a name or a pattern such as `gpt-4o*`",
    ))
}

fn path(text: &str) -> Result<(), Complaint> {
    if text.is_empty() || text.contains('\0') {
        return Err(Complaint::bare("the path is empty or cannot be one"));
    }
    Ok(())
}

/// A path, or certificates themselves. Whoever pastes a private key in place of its file's path must not
/// see it repeated in a message.
fn pem_file(text: &str) -> Result<(), Complaint> {
    let certificates = text.contains("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY-----");
    if certificates {
        return Ok(());
    }
    if text.contains("-----BEGIN") || text.contains('\n') {
        return Err(Complaint::new(
            "this is no path",
            "write the path of the file that holds the certificates, or the certificates themselves",
        ));
    }
    path(text)
}

fn access_log(text: &str) -> Result<(), Complaint> {
    if matches!(text, "stdout" | "off") || text.contains(['/', '.', '\\']) {
        return path(text);
    }
    Err(Complaint::new(
        format!("{} is neither `stdout`, `off` nor the path of a file", shown(text)),
        match nearest(text, ["stdout", "off"]) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "for a file of that name in the configuration's folder, write `./` before it".to_owned(),
        },
    ))
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

fn log_level(text: &str) -> Result<(), Complaint> {
    let alone = !text.contains(['=', ',']);
    for directive in text.split(',').map(str::trim) {
        // `target[span{field}]=level`; a target alone switches it on.
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        let bare = !directive.contains('=');
        if LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
            || (bare && !alone && !level.is_empty())
        {
            continue;
        }
        return Err(Complaint::new(
            format!("{} is not a log level", shown(level)),
            match nearest(level, LEVELS).or((level == "warning").then_some("warn")) {
                Some(word) => format!("did you mean `{word}`?"),
                None => "write `error`, `warn`, `info`, `debug`, `trace` or `off`".to_owned(),
            },
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_text;

    #[test]
    fn each_kind_takes_and_refuses() {
        for (kind, good, bad) in [
            ("id", &["user1", "张三", "a.b"][..], &["", " a", "a\"b"][..]),
            ("channel-id", &["openai", "a.b-c_1"], &["", "阿里", "a/b", "-a", "a b"]),
            ("model", &["gpt-4o*", "通义"], &["", " a", "a\n"]),
            ("path", &["data", "/var/x"], &[""]),
            (
                "pem-file",
                &["certs/a.pem", "-----BEGIN CERTIFICATE-----\nMII"],
                &["", "-----BEGIN PRIVATE KEY-----\n", "a\nb"],
            ),
            ("listen-or-off", &["off", "127.0.0.1:0", "[::1]:1"], &["on", "Off", "", "127.0.0.1"]),
            ("request-path", &["/", "/v1/models?limit=1"], &["", "v1", "/a#b"]),
            ("access-log", &["stdout", "off", "logs/a", "./a", "a.log"], &["stdot", "stderr", ""]),
            (
                "log-level",
                &["info", "INFO", "info,h2=warn", "aiproxy,h2=off"],
                &["loud", "warning", "info,h2=loud", ""],
            ),
        ] {
            for text in good {
                assert!(check_text(kind, text).is_ok(), "{kind} {text}");
            }
            for text in bad {
                assert!(check_text(kind, text).is_err(), "{kind} {text}");
            }
        }
    }
}
