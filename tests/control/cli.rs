//! The command line over the API.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aiproxy_testkit::{App, CHANNEL_KEY};
use serde_json::Value;

use super::{BINARY, PASSWORD, administered, called, text};

/// Somebody at a terminal.
struct Shell {
    home: tempfile::TempDir,
    url: String,
}

impl Shell {
    fn new(app: &App) -> Self {
        Self { home: tempfile::tempdir().unwrap(), url: format!("http://{}", app.admin_addr()) }
    }

    async fn run(&self, line: &str, input: &str) -> Output {
        let mut command = Command::new(BINARY);
        command.args(line.split_whitespace()).env_clear().env("HOME", self.home.path());
        command.env("AIPROXY_ADMIN_URL", &self.url).current_dir(self.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let task = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        });
        task.await.unwrap()
    }

    /// What a command that has to go well says.
    async fn says(&self, line: &str) -> String {
        let output = self.run(line, "").await;
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.says(&format!("{line} --json")).await).unwrap()
    }
}

#[tokio::test]
async fn everything_from_signing_in_to_offboarding() {
    let app = administered().start().await;
    let shell = Shell::new(&app);
    let nobody = shell.run("user list", "").await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody).contains("aiproxy admin login"), "{}", text(&nobody));
    let login = shell.run("admin login admin --password-file -", &format!("{PASSWORD}\n")).await;
    assert!(login.status.success(), "{}", text(&login));
    let kept = shell.home.path().join(".config/aiproxy/credentials.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(shell.says("admin whoami").await, "admin (administrator)\n");

    app.hide_from_callers("the API key", CHANNEL_KEY);
    let create = format!(
        "channel create main --platform custom --base-url http://{} --set ownership=off --api-key-file -",
        app.platform().addr()
    );
    let made = shell.run(&create, CHANNEL_KEY).await;
    assert!(made.status.success() && text(&made).contains("***"), "{}", text(&made));
    shell.says("channel test main").await;
    shell.says("group create research --channel main --name 研发部").await;
    shell.says("user create zhangsan --name 张三 --department 技术部 --group research").await;
    let wrong = shell.run("user create li --set notes={\"not\":1}", "").await;
    assert!(text(&wrong).contains("notes: expected a text"), "{}", text(&wrong));
    shell.says("user create li --name Li --employee-number 00042").await;
    let key = shell.says("key create zhangsan").await.trim().to_owned();
    assert!(key.starts_with("pk_"), "the key alone stands on standard output");
    app.hide_from_platform("the key", &key);
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);

    // Columns stay aligned, whatever the script.
    assert_eq!(
        shell.says("user list --sort id").await,
        "ID        NAME  DEPARTMENT  STATUS  GROUPS    CHANNELS\n\
         li        Li    -           active  -         -\n\
         zhangsan  张三  技术部      active  research  -\n"
    );
    assert_eq!(shell.json("user list").await["total"], 2);
    shell.says("user update zhangsan --set notes=项目 --department 市场部").await;
    shell.says("user map li main").await;
    let user = shell.json("user show zhangsan").await;
    assert_eq!((&user["notes"], &user["department"]), (&"项目".into(), &"市场部".into()));
    assert_eq!(shell.json("user show li").await["channels"], serde_json::json!(["main"]));
    shell.says("user update li --unset employee_number").await;

    let said = shell.says("explain /v1/models -X GET --user zhangsan").await;
    assert!(said.starts_with("allowed\n"), "{said}");
    let id = shell.json("key list --user zhangsan").await["items"][0]["id"].as_str().unwrap().to_owned();
    let fresh = shell.says(&format!("key rotate {id} --grace 60")).await.trim().to_owned();
    app.hide_from_platform("the new key", &fresh);
    assert_eq!(
        (called(&app, &fresh, "/v1/models").await.0, called(&app, &key, "/v1/models").await.0),
        (200, 200)
    );
    let out = shell.says("user offboard zhangsan --reason 离职").await;
    assert!(out.contains("zhangsan is out: 2 keys revoked; nothing was under way"), "{out}");
    assert_eq!(called(&app, &fresh, "/v1/models").await, (403, "user_disabled".to_owned()));

    let table = std::fs::write(
        shell.home.path().join("users.csv"),
        "编号,姓名,部门\nu1,王五,财务部\nu2,赵六,财务部\n",
    );
    table.unwrap();
    assert_eq!(shell.says("user import users.csv").await, "2 created, 0 updated, 0 unchanged\n");
    let audit = shell.says("audit --limit 100").await;
    for action in
        ["channel.create", "user.create", "key.create", "key.rotate", "user.offboard", "user.import"]
    {
        assert!(audit.contains(action), "{action}: {audit}");
    }
    let token = shell.says("token create ci --role auditor --scope users:read").await.trim().to_owned();
    std::fs::write(shell.home.path().join("token"), &token).unwrap();
    assert_eq!(shell.json("user list --token-file token").await["total"], 4);
    let refused = shell.run("user disable u1 --token-file token", "").await;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    for line in [
        "group list",
        "channel list",
        "channel health main",
        "session list",
        "denial list",
        "token list",
        "admin list",
        "status",
        "reload",
        "key list",
    ] {
        let said = shell.says(line).await;
        assert!(!said.contains(CHANNEL_KEY) && !said.contains(&key) && !said.contains(&token), "{line}");
    }
    let unknown = shell.run("channel update main --base-url http://127.0.0.1:1", "").await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("key_required"), "{}", text(&unknown));
    shell.says("user delete u2").await;
    assert_eq!(shell.says("admin logout").await, "signed out\n");
    assert!(!kept.exists());
    app.finish().await;
}

#[test]
fn what_is_meant_has_to_be_clear_and_secrets_stay_off_the_command_line() {
    let run = |line: &str| {
        let folder = tempfile::tempdir().unwrap();
        Command::new(BINARY)
            .args(line.split_whitespace())
            .env_clear()
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for (line, code, said) in [
        ("user list --url http://relay.example:8081", 2, "in the clear"),
        ("user list --url https://relay.example", 2, "tunnel"),
        ("channel create x --base-url http://a.example", 2, "AIPROXY_API_KEY"),
        ("channel update x --set api_key=sk-1", 2, "never stands on the command line"),
        ("session cut", 2, "required"),
        ("user list --url http://127.0.0.1:9", 1, "cannot be reached"),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output));
        assert!(text(&output).contains(said), "{line}: {}", text(&output));
    }
    assert!(run("key new").status.success(), "which needs no relay");
}

#[test]
fn the_page_has_every_command() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md")).unwrap();
    let help = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).arg("--help").env_clear().output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let commands =
            said.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect::<Vec<_>>()
    };
    for command in help(&[]).into_iter().filter(|name| name != "help") {
        let below = help(&[&command]);
        for name in below.iter().filter(|name| *name != "help") {
            assert!(page.contains(&format!("aiproxy {command} {name}")), "aiproxy {command} {name}");
        }
        assert!(page.contains(&format!("aiproxy {command}")), "aiproxy {command}");
    }
}
