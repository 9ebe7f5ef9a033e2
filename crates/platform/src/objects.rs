//! Objects that platforms keep for callers, as data: where their ids stand in paths, answers and
//! lists.
//!
//! Platforms share objects among everybody who has the account's key. To keep callers of one
//! channel apart, AIProxy has to know which paths speak of which object. Patterns work on the
//! normal path (lower case); ids are taken from the raw path, by the position of the segment, and
//! compare exactly.
//!
//! Sources: the OpenAI, Anthropic and DashScope SDKs (paths and pages as of 2026), Google's and
//! Volcengine's API references.

use crate::{glob, path};

/// One kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The name in the journal.
    pub name: &'static str,
    /// The collection's path below one of its group's roots; `*` stands for one segment.
    pub path: &'static str,
    /// Segments that stand where an id would, and are none.
    pub reserved: &'static [&'static str],
    /// A request header that must be there, for paths that mean something else without it.
    pub header: Option<&'static str>,
    /// Google's resource names: the id is this prefix and the last segment, behind which a colon
    /// and a method may stand.
    pub resource: Option<&'static str>,
    /// Whether callers choose ids: one may then come again after the object has expired.
    pub named_by_caller: bool,
    /// Requests that make such objects.
    pub creates: &'static [Create],
    /// How the collection is listed.
    pub list: List,
    /// Other objects that belong to whoever owns this one, by pointers into its JSON.
    pub implies: &'static [(&'static str, &'static str)],
}

/// A POST that makes an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Create {
    /// Pattern below the root; see [`crate::path::matches`].
    pub path: &'static str,
    /// A request header and its value without which the platform keeps nothing.
    pub header: Option<(&'static str, &'static str)>,
    /// Where the body's `store` decides whether the platform keeps it: what holds without it.
    pub stored: Option<bool>,
    /// Pointers to ids in a JSON answer.
    pub ids: &'static [&'static str],
    /// Pointers to ids in the data of an answer's events.
    pub events: &'static [&'static str],
}

/// How a collection is listed by GET.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Pointers to the array; at least one must lead to one.
    pub items: &'static [&'static str],
    /// Pointers to the id in an element; the first that leads to a string.
    pub id: &'static [&'static str],
    /// A pointer and a value: elements that the platform shows to everybody.
    pub public: Option<(&'static str, &'static str)>,
}

/// Kinds that live below the same roots.
#[derive(Debug)]
pub struct Group {
    /// Prefixes of whole segments.
    pub roots: &'static [&'static str],
    /// The kinds; the first whose path fits counts.
    pub kinds: &'static [Kind],
}

/// Where in a kind's paths a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The collection itself.
    Collection,
    /// One object, or something below it.
    Item {
        /// Which segment of the path is the id, counted from 0.
        segment: usize,
        /// How many segments follow.
        below: usize,
    },
    /// A reserved name.
    Reserved,
}

const fn list(items: &'static [&'static str], id: &'static [&'static str]) -> List {
    List { items, id, public: None }
}

const fn create(path: &'static str, ids: &'static [&'static str]) -> Create {
    Create { path, header: None, stored: None, ids, events: &[] }
}

/// The shape that most platforms share: POST to the collection answers with `id`, GET with
/// `data` and cursors.
const fn kind(name: &'static str, path: &'static str, creates: &'static [Create]) -> Kind {
    Kind {
        name,
        path,
        reserved: &[],
        header: None,
        resource: None,
        named_by_caller: false,
        creates,
        list: list(&["/data"], &["/id"]),
        implies: &[],
    }
}

const fn anthropic(name: &'static str, path: &'static str, creates: &'static [Create]) -> Kind {
    Kind { header: Some("anthropic-version"), ..kind(name, path, creates) }
}

const fn resource(
    name: &'static str,
    path: &'static str,
    prefix: &'static str,
    items: &'static [&'static str],
    creates: &'static [Create],
) -> Kind {
    Kind { resource: Some(prefix), list: list(items, &["/name"]), ..kind(name, path, creates) }
}

