//! Many sockets at a time.

use aiproxy_testkit::App;
use aiproxy_testkit::ws::opcode;

use super::{REALTIME, echoing};
use crate::relay;

/// Sockets at a time; the 5,000 need a machine that is let have as many descriptors.
const SOCKETS: usize = 1000;

/// Resident memory of the relay in bytes.
pub(super) fn resident(app: &App) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.process().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

async fn open(app: &App, count: usize) -> Vec<aiproxy_testkit::Socket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = app.socket(REALTIME).open().await;
        socket.send(opcode::BINARY, [7; 1024]).await;
        assert_eq!(socket.next().await.unwrap().payload.len(), 1024);
        sockets.push(socket);
    }
    sockets
}

#[tokio::test]
async fn an_idle_socket_costs_at_most_8_kib_and_stays_through_reloads() {
    let upstream = echoing().await;
    let mut app =
        relay().upstream(&upstream).config(|c| c["system"]["max_connections"] = 5000.into()).start().await;
    // What the first ones cost is the program's own.
    let mut sockets = open(&app, 50).await;
    let before = resident(&app);
    sockets.extend(open(&app, SOCKETS).await);
    let each = resident(&app).saturating_sub(before) / SOCKETS as u64;
    assert!(each <= 8 << 10, "{each} bytes for each idle socket");
    for number in 0..10 {
        assert!(app.change(|c| c["users"]["user1"]["name"] = format!("user {number}").into()).await);
    }
    for socket in &mut sockets {
        socket.send(opcode::TEXT, "still here").await;
        assert_eq!(socket.next().await.unwrap().text(), "still here");
    }
    drop(sockets);
    app.finish().await;
}
