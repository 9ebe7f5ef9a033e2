//! What people see for each kind of mistake.

use super::*;

const TEN: &str = r#"# 十处错误
users:
  user1: {name: 张三, stauts: active, proxy_key: pk_user1_xxx, channels: [aliyun, opena]}
  user2:
    name: "李四"   # 产品部
    proxy_key: pk_user1_xxx
    status: "actve"
    channels: aliyun
    quota: 100
    allow_ips: ["10.0.0.0/33"]
channels:
  aliyun:
    name: 阿里云百炼
    base_url: "dashscope.aliyuncs.com"
    timeouts: {connect: 10 seconds}
    status: active
    status: disabled
  openai:
    api_key: sk_openai_xxx
    base_url: https://api.openai.com/v1
system:
  max_connections: "many"
  log_level: info
"#;

#[test]
fn print() {
    println!("{}", problems(TEN));
    for t in ["users:\n  a:\n    proxy_key:pk_secret1\n    status: active\n", "users: {a: {proxy_key: ab,cd, status: x}}\n", "users:\n  a:\n    proxy_key: \"hunter2\n    status: active\n", "a: b\n c: d\n", "users:\n\ta: b\n", "a: 1\n---\nb: 1\n", "", "# only\n", "- a\n", "x: &x [*x]\n", "users: {a: {<<: 1}}", "? [a]\n: b\n", "users: \0", "a: 'x\n  y\nb: c", "users: !foo {}\n", "users:\n  a: {proxy_kye: hunter22, apikey: hunter22, foo: hunter22, proxy_key:hunter22}\n"] {
        println!("------\n{t}\n--\n{}", problems(t));
    }
}