/// What OpenAI, Anthropic and those who copy them keep.
static OPENAI: &[Kind] = &[
    kind("file", "files", &[create("/files", &["/id"])]),
    Kind { implies: &[("file", "/file/id")], ..kind("upload", "uploads", &[create("/uploads", &["/id"])]) },
    Kind {
        reserved: &["compact", "input_tokens"],
        implies: &[
            ("conversation", "/conversation/id"),
            ("container", "/output/*/container_id"),
            ("container", "/output/*/container/id"),
        ],
        ..kind(
            "response",
            "responses",
            &[Create { stored: Some(true), events: &["/response/id"], ..create("/responses", &["/id"]) }],
        )
    },
    Kind {
        implies: &[("file", "/output_file_id"), ("file", "/error_file_id")],
        ..kind("batch", "batches", &[create("/batches", &["/id"])])
    },
    kind("vector_store", "vector_stores", &[create("/vector_stores", &["/id"])]),
    Kind {
        implies: &[("file", "/result_files/*")],
        ..kind("fine_tuning_job", "fine_tuning/jobs", &[create("/fine_tuning/jobs", &["/id"])])
    },
    kind("conversation", "conversations", &[create("/conversations", &["/id"])]),
    kind(
        "chat_completion",
        "chat/completions",
        &[Create { stored: Some(false), events: &["/id"], ..create("/chat/completions", &["/id"]) }],
    ),
    Kind {
        reserved: &["runs"],
        ..kind(
            "thread",
            "threads",
            &[
                create("/threads", &["/id"]),
                Create { events: &["/thread_id"], ..create("/threads/runs", &["/thread_id"]) },
            ],
        )
    },
    kind("assistant", "assistants", &[create("/assistants", &["/id"])]),
    kind("video_character", "videos/characters", &[create("/videos/characters", &["/id"])]),
    Kind {
        reserved: &["generations", "edits", "extensions"],
        ..kind(
            "video",
            "videos",
            &[
                create("/videos", &["/id", "/request_id"]),
                create("/videos/*/remix", &["/id"]),
                create("/videos/generations", &["/id", "/request_id"]),
                create("/videos/edits", &["/id", "/request_id"]),
                create("/videos/extensions", &["/id", "/request_id"]),
            ],
        )
    },
    // Azure's earlier shape of the same.
    Kind {
        implies: &[("video_generation", "/generations/*/id")],
        ..kind("video_job", "video/generations/jobs", &[create("/video/generations/jobs", &["/id"])])
    },
    kind("video_generation", "video/generations", &[]),
    kind("container", "containers", &[create("/containers", &["/id"])]),
    kind("eval", "evals", &[create("/evals", &["/id"])]),
    Kind {
        list: List { public: Some(("/source", "anthropic")), ..list(&["/data"], &["/id"]) },
        ..kind("skill", "skills", &[create("/skills", &["/id"])])
    },
    kind("message_batch", "messages/batches", &[create("/messages/batches", &["/id"])]),
    anthropic("agent", "agents", &[create("/agents", &["/id"])]),
    anthropic("deployment_run", "deployment_runs", &[create("/deployments/*/run", &["/id"])]),
    anthropic("deployment", "deployments", &[create("/deployments", &["/id"])]),
    anthropic("dream", "dreams", &[create("/dreams", &["/id"])]),
    anthropic("environment", "environments", &[create("/environments", &["/id"])]),
    anthropic("memory_store", "memory_stores", &[create("/memory_stores", &["/id"])]),
    anthropic("session", "sessions", &[create("/sessions", &["/id"])]),
    anthropic("tunnel", "tunnels", &[create("/tunnels", &["/id"])]),
    anthropic("user_profile", "user_profiles", &[create("/user_profiles", &["/id"])]),
    anthropic("vault", "vaults", &[create("/vaults", &["/id"])]),
    // Volcengine's video generation.
    Kind {
        list: list(&["/items", "/data"], &["/id"]),
        ..kind(
            "generation_task",
            "contents/generations/tasks",
            &[create("/contents/generations/tasks", &["/id"])],
        )
    },
];

