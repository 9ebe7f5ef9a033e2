//! What the operating system knows of us. Elsewhere than on Linux: nothing.

use std::fs;

/// Clock ticks per second in `/proc/PID/stat`: the same on every Linux that we build for.
const CLOCK_TICKS: f64 = 100.0;

/// Figures that cost a read of a file in `/proc` each.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Resident memory.
    pub(super) memory_bytes: Option<i64>,
    /// Open file descriptors, the one that counts them among them.
    pub(super) open_fds: Option<i64>,
    /// How many there may be.
    pub(super) max_fds: Option<i64>,
    /// User and system time.
    pub(super) cpu_seconds: Option<f64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Self {
            memory_bytes: read("status").as_deref().and_then(memory),
            open_fds: fs::read_dir("/proc/self/fd").ok().and_then(|fds| i64::try_from(fds.count()).ok()),
            max_fds: read("limits").as_deref().and_then(max_fds),
            cpu_seconds: read("stat").as_deref().and_then(cpu),
        }
    }
}

/// `VmRSS:     1234 kB`
fn memory(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

/// `Max open files            1024                 524288               files`
fn max_fds(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15; the second is the program's name in brackets and may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / CLOCK_TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(memory("Name:\taiproxy\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  524288  files\n";
        assert_eq!(max_fds(limits), Some(1024));
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu(stat), Some(2.0));
        assert_eq!((memory(""), max_fds(""), cpu("")), (None, None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let process = Process::now();
        assert!(process.memory_bytes.unwrap() > 0);
        assert!(process.open_fds.unwrap() > 2);
        assert!(process.cpu_seconds.is_some());
    }
}
