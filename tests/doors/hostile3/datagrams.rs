//! Below HTTP/3: datagrams, handshakes, addresses.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aiproxy_testkit::quic::{self, Caller, Outcome, code};
use aiproxy_testkit::{RawUpstream, within};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Scene, bearer, fate, fields, served};

/// Numbers that look like nothing, the same ones each time.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0.to_be_bytes()[0]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// What this many handshakes begin with, one datagram each.
async fn initials(caller: &Caller, count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = sink.local_addr().unwrap();
    let (mut seen, mut out) = (HashSet::new(), Vec::new());
    let mut buffer = [0; 2048];
    for _ in 0..count {
        let begun = caller.begin(to);
        loop {
            let length = within("a datagram", sink.recv(&mut buffer)).await.unwrap();
            let datagram = &buffer[..length];
            // Whose it is stands in the first bytes; what follows the first of them is a farewell.
            let id = &datagram[6..6 + usize::from(datagram[5])];
            if length >= 1200 && seen.insert(id.to_vec()) {
                out.push(datagram.to_vec());
                break;
            }
        }
        drop(begun);
    }
    out
}

async fn from_anywhere() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// The answer to a datagram from a port of its own, if there is one soon.
async fn answer(to: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    let socket = from_anywhere().await;
    socket.send_to(datagram, to).await.unwrap();
    let mut buffer = [0; 2048];
    let length = timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await.ok()?.unwrap();
    Some(buffer[..length].to_vec())
}

#[tokio::test]
async fn garbage_is_dropped_and_harms_no_connection() {
    let scene = Scene::start().await;
    let to = scene.app.quic_addr();
    let good = scene.connect().await;
    served(&good).await;
    let before = scene.app.process().resident_bytes();
    let mut noise = Noise(1);
    let initials = initials(&scene.caller, 20).await;
    let socket = from_anywhere().await;
    for round in 0..4000_usize {
        let mut datagram = noise.bytes(round * 7 % 1400);
        match round % 4 {
            // Ids that are guessed, for a thread that may be another one.
            1 => datagram.insert(0, 0x41),
            2 => datagram.insert(0, 0xc1),
            3 => {
                datagram.clone_from(&initials[round % 20]);
                let at = usize::from(noise.byte()) * 4;
                match round % 8 {
                    3 => datagram.truncate(at),
                    _ => datagram[at] ^= 1 << (round % 7),
                }
            }
            _ => {}
        }
        socket.send_to(&datagram, to).await.unwrap();
        if round % 200 == 0 {
            served(&good).await;
        }
    }
    served(&good).await;
    assert_eq!(good.end(), None);
    let grown = scene.app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    scene.others_are_served().await;
    assert_eq!(scene.hostile(), 0);
    scene.finish().await;
}

#[tokio::test]
async fn answers_to_strangers_are_no_longer_than_what_they_sent() {
    let scene = Scene::start().await;
    let to = scene.app.quic_addr();
    let mut noise = Noise(2);
    // A version that nobody speaks (RFC 9000, section 6).
    let mut unknown = vec![0xc0, 0x0a, 0x0a, 0x0a, 0x0a, 8];
    unknown.extend(noise.bytes(8));
    unknown.push(8);
    unknown.extend(noise.bytes(1200));
    let versions = answer(to, &unknown).await.expect("a list of versions");
    assert_eq!((versions[0] & 0x80, &versions[1..5]), (0x80, &[0; 4][..]), "{versions:?}");
    assert!(versions.windows(4).any(|version| version == [0, 0, 0, 1]));
    assert!(versions.len() < unknown.len());
    assert_eq!(answer(to, &unknown[..600]).await, None, "too short to be answered");
    // Connections that are not there (section 10.3).
    let mut resets = 0;
    for length in [22, 60, 400, 1200] {
        let stranger = [vec![0x41], noise.bytes(length)].concat();
        if let Some(reset) = answer(to, &stranger).await {
            assert!(reset.len() < stranger.len(), "{} for {}", reset.len(), stranger.len());
            assert_eq!(reset[0] & 0xc0, 0x40, "{reset:?}");
            resets += 1;
        }
    }
    assert!(resets >= 1, "{resets} resets");
    scene.others_are_served().await;
    scene.finish().await;
}

