//! Paths as one of a bounded number of templates, for counting and reports.
//!
//! `/v1/files/file-7/content` is `/v1/files/{id}/content`: what callers and platforms make up (ids,
//! names of models and deployments) stands in braces. Paths of no known template are described by
//! [`guess`], and whoever keeps them bounds their number.

use std::sync::LazyLock;

/// The templates. A segment in braces is any one segment; what stands behind the braces (Google's
/// `:method`) has to be there. Compared in lower case.
const TEMPLATES: &[&str] = &[
    // OpenAI and those who copy it.
    "/v1/chat/completions",
    "/v1/chat/completions/{id}",
    "/v1/chat/completions/{id}/messages",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/responses/{id}",
    "/v1/responses/{id}/cancel",
    "/v1/responses/{id}/input_items",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/voices",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/videos",
    "/v1/videos/generations",
    "/v1/videos/edits",
    "/v1/videos/extensions",
    "/v1/videos/characters",
    "/v1/videos/characters/{id}",
    "/v1/videos/{id}",
    "/v1/videos/{id}/content",
    "/v1/videos/{id}/remix",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/files",
    "/v1/files/{id}",
    "/v1/files/{id}/content",
    "/v1/uploads",
    "/v1/uploads/{id}",
    "/v1/uploads/{id}/parts",
    "/v1/uploads/{id}/complete",
    "/v1/uploads/{id}/cancel",
    "/v1/batches",
    "/v1/batches/{id}",
    "/v1/batches/{id}/cancel",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/{id}",
    "/v1/fine_tuning/jobs/{id}/cancel",
    "/v1/fine_tuning/jobs/{id}/events",
    "/v1/fine_tuning/jobs/{id}/checkpoints",
    "/v1/fine_tuning/jobs/{id}/pause",
    "/v1/fine_tuning/jobs/{id}/resume",
    "/v1/vector_stores",
    "/v1/vector_stores/{id}",
    "/v1/vector_stores/{id}/search",
    "/v1/vector_stores/{id}/files",
    "/v1/vector_stores/{id}/files/{id}",
    "/v1/vector_stores/{id}/files/{id}/content",
    "/v1/vector_stores/{id}/file_batches",
    "/v1/vector_stores/{id}/file_batches/{id}",
    "/v1/vector_stores/{id}/file_batches/{id}/cancel",
    "/v1/vector_stores/{id}/file_batches/{id}/files",
    "/v1/conversations",
    "/v1/conversations/{id}",
    "/v1/conversations/{id}/items",
    "/v1/conversations/{id}/items/{id}",
    "/v1/containers",
    "/v1/containers/{id}",
    "/v1/containers/{id}/files",
    "/v1/containers/{id}/files/{id}",
    "/v1/containers/{id}/files/{id}/content",
    "/v1/assistants",
    "/v1/assistants/{id}",
    "/v1/threads",
    "/v1/threads/runs",
    "/v1/threads/{id}",
    "/v1/threads/{id}/messages",
    "/v1/threads/{id}/messages/{id}",
    "/v1/threads/{id}/runs",
    "/v1/threads/{id}/runs/{id}",
    "/v1/threads/{id}/runs/{id}/cancel",
    "/v1/threads/{id}/runs/{id}/steps",
    "/v1/threads/{id}/runs/{id}/steps/{id}",
    "/v1/threads/{id}/runs/{id}/submit_tool_outputs",
    "/v1/evals",
    "/v1/evals/{id}",
    "/v1/evals/{id}/runs",
    "/v1/evals/{id}/runs/{id}",
    "/v1/evals/{id}/runs/{id}/output_items",
    "/v1/evals/{id}/runs/{id}/output_items/{id}",
    "/v1/skills",
    "/v1/skills/{id}",
    "/v1/realtime",
    "/v1/realtime/calls",
    "/v1/realtime/calls/{id}/accept",
    "/v1/realtime/calls/{id}/hangup",
    "/v1/realtime/calls/{id}/refer",
    "/v1/realtime/calls/{id}/reject",
    "/v1/realtime/client_secrets",
    "/v1/realtime/translations/client_secrets",
    "/v1/realtime/translations/calls",
    "/aiproxy/v1/client_secrets",
    "/v1/realtime/sessions",
    "/v1/realtime/transcription_sessions",
    "/v1/realtime/translations",
    "/v1/live/sessions",
    "/v1/live/sessions/{id}",
    "/v1/live/sessions/{id}/attach",
    // Anthropic.
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/messages/batches",
    "/v1/messages/batches/{id}",
    "/v1/messages/batches/{id}/cancel",
    "/v1/messages/batches/{id}/results",
    "/v1/complete",
    // Azure OpenAI.
    "/openai/deployments/{model}/chat/completions",
    "/openai/deployments/{model}/completions",
    "/openai/deployments/{model}/embeddings",
    "/openai/deployments/{model}/audio/speech",
    "/openai/deployments/{model}/audio/transcriptions",
    "/openai/deployments/{model}/audio/translations",
    "/openai/deployments/{model}/images/generations",
    "/openai/deployments/{model}/images/edits",
    "/openai/models",
    "/openai/models/{model}",
    "/openai/files",
    "/openai/files/{id}",
    "/openai/files/{id}/content",
    "/openai/batches",
    "/openai/batches/{id}",
    "/openai/batches/{id}/cancel",
    "/openai/realtime",
    // DashScope.
    "/api/v1/services/aigc/text-generation/generation",
    "/api/v1/services/aigc/multimodal-generation/generation",
    "/api/v1/services/aigc/text2image/image-synthesis",
    "/api/v1/services/aigc/image2image/image-synthesis",
    "/api/v1/services/aigc/image-generation/generation",
    "/api/v1/services/aigc/video-generation/video-synthesis",
    "/api/v1/services/aigc/image2video/video-synthesis",
    "/api/v1/services/audio/asr/transcription",
    "/api/v1/services/audio/tts/customization",
    "/api/v1/services/embeddings/text-embedding/text-embedding",
    "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding",
    "/api/v1/services/rerank/text-rerank/text-rerank",
    "/api/v1/apps/{id}/completion",
    "/api/v1/tasks",
    "/api/v1/tasks/{id}",
    "/api/v1/tasks/{id}/cancel",
    "/api/v1/files",
    "/api/v1/files/{id}",
    "/api/v1/uploads",
    "/api/v1/tokens",
    "/api/v1/webrtc/realtime",
    "/api-ws/v1/inference",
    "/api-ws/v1/realtime",
    // Google.
    "/v1beta/models",
    "/v1beta/models/{model}",
    "/v1beta/models/{model}:generateContent",
    "/v1beta/models/{model}:streamGenerateContent",
    "/v1beta/models/{model}:countTokens",
    "/v1beta/models/{model}:embedContent",
    "/v1beta/models/{model}:batchEmbedContents",
    "/v1beta/models/{model}:batchGenerateContent",
    "/v1beta/models/{model}:predict",
    "/v1beta/models/{model}:predictLongRunning",
    "/v1beta/models/{model}/operations/{id}",
    "/v1beta/files",
    "/v1beta/files/{id}",
    "/v1beta/cachedContents",
    "/v1beta/cachedContents/{id}",
    "/v1beta/batches/{id}",
    "/upload/v1beta/files",
    // Deepgram and ElevenLabs.
    "/v1/listen",
    "/v2/listen",
    "/v1/speak",
    "/v1/read",
    "/v1/text-to-speech/{id}",
    "/v1/text-to-speech/{id}/stream",
    "/v1/text-to-speech/{id}/with-timestamps",
    "/v1/text-to-speech/{id}/stream/with-timestamps",
    "/v1/text-to-speech/{id}/stream-input",
    "/v1/speech-to-text",
    "/v1/speech-to-text/realtime",
    "/v1/speech-to-speech/{id}",
    "/v1/speech-to-speech/{id}/stream",
    "/v1/sound-generation",
    "/v1/voices",
    "/v1/voices/{id}",
    "/v2/voices",
    // Volcengine.
    "/api/v3/chat/completions",
    "/api/v3/bots/chat/completions",
    "/api/v3/embeddings",
    "/api/v3/embeddings/multimodal",
    "/api/v3/images/generations",
    "/api/v3/responses",
    "/api/v3/contents/generations/tasks",
    "/api/v3/contents/generations/tasks/{id}",
];

