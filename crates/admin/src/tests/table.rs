//! Users from CSV: all rows or none.

use serde_json::json;

use super::api::{Login, is};
use super::documents::ids;
use super::*;

impl Bed {
    async fn import(&self, login: &Login, query: &str, body: &[u8]) -> Answer {
        let address = self.admin.addresses()[0];
        let fields: String = login.fields.iter().map(|field| format!("{field}\r\n")).collect();
        let mut request = format!(
            "POST /api/v1/users/import?{query} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: text/csv\r\n\
             content-length: {}\r\n{fields}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let mut stream = self.connect().await;
        stream.write_all(&request).await.unwrap();
        let mut bytes = Vec::new();
        timeout(BOUND, stream.read_to_end(&mut bytes)).await.expect("no answer in time").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

#[tokio::test]
async fn tables_make_and_change_users_in_one_step() {
    let (bed, admin) = Bed::peopled().await;
    let table = "编号,姓名,部门,用户组,渠道,状态\na,张三,研发部,g,openai,启用\nb,=cmd(),,,,停用\n";
    let (gbk, ..) = encoding_rs::GBK.encode(table);
    let dry = bed.import(&admin, "dry_run=true", &gbk).await.json();
    assert_eq!(
        (&dry["created"], &dry["dry_run"], &dry["rows"][1]["line"]),
        (&json!(2), &json!(true), &json!(3))
    );
    assert_eq!(bed.read(&admin, "users").await["total"], 1);
    let done = bed.import(&admin, "", &gbk).await;
    assert_eq!((done.status, &done.json()["created"]), (200, &json!(2)), "{}", done.body);
    let a = bed.read(&admin, "users/a").await;
    assert_eq!(
        (&a["name"], &a["groups"], &a["channels"]),
        (&json!("张三"), &json!(["g"]), &json!(["openai"]))
    );
    let b = bed.read(&admin, "users/b").await;
    assert_eq!((&b["name"], &b["status"]), (&json!("=cmd()"), &json!("disabled")));

    is(&bed.import(&admin, "", table.as_bytes()).await, 422, "invalid");
    let table = "id,name,department\na,张三,市场部\nb,,\nc,王五,\n";
    let done = bed.import(&admin, "mode=upsert", table.as_bytes()).await.json();
    assert_eq!((&done["created"], &done["updated"], &done["unchanged"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(bed.read(&admin, "users/b").await["name"], "=cmd()");
    let audit = bed.audit(&admin, "action=user.import").await;
    assert_eq!(audit.len(), 2);
}

#[tokio::test]
async fn one_bad_row_leaves_nothing_and_every_bad_cell_is_told() {
    let (bed, admin) = Bed::peopled().await;
    let table = "id,name,groups,status\na,x,g,active\nb,x,nowhere,asleep\na,x,,\nu,x,,\n\"c\"\"d\",x,,\n";
    let answer = bed.import(&admin, "", table.as_bytes()).await;
    is(&answer, 422, "invalid");
    let problems = answer.json()["error"]["problems"].clone();
    let paths: Vec<_> = problems.as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "line 3, column 4 (status)",
            "line 3, column 3 (groups)",
            "line 4, column 1 (id)",
            "line 5, column 1 (id)"
        ]
    );
    // An id that the catalog refuses is told with its line as well.
    let answer = bed.import(&admin, "", b"id,name\nok,x\n\"c\"\"d\",x\n").await;
    is(&answer, 422, "invalid");
    assert!(
        answer.json()["error"]["problems"][0]["path"].as_str().unwrap().starts_with("line 3"),
        "{}",
        answer.body
    );
    assert_eq!(ids(&bed.read(&admin, "users").await), ["u"]);
    for (query, table) in [
        ("", &b"id,salary\na,1\n"[..]),
        ("encoding=klingon", b"id\na\n"),
        ("mode=upsert", b"name\nx\n"),
        ("", b""),
    ] {
        is(&bed.import(&admin, query, table).await, 422, "invalid");
    }
    is(&bed.import(&admin, "mode=replace", b"id\na\n").await, 400, "bad_request");
    is(&bed.post(&admin, "users/import", json!({})).await, 415, "unsupported_media_type");
}

#[tokio::test]
async fn ten_thousand_rows_are_one_import() {
    let (bed, admin) = Bed::peopled().await;
    let rows: String = (0..10_000).map(|n| format!("e{n},员工{n},研发部\n")).collect();
    let done = bed.import(&admin, "", format!("\u{feff}工号,姓名,部门\n{rows}").as_bytes()).await;
    assert_eq!((done.status, &done.json()["created"]), (200, &json!(10_000)));
    assert_eq!(bed.read(&admin, "users?department=%E7%A0%94%E5%8F%91%E9%83%A8").await["total"], 10_001);
    assert_eq!(bed.read(&admin, "users?employee_number=e77").await["total"], 1);
}
