//! Data channels from end to end.

use std::time::{Duration, Instant};

use aiproxy_core::ports::{CallCause, Side};
use bytes::BytesMut;
use rtc::data_channel::RTCDataChannelInit;

use super::network::Weather;
use super::world::{CALLER, PLATFORM, Peer, World, limits, opus};

fn talk(models: Option<Vec<String>>, platform_takes: u32) -> World {
    let now = Instant::now();
    let mut caller = Peer::new(CALLER, &opus(111), 262_144, now);
    let mut platform = Peer::new(PLATFORM, &opus(111), platform_takes, now);
    caller.add_track(&opus(111)[0]);
    platform.add_track(&opus(111)[0]);
    caller.add_channel("oai-events");
    let mut world = World::new((caller, platform), limits(), models, (1, Weather::FINE), now);
    world.connect();
    world
}

fn opened(
    world: &mut World,
    label: &str,
) -> (rtc::data_channel::RTCDataChannelId, rtc::data_channel::RTCDataChannelId) {
    assert!(
        world.until(Duration::from_secs(5), |world| {
            world.caller.channel(label).is_some() && world.platform.channel(label).is_some()
        }),
        "{label}"
    );
    (world.caller.channel(label).unwrap(), world.platform.channel(label).unwrap())
}

#[test]
fn messages_keep_order_and_kind() {
    let mut world = talk(None, 262_144);
    let (up, down) = opened(&mut world, "oai-events");
    for number in 0..200 {
        let now = world.now;
        if number % 3 == 0 {
            let bytes = BytesMut::from(format!("{number}").as_bytes());
            world.caller.pc.data_channel(up).unwrap().send(now, bytes).unwrap();
        } else {
            world.caller.text(up, &format!("你好 {number}"), now);
        }
        world.platform.text(down, &format!("down {number}"), now);
    }
    world.pass(Duration::from_secs(2));
    assert_eq!((world.platform.messages.len(), world.caller.messages.len()), (200, 200));
    for (number, (_, text, message)) in world.platform.messages.iter().enumerate() {
        let wanted = if number % 3 == 0 { format!("{number}") } else { format!("你好 {number}") };
        assert_eq!((*text, message.as_slice()), (number % 3 != 0, wanted.as_bytes()));
    }
    let now = world.now;
    let used = world.bridge.so_far(now).figures;
    assert_eq!((used.caller.messages, used.platform.messages), (200, 200));
}

/// The legs stand at different times, and what opens a channel may come at any step of the other's handshake.
#[test]
fn channels_that_are_opened_early_wait_for_the_other_leg() {
    let weather = Weather { loss: 0, delay: Duration::from_millis(1), jitter: Duration::from_millis(40) };
    for seed in 1..=24 {
        let now = Instant::now();
        let mut caller = Peer::new(CALLER, &opus(111), 262_144, now);
        let mut platform = Peer::new(PLATFORM, &opus(111), 262_144, now);
        caller.add_track(&opus(111)[0]);
        platform.add_track(&opus(111)[0]);
        caller.add_channel("mine");
        platform.add_channel("txt");
        let mut world = World::new((caller, platform), limits(), None, (seed, weather), now);
        world.connect();
        opened(&mut world, "mine");
        opened(&mut world, "txt");
    }
}

#[test]
fn channels_of_either_side_appear_on_the_other() {
    let mut world = talk(None, 262_144);
    opened(&mut world, "oai-events");
    let init = RTCDataChannelInit { ordered: false, protocol: "p1".to_owned(), ..Default::default() };
    world.caller.add_channel_with("second 频道", init.clone());
    world.platform.add_channel_with("txt", init);
    for label in ["second 频道", "txt"] {
        let (up, down) = opened(&mut world, label);
        for (peer, id) in [(&mut world.caller, up), (&mut world.platform, down)] {
            let channel = peer.pc.data_channel(id).unwrap();
            assert_eq!((channel.ordered(), channel.protocol()), (false, "p1"), "{label}");
        }
        let now = world.now;
        world.platform.text(down, "from the platform", now);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.caller.messages.last().unwrap().2, b"from the platform");
    }
}

#[test]
fn what_comes_before_the_far_channel_is_open_is_held() {
    let mut world = talk(None, 262_144);
    world.network.weather.delay = Duration::from_millis(200);
    let id = world.caller.add_channel("early");
    assert!(world.until(Duration::from_secs(5), |world| world.caller.channel("early").is_some()));
    for number in 0..50 {
        let now = world.now;
        world.caller.text(id, &format!("{number}"), now);
    }
    world.pass(Duration::from_secs(5));
    let heard: Vec<_> =
        world.platform.messages.iter().map(|(_, _, it)| String::from_utf8_lossy(it).into_owned()).collect();
    assert_eq!(heard, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn large_messages_pass_and_larger_ones_are_told() {
    let mut world = talk(None, 262_144);
    let (up, _) = opened(&mut world, "oai-events");
    let now = world.now;
    world.caller.text(up, &"x".repeat(200 * 1024), now);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.platform.messages[0].2.len(), 200 * 1024);

    // A platform that takes less is not hidden from the caller.
    let mut world = talk(None, 65_536);
    assert!(world.caller_answer.contains("a=max-message-size:65536"), "{}", world.caller_answer);
    let (up, down) = opened(&mut world, "oai-events");
    let now = world.now;
    assert!(world.caller.pc.data_channel(up).unwrap().send_text(now, "x".repeat(70_000)).is_err());
    world.caller.text(up, "small", now);
    // The other way the caller's size counts.
    world.platform.text(down, &"x".repeat(60_000), now);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.platform.messages.len(), world.caller.messages[0].2.len()), (1, 60_000));
}