#[tokio::test]
async fn half_open_handshakes_are_few_and_hold_up_nobody() {
    let scene = Scene::with(RawUpstream::recording().await, |c| {
        c["system"]["limits"] = json!({"handshakes": 32, "handshake_timeout": "5s"});
    })
    .await;
    scene.others_are_served().await;
    let to = scene.app.quic_addr();
    let before = scene.app.process().resident_bytes();
    let (mut retries, mut begun) = (0, 0);
    for (number, initial) in initials(&scene.caller, 2000).await.iter().enumerate() {
        match answer(to, initial).await.map(|answer| answer[0] & 0xf0) {
            // Come again, and show that the address is yours: nothing is kept.
            Some(0xf0) => retries += 1,
            Some(_) => begun += 1,
            None => {}
        }
        if number % 500 == 0 {
            // Who does show it is served.
            scene.others_are_served().await;
        }
    }
    assert!(retries > 1500, "{retries} were asked, {begun} were not");
    let grown = scene.app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    scene.others_are_served().await;
    assert_eq!(scene.hostile(), 0);
    scene.finish().await;
}

#[tokio::test]
async fn connections_have_their_bounds() {
    let scene = Scene::with(RawUpstream::recording().await, |c| {
        c["system"]["max_connections"] = 3.into();
        c["system"]["limits"] = json!({"connections_per_ip": 2});
    })
    .await;
    let to = scene.app.quic_addr();
    let [two, three, four] =
        [2, 3, 4].map(|last| Caller::at(&scene.authority, IpAddr::from([127, 0, 0, last])));
    let first = two.connect(to).await;
    let second = two.connect(to).await;
    served(&first).await;
    served(&second).await;
    // A third one of an address: it can only be told when it has shown that it is there.
    match two.try_connect(to).await {
        Ok(third) => assert_eq!(third.closed().await, Outcome::Closed(code::EXCESSIVE_LOAD)),
        Err(error) => assert_eq!(Outcome::from(error), Outcome::Closed(code::EXCESSIVE_LOAD)),
    }
    let third = three.connect(to).await;
    served(&third).await;
    // A fourth one of all.
    let error = four.try_connect(to).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    scene.app.metric_is("aiproxy_connections_turned_away_total{reason=\"connections_per_ip\"}", 1.0).await;
    scene.app.metric_is("aiproxy_connections_turned_away_total{reason=\"connections\"}", 1.0).await;
    first.quic().close(0_u32.into(), b"");
    within("a place", async {
        loop {
            if let Ok(fourth) = four.try_connect(to).await {
                return served(&fourth).await;
            }
        }
    })
    .await;
    drop((second, third));
    scene.finish().await;
}

#[tokio::test]
async fn nothing_is_taken_before_the_handshake() {
    let scene = Scene::start().await;
    for _ in 0..3 {
        // With what the one before has left: tickets, that allow no early data.
        match scene.caller.begin(scene.app.quic_addr()).into_0rtt() {
            Ok(_) => panic!("early data"),
            Err(connecting) => within("a handshake", connecting).await.unwrap(),
        };
        served(&scene.connect().await).await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_key_that_is_bound_to_addresses_is_bound_to_where_the_connection_began_too() {
    let scene = Scene::with(RawUpstream::recording().await, |c| {
        c["users"]["user1"]["allow_ips"] = json!(["127.0.0.2"]);
    })
    .await;
    let to = scene.app.quic_addr();
    let get = quic::headers(&fields("GET", "/v1/fine", &bearer()));
    let status = async |raw: &quic::Raw| match fate(raw, &get).await {
        Outcome::Answer(status, _) => status,
        other => panic!("{other:?}"),
    };
    let [allowed, other] = [2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
    let caller = Caller::at(&scene.authority, allowed);
    let raw = caller.connect(to).await;
    assert_eq!(status(&raw).await, 200);
    caller.rebind(other);
    assert_eq!(status(&raw).await, 403, "moved to where it may not be");
    caller.rebind(allowed);
    assert_eq!(status(&raw).await, 200, "and back");
    let caller = Caller::at(&scene.authority, other);
    let raw = caller.connect(to).await;
    assert_eq!(status(&raw).await, 403);
    // Whoever forges an address gets no further than this: packets from there, on a connection that
    // began elsewhere.
    caller.rebind(allowed);
    assert_eq!(status(&raw).await, 403, "moved to where it may be");
    scene.finish().await;
}
