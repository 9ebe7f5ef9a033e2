//! Sound from end to end, and how calls end.

use std::time::{Duration, Instant};

use aiproxy_core::ports::{CallCause, Side};
use rtc::sansio::Protocol as _;

use super::network::Weather;
use super::world::{CALLER, PLATFORM, Peer, World, codec, limits, opus};

pub(super) fn call(seed: u64, weather: Weather) -> World {
    let now = Instant::now();
    let mut caller = Peer::new(CALLER, &opus(96), 262_144, now);
    let mut platform = Peer::new(PLATFORM, &opus(111), 262_144, now);
    caller.add_track(&opus(96)[0]);
    platform.add_track(&opus(111)[0]);
    World::new((caller, platform), limits(), None, (seed, weather), now)
}

fn payload(side: u8, number: u16) -> Vec<u8> {
    let [a, b] = number.to_be_bytes();
    (0..80).map(|at| at ^ a ^ b.rotate_left(3) ^ side).collect()
}

#[test]
fn sound_goes_both_ways_as_it_is() {
    let mut world = call(1, Weather::FINE);
    world.connect();
    for number in 0..100 {
        let now = world.now;
        world.caller.say(0, 96, 65_500_u16.wrapping_add(number), &payload(1, number), now);
        world.platform.say(0, 96, number, &payload(2, number), now);
        world.pass(Duration::from_millis(20));
    }
    assert_eq!((world.platform.packets.len(), world.caller.packets.len()), (100, 100));
    for (number, packet) in (0..).zip(&world.platform.packets) {
        assert_eq!(packet.payload, payload(1, number));
        assert_eq!(packet.header.sequence_number, 65_500_u16.wrapping_add(number));
        assert_eq!(packet.header.timestamp, u32::from(65_500_u16.wrapping_add(number)) * 960);
        assert_eq!(packet.header.ssrc, world.platform.packets[0].header.ssrc);
    }
    assert!(world.caller.packets.iter().all(|packet| packet.header.payload_type == 96));
    let now = world.now;
    let used = world.bridge.settle(true, now).figures;
    assert_eq!((used.caller.packets, used.platform.packets), (100, 100));
    assert_eq!((used.caller.media_bytes, used.platform.media_bytes), (8000, 8000));
    assert!(used.setup.is_some() && used.connected > Duration::from_secs(1));
    assert_eq!(used.dropped, 0);
    assert_eq!((used.caller.lost, used.platform.lost), (0, 0));
    // There and back again.
    for leg in [used.caller, used.platform] {
        assert!((1900..2600).contains(&leg.rtt.unwrap().as_micros()), "{:?}", leg.rtt);
        assert!(leg.jitter < Duration::from_millis(1), "{:?}", leg.jitter);
    }
}

#[test]
fn calls_stand_in_bad_weather() {
    for seed in 1..=20 {
        let weather =
            Weather { loss: 100, delay: Duration::from_millis(50), jitter: Duration::from_millis(40) };
        let mut world = call(2 * seed + 1, weather);
        world.connect();
        for number in 0..100 {
            let now = world.now;
            world.caller.say(0, 96, number, &payload(1, number), now);
            world.pass(Duration::from_millis(20));
        }
        world.pass(Duration::from_secs(1));
        // Twice a tenth is lost.
        let came = world.platform.packets.len();
        assert!((65..=97).contains(&came), "seed {seed}: {came}");
        let now = world.now;
        let used = world.bridge.so_far(now).figures;
        assert!((1..=25).contains(&used.caller.lost), "seed {seed}: {}", used.caller.lost);
        // That the last ones never came cannot be seen.
        let told = used.caller.packets + used.caller.lost + used.dropped;
        assert!((96..=100).contains(&told), "seed {seed}: {told}");
        assert!(used.caller.jitter > Duration::from_millis(3), "seed {seed}: {:?}", used.caller.jitter);
        for packet in &world.platform.packets {
            assert_eq!(packet.payload, payload(1, packet.header.sequence_number));
        }
    }
}

