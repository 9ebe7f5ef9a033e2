use http::StatusCode;
use serde_json::json;

use super::*;

fn values(row: &Row) -> Value {
    Value::Object(row.values().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[test]
fn columns_have_english_and_chinese_names() {
    let rows =
        read("编号,姓名,Department,工号,状态,用户组\nz3,张三,研发部,007,停用,a；b; c\n".as_bytes(), None)
            .unwrap();
    assert_eq!((rows.len(), rows[0].line, rows[0].id()), (1, 2, Some("z3")));
    let expected = json!({
        "name": "张三", "department": "研发部", "employee_number": "007", "status": "disabled", "groups": ["a", "b", "c"]
    });
    assert_eq!(values(&rows[0]), expected);
}

#[test]
fn every_usual_encoding_is_understood() {
    let text = "编号,姓名\nz3,张三\n";
    let (gbk, ..) = encoding_rs::GBK.encode(text);
    let utf16: Vec<u8> =
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for (bytes, named) in [
        (text.as_bytes().to_vec(), None),
        (format!("\u{feff}{text}").into_bytes(), None),
        (gbk.to_vec(), None),
        (gbk.to_vec(), Some("gbk")),
        (utf16, None),
    ] {
        let rows = read(&bytes, named).unwrap();
        assert_eq!(values(&rows[0]), json!({"name": "张三"}), "{named:?}");
    }
    for (bytes, named) in
        [(&b"id\n\xff\xff\xff"[..], None), (&*gbk, Some("utf-8")), (b"id\nx", Some("klingon"))]
    {
        assert_eq!(read(bytes, named).unwrap_err().status(), StatusCode::UNPROCESSABLE_ENTITY, "{named:?}");
    }
}

#[test]
fn what_looks_like_a_formula_is_text() {
    let rows = read(b"id,name,notes\na,=1+1,\"@SUM(A1),\"\"x\"\"\"\nb,-5,+49\n", None).unwrap();
    assert_eq!(values(&rows[0]), json!({"name": "=1+1", "notes": "@SUM(A1),\"x\""}));
    assert_eq!(values(&rows[1]), json!({"name": "-5", "notes": "+49"}));
}

#[test]
fn lines_are_counted_as_people_see_them() {
    let rows = read(b"id,notes\r\na,\"two\r\nlines\"\r\n\r\nb,x,too many\r\nc,x\r\n", None).unwrap();
    let lines: Vec<_> = rows.iter().map(|row| (row.line, row.problems.len())).collect();
    assert_eq!(lines, [(2, 0), (5, 1), (6, 0)]);
}

#[test]
fn columns_that_nobody_knows_are_told() {
    for table in ["id,salary\na,1\n", "id,编号\na,b\n", "", "id\n"] {
        assert_eq!(
            read(table.as_bytes(), None).unwrap_err().status(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "{table:?}"
        );
    }
}