/// DashScope's own API.
static DASHSCOPE: &[Kind] = &[
    Kind {
        list: list(&["/data", "/output/data", "/output/tasks"], &["/task_id", "/output/task_id"]),
        ..kind(
            "task",
            "tasks",
            &[Create {
                header: Some(("x-dashscope-async", "enable")),
                ..create("/services/**", &["/output/task_id"])
            }],
        )
    },
    Kind {
        list: list(&["/data/files", "/output/files", "/files"], &["/file_id"]),
        ..kind(
            "file",
            "files",
            &[create("/files", &["/data/uploaded_files/*/file_id", "/output/uploaded_files/*/file_id"])],
        )
    },
    Kind {
        list: list(&["/output/jobs"], &["/job_id"]),
        ..kind("fine_tune", "fine-tunes", &[create("/fine-tunes", &["/output/job_id"])])
    },
    Kind {
        list: list(&["/output/deployments"], &["/deployed_model"]),
        named_by_caller: true,
        ..kind("deployment", "deployments", &[create("/deployments", &["/output/deployed_model"])])
    },
    kind("assistant", "assistants", &[create("/assistants", &["/id"])]),
    Kind {
        reserved: &["runs"],
        ..kind(
            "thread",
            "threads",
            &[
                create("/threads", &["/id"]),
                Create { events: &["/thread_id"], ..create("/threads/runs", &["/thread_id"]) },
            ],
        )
    },
];

/// Google's Gemini API.
static GEMINI: &[Kind] = &[
    Kind {
        named_by_caller: true,
        ..resource("file", "files", "files/", &["/files"], &[create("/files", &["/file/name", "/name"])])
    },
    resource(
        "cached_content",
        "cachedcontents",
        "cachedContents/",
        &["/cachedContents"],
        &[create("/cachedcontents", &["/name"])],
    ),
    Kind {
        implies: &[("file", "/response/responsesFile"), ("file", "/metadata/output/responsesFile")],
        ..resource(
            "batch",
            "batches",
            "batches/",
            &["/operations", "/batches"],
            &[
                create("/models/*:batchgeneratecontent", &["/name"]),
                create("/models/*:asyncbatchembedcontent", &["/name"]),
            ],
        )
    },
    resource(
        "file_search_store",
        "filesearchstores",
        "fileSearchStores/",
        &["/fileSearchStores"],
        &[create("/filesearchstores", &["/name"])],
    ),
    Kind {
        implies: &[("file", "/response/generateVideoResponse/generatedSamples/*/video/uri")],
        ..resource(
            "operation",
            "models/*/operations",
            "operations/",
            &["/operations"],
            &[create("/models/*:predictlongrunning", &["/name"])],
        )
    },
    kind(
        "interaction",
        "interactions",
        &[Create { stored: Some(true), events: &["/interaction/id"], ..create("/interactions", &["/id"]) }],
    ),
];

/// The table.
pub static GROUPS: &[Group] = &[
    Group {
        roots: &[
            "/v1",
            "/openai/v1",
            "/openai",
            "/compatible-mode/v1",
            "/compatible-api/v1",
            "/apps/anthropic/v1",
            "/api/v3",
            "/v1beta/openai",
        ],
        kinds: OPENAI,
    },
    Group { roots: &["/api/v1"], kinds: DASHSCOPE },
    Group {
        roots: &[
            "/v1beta",
            "/v1beta1",
            "/v1alpha",
            "/upload/v1beta",
            "/upload/v1beta1",
            "/upload/v1alpha",
            "/download/v1beta",
            "/download/v1beta1",
            "/download/v1alpha",
        ],
        kinds: GEMINI,
    },
];

