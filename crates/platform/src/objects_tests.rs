use super::*;

fn locate_with(normal: &str, header: &str) -> Option<(&'static str, Place)> {
    locate(normal, |name| name == header).map(|(kind, place)| (kind.name, place))
}

fn item(segment: usize, below: usize) -> Place {
    Place::Item { segment, below }
}

#[test]
fn paths_speak_of_objects() {
    for (path, header, expected) in [
        ("/v1/files", "", Some(("file", Place::Collection))),
        ("/v1/files/file-1", "", Some(("file", item(2, 0)))),
        ("/v1/files/file-1/content", "", Some(("file", item(2, 1)))),
        ("/v1/files/file_1/content", "anthropic-version", Some(("file", item(2, 1)))),
        ("/v1/filesx/file-1", "", None),
        ("/v1/uploads/upload_1/parts", "", Some(("upload", item(2, 1)))),
        ("/v1/responses/resp_1", "", Some(("response", item(2, 0)))),
        ("/v1/responses/resp_1/input_items", "", Some(("response", item(2, 1)))),
        ("/v1/responses/compact", "", Some(("response", Place::Reserved))),
        ("/v1/responses/input_tokens", "", Some(("response", Place::Reserved))),
        ("/v1/batches/batch_1/cancel", "", Some(("batch", item(2, 1)))),
        ("/v1/vector_stores/vs_1/file_batches/vsfb_1/files", "", Some(("vector_store", item(2, 3)))),
        ("/v1/fine_tuning/jobs/ftjob-1/events", "", Some(("fine_tuning_job", item(3, 1)))),
        ("/v1/fine_tuning/checkpoints/x/permissions", "", None),
        ("/v1/conversations/conv_1/items/msg_1", "", Some(("conversation", item(2, 2)))),
        ("/v1/chat/completions", "", Some(("chat_completion", Place::Collection))),
        ("/v1/chat/completions/chatcmpl-1/messages", "", Some(("chat_completion", item(3, 1)))),
        ("/v1/chat", "", None),
        ("/v1/threads/thread_1/runs/run_1/steps", "", Some(("thread", item(2, 3)))),
        ("/v1/threads/runs", "", Some(("thread", Place::Reserved))),
        ("/v1/assistants/asst_1", "", Some(("assistant", item(2, 0)))),
        ("/v1/videos/video_1/content", "", Some(("video", item(2, 1)))),
        ("/v1/videos/generations", "", Some(("video", Place::Reserved))),
        ("/v1/videos/characters", "", Some(("video_character", Place::Collection))),
        ("/v1/videos/characters/char_1", "", Some(("video_character", item(3, 0)))),
        ("/v1/containers/cntr_1/files/cfile_1/content", "", Some(("container", item(2, 3)))),
        ("/v1/evals/eval_1/runs/run_1/output_items", "", Some(("eval", item(2, 3)))),
        ("/v1/skills/skill_1/versions", "", Some(("skill", item(2, 1)))),
        ("/v1/messages", "", None),
        ("/v1/messages/batches", "", Some(("message_batch", Place::Collection))),
        ("/v1/messages/batches/msgbatch_1/results", "", Some(("message_batch", item(3, 1)))),
        ("/apps/anthropic/v1/messages/batches/msgbatch_1", "", Some(("message_batch", item(5, 0)))),
        ("/v1/agents/agent_1", "anthropic-version", Some(("agent", item(2, 0)))),
        ("/v1/agents/agent_1", "", None),
        ("/v1/sessions/sesn_1/events", "anthropic-version", Some(("session", item(2, 1)))),
        ("/v1/environments/env_1", "anthropic-version", Some(("environment", item(2, 0)))),
        ("/v1/vaults/vlt_1/credentials", "anthropic-version", Some(("vault", item(2, 1)))),
        ("/v1/memory_stores/memstore_1", "anthropic-version", Some(("memory_store", item(2, 0)))),
        ("/v1/deployments/d_1/run", "anthropic-version", Some(("deployment", item(2, 1)))),
        ("/v1/deployment_runs/r_1", "anthropic-version", Some(("deployment_run", item(2, 0)))),
        ("/v1/dreams/d_1", "anthropic-version", Some(("dream", item(2, 0)))),
        ("/v1/tunnels/t_1", "anthropic-version", Some(("tunnel", item(2, 0)))),
        ("/v1/user_profiles/u_1", "anthropic-version", Some(("user_profile", item(2, 0)))),
        ("/openai/files/file-1", "", Some(("file", item(2, 0)))),
        ("/openai/v1/files/file-1", "", Some(("file", item(3, 0)))),
        ("/openai/v1/responses/resp_1", "", Some(("response", item(3, 0)))),
        ("/openai/batches/batch_1", "", Some(("batch", item(2, 0)))),
        ("/openai/fine_tuning/jobs/ftjob-1", "", Some(("fine_tuning_job", item(3, 0)))),
        ("/openai/v1/video/generations/jobs/task_1", "", Some(("video_job", item(5, 0)))),
        ("/openai/v1/video/generations/gen_1/content/video", "", Some(("video_generation", item(4, 2)))),
        ("/openai/deployments/gpt/chat/completions", "", None),
        ("/compatible-mode/v1/files/file-fe-1", "", Some(("file", item(3, 0)))),
        ("/compatible-mode/v1/batches", "", Some(("batch", Place::Collection))),
        ("/v1beta/openai/batches/batch_1", "", Some(("batch", item(3, 0)))),
        ("/api/v3/contents/generations/tasks/cgt-1", "", Some(("generation_task", item(5, 0)))),
        ("/api/v3/responses/resp_1", "", Some(("response", item(3, 0)))),
        ("/api/v1/tasks", "", Some(("task", Place::Collection))),
        ("/api/v1/tasks/86ec-1/cancel", "", Some(("task", item(3, 1)))),
        ("/api/v1/files/f0f0", "", Some(("file", item(3, 0)))),
        ("/api/v1/fine-tunes/ft-1/logs", "", Some(("fine_tune", item(3, 1)))),
        ("/api/v1/deployments/qwen-x", "", Some(("deployment", item(3, 0)))),
        ("/api/v1/threads/thread_1", "", Some(("thread", item(3, 0)))),
        ("/api/v1/assistants/asst_1", "", Some(("assistant", item(3, 0)))),
        ("/api/v1/services/aigc/text2image/image-synthesis", "", None),
        ("/v1beta/files/abc", "", Some(("file", item(2, 0)))),
        ("/download/v1beta/files/abc:download", "", Some(("file", item(3, 0)))),
        ("/v1beta/cachedcontents/c1", "", Some(("cached_content", item(2, 0)))),
        ("/v1beta/batches/b1:cancel", "", Some(("batch", item(2, 0)))),
        ("/v1beta/filesearchstores/s1/documents", "", Some(("file_search_store", item(2, 1)))),
        (
            "/upload/v1beta/filesearchstores/s1:uploadtofilesearchstore",
            "",
            Some(("file_search_store", item(3, 0))),
        ),
        ("/v1beta/models/veo-3/operations/o1", "", Some(("operation", item(4, 0)))),
        ("/v1beta/models/veo-3", "", None),
        ("/v1beta/interactions/i1", "", Some(("interaction", item(2, 0)))),
        ("/", "", None),
        ("/v1", "", None),
    ] {
        assert_eq!(locate_with(path, header), expected, "{path}");
    }
}