#[test]
fn sizes_count_for_each_direction_and_what_is_larger_is_told() {
    let now = Instant::now();
    // A caller who takes little itself, and sends more than it was told.
    let mut caller = Peer::new(CALLER, &opus(111), 262_144, now);
    let mut platform = Peer::new(PLATFORM, &opus(111), 262_144, now);
    caller.add_track(&opus(111)[0]);
    platform.add_track(&opus(111)[0]);
    caller.add_channel("oai-events");
    caller.reckless = true;
    let mut world = World::new((caller, platform), limits(), None, (1, Weather::FINE), now);
    world.connect();
    let (up, _) = opened(&mut world, "oai-events");
    let now = world.now;
    for size in [224 << 10, 250_000, 5] {
        world.caller.text(up, &"x".repeat(size), now);
    }
    world.pass(Duration::from_secs(5));
    let sizes: Vec<_> = world.platform.messages.iter().map(|(_, _, message)| message.len()).collect();
    assert_eq!(sizes, [224 << 10, 5]);
    let told: Vec<_> = world.caller.messages.iter().map(|(_, _, it)| String::from_utf8_lossy(it)).collect();
    assert!(told.len() == 1 && told[0].contains("message_too_large"), "{told:?}");
    assert_eq!(world.ended, None);
}

/// The platform's end of the test holds up to 256 messages by itself, so the messages are small.
#[test]
fn a_reader_that_stops_costs_a_bounded_buffer() {
    let mut world = talk(None, 262_144);
    let (up, _) = opened(&mut world, "oai-events");
    world.platform.stalled = true;
    let message = "y".repeat(8 * 1024);
    let (mut sent, mut sound) = (0_u64, 0);
    for step in 0..400 {
        let now = world.now;
        while world.caller.pc.data_channel(up).unwrap().outstanding_bytes() < 256 * 1024 && sent < 2000 {
            world.caller.text(up, &message, now);
            sent += 1;
        }
        world.caller.say(0, 111, step, b"sound", now);
        world.pass(Duration::from_millis(20));
        sound += 1;
    }
    assert!(sent < 2000, "nothing held the caller back");
    let now = world.now;
    let used = world.bridge.so_far(now).figures;
    // What the platform has taken, its window, and the relay's own buffer.
    let most = 256 * 8 * 1024 + (1 << 20) + (1 << 20) + 512 * 1024;
    assert!(used.caller.message_bytes < most, "{} bytes", used.caller.message_bytes);
    // What the caller sees gone: not more than that, and the relay's bound once more with a window.
    assert!(sent * 8 * 1024 < most + (1 << 20) * 2 + 512 * 1024, "{sent} messages");
    assert_eq!(used.caller.packets, sound);
    world.platform.stalled = false;
    assert!(world.until(Duration::from_secs(60), |world| world.platform.messages.len() as u64 == sent));
}

#[test]
fn a_reader_that_never_reads_again_ends_the_call() {
    let mut world = talk(None, 262_144);
    let (up, _) = opened(&mut world, "oai-events");
    world.platform.stalled = true;
    let message = "y".repeat(8 * 1024);
    let (mut number, mut next) = (0_u16, world.now);
    let ended = world.until(Duration::from_secs(90), |world| {
        let now = world.now;
        let quiet = |world: &mut super::world::World| {
            world.caller.pc.data_channel(up).is_some_and(|it| it.outstanding_bytes() < 128 * 1024)
        };
        if now >= next {
            // Sound is no sign that messages are taken.
            world.caller.say(0, 111, number, b"sound", now);
            (number, next) = (number.wrapping_add(1), now + Duration::from_millis(500));
        }
        if quiet(world) && world.ended.is_none() {
            world.caller.text(up, &message, now);
        }
        world.ended.is_some()
    });
    assert!(ended);
    assert_eq!(world.ended, Some(CallCause::Lost(Side::Platform)));
}

#[test]
fn models_are_held_to_what_the_caller_may_use() {
    let mut world = talk(Some(vec!["gpt-realtime".to_owned()]), 262_144);
    let (up, down) = opened(&mut world, "oai-events");
    let now = world.now;
    world.caller.text(up, r#"{"type":"session.update","session":{"model":"gpt-expensive"}}"#, now);
    world.caller.text(up, "not JSON {model: gpt-expensive}", now);
    world.caller.text(up, r#"{"type":"session.update","session":{"model":"gpt-realtime"}}"#, now);
    world.platform.text(down, r#"{"type":"response.done","response":{"usage":{"total_tokens":7,"input_tokens":4,"output_tokens":3}}}"#, now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.platform.messages.len(), 1);
    let told: Vec<_> =
        world.caller.messages.iter().map(|(_, _, it)| String::from_utf8_lossy(it).into_owned()).collect();
    assert_eq!(told.iter().filter(|it| it.contains("model_not_allowed")).count(), 2, "{told:?}");
    assert!(world.ended.is_none());
    let now = world.now;
    let used = world.bridge.settle(true, now);
    assert_eq!(used.usage.unwrap().tokens.input, 4);
    assert_eq!(used.model.as_deref(), Some("gpt-realtime"));
}

#[test]
fn a_channel_that_closes_closes_on_the_other_side_and_the_call_goes_on() {
    let mut world = talk(None, 262_144);
    let (up, _) = opened(&mut world, "oai-events");
    world.caller.pc.data_channel(up).unwrap().close().unwrap();
    assert!(world.until(Duration::from_secs(5), |world| world.platform.closed == 1));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.ended, None);
    world.caller.add_channel("again");
    opened(&mut world, "again");
}
