//! Many sockets at a time.

use aiproxy_testkit::App;
use aiproxy_testkit::ws::opcode;

use super::{REALTIME, echoing};
use crate::relay;

/// `AIPROXY_SOAK=1` (`make soak`) takes more of everything. A test has six descriptors for each socket.
pub(crate) fn soaking() -> bool {
    std::env::var_os("AIPROXY_SOAK").is_some()
}

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
    let (count, reloads) = if soaking() { (3000, 200) } else { (1000, 10) };
    let upstream = echoing().await;
    let mut app =
        relay().upstream(&upstream).config(|c| c["system"]["max_connections"] = 10_000.into()).start().await;
    // What the first ones cost is the program's own.
    let mut sockets = open(&app, 50).await;
    let before = resident(&app);
    sockets.extend(open(&app, count).await);
    let each = resident(&app).saturating_sub(before) / count as u64;
    assert!(each <= 8 << 10, "{each} bytes for each idle socket");
    for number in 0..reloads {
        assert!(app.change(|c| c["users"]["user1"]["name"] = format!("user {number}").into()).await);
    }
    println!("{count} idle sockets at {each} bytes each stood {reloads} reloads");
    for socket in &mut sockets {
        socket.send(opcode::TEXT, "still here").await;
        assert_eq!(socket.next().await.unwrap().text(), "still here");
    }
    drop(sockets);
    app.finish().await;
}
