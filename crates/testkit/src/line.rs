//! A bad line between two network namespaces, which `tests/peers/python/impair.py` makes and carries.

use std::io::{self, BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// What the script ends with where namespaces or TUN devices cannot be had.
const CANNOT: i32 = 77;

/// What a line does to packets, the same in both directions.
#[derive(Debug, Clone, Copy)]
pub struct Impairment {
    /// Decides which packets are lost: the same ones by their number, whatever they hold.
    pub seed: u64,
    /// The share that is lost, 0 to 1.
    pub loss: f64,
    /// How long a packet takes; a round trip is twice that.
    pub delay: Duration,
    /// What it carries, in kbit/s; 0 is as much as comes.
    pub kbit: u64,
    /// Packets under way in one direction, at most.
    pub queue: usize,
}

impl Default for Impairment {
    /// 3 % lost, 100 ms there and back, no other limit that is ever met.
    fn default() -> Self {
        Self { seed: 1, loss: 0.03, delay: Duration::from_millis(50), kbit: 0, queue: 10_000 }
    }
}

/// An end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where callers are.
    Near,
    /// Where the relay is.
    Far,
}

/// What became of the packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// They arrived.
    pub passed: u64,
    /// Bytes of those that arrived, headers of IP and all.
    pub bytes: u64,
    /// The seed took them.
    pub lost: u64,
    /// There was no room for them, on the line or before it: the machine was too slow, and the seed
    /// does not say what was measured.
    pub refused: u64,
}

/// Why there is no line.
#[derive(Debug)]
pub enum NoLine {
    /// The system does not allow it: a reason for people.
    NotHere(String),
    /// It should have worked.
    Failed(io::Error),
}

/// A line in place. It is cut when dropped; the programs at its ends are whoever's that started them.
#[derive(Debug)]
pub struct BadLine {
    carrier: Child,
    says: BufReader<ChildStdout>,
    described: Value,
}

impl BadLine {
    /// Makes two namespaces and the line between them. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`NoLine::NotHere`] where the user may not make namespaces and TUN devices.
    pub fn lay(impairment: Impairment) -> Result<Self, NoLine> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/python/impair.py");
        let mut carrier = Command::new("python3")
            .arg(script)
            .args(["--seed", &impairment.seed.to_string()])
            .args(["--loss", &impairment.loss.to_string()])
            .args(["--delay-ms", &(impairment.delay.as_secs_f64() * 1000.0).to_string()])
            .args(["--kbit", &impairment.kbit.to_string()])
            .args(["--queue", &impairment.queue.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(NoLine::Failed)?;
        let says = carrier.stdout.take().ok_or(NoLine::Failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut line = Self { carrier, says: BufReader::new(says), described: Value::Null };
        match line.read() {
            Ok(described) => {
                line.described = described;
                Ok(line)
            }
            Err(_) => Err(line.failed()),
        }
    }

    /// A command that runs `program` at one end.
    ///
    /// # Panics
    /// When the script did not say how to get there.
    #[must_use]
    pub fn at(&self, end: End, program: &Path) -> Command {
        let enter = self.described["enter"][end.name()].as_array().expect("a way in");
        let mut words = enter.iter().filter_map(Value::as_str);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg(program);
        command
    }

    /// The address of one end, as the other one sees it.
    ///
    /// # Panics
    /// When the script did not say it.
    #[must_use]
    pub fn address(&self, end: End) -> IpAddr {
        let address = self.described["addresses"][end.name()].as_str().expect("an address");
        address.parse().expect("an address")
    }

    /// Cuts the line; what it carried from near to far, and from far to near.
    ///
    /// # Errors
    /// When the script has not gone on until now.
    pub fn cut(mut self) -> io::Result<[Carried; 2]> {
        drop(self.carrier.stdin.take());
        let counts = self.read()?;
        let carried = |direction: &str| {
            let count = |name: &str| counts[direction][name].as_u64().unwrap_or_default();
            Carried {
                passed: count("passed"),
                bytes: count("bytes"),
                lost: count("lost"),
                refused: count("refused") + count("overrun"),
            }
        };
        Ok(["there", "back"].map(carried))
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    fn failed(mut self) -> NoLine {
        drop(self.carrier.stdin.take());
        let mut reason = String::new();
        let stderr = self.carrier.stderr.take();
        let read = stderr.map(|mut pipe| io::Read::read_to_string(&mut pipe, &mut reason));
        match (self.carrier.wait(), read) {
            (Ok(status), Some(Ok(_))) if status.code() == Some(CANNOT) => {
                NoLine::NotHere(reason.trim().to_owned())
            }
            (Ok(status), _) => NoLine::Failed(io::Error::other(format!("{status}: {reason}"))),
            (Err(error), _) => NoLine::Failed(error),
        }
    }
}

impl Drop for BadLine {
    fn drop(&mut self) {
        // It ends by itself with its standard input, and takes what it started along.
        drop(self.carrier.stdin.take());
        let _ = self.carrier.wait();
    }
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}