#[test]
fn a_caller_whose_address_changes_goes_on() {
    let mut world = call(3, Weather::FINE);
    world.connect();
    world.seen = "10.0.0.1:4444".parse().unwrap();
    let mut number = 0;
    let heard = world.until(Duration::from_secs(5), |world| {
        number += 1;
        let now = world.now;
        world.platform.say(0, 96, number, b"after", now);
        world.now += Duration::from_millis(20);
        !world.caller.packets.is_empty()
    });
    assert!(heard && world.ended.is_none());
}

#[test]
fn other_codecs_are_relayed_too() {
    for (number, name, clock) in [(0, "PCMU", 8000), (8, "PCMA", 8000), (9, "G722", 8000)] {
        let now = Instant::now();
        let codecs = vec![codec(number, name, clock, 0), codec(101, "telephone-event", 8000, 0)];
        let mut caller = Peer::new(CALLER, &codecs, 65_536, now);
        let all = [opus(111), codecs.clone()].concat();
        let mut platform = Peer::new(PLATFORM, &all, 65_536, now);
        caller.add_track_of(&codecs);
        platform.add_track_of(&codecs);
        let mut world = World::new((caller, platform), limits(), None, (5, Weather::FINE), now);
        world.connect();
        let now = world.now;
        world.caller.say(0, number, 1, b"sound", now);
        world.caller.say(0, 101, 2, b"a key", now);
        world.platform.say(0, number, 1, b"answer", now);
        world.pass(Duration::from_secs(1));
        let numbers: Vec<_> = world.platform.packets.iter().map(|it| it.header.payload_type).collect();
        assert_eq!(numbers, [number, 101], "{name}");
        assert_eq!(world.caller.packets[0].payload, &b"answer"[..]);
    }
}

#[test]
fn several_tracks_stay_apart() {
    let now = Instant::now();
    let mut caller = Peer::new(CALLER, &opus(111), 65_536, now);
    let mut platform = Peer::new(PLATFORM, &opus(111), 65_536, now);
    for _ in 0..3 {
        caller.add_track(&opus(111)[0]);
        platform.add_track(&opus(111)[0]);
    }
    let mut world = World::new((caller, platform), limits(), None, (7, Weather::FINE), now);
    world.connect();
    for number in 0..30 {
        let now = world.now;
        let track = usize::from(number % 3);
        world.caller.say(track, 111, number, &[u8::try_from(track).unwrap(); 40], now);
        world.platform.say(track, 111, number, &[10 + u8::try_from(track).unwrap(); 40], now);
        world.pass(Duration::from_millis(20));
    }
    for (peer, base) in [(&world.platform, 0), (&world.caller, 10)] {
        assert_eq!(peer.packets.len(), 30);
        let mut streams = std::collections::HashMap::new();
        for packet in &peer.packets {
            assert_eq!(*streams.entry(packet.header.ssrc).or_insert(packet.payload[0]), packet.payload[0]);
            assert!((base..base + 3).contains(&packet.payload[0]));
        }
        assert_eq!(streams.len(), 3);
    }
}

#[test]
fn a_platform_that_closes_ends_the_call() {
    let mut world = call(11, Weather::FINE);
    world.connect();
    world.platform.pc.close().unwrap();
    assert!(world.until(Duration::from_secs(2), |world| world.ended.is_some()));
    assert_eq!(world.ended, Some(CallCause::Closed(Side::Platform)));
}

#[test]
fn sides_that_vanish_are_noticed_within_six_seconds() {
    for (address, side) in [(CALLER, Side::Caller), (PLATFORM, Side::Platform)] {
        let mut world = call(13, Weather::FINE);
        world.connect();
        world.gone.push(address.parse().unwrap());
        assert!(world.until(Duration::from_secs(6), |world| world.ended.is_some()), "{side:?}");
        assert_eq!(world.ended, Some(CallCause::Lost(side)));
    }
}

