//! What one caller made on a shared account is not there for another.

use aiproxy_testkit::{App, Ask, sandbox};
use serde_json::{Value, json};

use crate::relay;

/// The Proxy-Key of `user2`.
const SECOND: &str = "pk_user2_5Rt8nQz2Kp7Wv3Mx9Jc4Hb6L";

async fn shared_account(ownership: &str) -> App {
    let ownership = ownership.to_owned();
    relay()
        .config(|c| {
            c["channels"]["main"]["ownership"] = ownership.into();
            c["users"]["user2"] = json!({"name": "李四", "proxy_key": SECOND, "channels": ["main"]});
        })
        .start()
        .await
}

fn upload(ask: Ask) -> Ask {
    ask.header("content-type", "multipart/form-data; boundary=XX").body(
        "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--XX\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"机密.txt\"\r\n\r\nsecret\r\n--XX--\r\n",
    )
}

async fn id_of(ask: Ask) -> String {
    let mut answer = ask.send().await;
    let body = answer.json().await;
    assert_eq!(answer.status, 200, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn ids(ask: Ask) -> Vec<String> {
    let mut answer = ask.send().await;
    assert_eq!(answer.status, 200);
    let list = answer.json().await;
    list["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn another_callers_file_is_not_there() {
    let app = shared_account("enforce").await;
    let file = id_of(upload(app.ask("POST", "/v1/files"))).await;
    let own = format!("/v1/files/{file}");
    for (method, path) in [("GET", own.clone()), ("GET", format!("{own}/content")), ("DELETE", own.clone())] {
        let seen = app.sandbox().requests().len();
        let mut answer = app.ask(method, &path).key(SECOND).send().await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.json().await["error"]["code"], "object_not_found");
        assert_eq!(app.sandbox().requests().len(), seen, "the platform is not asked");
    }
    assert_eq!(app.get("/v1/files/file-nobody").send().await.status, 404);
    assert_eq!(ids(app.get("/v1/files").key(SECOND)).await, Vec::<String>::new());
    assert_eq!(ids(app.get("/v1/files")).await, std::slice::from_ref(&file));
    assert_eq!(app.get(&format!("{own}/content")).send().await.text().await, "secret");
    assert_eq!(app.ask("DELETE", &own).send().await.status, 200);
    assert_eq!(app.get(&own).send().await.status, 404, "what is deleted is nobody's");
    app.finish().await;
}

#[tokio::test]
async fn another_callers_response_cannot_be_read_continued_or_referred_to() {
    let app = shared_account("enforce").await;
    let ask = json!({"model": "gpt-4o-mini", "input": "我的秘密"});
    let response = id_of(app.post("/v1/responses", &ask)).await;
    assert_eq!(app.get(&format!("/v1/responses/{response}")).key(SECOND).send().await.status, 404);
    let go_on = json!({"model": "gpt-4o-mini", "input": "and then?", "previous_response_id": response});
    assert_eq!(app.post("/v1/responses", &go_on).key(SECOND).send().await.status, 404);
    assert_eq!(app.post("/v1/responses", &go_on).send().await.status, 200);

    let file = id_of(upload(app.ask("POST", "/v1/files"))).await;
    let refer = json!({"model": "gpt-4o-mini", "input": [{"role": "user", "content": [
        {"type": "input_text", "text": "read it"}, {"type": "input_file", "file_id": file}]}]});
    assert_eq!(app.post("/v1/responses", &refer).key(SECOND).send().await.status, 404);
    assert_eq!(app.post("/v1/responses", &refer).send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_streamed_response_belongs_to_its_caller_too() {
    let app = shared_account("enforce").await;
    let ask = json!({"model": "gpt-4o-mini", "input": "one two", "stream": true});
    let text = app.post("/v1/responses", &ask).send().await.text().await;
    let created = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let event: Value = serde_json::from_str(created).unwrap();
    let path = format!("/v1/responses/{}", event["response"]["id"].as_str().unwrap());
    assert_eq!(app.get(&path).key(SECOND).send().await.status, 404);
    assert_eq!(app.get(&path).send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn owners_are_known_after_a_restart_however_the_process_ended() {
    let mut app = shared_account("enforce").await;
    let file = id_of(upload(app.ask("POST", "/v1/files"))).await;
    app.restart_after("KILL").await;
    let path = format!("/v1/files/{file}");
    assert_eq!(app.get(&path).key(SECOND).send().await.status, 404);
    assert_eq!(app.get(&path).send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn groups_share_where_the_channel_says_so_and_off_is_off() {
    for (ownership, group, status) in [("shared", true, 200), ("shared", false, 404), ("off", false, 200)] {
        let app = relay()
            .config(|c| {
                c["channels"]["main"]["ownership"] = ownership.into();
                c["groups"] = json!({"team": {"channels": ["main"]}, "others": {"channels": ["main"]}});
                c["users"]["user1"]["groups"] = json!(["team"]);
                let theirs = if group { "team" } else { "others" };
                c["users"]["user2"] = json!({"name": "李四", "proxy_key": SECOND, "groups": [theirs]});
            })
            .start()
            .await;
        let file = id_of(upload(app.ask("POST", "/v1/files"))).await;
        let answer = app.get(&format!("/v1/files/{file}")).key(SECOND).send().await;
        assert_eq!(answer.status, status, "{ownership}, same group: {group}");
        app.finish().await;
    }
}

#[tokio::test]
async fn each_object_goes_back_to_its_own_channel() {
    let other = sandbox("sk-other-2Wd8Rk5Tn1Vb7").await;
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["ownership"] = "enforce".into();
            c["channels"]["other"] = json!({"platform": "custom", "api_key": "sk-other-2Wd8Rk5Tn1Vb7",
                "base_url": "@other", "ownership": "enforce"});
            c["users"]["user1"]["channels"] = json!(["main", "other"]);
        })
        .also("other", other.addr())
        .start()
        .await;
    let there = id_of(upload(app.ask("POST", "/@other/v1/files"))).await;
    let here = id_of(upload(app.ask("POST", "/v1/files"))).await;
    for (id, channel) in [(&there, "other"), (&here, "main")] {
        assert_eq!(app.get(&format!("/v1/files/{id}")).send().await.status, 200);
        let path = format!("/v1/files/{id}");
        app.logged("the line", |line| line["path"] == path.as_str() && line["channel"] == channel).await;
    }
    let refer = json!({"model": "gpt-4o-mini", "input": [{"role": "user", "content": [
        {"type": "input_file", "file_id": here}, {"type": "input_file", "file_id": there}]}]});
    assert_eq!(app.post("/v1/responses", &refer).send().await.status, 400);
    app.finish().await;
}

#[tokio::test]
async fn without_a_place_to_write_requests_go_on() {
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["ownership"] = "enforce".into();
            c["system"]["data_dir"] = "/proc/aiproxy".into();
        })
        .start()
        .await;
    let file = id_of(upload(app.ask("POST", "/v1/files"))).await;
    assert_eq!(app.get(&format!("/v1/files/{file}")).send().await.status, 200);
    app.finish().await;
}
