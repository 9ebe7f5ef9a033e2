//! Hosts with several addresses, and hosts that move.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aiproxy_testkit::{Manner, Platform, TestCa, until};
use serde_json::json;

use super::{before, secure};

const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

async fn named(manner: Manner, name: &'static str) -> Platform {
    Platform::start(manner, move |exchange| async move { exchange.answer(200, name).await }).await
}

/// Two platforms on one port of two addresses.
async fn both(ca: &TestCa) -> (Platform, Platform) {
    loop {
        let old = named(secure(ca), "old").await;
        let port = old.addr().port();
        // Nobody else is likely to have it there.
        if std::net::TcpListener::bind((SECOND, port)).is_ok() {
            return (old, named(Manner { ip: SECOND, port, ..secure(ca) }, "new").await);
        }
    }
}

#[tokio::test]
async fn a_reload_moves_the_platform_and_cuts_nobody() {
    let ca = TestCa::new();
    let (old, new) = both(&ca).await;
    let mut app = before(&old, &ca, |_| ()).await;
    assert_eq!(app.get("/v1/a").send().await.text().await, "old");
    let (ask, upload) = app.ask("POST", "/v1/a").upload();
    let under_way = tokio::spawn(ask.send());
    assert!(upload.send("begun").await);
    until("the request at the platform", || (old.exchanges() == 2).then_some(())).await;
    assert!(app.change(|c| c["channels"]["main"]["resolve"] = json!({"platform.test": ["127.0.0.2"]})).await);
    assert_eq!(app.get("/v1/a").send().await.text().await, "new");
    drop(upload);
    assert_eq!(under_way.await.unwrap().text().await, "old");
    assert_eq!((old.connections(), new.connections()), (1, 1));
    app.finish().await;
}

#[tokio::test]
async fn a_host_that_moves_in_the_name_service_is_followed() {
    let ca = TestCa::new();
    let (old, new) = both(&ca).await;
    let hosts = tempfile();
    let write = |address: &str| {
        // Replaced in one step: the relay may read it at any time.
        let next = hosts.path().join("next");
        std::fs::write(&next, format!("{address} platform.test\n")).unwrap();
        std::fs::rename(next, hosts.path().join("hosts")).unwrap();
    };
    write("127.0.0.1");
    let library = "/usr/lib/x86_64-linux-gnu/libnss_wrapper.so";
    let app = crate::relay()
        .recorded(&old)
        .recorded(&new)
        .env("LD_PRELOAD", library)
        .env("NSS_WRAPPER_HOSTS", hosts.path().join("hosts").to_str().unwrap())
        .config(super::lead(&old, &ca))
        .config(|c| {
            let main = &mut c["channels"]["main"];
            main["resolve"] = json!({});
            main["pool"] = json!({"lookup": "100ms", "idle": "1h"});
        })
        .start()
        .await;
    assert_eq!(app.get("/v1/a").send().await.text().await, "old");
    write("127.0.0.2");
    // The connection stays until the name service has been sure about it.
    let mut answers = Vec::new();
    aiproxy_testkit::within("the relay following", async {
        loop {
            let answer = app.get("/v1/a").send().await;
            assert_eq!(answer.status, 200);
            let mut answer = answer;
            answers.push(answer.text().await);
            if answers.last().is_some_and(|last| last == "new") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(old.connections(), 1);
    app.finish().await;
}

#[tokio::test]
async fn addresses_that_refuse_or_say_nothing_are_passed_over() {
    let ca = TestCa::new();
    let platform = named(secure(&ca), "ok").await;
    // Nobody listens there, in either family.
    let refusing = ["127.0.0.77", "::1", "127.0.0.78"];
    let app = before(&platform, &ca, |c| {
        let mut all = refusing.map(str::to_owned).to_vec();
        all.push("127.0.0.1".to_owned());
        c["channels"]["main"]["resolve"] = json!({"platform.test": all});
    })
    .await;
    for _ in 0..3 {
        assert_eq!(app.get("/v1/a").send().await.text().await, "ok");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_platform_in_the_other_family_is_reached() {
    let ca = TestCa::new();
    let platform = named(Manner { ip: Ipv6Addr::LOCALHOST.into(), ..secure(&ca) }, "six").await;
    let app = before(&platform, &ca, |c| {
        c["channels"]["main"]["resolve"] = json!({"platform.test": ["127.0.0.77", "::1"]});
    })
    .await;
    assert_eq!(app.get("/v1/a").send().await.text().await, "six");
    app.finish().await;
}

fn tempfile() -> aiproxy_testkit::TempDir {
    aiproxy_testkit::TempDir::new().unwrap()
}