#[test]
fn posts_make_objects() {
    let none = ("", "");
    for (path, header, expected) in [
        ("/v1/files", none, Some(("file", "/id"))),
        ("/v1/uploads", none, Some(("upload", "/id"))),
        ("/v1/uploads/upload_1/complete", none, None),
        ("/v1/responses", none, Some(("response", "/id"))),
        ("/v1/responses/compact", none, None),
        ("/v1/batches", none, Some(("batch", "/id"))),
        ("/v1/vector_stores", none, Some(("vector_store", "/id"))),
        ("/v1/vector_stores/vs_1/files", none, None),
        ("/v1/fine_tuning/jobs", none, Some(("fine_tuning_job", "/id"))),
        ("/v1/conversations", none, Some(("conversation", "/id"))),
        ("/v1/chat/completions", none, Some(("chat_completion", "/id"))),
        ("/v1/threads", none, Some(("thread", "/id"))),
        ("/v1/threads/runs", none, Some(("thread", "/thread_id"))),
        ("/v1/assistants", none, Some(("assistant", "/id"))),
        ("/v1/videos", none, Some(("video", "/id"))),
        ("/v1/videos/video_1/remix", none, Some(("video", "/id"))),
        ("/v1/videos/generations", none, Some(("video", "/id"))),
        ("/v1/videos/edits", none, Some(("video", "/id"))),
        ("/v1/videos/extensions", none, Some(("video", "/id"))),
        ("/v1/videos/characters", none, Some(("video_character", "/id"))),
        ("/v1/containers", none, Some(("container", "/id"))),
        ("/v1/evals", none, Some(("eval", "/id"))),
        ("/v1/skills", none, Some(("skill", "/id"))),
        ("/v1/messages/batches", none, Some(("message_batch", "/id"))),
        ("/v1/agents", ("anthropic-version", "2023-06-01"), Some(("agent", "/id"))),
        ("/v1/agents", none, None),
        ("/v1/deployments", ("anthropic-version", "x"), Some(("deployment", "/id"))),
        ("/v1/deployments/d/run", ("anthropic-version", "x"), Some(("deployment_run", "/id"))),
        ("/v1/dreams", ("anthropic-version", "x"), Some(("dream", "/id"))),
        ("/v1/environments", ("anthropic-version", "x"), Some(("environment", "/id"))),
        ("/v1/memory_stores", ("anthropic-version", "x"), Some(("memory_store", "/id"))),
        ("/v1/sessions", ("anthropic-version", "x"), Some(("session", "/id"))),
        ("/v1/tunnels", ("anthropic-version", "x"), Some(("tunnel", "/id"))),
        ("/v1/user_profiles", ("anthropic-version", "x"), Some(("user_profile", "/id"))),
        ("/v1/vaults", ("anthropic-version", "x"), Some(("vault", "/id"))),
        ("/openai/v1/video/generations/jobs", none, Some(("video_job", "/id"))),
        ("/compatible-mode/v1/files", none, Some(("file", "/id"))),
        ("/api/v3/contents/generations/tasks", none, Some(("generation_task", "/id"))),
        (
            "/api/v1/services/aigc/text2image/image-synthesis",
            ("x-dashscope-async", "Enable"),
            Some(("task", "/output/task_id")),
        ),
        ("/api/v1/services/aigc/text-generation/generation", none, None),
        ("/api/v1/services/aigc/text-generation/generation", ("x-dashscope-async", "disable"), None),
        ("/api/v1/files", none, Some(("file", "/data/uploaded_files/*/file_id"))),
        ("/api/v1/fine-tunes", none, Some(("fine_tune", "/output/job_id"))),
        ("/api/v1/deployments", none, Some(("deployment", "/output/deployed_model"))),
        ("/api/v1/assistants", none, Some(("assistant", "/id"))),
        ("/api/v1/threads", none, Some(("thread", "/id"))),
        ("/api/v1/threads/runs", none, Some(("thread", "/thread_id"))),
        ("/upload/v1beta/files", none, Some(("file", "/file/name"))),
        ("/v1beta/cachedcontents", none, Some(("cached_content", "/name"))),
        ("/v1beta/models/gemini-2.5-pro:batchgeneratecontent", none, Some(("batch", "/name"))),
        ("/v1beta/models/gemini:asyncbatchembedcontent", none, Some(("batch", "/name"))),
        ("/v1beta/models/gemini-2.5-pro:generatecontent", none, None),
        ("/v1beta/models/veo-3:predictlongrunning", none, Some(("operation", "/name"))),
        ("/v1beta/filesearchstores", none, Some(("file_search_store", "/name"))),
        ("/v1beta/interactions", none, Some(("interaction", "/id"))),
        ("/v1/embeddings", none, None),
    ] {
        let found = creates(path, |name| (name == header.0).then_some(header.1));
        assert_eq!(found.map(|(kind, create)| (kind.name, create.ids[0])), expected, "{path}");
    }
}

