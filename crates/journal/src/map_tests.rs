use super::*;

const LENGTH: usize = 4096;
const START: usize = 64;

fn pair(length: usize) -> (Appender, Follower) {
    let (appender, tape) = Region::anonymous(length).unwrap().split(START, 7);
    (appender, tape.follow())
}

#[test]
fn records_come_back_as_they_went_in() {
    let (mut appender, mut follower) = pair(LENGTH);
    assert!(follower.read().is_none());
    for size in 1..40usize {
        let payload = vec![size as u8; size];
        assert!(appender.append(&payload));
        assert_eq!(follower.read().unwrap().unwrap(), payload);
        assert!(follower.read().is_none());
        assert_eq!(follower.next(), appender.tail());
    }
}

#[test]
fn a_full_region_takes_no_more_and_the_last_byte_is_used() {
    let (mut appender, mut follower) = pair(START + 32);
    assert!(!appender.append(&[]));
    assert!(!appender.append(&[1; 25]));
    assert!(appender.append(&[1; 8]));
    assert!(appender.append(&[2; 8]));
    assert!(!appender.append(&[3]));
    assert_eq!(follower.read().unwrap().unwrap(), [1; 8]);
    assert_eq!(follower.read().unwrap().unwrap(), [2; 8]);
    assert!(follower.read().is_none());
}

#[test]
fn a_reader_beside_the_writer_sees_whole_records_in_order() {
    const RECORDS: u64 = if cfg!(miri) { 60 } else { 100_000 };
    let (mut appender, mut follower) = pair(if cfg!(miri) { 8192 } else { 8 << 20 });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..RECORDS {
                let mut payload = number.to_le_bytes().to_vec();
                payload.resize(8 + (number % 23) as usize, number as u8);
                assert!(appender.append(&payload));
            }
        });
        let mut expected = 0;
        while expected < RECORDS {
            let Some(read) = follower.read() else {
                std::hint::spin_loop();
                std::thread::yield_now();
                continue;
            };
            let payload = read.unwrap();
            assert_eq!(payload[..8], expected.to_le_bytes());
            assert_eq!(payload.len(), 8 + (expected % 23) as usize);
            assert!(payload[8..].iter().all(|byte| *byte == expected as u8));
            expected += 1;
        }
    });
}

#[test]
fn followers_are_independent_and_outlive_the_writer() {
    let (mut appender, tape) = Region::anonymous(LENGTH).unwrap().split(START, 1);
    assert!(appender.append(b"one"));
    drop(appender);
    let (mut first, mut second) = (tape.follow(), tape.follow());
    drop(tape);
    assert_eq!(first.read().unwrap().unwrap(), b"one");
    drop(first);
    assert_eq!(second.read().unwrap().unwrap(), b"one");
}
