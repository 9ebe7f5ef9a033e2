use tokio::io::duplex;

use super::*;

fn proxy(url: &str) -> EgressProxy {
    EgressProxy::parse(url).unwrap()
}

fn base(host: &str) -> BaseUrl {
    BaseUrl { tls: true, host: host.into(), port: 443, path: String::new(), authority: host.into() }
}

/// What the proxy got, and what came of it, when it says `answers` one after the other, each after
/// having read something.
async fn played<F>(
    answers: &[&[u8]],
    client: impl FnOnce(tokio::io::DuplexStream) -> F,
) -> (Vec<u8>, Result<(), ConnectError>)
where
    F: Future<Output = (tokio::io::DuplexStream, Result<(), ConnectError>)>,
{
    let (near, mut far) = duplex(4096);
    let server = async move {
        let mut got = Vec::with_capacity(4096);
        for answer in answers {
            far.read_buf(&mut got).await.unwrap();
            far.write_all(answer).await.unwrap();
        }
        (got, far)
    };
    let ((_client, outcome), (got, _far)) = tokio::join!(client(near), server);
    (got, outcome)
}

async fn connected(answer: &[&[u8]], url: &str) -> (Vec<u8>, Result<(), ConnectError>) {
    let proxy = proxy(url);
    played(answer, |mut near| async move {
        let outcome = connect(&mut near, &proxy, &base("api.example")).await;
        (near, outcome)
    })
    .await
}

async fn socksed(answers: &[&[u8]], url: &str, to: Destination<'_>) -> (Vec<u8>, Result<(), ConnectError>) {
    let proxy = proxy(url);
    played(answers, |mut near| async move {
        let outcome = socks5(&mut near, &proxy, to, 443).await;
        (near, outcome)
    })
    .await
}

#[tokio::test]
async fn connect_asks_for_the_platform_and_leaves_what_follows() {
    let (got, outcome) =
        connected(&[b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"], "http://u:p%40@h:1").await;
    outcome.unwrap();
    assert_eq!(
        String::from_utf8(got).unwrap(),
        "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic dTpwQA==\r\n\r\n"
    );
    let (mut near, mut far) = duplex(4096);
    far.write_all(b"HTTP/1.0 200 OK\r\n\r\nnext").await.unwrap();
    connect(&mut near, &proxy("http://h:1"), &base("::1")).await.unwrap();
    let mut next = [0; 4];
    near.read_exact(&mut next).await.unwrap();
    assert_eq!(&next, b"next");
    let interim =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    connected(&[interim], "http://h:1").await.1.unwrap();
}

#[tokio::test]
async fn refusals_of_connect_are_told_apart() {
    for (answer, expected) in [
        (
            &[&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..]][..],
            "the egress proxy refused our credentials",
        ),
        (
            &[b"HTTP/1.1 403 Filtered u:hunter2\r\n\r\n"],
            "the egress proxy did not connect to the platform: it answered 403",
        ),
        (
            &[b"SSH-2.0-OpenSSH\r\n\r\n"],
            "the egress proxy's answer is not understood: it does not speak HTTP/1.1",
        ),
    ] {
        let (_, outcome) = connected(answer, "http://u:hunter2@h:1").await;
        assert_eq!(outcome.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn socks_speaks_with_and_without_credentials() {
    let accepted: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let answers = [&[5, 2][..], &[1, 0], accepted];
    let (got, outcome) = socksed(&answers, "socks5h://u:pw@h", Destination::Name("api.example")).await;
    outcome.unwrap();
    let mut expected = vec![5, 2, 0, 2, 1, 1, b'u', 2, b'p', b'w', 5, 1, 0, 3, 11];
    expected.extend_from_slice(b"api.example\x01\xbb");
    assert_eq!(got, expected);

    let answers = [&[5, 0][..], &[5, 0, 0, 3, 2, b'a', b'b', 0, 0]];
    let (got, outcome) = socksed(&answers, "socks5://h", Destination::Address([10, 0, 0, 1].into())).await;
    outcome.unwrap();
    assert_eq!(got, [5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 1, 1, 187]);
}

#[tokio::test]
async fn refusals_of_socks_are_told_apart() {
    for (answers, expected) in [
        (&[&[5, 0xff][..]][..], "the egress proxy refused our credentials"),
        (&[&[5, 2], &[1, 1]], "the egress proxy refused our credentials"),
        (
            &[&[5, 0], &[5, 2, 0, 1]],
            "the egress proxy did not connect to the platform: its rules do not allow it",
        ),
        (&[&[4, 0]], "the egress proxy's answer is not understood: it does not speak SOCKS5"),
    ] {
        let (_, outcome) = socksed(answers, "socks5://u:p@h", Destination::Name("a")).await;
        assert_eq!(outcome.unwrap_err().to_string(), expected);
    }
}