#[test]
fn every_row_is_sound() {
    for group in GROUPS {
        for root in group.roots {
            assert!(root.starts_with('/') && !root.ends_with('/'), "{root}");
            assert_eq!(*root, root.to_lowercase());
        }
        for kind in group.kinds {
            assert_eq!(kind.path, kind.path.to_lowercase(), "patterns match the normal path");
            assert!(!kind.path.starts_with('/') && !kind.path.ends_with('/'), "{}", kind.path);
            let pointers = kind.list.items.iter().chain(kind.list.id);
            let pointers = pointers.chain(kind.implies.iter().map(|(_, pointer)| pointer));
            let pointers =
                pointers.chain(kind.creates.iter().flat_map(|row| row.ids.iter().chain(row.events)));
            assert!(pointers.into_iter().all(|pointer| pointer.starts_with('/')), "{}", kind.name);
            assert!(!kind.list.items.is_empty() && !kind.list.id.is_empty());
            for create in kind.creates {
                assert!(create.path.starts_with('/') && create.path == create.path.to_lowercase());
                assert!(!create.ids.is_empty());
            }
            for (name, _) in kind.implies {
                assert!(beside(kind, name).is_some(), "{} implies {name}", kind.name);
            }
            if let Some(prefix) = kind.resource {
                assert!(prefix.ends_with('/'));
            }
        }
    }
    for name in MEMBERS.iter().chain(CONTINUES) {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
    }
}

