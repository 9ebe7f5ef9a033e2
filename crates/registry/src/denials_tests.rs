use std::sync::Arc;

use aiproxy_config::Source;
use aiproxy_core::{ErrorKind, RequestId};

use super::*;
use crate::live::Kind;

fn registry() -> Arc<Registry> {
    let text = "
users:
  a: {name: 甲, proxy_key: pk_a_0123456789, channels: [c]}
  b: {name: 乙, proxy_key: pk_b_0123456789, channels: [c]}
channels:
  c: {platform: custom, base_url: 'http://127.0.0.1:1', api_key: sk-0123456789}
";
    let source = Source { name: "test".into(), base: "/".into() };
    let loaded = aiproxy_config::load_str(text, &source, &|_| None).unwrap();
    Arc::new(Registry::new(loaded.snapshot))
}

#[test]
fn a_denial_cuts_what_is_under_way_and_wins_over_the_configuration() {
    let registry = registry();
    let users = registry.snapshot().users().cloned().collect::<Vec<_>>();
    let [of_a, of_b] =
        [0, 1].map(|index| registry.register(Live::new(RequestId::fresh(), Kind::Http, &users[index])));
    let epoch = registry.epoch();
    assert_eq!(registry.denials.of(&users[0]), None);
    assert_eq!(registry.deny(Subject::User(Arc::clone(&users[0].id))), 1);
    assert_ne!(registry.epoch(), epoch, "who was admitted before decides again");
    assert_eq!(of_a.is_cut(), Some(ErrorKind::UserDisabled));
    assert_eq!(of_b.is_cut(), None);
    registry.replace((*registry.snapshot()).clone());
    assert_eq!(registry.denials.of(&users[0]), Some(ErrorKind::UserDisabled));
    assert_eq!(registry.denials.of(&users[1]), None);

    assert_eq!(registry.deny(Subject::Key(users[1].key.digest)), 1);
    assert_eq!(of_b.is_cut(), Some(ErrorKind::KeyDisabled));
    assert!(registry.allow(&Subject::Key(users[1].key.digest)));
    assert!(!registry.allow(&Subject::Key(users[1].key.digest)));
    assert_eq!(registry.denials.of(&users[1]), None);
}

#[test]
fn what_has_ended_is_not_in_the_map() {
    let registry = registry();
    let user = Arc::clone(registry.snapshot().users().next().unwrap());
    let live = registry.register(Live::new(RequestId::fresh(), Kind::Http, &user));
    assert_eq!(registry.live.len(), 1);
    drop(live);
    assert!(registry.live.is_empty());
}