/// How ids begin, as far as platforms agree on that: a string that begins so may be an id
/// wherever it stands.
pub const PREFIXES: &[&str] = &[
    "agent_",
    "asst_",
    "batch_",
    "batches/",
    "cachedContents/",
    "cgt-",
    "char_",
    "chatcmpl-",
    "chatcmpl_",
    "cntr_",
    "container_",
    "conv_",
    "env_",
    "eval_",
    "file-",
    "file_",
    "fileSearchStores/",
    "files/",
    "ft-",
    "ftjob-",
    "memstore_",
    "msgbatch_",
    "resp_",
    "sesn_",
    "skill_",
    "task_",
    "thread_",
    "upload_",
    "video_",
    "vlt_",
    "vs_",
];

/// Members of a body whose value is an id, however it begins; without underscores, in lower case.
pub const MEMBERS: &[&str] = &[
    "agentid",
    "assistantid",
    "batchid",
    "cachedcontent",
    "container",
    "containerid",
    "conversationid",
    "deploymentid",
    "environmentid",
    "errorfileid",
    "evalid",
    "fileid",
    "fileids",
    "filesearchstorenames",
    "fileuri",
    "inputfile",
    "inputfileid",
    "inputfileids",
    "jobid",
    "outputfileid",
    "responseid",
    "sessionid",
    "skillid",
    "taskid",
    "threadid",
    "trainingfile",
    "trainingfileid",
    "trainingfileids",
    "uploadid",
    "validationfile",
    "validationfileid",
    "validationfileids",
    "vectorstoreid",
    "vectorstoreids",
    "videoid",
];

/// Top-level members whose value continues an object: an id that is not known there is refused,
/// as it would be in a path.
pub const CONTINUES: &[&str] = &["conversation", "previousinteractionid", "previousresponseid"];

/// The longest id that is looked for.
pub const ID_BYTES: usize = 128;

/// Paths whose bodies refer to no objects: they need not be read for them.
const PLAIN: &[&str] = &["embeddings", "moderations", "rerank", "audio/speech"];

/// What the normal path speaks of. `has_header` is asked for names in lower case.
pub fn locate(normal: &str, has_header: impl Fn(&str) -> bool) -> Option<(&'static Kind, Place)> {
    for (root, rest, group) in below(normal) {
        for kind in group.kinds {
            if kind.header.is_none_or(&has_header)
                && let Some(place) = kind.place(root, rest)
            {
                return Some((kind, place));
            }
        }
    }
    None
}

/// What a POST to the normal path makes. `header` is asked for values of names in lower case.
pub fn creates<'h>(
    normal: &str,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Option<(&'static Kind, &'static Create)> {
    for (_, rest, group) in below(normal) {
        for kind in group.kinds.iter().filter(|kind| kind.header.is_none_or(|name| header(name).is_some())) {
            let made = kind.creates.iter().find(|create| {
                path::matches(create.path, rest)
                    && create.header.is_none_or(|(name, want)| {
                        header(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(want))
                    })
            });
            if let Some(create) = made {
                return Some((kind, create));
            }
        }
    }
    None
}

/// Whether the body of a request to this normal path may refer to objects.
#[must_use]
pub fn may_refer(normal: &str) -> bool {
    let plain = |rest: &str| rest.strip_prefix('/').is_some_and(|rest| PLAIN.contains(&rest));
    // What is uploaded there is a file's own bytes.
    !normal.starts_with("/upload/") && !below(normal).any(|(_, rest, _)| plain(rest))
}

/// The kind with this name beside another, for those that other kinds imply.
#[must_use]
pub fn beside(kind: &Kind, name: &str) -> Option<&'static Kind> {
    let group = GROUPS.iter().find(|group| group.kinds.contains(kind))?;
    group.kinds.iter().find(|other| other.name == name)
}

