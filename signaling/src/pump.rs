//! A socket from its 101 to its end: two directions in one task.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_core::ports::{Side, SocketCause, SocketEnd, SocketGuard, SocketStream, SocketUse, Sockets};
use aiproxy_core::websocket;
use aiproxy_taps::socket::Named;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::frame::{Bounds, Sender, Violation, Walker, close, text};
use crate::gather::Gather;
use crate::observe::Observer;
use crate::way::{Event, Way};

/// How long the other side may take to answer a close frame.
const ANSWER: Duration = Duration::from_secs(10);
/// How long both sides have to hear what was said last: closing a connection with unread bytes resets
/// it and takes the last word with it.
pub(crate) const PARTING: Duration = Duration::from_secs(2);

/// How long a side may take nothing of what waits for it: who sends to it is not looked at meanwhile, and
/// may have left.
const STALL: Duration = Duration::from_secs(300);

/// What the sides hear when AIProxy ends a socket; see [`EndOrder::told`] and [`websocket::refusal`] too.
const AWAY: (u16, &str) = (1001, "");
pub(crate) const PROTOCOL_ERROR: (u16, &str) = (1002, "protocol error");
pub(crate) const TOO_LARGE: (u16, &str) = (1009, "too large");
const PLATFORM_LOST: (u16, &str) = (1011, "the platform's connection was lost");

/// When it is said next what has passed.
struct Report {
    every: Duration,
    next: Instant,
    /// Bytes at the last time.
    bytes: u64,
    /// Times that nothing had passed.
    quiet: u32,
}

/// A socket on which nothing passes is reported every so many times.
const QUIET: u32 = 10;

pub(crate) struct Pump {
    caller: Box<dyn SocketStream>,
    platform: Box<dyn SocketStream>,
    up: Way,
    down: Way,
    guard: Box<dyn SocketGuard>,
    idle: Duration,
    report: Option<Report>,
    /// When it has lasted as long as it may.
    end: Option<Instant>,
    last: Instant,
    /// The closing has begun: when it has to be over.
    parting: Option<Instant>,
    /// The side that takes nothing any more, while it is seen what it said last.
    gone: Option<Side>,
    /// Something was decided since both directions were last asked.
    decided: bool,
    timer: Pin<Box<Sleep>>,
    cause: Option<SocketCause>,
    close_code: Option<u16>,
}

impl Pump {
    pub(crate) fn new(sockets: Sockets) -> Self {
        let Sockets {
            caller,
            caller_ahead,
            platform,
            platform_ahead,
            remask,
            limits,
            metered,
            models,
            edit,
            prelude,
            guard,
        } = sockets;
        let bounds = Bounds { frame: limits.frame_bytes, message: limits.message_bytes };
        let now = Instant::now();
        let end = limits.total.map(|total| now + total);
        let (up, down) = (Walker::new(Sender::Client, bounds), Walker::new(Sender::Server, bounds));
        let gather = edit.map(|edit| Box::new(Gather::new(edit, limits.held_bytes)));
        let mut up = Way::new(up, Observer::of_caller(models), remask, gather, caller_ahead);
        if let Some(message) = prelude {
            up.begin_with(text(message));
        }
        Self {
            caller,
            platform,
            up,
            down: Way::new(down, Observer::of_platform(metered), false, None, platform_ahead),
            guard,
            idle: limits.idle,
            report: limits.report.map(|every| Report { every, next: now + every, bytes: 0, quiet: 0 }),
            end,
            last: now,
            parting: None,
            gone: None,
            decided: false,
            timer: Box::pin(sleep_until(now + limits.idle)),
            cause: None,
            close_code: None,
        }
    }