/// Prefixes under which a platform serves what OpenAI or Anthropic serve under `/v1`, and Google
/// what it serves under `/v1beta`.
const SAME: &[(&str, &[&str])] = &[
    (
        "/v1/",
        &[
            "/openai/v1/",
            "/compatible-mode/v1/",
            "/compatible-api/v1/",
            "/v1beta/openai/",
            "/apps/anthropic/v1/",
        ],
    ),
    ("/v1beta/", &["/v1/", "/v1alpha/", "/v1beta1/"]),
];

/// No template has more segments.
const DEEPEST: usize = 12;
/// The most segments of a guessed template; what follows is `…`.
const SEGMENTS: usize = 8;
/// The longest segment that may be a word.
const WORD: usize = 32;

/// One segment's worth of templates. Found by comparing bytes: there are few names at a node, and
/// hashing costs more.
#[derive(Debug, Default)]
struct Node {
    /// In order.
    named: Vec<(&'static [u8], Node)>,
    /// Any segment, with what has to stand at its end; the longest first.
    any: Vec<(&'static [u8], Node)>,
    /// The template that ends here.
    ends: Option<&'static str>,
}

impl Node {
    fn add(&mut self, template: &'static str) {
        let lower: &'static str = Box::leak(template.to_lowercase().into_boxed_str());
        let mut node = self;
        for segment in lower.split('/').skip(1) {
            let (children, name) = match segment.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
                None => (&mut node.named, segment.as_bytes()),
                Some((_, end)) => (&mut node.any, end.as_bytes()),
            };
            let by_name = children.binary_search_by(|(have, _)| order(have, name));
            let at = by_name.unwrap_or_else(|at| {
                children.insert(at, (name, Self::default()));
                at
            });
            node = &mut children[at].1;
        }
        node.ends.get_or_insert(template);
    }

    fn find(&self, segments: &[&[u8]]) -> Option<&'static str> {
        let Some((segment, rest)) = segments.split_first() else { return self.ends };
        let named = self.named.binary_search_by(|(have, _)| order(have, segment));
        if let Ok(at) = named
            && let Some(found) = self.named[at].1.find(rest)
        {
            return Some(found);
        }
        let fits = |end: &[u8]| segment.len() > end.len() && segment.ends_with(end);
        self.any.iter().filter(|(end, _)| fits(end)).find_map(|(_, node)| node.find(rest))
    }
}

