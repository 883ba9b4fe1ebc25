//! What the other owners of a slot get.

use super::*;

#[tokio::test(start_paused = true)]
async fn another_owner_gets_what_it_lacks_and_nothing_twice() {
    let (it, life) = two_checkpoints().await;
    let ((_root, there), here) = (other(), it.node.files());
    assert_eq!(
        parts(&here, ask(&there, 9)).into_iter().collect::<BTreeSet<_>>(),
        ["a true", "2 chunks", "one two ", "4 waits: b\"four\"", "b true", "1 chunks", "x"]
            .map(str::to_owned)
            .into()
    );
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    for id in ["a", "b"] {
        let key = Setting::key(id);
        assert_eq!(there.kept(&key).unwrap(), here.kept(&key).unwrap());
        assert_eq!(content(&there, id), it.read(id));
    }
    it.append(7, ("a", 3), "three ");
    it.cut(8).await;
    let news = ["a true", "2 chunks", "three four", "b true"].map(str::to_owned);
    let sent: BTreeSet<_> = parts(&here, ask(&there, 9)).into_iter().collect();
    assert_eq!(sent, news.into());
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    assert_eq!(content(&there, "a"), "one two three four");
    let key = Setting::key("a");
    let version = there.kept(&key).unwrap().unwrap().now;
    let mut session_end = there.open(&key, &stream("a"), version.reached, version.reached).unwrap();
    let mut own_end = here.open(&key, &stream("a"), version.reached, version.reached).unwrap();
    for seq in 1..=4 {
        let seq = Sequence::try_from(seq).unwrap();
        assert_eq!(session_end.fingerprint(seq).unwrap(), own_end.fingerprint(seq).unwrap());
    }
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_waits_for_its_first_chunk_goes_to_the_other_owners_too() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 2), "two");
    it.cut(4).await;
    let ((_root, there), here) = (other(), it.node.files());
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    let key = Setting::key("a");
    assert_eq!(there.kept(&key).unwrap(), here.kept(&key).unwrap());
    assert_eq!((it.kept("a"), content(&there, "a")), (Some((0, 1)), String::new()));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_up_to_a_checkpoint_gets_nothing_that_is_newer() {
    let (it, life) = two_checkpoints().await;
    let ((_root, there), here) = (other(), it.node.files());
    copy_files(&here, &there, ask(&there, 1)).unwrap();
    assert_eq!(content(&there, "a"), "one ");
    let kept = there.kept(&Setting::key("a")).unwrap().unwrap();
    assert_eq!((kept.now.checkpoint, kept.before), (1, None));
    assert_eq!(there.waiting(&Setting::key("a"), &kept.now).unwrap().len(), 1);
    assert!(parts(&here, ask(&there, 0)).is_empty());
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_beyond_or_beside_what_the_owners_have_are_replaced() {
    let (it, life) = two_checkpoints().await;
    let ((_root, there), here) = (other(), it.node.files());
    let key = Setting::key("a");
    copy_files(&here, &there, ask(&there, 1)).unwrap();
    let path = there.path(FILES, &stream("a"), 7);
    fs::write(&path, "one and a tail that no checkpoint has").unwrap();
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    assert_eq!(content(&there, "a"), "one two ");

    // A file that lost something, and one that began as another.
    fs::write(&path, "one").unwrap();
    assert_eq!(ask(&there, 9).known[&key], Known::default());
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    let mut asked = ask(&there, 9);
    asked.known.get_mut(&key).unwrap().reached.digest.0 ^= 1;
    let sent = parts(&here, asked);
    assert!(sent.contains(&"a false".to_owned()), "{sent:?}");
    assert!(sent.contains(&"one two ".to_owned()), "{sent:?}");
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_state_that_is_in_no_row_any_more_is_recognised_by_its_chunks() {
    let (it, life) = two_checkpoints().await;
    let ((_root, there), here) = (other(), it.node.files());
    copy_files(&here, &there, ask(&there, 1)).unwrap();
    for (second, seq, payload) in [(7, 3, "three "), (9, 5, "five"), (11, 6, "six")] {
        it.append(second, ("a", seq), payload);
        it.cut(second + 1).await;
    }
    let sent = parts(&here, ask(&there, 9));
    assert!(
        sent.contains(&"a true".to_owned()) && sent.contains(&"5 chunks".to_owned()),
        "{sent:?}"
    );
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    assert_eq!(content(&there, "a"), it.read("a"));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_off_counts_for_nothing() {
    let (it, life) = two_checkpoints().await;
    let ((_root, there), here) = (other(), it.node.files());
    let all: Vec<_> = here.lend(ask(&there, 9)).unwrap().map(Result::unwrap).collect();
    for count in 1..all.len() {
        let mut incoming = there.receive(&ask(&there, 9), |_| true);
        let taken: Result<(), _> =
            all[..count].iter().cloned().try_for_each(|part| incoming.take(part));
        let finished = taken.and_then(|()| incoming.finish());
        for (id, length) in [("a", 8), ("b", 1)] {
            if let Some(kept) = there.kept(&Setting::key(id)).unwrap() {
                assert_eq!(kept.now.reached.length, length);
                let whole = fs::metadata(there.path(FILES, &stream(id), 7)).unwrap();
                assert!(finished.is_ok() && whole.len() == length, "{count}");
                there.forget(FILES, Setting::key(id).slot(), 9, |_| true).unwrap();
            }
        }
    }
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_folds_a_slot_or_does_not_own_it_takes_nothing_of_its_files() {
    let (it, life) = two_checkpoints().await;
    let ((_root, there), here) = (other(), it.node.files());
    let take = |may_keep: bool| {
        let mut incoming = there.receive(&ask(&there, 9), |_| may_keep);
        let mut parts = here.lend(ask(&there, 9)).unwrap().map(Result::unwrap);
        parts.try_for_each(|part| incoming.take(part)).and_then(|()| incoming.finish())
    };
    let folded = there.fold(SlotSet::all(256));
    let refused = take(true).unwrap_err();
    assert!(matches!(refused, FilesError::Moved { .. }), "{refused}");
    assert_eq!(there.forget(FILES, Setting::key("a").slot(), 9, |_| true).unwrap(), 0);
    drop(folded);
    let refused = take(false).unwrap_err();
    assert!(matches!(refused, FilesError::Moved { .. }), "{refused}");
    assert_eq!(there.kept(&Setting::key("a")).unwrap(), None);
    take(true).unwrap();
    assert_eq!(content(&there, "a"), "one two ");
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_others_have_gone_on_from_is_not_written_again() {
    let (it, life) = two_checkpoints().await;
    let (files, key) = (it.node.files(), Setting::key("a"));
    let before = files.kept(&key).unwrap();
    let late = Change { key, id: stream("a"), found: Found::default() };
    files.keep(&[late], &[(key.slot(), 1)].into(), at(2)).unwrap();
    assert_eq!(files.kept(&key).unwrap(), before);
    runs(life).await;
}
