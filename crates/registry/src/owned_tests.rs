use super::*;

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl ObjectJournal for Lines {
    fn record(&self, change: ObjectChange) -> PortFuture<'static, bool> {
        let line = match change {
            ObjectChange::Made(made) => format!("{} {} {} {}", made.id, made.kind, made.owner, made.channel),
            ObjectChange::Gone(id) => format!("-{id}"),
        };
        lock(&self.0).push(line);
        Box::pin(std::future::ready(true))
    }
}

fn seen<'a>(id: &'a str, owner: &'a str) -> Seen<'a> {
    Seen { id, kind: "file", owner, channel: "openai", now: 7, replace: false }
}

fn owner(objects: &OwnedObjects, id: &str) -> Option<String> {
    objects.get(id).map(|owned| owned.owner.to_string())
}

#[test]
fn the_first_owner_stays_unless_the_platform_made_the_object_anew() {
    let objects = OwnedObjects::new(10);
    assert!(matches!(objects.insert(seen("file-1", "a")), Outcome::New(_)));
    assert!(matches!(objects.insert(seen("file-1", "a")), Outcome::Known));
    assert!(matches!(objects.insert(seen("file-1", "b")), Outcome::Taken));
    let moved = Seen { channel: "azure", ..seen("file-1", "a") };
    assert!(matches!(objects.insert(moved), Outcome::Taken));
    assert_eq!(owner(&objects, "file-1").as_deref(), Some("a"));
    // Of the same name on another account: whoever made the first one keeps it.
    let namesake = Seen { channel: "azure", replace: true, ..seen("file-1", "b") };
    assert!(matches!(objects.insert(namesake), Outcome::Taken));
    assert_eq!(owner(&objects, "file-1").as_deref(), Some("a"));
    assert!(matches!(objects.insert(Seen { replace: true, ..seen("file-1", "b") }), Outcome::New(_)));
    assert_eq!(owner(&objects, "file-1").as_deref(), Some("b"));
    assert_eq!((objects.len(), objects.taken()), (1, 3));
    // Ids compare exactly.
    assert_eq!(owner(&objects, "FILE-1"), None);
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let objects = OwnedObjects::new(3);
    for id in ["1", "2", "3", "4", "5"] {
        let _ = objects.insert(seen(id, "a"));
    }
    assert_eq!((objects.len(), objects.forgotten()), (3, 2));
    assert_eq!(owner(&objects, "2"), None);
    assert!(owner(&objects, "3").is_some());
    // One that was removed and made again is young.
    assert!(objects.remove("3"));
    let _ = objects.insert(seen("3", "b"));
    let _ = objects.insert(seen("6", "a"));
    assert_eq!(owner(&objects, "4"), None);
    assert_eq!(owner(&objects, "3").as_deref(), Some("b"));
    assert_eq!(objects.len(), 3);
}

#[test]
fn removed_ids_do_not_pile_up() {
    let objects = OwnedObjects::new(10);
    for n in 0..10_000 {
        let id = n.to_string();
        let _ = objects.insert(seen(&id, "a"));
        assert!(objects.remove(&id));
        assert!(!objects.remove(&id));
    }
    assert!(objects.is_empty());
    assert!(lock(&objects.order).len() <= 64);
    assert_eq!(objects.forgotten(), 0);
}

#[test]
fn the_journal_hears_of_changes_only() {
    let journal = Arc::new(Lines::default());
    let record = ObjectRecord {
        id: "file-0".into(),
        kind: "file".into(),
        owner: "a".into(),
        channel: "openai".into(),
        created: 1,
    };
    let objects =
        OwnedObjects::kept(10, Arc::clone(&journal) as Arc<dyn ObjectJournal>, [record.clone(), record]);
    assert_eq!(objects.len(), 1);
    let _ = objects.insert(seen("file-0", "a"));
    let _ = objects.insert(seen("file-0", "b"));
    let _ = objects.insert(seen("file-1", "b"));
    objects.remove("file-0");
    objects.remove("file-9");
    assert_eq!(*lock(&journal.0), ["file-1 file b openai", "-file-0"]);
}

#[test]
fn many_threads_agree_on_one_owner_and_one_count() {
    let objects = OwnedObjects::new(500);
    std::thread::scope(|scope| {
        for owner in ["a", "b", "c", "d"] {
            let objects = &objects;
            scope.spawn(move || {
                for n in 0..2000 {
                    let id = format!("file-{n}");
                    let _ = objects.insert(seen(&id, owner));
                    if n % 7 == 0 {
                        objects.remove(&id);
                    }
                }
            });
        }
    });
    assert_eq!(objects.len(), objects.entries.len());
    assert!(objects.len() <= 500, "{}", objects.len());
}
