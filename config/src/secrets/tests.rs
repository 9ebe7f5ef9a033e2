use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "A" => Some("alpha".to_owned()),
        "LINE" => Some("alpha\n".to_owned()),
        "NESTED" => Some("${A}".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn source(folder: &Path) -> Source {
    Source { name: "x".to_owned(), base: folder.to_owned() }
}

#[test]
fn variables_are_put_in_place() {
    for (text, expected) in [
        ("plain", "plain"),
        ("${A}", "alpha"),
        ("x${A}y${A}", "xalphayalpha"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A", "$A"),
        ("${LINE}", "alpha"),
        ("${NESTED}", "${A}"),
        ("a$", "a$"),
    ] {
        assert_eq!(expand(text, &source(Path::new("")), &env).as_deref(), Ok(expected), "{text}");
    }
    for (text, part) in [
        ("${B}", "`B` is not set"),
        ("${EMPTY}", "`EMPTY` is empty"),
        ("${A", "is not closed"),
        ("${}", "does not hold the name"),
        ("${A:-b}", "does not hold the name"),
        ("${1}", "does not hold the name"),
    ] {
        let message = expand(text, &source(Path::new("")), &env).unwrap_err().message;
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let here = source(folder.path());
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("key", b"the key\r\n\n");
    write("bom", "\u{feff}key".as_bytes());
    write("empty", b"\n");
    write("binary", &[0xff, 0xfe]);
    write("large", &[b'x'; 70_000]);
    assert_eq!(expand("file:key", &here, &env).as_deref(), Ok("the key"));
    assert_eq!(expand("file:bom", &here, &env).as_deref(), Ok("key"));
    let absolute = format!("file:{}", folder.path().join("key").display());
    assert_eq!(expand(&absolute, &here, &env).as_deref(), Ok("the key"));
    for (text, part) in [
        ("file:", "names no file"),
        ("file:none", "cannot read the file"),
        ("file:empty", "is empty"),
        ("file:binary", "does not hold text"),
        ("file:large", "is too large"),
        ("file:.", "is a folder"),
        ("file:${B}", "is not set"),
    ] {
        let message = expand(text, &here, &env).unwrap_err().message;
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn other_fields_refuse_references() {
    assert!(refuse("plain $A").is_ok());
    for text in ["${A}", "x${A}", "file:x"] {
        let suggestion = refuse(text).unwrap_err().suggestion.unwrap();
        assert!(suggestion.contains("`api_key`"), "{suggestion}");
    }
}