#[test]
fn ids_are_told_from_other_text() {
    for (text, expected) in [
        ("file-abc", true),
        ("file_011CNha8iCJcU1wXNR6q4V8w", true),
        ("resp_1", true),
        ("cachedContents/x", true),
        ("file-", false),
        ("File-abc", false),
        ("file-a b", false),
        ("file-a\n", false),
        ("a file-abc", false),
        ("profile-abc", false),
        ("", false),
    ] {
        assert_eq!(looks_like_id(text), expected, "{text}");
    }
    assert!(!looks_like_id(&format!("file-{}", "x".repeat(ID_BYTES))));
    assert!(is_member("file_ids") && is_member("cachedContent") && is_member("cached_content"));
    assert!(!is_member("file_idsx") && !is_member("id"));
    assert!(continues("previous_response_id") && continues("Previous_Response_ID"));
    assert!(continues("conversation") && !continues("conversations"));
}

#[test]
fn resource_names_are_found_in_longer_names() {
    let file = locate("/v1beta/files/x", |_| false).unwrap().0;
    let operation = locate("/v1beta/models/m/operations/x", |_| false).unwrap().0;
    for (kind, text, expected) in [
        (file, "files/abc-1", Some("files/abc-1")),
        (
            file,
            "https://generativelanguage.googleapis.com/v1beta/files/abc:download?alt=media",
            Some("files/abc"),
        ),
        (file, "myfiles/abc", None),
        (file, "files/", None),
        (file, "files/a b", None),
        (operation, "models/veo-3/operations/o1", Some("operations/o1")),
    ] {
        assert_eq!(kind.id_in_json(text).as_deref(), expected, "{text}");
    }
    assert_eq!(file.id_in_path("abc:download"), "files/abc");
    assert_eq!(operation.id_in_path("o1"), "operations/o1");
    let plain = locate("/v1/files/x", |_| false).unwrap().0;
    assert_eq!(plain.id_in_json("file-1").as_deref(), Some("file-1"));
    assert_eq!(plain.id_in_json("file 1"), None);
    assert_eq!(plain.id_in_json(""), None);
    assert_eq!(plain.id_in_path("file-AbC"), "file-AbC");
}

#[test]
fn bodies_that_refer_to_nothing_are_few() {
    for (path, expected) in [
        ("/v1/embeddings", false),
        ("/compatible-mode/v1/embeddings", false),
        ("/v1/audio/speech", false),
        ("/v1/chat/completions", true),
        ("/v1/embeddings/x", true),
        ("/unknown", true),
    ] {
        assert_eq!(may_refer(path), expected, "{path}");
    }
}
