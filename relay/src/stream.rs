//! What can be told of a stream of RTP packets by its receiver (RFC 3550, section 6.4.1 and appendix A).

use std::time::{Duration, Instant};

/// Whose packet of RTP it is: the head is not encrypted. None where it is something else (RFC 5761, RFC
/// 7983).
pub(crate) fn ssrc(packet: &[u8]) -> Option<u32> {
    let [first, second, ..] = packet else { return None };
    let rtp = (128..192).contains(first) && !(192..224).contains(second);
    packet.get(8..12).filter(|_| rtp).and_then(|ssrc| ssrc.try_into().ok()).map(u32::from_be_bytes)
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    ssrc: u32,
    /// Extended by the number of wraps.
    first: u64,
    highest: u64,
    received: u64,
    /// When the last packet came, and its timestamp.
    last: Option<(Instant, u32)>,
    /// In seconds.
    jitter: f64,
    /// Lost in streams of this line that have been replaced.
    lost_before: u64,
}

impl Stream {
    /// A packet has come.
    pub(crate) fn received(&mut self, ssrc: u32, sequence: u16, timestamp: u32, clock: u32, now: Instant) {
        if self.received == 0 || self.ssrc != ssrc {
            let lost_before = self.lost();
            // One wrap ahead, so that one that comes before the first is no matter.
            let first = (1 << 16) + u64::from(sequence);
            *self = Self { ssrc, first, highest: first, lost_before, ..Self::default() };
        }
        self.received += 1;
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead < 0x8000 {
            self.highest += u64::from(ahead);
        } else {
            let at = self.highest - u64::from(ahead.wrapping_neg());
            self.first = self.first.min(at);
        }
        if let Some((at, before)) = self.last.replace((now, timestamp)) {
            let apart = f64::from(timestamp.wrapping_sub(before).cast_signed()) / f64::from(clock.max(1));
            let late = (now - at).as_secs_f64() - apart;
            // Beyond a second it is a pause or another clock, and no jitter.
            if late.abs() < 1.0 {
                self.jitter += (late.abs() - self.jitter) / 16.0;
            }
        }
    }

    /// Packets that never came.
    pub(crate) fn lost(&self) -> u64 {
        let expected = if self.received == 0 { 0 } else { self.highest - self.first + 1 };
        self.lost_before + expected.saturating_sub(self.received)
    }

    /// How unevenly they come.
    pub(crate) fn jitter(&self) -> Duration {
        Duration::try_from_secs_f64(self.jitter).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(20);

    #[test]
    fn losses_are_counted_over_wraps_and_disorder() {
        let mut stream = Stream::default();
        let mut now = Instant::now();
        let order = [65_534_u16, 65_535, 1, 0, 3, 2, 7, 6, 65_533];
        for sequence in order {
            now += EVERY;
            stream.received(1, sequence, u32::from(sequence) * 960, 48_000, now);
        }
        // 4 and 5.
        assert_eq!(stream.lost(), 2);
        for sequence in [100, 102] {
            stream.received(2, sequence, 0, 48_000, now);
        }
        assert_eq!(stream.lost(), 3);
    }

    #[test]
    fn jitter_is_in_seconds_whatever_the_clock() {
        for clock in [8000_u32, 48_000] {
            let mut stream = Stream::default();
            let begin = Instant::now();
            for number in 0..500_u16 {
                let late = Duration::from_millis(u64::from(number % 2) * 10);
                stream.received(
                    1,
                    number,
                    u32::from(number) * (clock / 50),
                    clock,
                    begin + EVERY * u32::from(number) + late,
                );
            }
            let jitter = stream.jitter().as_secs_f64();
            assert!((0.009..=0.0101).contains(&jitter), "{jitter}");
            assert_eq!(stream.lost(), 0);
        }
    }

    #[test]
    fn packets_are_told_by_their_first_bytes() {
        let mut packet = [0x80, 111, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 9];
        assert_eq!(ssrc(&packet), Some(0x0102_0304));
        assert_eq!(ssrc(&packet[..11]), None);
        packet[1] = 200;
        assert_eq!(ssrc(&packet), None);
        packet[..2].copy_from_slice(&[22, 254]);
        assert_eq!(ssrc(&packet), None);
    }

    #[test]
    fn even_packets_have_none() {
        let mut stream = Stream::default();
        let begin = Instant::now();
        for number in 0..100_u16 {
            stream.received(1, number, u32::from(number) * 960, 48_000, begin + EVERY * u32::from(number));
        }
        assert!(stream.jitter() < Duration::from_micros(10));
    }
}
