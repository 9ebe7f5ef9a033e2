//! The reference page is what the schema says.

use super::*;

#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference(),
        "docs/config.md is out of date: UPDATE_DOCS=1 cargo nextest run -p aiproxy-config"
    );
}

#[test]
fn the_page_names_every_field() {
    let page = reference();
    crate::schema::each_field(&mut |name, _| {
        assert!(page.contains(&format!("{name}`")), "{name}");
    });
}
