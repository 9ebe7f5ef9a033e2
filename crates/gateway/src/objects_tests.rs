use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use aiproxy_config::{Source, load_str};
use aiproxy_core::ports::{ObjectChange, ObjectJournal, PortFuture};
use aiproxy_routing::Target;
use http::{Method, Response};
use http_body::Frame;
use serde_json::{Value, json};

use super::*;

const CONFIG: &str = "
users:
  ann: {name: Ann, proxy_key: pk_ann_0123456789abcdef, channels: [one, two, open, mates, google], groups: [team]}
  bob: {name: Bob, proxy_key: pk_bob_0123456789abcdef, channels: [one, two, open, mates], groups: [team]}
  eve: {name: Eve, proxy_key: pk_eve_0123456789abcdef, channels: [one, mates, open]}
groups:
  team: {}
channels:
  one: {name: One, api_key: sk_one_0123456789, base_url: 'https://api.openai.com'}
  two: {name: Two, api_key: sk_two_0123456789, base_url: 'https://api.openai.com'}
  open: {name: Open, api_key: sk_open_0123456789, base_url: 'https://api.openai.com', ownership: 'off'}
  mates: {name: Mates, api_key: sk_mates_0123456789, base_url: 'https://api.openai.com', ownership: shared}
  google: {name: Google, api_key: sk_google_0123456789, base_url: 'https://generativelanguage.googleapis.com'}
";

/// Frames as a test hands them out; polled beyond the last one it waits for ever, or ends.
struct Frames {
    frames: VecDeque<Bytes>,
    ends: bool,
    polled: Rc<Cell<usize>>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polled.set(self.polled.get() + 1);
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Frames {
    fn of(text: impl AsRef<[u8]>, step: usize) -> Self {
        let frames = text.as_ref().chunks(step.max(1)).map(Bytes::copy_from_slice).collect();
        Self { frames, ends: true, polled: Rc::default() }
    }

    fn endless(text: impl AsRef<[u8]>, step: usize) -> Self {
        Self { ends: false, ..Self::of(text, step) }
    }

    fn rest(self) -> Vec<u8> {
        self.frames.into_iter().flatten().collect()
    }
}

/// A body that breaks after its first frame.
struct Broken(Option<Bytes>);

impl Body for Broken {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or("broken")))
    }
}

struct World {
    snapshot: Arc<Snapshot>,
    objects: Arc<OwnedObjects>,
}

impl World {
    fn new() -> Self {
        Self::with(OwnedObjects::new(1000))
    }

