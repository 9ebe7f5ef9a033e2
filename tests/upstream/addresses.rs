//! Hosts with several addresses, and hosts that move.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aiproxy_testkit::{Hosts, Manner, Platform, TestCa, until, within};
use serde_json::json;
use tokio::time::sleep;

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
    let hosts = Hosts::new("127.0.0.1 platform.test");
    let [library, file] = hosts.environment();
    let app = crate::relay()
        .recorded(&old)
        .recorded(&new)
        .env(library.0, &library.1)
        .env(file.0, &file.1)
        .config(super::lead(&old, &ca))
        .config(|c| {
            let main = &mut c["channels"]["main"];
            main["resolve"] = json!({});
            main["pool"] = json!({"lookup": "100ms", "idle": "1h"});
        })
        .start()
        .await;
    assert_eq!(app.get("/v1/a").send().await.text().await, "old");
    hosts.set("127.0.0.2 platform.test");
    // The connection stays until the name service has been sure about it.
    within("the relay following", async {
        loop {
            let mut answer = app.get("/v1/a").send().await;
            assert_eq!(answer.status, 200);
            if answer.text().await == "new" {
                return;
            }
            sleep(Duration::from_millis(50)).await;
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
