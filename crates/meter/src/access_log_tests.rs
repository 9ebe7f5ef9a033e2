use std::sync::mpsc;

use super::*;
use crate::testing::event;

#[test]
fn each_event_is_one_line_of_json_whatever_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("访问.log");
    let log = AccessLog::open(&Target::File(path.clone())).unwrap();
    log.record(event("/v1/文件\n\"x\"\u{7f}"));
    log.record(event("/v1/chat/completions"));
    log.close();
    log.record(event("/late"));
    assert_eq!(log.dropped(), 1);

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["endpoint"], "/v1/文件\n\"x\"\u{7f}");
    assert_eq!(lines[0]["user"], "张三");
    assert_eq!(lines[0]["time"], "2023-11-14T22:13:20Z");
    assert_eq!(lines[0]["error"], "model_not_allowed");
    assert_eq!(lines[0]["key"], "pk_01234");
    assert_eq!(lines[0]["total_us"], 1500);
    assert_eq!(lines[0]["passed_over"], serde_json::json!(["aliyun: 503"]));
    assert!(!text.contains("0123456789_0123456789"));
}

/// Takes the first write and then blocks until it is let go.
struct Stalled(mpsc::Receiver<()>);

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stalled_target_costs_bounded_memory_and_counted_lines() {
    let (release, gate) = mpsc::sync_channel(1);
    let log = AccessLog::to_writer(Box::new(Stalled(gate)), None).unwrap();
    let big = "x".repeat(64 * 1024);
    for _ in 0..6000 {
        log.record(event(&big));
    }
    assert!(log.dropped() > 0);
    assert!(lock(&log.shared.pending).lines.len() <= BUFFER_BYTES + 128 * 1024);
    drop(release);
    log.close();
}

/// Refuses every write, as a full disk does.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_counted() {
    let log = AccessLog::to_writer(Box::new(Full), None).unwrap();
    log.record(event("/v1/models"));
    log.close();
    assert_eq!(log.dropped(), 1);
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let log = AccessLog::open(&Target::File(path.clone())).unwrap();
    std::fs::rename(&path, &aside).unwrap();
    log.reopen();
    log.record(event("/after"));
    log.close();
    assert_eq!(std::fs::read_to_string(&aside).unwrap().lines().count(), 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}