    /// Moves frames until the socket has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cause.is_none()
            && let Poll::Ready(order) = self.guard.poll_end(cx)
        {
            self.finish(SocketCause::Ordered(order), order.told(), AWAY);
        }
        // A direction that waits has said for what: it is asked again when that has come, or when
        // something was decided about it.
        let (mut up, mut down) = (true, true);
        loop {
            up = up && self.step(cx, Side::Caller);
            down = down && self.step(cx, Side::Platform);
            if self.is_over() {
                return Poll::Ready(());
            }
            if std::mem::take(&mut self.decided) {
                (up, down) = (true, true);
            }
            if !up && !down {
                if self.wait(cx) {
                    return if self.is_over() { Poll::Ready(()) } else { Poll::Pending };
                }
                (up, down) = (true, true);
            }
        }
    }

    /// What there is to say about it.
    pub(crate) fn into_end(self) -> SocketEnd {
        let cause = self.cause.unwrap_or(SocketCause::Lost(self.gone.unwrap_or(Side::Caller)));
        let usage = match self.down.observer {
            Observer::Usage(platform) => platform.settle(matches!(cause, SocketCause::Closed(_))),
            Observer::Nothing | Observer::Models(..) => None,
        };
        SocketEnd {
            cause,
            close_code: self.close_code,
            used: SocketUse {
                frames_in: self.up.frames,
                frames_out: self.down.frames,
                bytes_in: self.up.bytes,
                bytes_out: self.down.bytes,
                usage,
                model: self.up.model,
            },
        }
    }

    /// Says what has passed, if it is time to.
    fn tell(&mut self, now: Instant) {
        let bytes = self.up.bytes + self.down.bytes;
        let Some(report) = self.report.as_mut().filter(|report| report.next <= now) else { return };
        report.next = now + report.every;
        let quiet = report.bytes == bytes;
        report.quiet = if quiet { report.quiet + 1 } else { 0 };
        if quiet && !report.quiet.is_multiple_of(QUIET) {
            return;
        }
        report.bytes = bytes;
        self.guard.so_far(SocketUse {
            frames_in: self.up.frames,
            frames_out: self.down.frames,
            bytes_in: self.up.bytes,
            bytes_out: self.down.bytes,
            usage: match &self.down.observer {
                Observer::Usage(platform) => platform.so_far(),
                Observer::Nothing | Observer::Models(..) => None,
            },
            model: self.up.model.clone(),
        });
    }

    /// Lets the frames of this side move; whether anything did.
    fn step(&mut self, cx: &mut Context<'_>, from: Side) -> bool {
        let Self { caller, platform, up, down, guard, .. } = self;
        let admits = |model: &Named| match model.aside {
            true => guard.admits_aside(&model.name),
            false => guard.admits(&model.name),
        };
        let outcome = match from {
            Side::Caller => up.poll(cx, &mut **caller, &mut **platform, &admits),
            Side::Platform => down.poll(cx, &mut **platform, &mut **caller, &admits),
        };
        let Poll::Ready(event) = outcome else { return false };
        match event {
            Event::Moved(bytes) => {
                self.last = Instant::now();
                if from == Side::Platform && bytes > 0 {
                    self.guard.passed_down(bytes);
                }
            }
            Event::Close(code) => self.closes(from, code),
            // Who has said its last word may stop sending and still hear the answer.
            Event::SourceEnded if self.has_closed(from) => {}
            Event::SourceEnded => self.lost(from),
            Event::SinkBroken => self.broken(from),
            Event::Violation(Violation::TooLarge) => {
                self.finish(SocketCause::TooLarge(from), TOO_LARGE, TOO_LARGE);
            }
            Event::Violation(violation) => {
                tracing::debug!(?violation, ?from, "no WebSocket frame");
                self.finish(SocketCause::Violation(from), PROTOCOL_ERROR, PROTOCOL_ERROR);
            }
            Event::Refused(kind) => {
                let told = (websocket::refusal(kind), kind.code());
                self.finish(SocketCause::Refused(kind), told, AWAY);
            }
        }
        true
    }

    /// A close frame of this side passes.
    fn closes(&mut self, from: Side, code: Option<u16>) {
        let first = self.cause.is_none();
        self.cause.get_or_insert(SocketCause::Closed(from));
        self.close_code.get_or_insert(code.unwrap_or(1005));
        if first {
            self.part(ANSWER);
        }
        if self.up.closed && self.down.closed {
            // Each side has said its last word.
            self.up.stop(None);
            self.down.stop(None);
            self.part(PARTING);
        }
    }

    /// Whether this side has sent a close frame.
    fn has_closed(&self, side: Side) -> bool {
        match side {
            Side::Caller => self.up.closed,
            Side::Platform => self.down.closed,
        }
    }

    /// What this side sends reaches nobody any more. The other may have said its last word before, which is
    /// still to be read.
    fn broken(&mut self, from: Side) {
        let gone = other(from);
        if self.cause.is_some() || self.has_closed(gone) {
            self.lost(gone);
            return;
        }
        self.gone = Some(gone);
        match from {
            Side::Caller => self.up.stop(None),
            Side::Platform => self.down.stop(None),
        }
        self.part(PARTING);
    }

    /// This side's connection has ended.
    fn lost(&mut self, side: Side) {
        if self.cause.is_none() && !self.has_closed(side) {
            let told = if side == Side::Caller { AWAY } else { PLATFORM_LOST };
            self.finish(SocketCause::Lost(side), told, told);
            return;
        }
        // After a close frame that is how it ends; the other side hears what is on its way to it.
        self.up.stop(None);
        self.down.stop(None);
        self.part(PARTING);
    }

    /// Ends the socket from here: each side is told as soon as no frame is in the way.
    fn finish(&mut self, cause: SocketCause, caller: (u16, &str), platform: (u16, &str)) {
        if self.cause.is_none() {
            self.cause = Some(cause);
            if cause != SocketCause::Lost(Side::Caller) {
                self.close_code = Some(caller.0);
            }
        }
        self.down.stop(Some(close(Sender::Server, caller.0, caller.1)));
        self.up.stop(Some(close(Sender::Client, platform.0, platform.1)));
        self.part(PARTING);
    }

    fn part(&mut self, within: Duration) {
        let end = Instant::now() + within;
        self.decided = true;
        self.parting = Some(self.parting.map_or(end, |already| already.min(end)));
    }

    /// Both sides have heard everything and have hung up.
    fn is_over(&self) -> bool {
        let waiting = self.gone.is_some() && self.cause.is_none();
        let parted = !waiting && self.parting.is_some_and(|end| end <= Instant::now());
        // Who has nothing more to say to either side, and nothing to hear, need not wait.
        parted || (self.up.shut && self.down.shut && self.up.ended && self.down.ended)
    }

    fn deadline(&self) -> Instant {
        let idle = self.last + self.idle;
        let stalled = self.stalled().map_or(idle, |(_, since)| since + STALL);
        let soonest = idle.min(stalled);
        self.parting.unwrap_or_else(|| self.end.map_or(soonest, |end| soonest.min(end)))
    }

    /// The side that has taken nothing for the longest time, if one has not.
    fn stalled(&self) -> Option<(Side, Instant)> {
        let up = self.up.stalled.map(|since| (Side::Platform, since));
        let down = self.down.stalled.map(|since| (Side::Caller, since));
        up.into_iter().chain(down).min_by_key(|(_, since)| *since)
    }

    /// When there is something to do though nothing comes.
    fn wake(&self) -> Instant {
        let deadline = self.deadline();
        self.report.as_ref().map_or(deadline, |report| deadline.min(report.next))
    }

    /// Waits for the next time limit; false where it has passed and something is to be done.
    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        let wake = self.wake();
        if self.timer.deadline() > wake {
            self.timer.as_mut().reset(wake);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.deadline() > now {
                self.tell(now);
                let wake = self.wake();
                self.timer.as_mut().reset(wake);
                continue;
            }
            if let Some(gone) = self.gone.take().filter(|_| self.cause.is_none()) {
                // It said nothing.
                self.parting = None;
                self.lost(gone);
                return false;
            }
            if self.parting.is_some() {
                return true;
            }
            if let Some((side, _)) = self.stalled().filter(|(_, since)| *since + STALL <= now) {
                self.lost(side);
                return false;
            }
            let total = self.end.is_some_and(|end| end <= now);
            let (cause, told) = match total {
                true => (SocketCause::Total, (1001, "the longest time of a socket is over")),
                false => (SocketCause::Idle, (1001, "idle")),
            };
            self.finish(cause, told, told);
            return false;
        }
        true
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Caller => Side::Platform,
        Side::Platform => Side::Caller,
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