/// Whether a text begins as ids do.
#[must_use]
pub fn begins_like_id(text: &str) -> bool {
    let Some(first) = text.as_bytes().first() else { return false };
    PREFIXES
        .iter()
        .any(|prefix| prefix.as_bytes()[0] == *first && text.len() > prefix.len() && text.starts_with(prefix))
}

/// Whether a string may be an id.
#[must_use]
pub fn looks_like_id(text: &str) -> bool {
    text.len() <= ID_BYTES && begins_like_id(text) && text.bytes().all(is_id_byte)
}

/// Bytes of which ids are made.
#[must_use]
pub const fn is_id_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':')
}

/// Whether the member of a body with this name holds ids.
#[must_use]
pub fn is_member(name: &str) -> bool {
    one_of(MEMBERS, name)
}

/// Whether the top-level member of a body with this name continues an object.
#[must_use]
pub fn continues(name: &str) -> bool {
    one_of(CONTINUES, name)
}

fn one_of(names: &[&str], name: &str) -> bool {
    let plain = || name.bytes().filter(|byte| *byte != b'_');
    name.len() <= 32
        && names.iter().any(|known| plain().map(|byte| byte.to_ascii_lowercase()).eq(known.bytes()))
}

impl Kind {
    fn place(&self, root: &str, rest: &str) -> Option<Place> {
        let mut segments = rest.split('/').skip(1);
        let mut depth = root.bytes().filter(|byte| *byte == b'/').count();
        for want in self.path.split('/') {
            let have = segments.next()?;
            if want != have && !(want == "*" && glob::matches(want, have)) {
                return None;
            }
            depth += 1;
        }
        let Some(id) = segments.next() else { return Some(Place::Collection) };
        if self.reserved.contains(&id) {
            return Some(Place::Reserved);
        }
        Some(Place::Item { segment: depth, below: segments.count() })
    }

    /// The id under which an object is known: the segment of a path, decoded, or the text at one
    /// of the table's pointers.
    #[must_use]
    pub fn id_in_path(&self, segment: &str) -> String {
        match self.resource {
            Some(prefix) => {
                let name = segment.split_once(':').map_or(segment, |(name, _)| name);
                format!("{prefix}{name}")
            }
            None => segment.to_owned(),
        }
    }

    /// As [`id_in_path`](Self::id_in_path), for text at one of the table's pointers: Google's
    /// resource names may stand at the end of longer names and URLs.
    #[must_use]
    pub fn id_in_json(&self, text: &str) -> Option<String> {
        let id = match self.resource {
            Some(prefix) => in_resource_name(text, prefix)?,
            None => text.to_owned(),
        };
        let sound = !id.is_empty()
            && id.len() <= ID_BYTES
            && !id.chars().any(|c| c.is_whitespace() || c.is_control());
        sound.then_some(id)
    }
}

/// The resource name that begins with this prefix, at the beginning of the text or behind a
/// slash, without a method or query behind it.
#[must_use]
pub fn in_resource_name(text: &str, prefix: &str) -> Option<String> {
    let at =
        text.rmatch_indices(prefix).map(|(at, _)| at).find(|at| *at == 0 || text[..*at].ends_with('/'))?;
    let name = &text[at + prefix.len()..];
    let end =
        name.bytes().position(|byte| matches!(byte, b'/' | b':' | b'?' | b'#' | b'&')).unwrap_or(name.len());
    (end > 0).then(|| format!("{prefix}{}", &name[..end]))
}

/// Groups below whose roots the path lies: root, and the rest with its slash.
fn below(normal: &str) -> impl Iterator<Item = (&'static str, &str, &'static Group)> {
    GROUPS.iter().flat_map(move |group| {
        group.roots.iter().filter_map(move |root| {
            let rest = normal.strip_prefix(root)?;
            rest.starts_with('/').then_some((*root, rest, group))
        })
    })
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