#[test]
fn a_short_silence_is_survived() {
    let mut world = call(17, Weather::FINE);
    world.connect();
    world.gone.push(CALLER.parse().unwrap());
    world.pass(Duration::from_secs(4));
    world.gone.clear();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.ended, None);
    let now = world.now;
    world.caller.say(0, 96, 1, b"back", now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.platform.packets.len(), 1);
}

#[test]
fn sides_that_never_come_cost_fifteen_seconds() {
    for (address, side) in [(CALLER, Side::Caller), (PLATFORM, Side::Platform)] {
        let mut world = call(19, Weather::FINE);
        world.gone.push(address.parse().unwrap());
        let began = world.now;
        assert!(world.until(Duration::from_secs(20), |world| world.ended.is_some()));
        assert_eq!(world.ended, Some(CallCause::Unreached(side)));
        assert!(world.now - began <= Duration::from_secs(15));
    }
}

#[test]
fn silence_and_age_end_calls() {
    for (idle, total, cause, after) in [(10, None, CallCause::Idle, 10), (60, Some(7), CallCause::Total, 7)] {
        let now = Instant::now();
        let mut caller = Peer::new(CALLER, &opus(111), 65_536, now);
        let mut platform = Peer::new(PLATFORM, &opus(111), 65_536, now);
        caller.add_track(&opus(111)[0]);
        platform.add_track(&opus(111)[0]);
        let limits = aiproxy_core::ports::CallLimits {
            idle: Duration::from_secs(idle),
            total: total.map(Duration::from_secs),
            ..limits()
        };
        let mut world = World::new((caller, platform), limits, None, (23, Weather::FINE), now);
        world.connect();
        assert!(world.until(Duration::from_secs(after + 1), |world| world.ended.is_some()));
        assert_eq!(world.ended, Some(cause));
    }
}

/// One lost packet of a handshake, whichever it is, costs a second and not the call.
#[test]
fn lost_handshake_packets_are_made_good() {
    for lost in 0..14 {
        let mut world = call(3, Weather::FINE);
        world.network.drop_handshake = Some(lost);
        world.connect();
        assert!(
            world.bridge.so_far(world.now).figures.setup.unwrap() < Duration::from_millis(1500),
            "{lost}"
        );
    }
}

/// Somebody who knows a port but not the call, and a peer who sends nonsense.
#[test]
fn forged_packets_change_nothing() {
    let record = |content: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[content, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, length[0], length[1]], body].concat()
    };
    let fragment = |number: u8, offset: u16| {
        let [a, b] = offset.to_be_bytes();
        record(22, &[11, 0, 0x4e, 0x20, 0, number, 0, a, b, 0, 0, 1, 7])
    };
    let check = b"\0\x01\0\0\x21\x12\xa4\x42............";
    let stranger = "10.0.0.66:666".parse().unwrap();
    for side in [Side::Caller, Side::Platform] {
        let (peer, local) = match side {
            Side::Caller => (CALLER, "10.0.0.9:3478"),
            Side::Platform => (PLATFORM, "10.0.0.9:50000"),
        };
        let mut world = call(29, Weather::FINE);
        let now = world.now;
        let send = |world: &mut World, from, packet: &[u8]| {
            world.bridge.feed(side, packet.into(), from, local.parse().unwrap(), now);
        };
        for packet in
            [&record(21, &[2, 40])[..], check, b"\x01\x01\0\0\x21\x12\xa4\x42............", b"\x80\x6f"]
        {
            send(&mut world, stranger, packet);
        }
        for number in 0..200 {
            send(&mut world, stranger, &fragment(number, 0));
        }
        world.connect();
        // The peer itself, as far as its address goes.
        for offset in (0..20_000).rev() {
            send(&mut world, peer.parse().unwrap(), &fragment(6, offset));
        }
        send(&mut world, peer.parse().unwrap(), &record(21, &[2, 40]));
        let now = world.now;
        world.caller.say(0, 96, 1, b"up", now);
        world.platform.say(0, 96, 1, b"down", now);
        world.pass(Duration::from_secs(5));
        assert_eq!((world.caller.packets.len(), world.platform.packets.len()), (1, 1), "{side:?}");
        assert_eq!(world.ended, None);
    }
}