    fn with(objects: OwnedObjects) -> Self {
        let source = Source { name: "test.yaml".into(), base: "/".into() };
        let loaded = load_str(CONFIG, &source, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        Self { snapshot: Arc::new(loaded.snapshot), objects: Arc::new(objects) }
    }

    fn user(&self, id: &str) -> &Arc<User> {
        self.snapshot.users().find(|user| &*user.id == id).unwrap()
    }

    fn owners(&self, user: &str) -> Rc<Owners> {
        Owners::new(&self.objects, &self.snapshot, self.user(user))
    }

    fn channel(&self, id: &str) -> &Arc<Channel> {
        self.snapshot.channel(id).unwrap()
    }

    fn own(&self, id: &str, owner: &str, channel: &str) {
        let seen = Seen { id, kind: "file", owner, channel, now: 1, replace: true };
        let _ = self.objects.insert(seen);
    }

    fn owner(&self, id: &str) -> Option<String> {
        self.objects.get(id).map(|owned| format!("{} {} {}", owned.kind, owned.owner, owned.channel))
    }

    fn plan(&self, user: &str, method: &Method, uri: &str, pairs: &[(&'static str, &str)]) -> (Plan, Claim) {
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let target = Target::parse(path, &headers).unwrap();
        let plan = Plan::for_path(self.user(user), &target).unwrap();
        let claim = Claim::of(method, &target, &plan, &headers, query);
        (plan, claim)
    }

    fn task(&self, method: &Method, uri: &str) -> Task {
        self.plan("ann", method, uri, &[]).1.task
    }
}

fn head(status: u16, pairs: &[(&'static str, &str)]) -> response::Parts {
    let mut builder = Response::builder().status(status);
    for (name, value) in pairs {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const EVENTS: (&str, &str) = ("content-type", "text/event-stream");

#[tokio::test]
async fn the_maker_of_an_object_owns_it_and_gets_the_answer_unchanged() {
    for (method_path, answer, expected) in [
        ("/v1/files", json!({"id":"file-1","object":"file"}), vec![("file-1", "file ann one")]),
        ("/v1/uploads", json!({"id":"upload_1"}), vec![("upload_1", "upload ann one")]),
        ("/v1/batches", json!({"id":"batch_1","output_file_id":null}), vec![("batch_1", "batch ann one")]),
        (
            "/v1/responses",
            json!({"id":"resp_1","conversation":{"id":"conv_1"},"output":[{"container_id":"cntr_1","id":"ci_1"},{"id":"msg_1"}]}),
            vec![
                ("resp_1", "response ann one"),
                ("conv_1", "conversation ann one"),
                ("cntr_1", "container ann one"),
            ],
        ),
        (
            "/v1/threads/runs",
            json!({"id":"run_1","thread_id":"thread_1"}),
            vec![("thread_1", "thread ann one")],
        ),
        ("/v1/videos/generations", json!({"request_id":"86ec-1"}), vec![("86ec-1", "video ann one")]),
    ] {
        let text = serde_json::to_vec_pretty(&answer).unwrap();
        for step in [1, 7, text.len()] {
            let world = World::new();
            let mut body = Frames::of(&text, step);
            let task = world.task(&Method::POST, method_path);
            let settled = world
                .owners("ann")
                .settle(&task, world.channel("one"), &mut head(200, &[JSON]), &mut body)
                .await
                .unwrap();
            assert_eq!(settled.ahead.as_deref(), Some(&text[..]), "{method_path}");
            for (id, owner) in &expected {
                assert_eq!(world.owner(id).as_deref(), Some(*owner), "{method_path}");
            }
            assert_eq!(world.objects.len(), expected.len());
        }
    }
}

#[tokio::test]
async fn several_objects_may_come_at_once_and_under_resource_names() {
    let world = World::new();
    let text = r#"{"data":{"uploaded_files":[{"file_id":"f-1"},{"file_id":"f-2"}]}}"#;
    let task = world.task(&Method::POST, "/v1/files");
    assert!(matches!(task, Task::Made(..)));
    let (kind, create) = objects::creates("/api/v1/files", |_| None).unwrap();
    let task = Task::Made(kind, create);
    let owners = world.owners("ann");
    owners
        .settle(&task, world.channel("one"), &mut head(200, &[JSON]), &mut Frames::of(text, 9))
        .await
        .unwrap();
    assert_eq!(world.owner("f-1").as_deref(), Some("file ann one"));
    assert_eq!(world.owner("f-2").as_deref(), Some("file ann one"));

    // A name of the caller's choosing may come again after the object has expired.
    let task = world.task(&Method::POST, "/upload/v1beta/files");
    let text = r#"{"file":{"name":"files/report","uri":"https://x/v1beta/files/report"}}"#;
    for user in ["ann", "bob"] {
        let owners = world.owners(user);
        owners
            .settle(&task, world.channel("google"), &mut head(200, &[JSON]), &mut Frames::of(text, 99))
            .await
            .unwrap();
        assert_eq!(world.owner("files/report"), Some(format!("file {user} google")));
    }
    // Any other stays with its first owner.
    world.own("file-1", "bob", "one");
    let task = world.task(&Method::POST, "/v1/files");
    owners
        .settle(
            &task,
            world.channel("one"),
            &mut head(200, &[JSON]),
            &mut Frames::of(r#"{"id":"file-1"}"#, 99),
        )
        .await
        .unwrap();
    assert_eq!(world.owner("file-1").as_deref(), Some("file bob one"));
}

#[tokio::test]
async fn only_a_successful_answer_makes_an_object() {
    for (status, pairs) in [
        (400, vec![JSON]),
        (500, vec![JSON]),
        (302, vec![JSON]),
        (200, vec![JSON, ("content-encoding", "gzip")]),
        (200, vec![("content-type", "text/html")]),
        (200, vec![("content-type", "audio/mpeg")]),
        // No event of an upload holds an id.
        (200, vec![EVENTS]),
    ] {
        let world = World::new();
        let mut body = Frames::of(r#"{"id":"file-1"}"#, 99);
        let polled = Rc::clone(&body.polled);
        let task = world.task(&Method::POST, "/v1/files");
        let owners = world.owners("ann");
        let settled =
            owners.settle(&task, world.channel("one"), &mut head(status, &pairs), &mut body).await.unwrap();
        assert_eq!(settled, Settled::default(), "{status} {pairs:?}");
        assert_eq!((world.objects.len(), polled.get()), (0, 0), "{status} {pairs:?}");
    }
}

#[tokio::test]
async fn a_long_answer_is_read_to_its_bound_only() {
    let world = World::new();
    let text = json!({"id":"resp_1","x":"y".repeat(3 << 20)}).to_string().replace("{\"id\"", "{ \"id\"");
    let mut body = Frames::of(&text, 64 << 10);
    let task = world.task(&Method::POST, "/v1/responses");
    let owners = world.owners("ann");
    let settled =
        owners.settle(&task, world.channel("one"), &mut head(200, &[JSON]), &mut body).await.unwrap();
    let ahead = settled.ahead.unwrap();
    assert!(ahead.len() <= JSON_BYTES + (64 << 10));
    assert_eq!(world.owner("resp_1").as_deref(), Some("response ann one"));
    assert_eq!([&ahead[..], &body.rest()].concat(), text.as_bytes());
}

#[tokio::test]
async fn a_stream_is_read_to_the_event_with_the_id_wherever_it_is_split() {
    let first = ": hello\n\nevent: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"output\":[]}}\n\n";
    let text =
        format!("{first}event: response.output_text.delta\ndata: {{\"delta\":\"x\"}}\n\ndata: [DONE]\n\n");
    for step in 1..=text.len() {
        let world = World::new();
        // The stream goes on for ever: reading beyond the event would hang.
        let mut body = Frames::endless(&text, step);
        let task = world.task(&Method::POST, "/v1/responses");
        let owners = world.owners("ann");
        let settled =
            owners.settle(&task, world.channel("two"), &mut head(200, &[EVENTS]), &mut body).await.unwrap();
        let ahead = settled.ahead.unwrap();
        assert!(ahead.len() < first.len() + step, "nothing is held back in pieces of {step}");
        assert_eq!([&ahead[..], &body.rest()].concat(), text.as_bytes());
        assert_eq!(world.owner("resp_1").as_deref(), Some("response ann two"), "in pieces of {step}");
    }
    let world = World::new();
    let text = "data: {\"id\":\"chatcmpl-1\",\"choices\":[]}\n\n";
    let task = world.task(&Method::POST, "/v1/chat/completions");
    let owners = world.owners("ann");
    owners
        .settle(&task, world.channel("one"), &mut head(200, &[EVENTS]), &mut Frames::of(text, 5))
        .await
        .unwrap();
    assert_eq!(world.owner("chatcmpl-1").as_deref(), Some("chat_completion ann one"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_id_passes_after_its_bounds() {
    let world = World::new();
    let task = world.task(&Method::POST, "/v1/responses");
    let owners = world.owners("ann");
    let text = ": ping\n\n".repeat(20_000);
    let mut body = Frames::endless(&text, 1000);
    let settled =
        owners.settle(&task, world.channel("one"), &mut head(200, &[EVENTS]), &mut body).await.unwrap();
    let ahead = settled.ahead.unwrap();
    assert!((EVENT_BYTES..EVENT_BYTES + 1000).contains(&ahead.len()));
    assert_eq!([&ahead[..], &body.rest()].concat(), text.as_bytes());

    let began = Instant::now();
    let mut body = Frames::endless("data: {\"x\":1}\n\n", 4);
    let settled =
        owners.settle(&task, world.channel("one"), &mut head(200, &[EVENTS]), &mut body).await.unwrap();
    assert_eq!(settled.ahead.as_deref(), Some(&b"data: {\"x\":1}\n\n"[..]));
    assert_eq!(began.elapsed(), EVENT_TIME);
    assert!(world.objects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_to_be_read_and_stalls_or_breaks_is_an_error() {
    let world = World::new();
    let owners = world.owners("ann");
    let channel = world.channel("one");
    for task in [world.task(&Method::POST, "/v1/files"), world.task(&Method::GET, "/v1/files")] {
        let outcome =
            owners.settle(&task, channel, &mut head(200, &[JSON]), &mut Frames::endless("{\"id\"", 9)).await;
        assert_eq!(outcome, Err(ErrorKind::UpstreamTimeout));
        let mut broken = Broken(Some(Bytes::from_static(b"{\"id\":")));
        let outcome = owners.settle(&task, channel, &mut head(200, &[JSON]), &mut broken).await;
        assert_eq!(outcome, Err(ErrorKind::UpstreamUnreachable));
    }
}

/// A journal that writes when it is told to.
#[derive(Default)]
struct Slow(Mutex<Vec<tokio::sync::oneshot::Sender<()>>>);

impl ObjectJournal for Slow {
    fn record(&self, _: ObjectChange) -> PortFuture<'static, bool> {
        let (done, written) = tokio::sync::oneshot::channel();
        self.0.lock().unwrap().push(done);
        Box::pin(async move { written.await.is_ok() })
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_sees_an_id_once_it_is_written_down_or_after_a_bounded_wait() {
    let journal = Arc::new(Slow::default());
    let world = World::with(OwnedObjects::kept(10, Arc::clone(&journal) as Arc<dyn ObjectJournal>, []));
    let task = world.task(&Method::POST, "/v1/files");
    let owners = world.owners("ann");
    let (channel, mut head) = (world.channel("one"), head(200, &[JSON]));
    let mut body = Frames::of(r#"{"id":"file-1"}"#, 99);
    {
        let mut settling = std::pin::pin!(owners.settle(&task, channel, &mut head, &mut body));
        let early = timeout(Duration::from_millis(500), settling.as_mut()).await;
        assert!(early.is_err(), "the write is not done");
        journal.0.lock().unwrap().drain(..).for_each(|done| done.send(()).unwrap());
        settling.await.unwrap();
    }
    let began = Instant::now();
    let mut body = Frames::of(r#"{"id":"file-2"}"#, 99);
    owners.settle(&task, channel, &mut head, &mut body).await.unwrap();
    assert_eq!(began.elapsed(), SAVE_TIME);
    assert_eq!(world.owner("file-2").as_deref(), Some("file ann one"));
}

#[tokio::test]
async fn what_an_own_object_names_belongs_to_its_owner() {
    for (method, uri, id, answer, named) in [
        (
            Method::GET,
            "/v1/batches/b",
            "b",
            json!({"id":"b","output_file_id":"file-o","error_file_id":"file-e"}),
            vec!["file-o", "file-e"],
        ),
        (Method::POST, "/v1/batches/b/cancel", "b", json!({"output_file_id":"file-o"}), vec!["file-o"]),
        (
            Method::POST,
            "/v1/uploads/u/complete",
            "u",
            json!({"id":"u","file":{"id":"file-u"}}),
            vec!["file-u"],
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs/j",
            "j",
            json!({"result_files":["file-1","file-2"]}),
            vec!["file-1", "file-2"],
        ),
        (Method::GET, "/v1/responses/r", "r", json!({"conversation":{"id":"conv_1"}}), vec!["conv_1"]),
    ] {
        let world = World::new();
        world.own(id, "ann", "mates");
        world.own("file-o", "eve", "mates");
        let task = world.task(&method, uri);
        let text = answer.to_string();
        // A mate reads it; it is still its owner's.
        let owners = world.owners("bob");
        let channel = world.channel("mates");
        let settled =
            owners.settle(&task, channel, &mut head(200, &[JSON]), &mut Frames::of(&text, 5)).await.unwrap();
        assert_eq!(settled.ahead.as_deref(), Some(text.as_bytes()));
        for name in named {
            let owner = if name == "file-o" { "eve" } else { "ann" };
            assert!(world.owner(name).unwrap().contains(owner), "{name} of {uri}");
        }
    }
    // Nobody's object makes nobody an owner.
    let world = World::new();
    let task = world.task(&Method::GET, "/v1/batches/b");
    let text = r#"{"output_file_id":"file-o"}"#;
    let owners = world.owners("ann");
    owners
        .settle(&task, world.channel("open"), &mut head(200, &[JSON]), &mut Frames::of(text, 5))
        .await
        .unwrap();
    assert!(world.objects.is_empty());
}

#[tokio::test]
async fn an_object_is_forgotten_once_the_platform_has_deleted_it() {
    for (status, left) in [(200, 0), (204, 0), (202, 0), (404, 1), (500, 1)] {
        let world = World::new();
        world.own("file-1", "ann", "one");
        let task = world.task(&Method::DELETE, "/v1/files/file-1");
        let owners = world.owners("ann");
        let settled = owners
            .settle(&task, world.channel("one"), &mut head(status, &[JSON]), &mut Frames::of("{}", 9))
            .await;
        assert_eq!(settled, Ok(Settled::default()));
        assert_eq!(world.objects.len(), left, "{status}");
    }
}

fn ids(text: &[u8]) -> Vec<String> {
    let value: Value = serde_json::from_slice(text).unwrap();
    let data = value["data"].as_array().unwrap();
    data.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_shows_what_is_there_for_the_caller() {
    let text = json!({
        "object": "list",
        "data": [{"id":"a-one"},{"id":"b-one"},{"id":"a-two"},{"id":"a-mates"},{"id":"e-mates"},{"id":"unknown"}],
        "first_id": "a-one", "last_id": "unknown", "has_more": true,
    })
    .to_string();
    for (user, channel, expected) in [
        ("ann", "one", vec!["a-one"]),
        ("bob", "one", vec!["b-one"]),
        ("eve", "one", vec![]),
        ("ann", "two", vec!["a-two"]),
        ("ann", "mates", vec!["a-mates"]),
        ("bob", "mates", vec!["a-mates"]),
        ("eve", "mates", vec!["e-mates"]),
    ] {
        let world = World::new();
        for (id, owner, channel) in [
            ("a-one", "ann", "one"),
            ("b-one", "bob", "one"),
            ("a-two", "ann", "two"),
            ("a-mates", "ann", "mates"),
            ("e-mates", "eve", "mates"),
        ] {
            world.own(id, owner, channel);
        }
        let task = world.task(&Method::GET, "/v1/files");
        let mut head = head(200, &[JSON, ("etag", "x"), ("content-md5", "y"), ("content-length", "9999")]);
        let owners = world.owners(user);
        let settled = owners
            .settle(&task, world.channel(channel), &mut head, &mut Frames::of(&text, 50))
            .await
            .unwrap();
        let ahead = settled.ahead.unwrap();
        assert_eq!(ids(&ahead), expected, "{user} at {channel}");
        assert_eq!(head.headers.get("content-length").unwrap(), &ahead.len().to_string());
        assert!(!head.headers.contains_key("etag") && !head.headers.contains_key("content-md5"));
        let more = expected.is_empty().then(|| ("after", "unknown".to_owned()));
        assert_eq!(settled.more, more);
        assert!(!String::from_utf8_lossy(&ahead).contains("unknown"));
    }
    let world = World::new();
    let task = world.task(&Method::GET, "/v1/files");
    let mut body = Frames::of(&text, 50);
    let owners = world.owners("ann");
    let settled =
        owners.settle(&task, world.channel("open"), &mut head(200, &[JSON]), &mut body).await.unwrap();
    assert_eq!((settled, body.rest()), (Settled::default(), text.into_bytes()));
}

#[tokio::test]
async fn own_elements_of_a_list_name_other_objects() {
    let world = World::new();
    world.own("batch_1", "ann", "one");
    let task = world.task(&Method::GET, "/v1/batches");
    let text =
        r#"{"data":[{"id":"batch_1","output_file_id":"file-1"},{"id":"batch_2","output_file_id":"file-2"}]}"#;
    let owners = world.owners("ann");
    owners
        .settle(&task, world.channel("one"), &mut head(200, &[JSON]), &mut Frames::of(text, 9))
        .await
        .unwrap();
    assert_eq!(world.owner("file-1").as_deref(), Some("file ann one"));
    assert_eq!(world.owner("file-2"), None);
}

#[tokio::test]
async fn a_list_that_cannot_be_filtered_is_withheld() {
    let world = World::new();
    let task = world.task(&Method::GET, "/v1/files");
    let owners = world.owners("ann");
    let long = format!("{{\"data\":[],\"x\":\"{}\"}}", "y".repeat(LIST_BYTES));
    let whole = r#"{"data":[{"id":"theirs"}]}"#;
    for (pairs, text) in [
        (vec![JSON, ("content-encoding", "gzip")], whole),
        (vec![JSON, ("content-encoding", "br")], whole),
        (vec![JSON], long.as_str()),
        (vec![JSON], "{\"data\":[{\"id\":\"theirs\""),
        (vec![JSON], "theirs"),
        (vec![("content-type", "text/csv")], "theirs"),
        (vec![EVENTS], "data: theirs\n\n"),
        (vec![JSON], r#"{"files":[{"id":"theirs"}]}"#),
    ] {
        for status in [200, 203, 206] {
            let mut body = Frames::of(text, 64 << 10);
            let outcome =
                owners.settle(&task, world.channel("one"), &mut head(status, &pairs), &mut body).await;
            assert_eq!(
                outcome,
                Err(ErrorKind::UpstreamProtocol),
                "{pairs:?} {}",
                &text[..text.len().min(40)]
            );
        }
    }
    for status in [304, 400, 429, 500] {
        let mut body = Frames::of("whatever", 9);
        let outcome = owners.settle(&task, world.channel("one"), &mut head(status, &[JSON]), &mut body).await;
        assert_eq!(outcome, Ok(Settled::default()));
        assert_eq!(body.rest(), b"whatever");
    }
}

#[test]
fn requests_go_to_where_their_objects_live_and_nowhere_else() {
    let world = World::new();
    world.own("file-a", "ann", "two");
    world.own("file-b", "bob", "two");
    world.own("file-c", "ann", "one");
    let json = [("content-type", "application/json"), ("content-length", "9")];
    let narrowed = |user: &str, method: &Method, uri: &str, body: Result<&[&str], &'static str>| {
        let (plan, claim) = world.plan(user, method, uri, &json);
        let body = body.map(|ids| {
            ids.iter().map(|id| Reference { id: (*id).into(), must_be_known: false }).collect::<Vec<_>>()
        });
        let plan = world.owners(user).narrow(plan, &claim, body);
        plan.map(|plan| plan.candidates.iter().map(|c| c.channel.id.to_string()).collect::<Vec<_>>())
            .map_err(|refusal| refusal.kind)
    };
    let (get, post) = (&Method::GET, &Method::POST);
    assert_eq!(narrowed("ann", get, "/v1/files/file-a/content", Ok(&[])), Ok(vec!["two".into()]));
    assert_eq!(narrowed("bob", get, "/v1/files/file-a/content", Ok(&[])), Err(ErrorKind::ObjectNotFound));
    assert_eq!(narrowed("eve", get, "/v1/files/file-a", Ok(&[])), Err(ErrorKind::ObjectNotFound));
    // What nobody made through AIProxy is asked for only where that is everybody's.
    assert_eq!(narrowed("ann", get, "/v1/files/file-x", Ok(&[])), Ok(vec!["open".into()]));
    assert_eq!(narrowed("ann", get, "/@one/v1/files/file-x", Ok(&[])), Err(ErrorKind::ObjectNotFound));
    assert_eq!(narrowed("ann", post, "/v1/responses", Ok(&["file-a", "text"])), Ok(vec!["two".into()]));
    assert_eq!(
        narrowed("ann", post, "/v1/responses", Ok(&["file-a", "file-b"])),
        Err(ErrorKind::ObjectNotFound)
    );
    assert_eq!(narrowed("ann", post, "/v1/responses", Ok(&["file-a", "file-c"])), Err(ErrorKind::BadRequest));
    assert_eq!(narrowed("ann", post, "/v1/responses", Err("it is compressed")), Err(ErrorKind::BadRequest));
    assert_eq!(
        narrowed("ann", post, "/@open/v1/responses", Err("it is compressed")),
        Ok(vec!["open".into()])
    );
    // Where no body refers to anything, nobody minds what it is.
    assert!(narrowed("ann", post, "/v1/embeddings", Err("it is compressed")).is_ok());
}

#[test]
fn the_rest_of_a_body_is_searched_as_well() {
    let world = World::new();
    world.own("file-a", "ann", "two");
    world.own("file-b", "bob", "two");
    let json = [("content-type", "application/json"), ("content-length", "9")];
    let guarded = |uri: &str, text: &str, step: usize| {
        let (plan, claim) = world.plan("ann", &Method::POST, uri, &json);
        let guard = world.owners("ann").guard(&plan, &claim)?;
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        let mut scan = Scan::of(&headers);
        scan.watch_references();
        let mut outcome = Ok(());
        for piece in text.as_bytes().chunks(step) {
            scan.feed(piece);
            outcome = outcome.and_then(|()| guard.check(&mut scan));
        }
        Some(outcome)
    };
    for step in 1..40 {
        assert_eq!(guarded("/v1/responses", r#"{"a":"file-a","b":"file-x"}"#, step), Some(Ok(())));
        assert_eq!(guarded("/v1/responses", r#"{"a":["file-a",{"b":"file-b"}]}"#, step), Some(Err(HIDDEN)));
        assert_eq!(guarded("/v1/responses", r#"{"previous_response_id":"resp_x"}"#, step), Some(Err(HIDDEN)));
        assert!(guarded("/v1/responses", r#"{"a":/**/"file-b"}"#, step).unwrap().is_err());
    }
    assert_eq!(guarded("/@open/v1/responses", r#"{"a":"file-b"}"#, 9), None);
    assert_eq!(guarded("/v1/embeddings", r#"{"a":"file-b"}"#, 9), None);
}

#[test]
fn the_next_page_is_asked_for_in_the_dialect_of_the_caller() {
    for (query, next, anthropic, expected) in [
        (None, ("after", "file-1"), false, "after=file%2D1"),
        (Some("limit=20&after=x&order=asc"), ("after", "y"), false, "limit=20&order=asc&after=y"),
        (Some("after_id=x"), ("after", "y"), true, "after_id=y"),
        (Some("pageSize=2&pageToken=x"), ("pageToken", "a/b"), false, "pageSize=2&pageToken=a%2Fb"),
        (Some("page=1&api-version=2"), ("page", "p&q"), true, "api-version=2&page=p%26q"),
    ] {
        assert_eq!(next_query(query, next, anthropic), expected);
    }
}
