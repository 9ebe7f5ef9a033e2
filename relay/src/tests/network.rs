//! A network that loses, delays and reorders packets, the same ones for the same seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;

/// What it does to packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Of a thousand packets, how many are lost.
    pub(super) loss: u64,
    pub(super) delay: Duration,
    /// At most so much is added to the delay: packets overtake each other.
    pub(super) jitter: Duration,
}

impl Weather {
    pub(super) const FINE: Self = Self { loss: 0, delay: Duration::from_millis(1), jitter: Duration::ZERO };
}

pub(super) struct Network {
    pub(super) weather: Weather,
    seed: u64,
    sent: u64,
    handshake: usize,
    /// Which DTLS packet is lost.
    pub(super) drop_handshake: Option<usize>,
    wires: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: std::collections::HashMap<u64, (SocketAddr, SocketAddr, BytesMut)>,
}

impl Network {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self {
            weather,
            seed: seed | 1,
            sent: 0,
            handshake: 0,
            drop_handshake: None,
            wires: BinaryHeap::new(),
            packets: Default::default(),
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift64*
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(super) fn send(&mut self, from: SocketAddr, to: SocketAddr, packet: BytesMut, now: Instant) {
        if (20..64).contains(&packet[0]) {
            self.handshake += 1;
            if self.drop_handshake == Some(self.handshake - 1) {
                return;
            }
        }
        if self.random() % 1000 < self.weather.loss {
            return;
        }
        let most = u64::try_from(self.weather.jitter.as_micros()).unwrap();
        let extra = Duration::from_micros(if most == 0 { 0 } else { self.random() % most });
        self.sent += 1;
        self.wires.push(Reverse((now + self.weather.delay + extra, self.sent)));
        self.packets.insert(self.sent, (from, to, packet));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.wires.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn arrive(&mut self, now: Instant) -> Option<(SocketAddr, SocketAddr, BytesMut)> {
        let Reverse((at, _)) = self.wires.peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, number)) = self.wires.pop()?;
        self.packets.remove(&number)
    }
}
