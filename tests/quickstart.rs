//! The commands of `docs/quickstart-admin.md`, as they stand there.

use std::os::unix::fs::symlink;
use std::process::Command;

/// The `sh` blocks of a page, in their order.
fn commands(page: &str) -> String {
    let mut inside = false;
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n");
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) => {
                script.push_str(line);
                script.push('\n');
            }
            (false, _) => {}
        }
    }
    script
}

#[test]
fn the_commands_of_the_page_work_in_an_empty_folder() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quickstart-admin.md"));
    let folder = tempfile::tempdir().unwrap();
    let (bin, work) = (folder.path().join("bin"), folder.path().join("work"));
    std::fs::create_dir(&bin).unwrap();
    std::fs::create_dir(&work).unwrap();
    symlink(env!("CARGO_BIN_EXE_aiproxy"), bin.join("aiproxy")).unwrap();
    let script = folder.path().join("commands.sh");
    std::fs::write(&script, commands(&page.unwrap())).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // In a network namespace of its own, the usual ports are free.
    let alone = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up"])
        .output()
        .is_ok_and(|tried| tried.status.success());
    let mut run = if alone {
        let mut run = Command::new("unshare");
        run.args(["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up; exec bash \"$0\""]);
        run
    } else {
        Command::new("bash")
    };
    let output =
        run.arg(&script).current_dir(&work).env_clear().env("PATH", path).output().expect("bash runs");
    let log = std::fs::read_to_string(work.join("relay.log")).unwrap_or_default();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}\n{log}");
    let read = |name: &str| std::fs::read_to_string(work.join(name)).unwrap();
    assert!(read("answer.json").contains("\"content\""), "{}", read("answer.json"));
    for secret in ["sk-sandbox-quickstart", "correct horse"] {
        assert!(!log.contains(secret), "{log}");
        assert!(
            !read("audit.json").contains(secret)
                && !out.replace("api_key: sk-sandbox-quickstart", "").contains(secret),
            "{out}"
        );
    }
    let key =
        read("key.json").split("\"proxy_key\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(key.starts_with("pk_") && !read("audit.json").contains(&key) && !log.contains(&key));
    assert!(!work.join("data/first-admin-password").exists(), "the one-time password was changed");
}
