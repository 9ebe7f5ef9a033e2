//! Every example that is shipped loads.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn example(name: &str) -> Loaded {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    load_str(&text, &Source::file(&path), &env).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_example_loads_without_warnings() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert!(
        ["full.yaml", "minimal.yaml", "original.yaml", "team.yaml"]
            .iter()
            .all(|name| names.iter().any(|n| n == name))
    );
    for name in names {
        let warnings = example(&name).warnings;
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
    }
}

#[test]
fn the_original_format_loads_as_it_is() {
    let snapshot = load_file(&folder().join("original.yaml")).unwrap().snapshot;
    let mut users: Vec<_> = snapshot.users().collect();
    users.sort_by_key(|user| &user.id);
    let [one, two] = users[..] else { panic!("two users") };
    assert_eq!((&*one.id, &*one.name, &*one.department), ("user1", "张三", "技术部"));
    let names = |user: &model::User| user.channels.iter().map(|c| c.id.to_string()).collect::<Vec<_>>();
    assert_eq!((names(one), names(two)), (vec!["aliyun".into(), "openai".into()], vec!["aliyun".into()]));
    let digest = aiproxy_core::KeyDigest::of(b"pk_user1_xxx");
    assert_eq!(snapshot.user_by_key(&digest).map(|user| &*user.id), Some("user1"));
    let aliyun = snapshot.channel("aliyun").unwrap();
    assert_eq!((aliyun.platform.id, aliyun.api_key.expose()), ("dashscope", "sk_aliyun_xxx"));
    assert_eq!(snapshot.channel("openai").unwrap().platform.id, "openai");
    assert_eq!(snapshot.system.config_reload_interval, Duration::from_secs(300));
    assert_eq!((&*snapshot.system.log_level, snapshot.system.max_connections), ("info", 1000));
    assert_eq!(snapshot.system.http, ["127.0.0.1:8080".parse().unwrap()]);
}

#[test]
fn the_full_example_has_every_field_of_this_version() {
    let text = std::fs::read_to_string(folder().join("full.yaml")).unwrap();
    crate::schema::each_field(&mut |name, field| {
        let below_planned = ["subprotocol_prefix", "subprotocol_pair", "first_message"].contains(&name);
        if field.planned.is_none() && !below_planned {
            assert!(text.contains(&format!("{name}:")), "full.yaml does not show `{name}`");
        }
    });
}
