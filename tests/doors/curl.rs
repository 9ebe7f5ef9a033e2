//! A real client: curl, over everything that it speaks.

use std::process::Command;

use aiproxy_testkit::{App, Authority, BOUND, PROXY_KEY, run};

use super::secure;

/// Runs it, trusting `ca.pem`; what it printed ends with the version and the status.
pub(super) async fn curl(app: &App, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "8", "-o", "-", "-w", "\n%{http_version} %{http_code}"]);
    command.args(["--noproxy", "*", "--cacert"]).arg(app.dir().join("ca.pem"));
    command.args(["--resolve", &format!("relay.test:{}:127.0.0.1", app.https_addr().port())]);
    command.args(["-H", &format!("Authorization: Bearer {PROXY_KEY}")]).args(arguments);
    let finished = run(command, BOUND).await;
    (finished.code, finished.stdout + &finished.stderr)
}

#[tokio::test]
async fn curl_speaks_every_version_it_knows() {
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"]).file("ca.pem", &authority.pem()).start().await;
    let plain = format!("{}/v1/chat/completions", app.url());
    let secure = format!("https://relay.test:{}/v1/chat/completions", app.https_addr().port());
    let body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"你好\"}]}";
    let post = ["-H", "Content-Type: application/json", "-d", body];
    for (url, options, version) in [
        (&plain, &["--http1.1"][..], "1.1"),
        (&plain, &["--http1.0"], "1"),
        // An upgrade that is not taken up.
        (&plain, &["--http2"], "1.1"),
        (&plain, &["--http2-prior-knowledge"], "2"),
        (&secure, &["--http2"], "2"),
        (&secure, &["--http2", "--tls-max", "1.2"], "2"),
        (&secure, &["--http1.1"], "1.1"),
        (&secure, &["--http1.1", "--tls-max", "1.2"], "1.1"),
        (&secure, &["--no-alpn"], "1.1"),
    ] {
        let arguments = [options, &post[..], &[url.as_str()]].concat();
        let (code, said) = curl(&app, &arguments).await;
        assert_eq!(code, Some(0), "{options:?}: {said}");
        assert!(said.contains("You said: 你好"), "{options:?}: {said}");
        assert!(said.contains(&format!("\n{version} 200")), "{options:?}: {said}");
    }
    // Several streams of one connection, one of them an upload.
    let upload = app.dir().join("upload");
    std::fs::write(&upload, vec![b'x'; 3 << 20]).unwrap();
    let upload = format!("@{}", upload.display());
    let files = secure.replace("chat/completions", "files");
    let form = ["--http2", "-F", "purpose=batch", "-F", &format!("file={upload}"), &files];
    let (code, said) = curl(&app, &form).await;
    assert!(code == Some(0) && said.contains("\n2 200"), "{said}");
    let many = secure.replace("chat/completions", "models?[1-20]");
    let (code, said) = curl(&app, &["--http2", "--parallel", &many]).await;
    assert_eq!((code, said.matches("\n2 200").count()), (Some(0), 20), "{said}");
    // A certificate for somebody else.
    let elsewhere = format!("https://127.0.0.1:{}/v1/models", app.https_addr().port());
    assert_eq!(curl(&app, &[&elsewhere]).await.0, Some(60));
    app.finish().await;
}