/// Longer names first: most differ in length.
fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

static ROOT: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::default();
    TEMPLATES.iter().for_each(|template| root.add(template));
    for (prefix, others) in SAME {
        for rest in TEMPLATES.iter().filter_map(|template| template.strip_prefix(prefix)) {
            for other in *others {
                root.add(Box::leak(format!("{other}{rest}").into_boxed_str()));
            }
        }
    }
    root
});

/// The template of a normal path, if it is a known one.
#[must_use]
pub fn template(normal: &str) -> Option<&'static str> {
    let mut segments = [&b""[..]; DEEPEST];
    let mut count = 0;
    for segment in normal.as_bytes().split(|byte| *byte == b'/').skip(1) {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    ROOT.find(&segments[..count])
}

/// A description of a normal path of no known template: segments that are no words are `{id}`.
#[must_use]
pub fn guess(normal: &str) -> String {
    let mut out = String::with_capacity(normal.len());
    for (index, segment) in normal.split('/').skip(1).enumerate() {
        if index == SEGMENTS {
            out.push_str("/…");
            break;
        }
        out.push('/');
        match segment.split_once(':') {
            // Google's methods.
            Some((_, method)) if is_word(method) => {
                out.push_str("{id}:");
                out.push_str(method);
            }
            _ if is_word(segment) || is_version(segment) => out.push_str(segment),
            _ => out.push_str("{id}"),
        }
    }
    out
}

fn is_word(segment: &str) -> bool {
    (1..=WORD).contains(&segment.len())
        && segment.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_'))
}

/// `v1`, `v2beta`, `v1beta1`.
fn is_version(segment: &str) -> bool {
    let rest = segment.strip_prefix('v').unwrap_or_default();
    rest.starts_with(|first: char| first.is_ascii_digit())
        && rest.len() <= 8
        && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_paths_have_templates() {
        for (path, expected) in [
            ("/v1/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions/chatcmpl-1", Some("/v1/chat/completions/{id}")),
            ("/v1/files", Some("/v1/files")),
            ("/v1/files/file-1", Some("/v1/files/{id}")),
            ("/v1/files/file-1/content", Some("/v1/files/{id}/content")),
            ("/v1/files/file-1/nothing", None),
            ("/v1/files/file-1/content/more", None),
            ("/v1/threads/runs", Some("/v1/threads/runs")),
            ("/v1/threads/t1/runs/r1/steps", Some("/v1/threads/{id}/runs/{id}/steps")),
            ("/v1beta/models/gemini-2.5-pro", Some("/v1beta/models/{model}")),
            (
                "/v1beta/models/gemini-2.5-pro:streamgeneratecontent",
                Some("/v1beta/models/{model}:streamGenerateContent"),
            ),
            ("/v1/models/gemini-pro:generatecontent", Some("/v1/models/{model}:generateContent")),
            ("/v1/models/gpt-4o", Some("/v1/models/{model}")),
            (
                "/openai/deployments/mine/chat/completions",
                Some("/openai/deployments/{model}/chat/completions"),
            ),
            ("/openai/v1/responses/resp_1", Some("/openai/v1/responses/{id}")),
            ("/compatible-mode/v1/chat/completions", Some("/compatible-mode/v1/chat/completions")),
            ("/v1beta/cachedcontents/7", Some("/v1beta/cachedContents/{id}")),
            ("/apps/anthropic/v1/messages", Some("/apps/anthropic/v1/messages")),
            ("/v1", None),
            ("/", None),
            ("/v2/new/thing", None),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
    }

    #[test]
    fn every_template_is_its_own() {
        for written in TEMPLATES {
            let path = written.to_lowercase().replace("{id}", "x1").replace("{model}", "m1");
            assert_eq!(template(&path), Some(*written));
        }
    }

    #[test]
    fn unknown_paths_are_described_without_what_callers_make_up() {
        for (path, expected) in [
            ("/v2/new_thing", "/v2/new_thing"),
            ("/v1beta1/new/thing-7/parts", "/v1beta1/new/{id}/parts"),
            ("/v1/文件/abc", "/v1/{id}/abc"),
            ("/v1/x y", "/v1/{id}"),
            ("/v1/m-1:dothings", "/v1/{id}:dothings"),
            ("/v1/m-1:x7", "/v1/{id}"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…"),
            ("/", "/{id}"),
        ] {
            assert_eq!(guess(path), expected, "{path}");
        }
        assert_eq!(guess(&format!("/{}", "a".repeat(33))), "/{id}");
    }
}
