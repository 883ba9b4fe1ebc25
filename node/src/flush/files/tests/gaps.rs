//! What waits behind gaps.

use super::*;
use crate::flush::gaps::FILE_BYTES_MAX;

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_gap_outlives_the_journal() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 3), "three");
    it.append(3, ("a", 1), "one ");
    it.cut(4).await;
    assert_eq!(
        (it.read("a"), it.kept("a"), it.flushed()),
        ("one ".to_owned(), Some((4, 1)), (1, 1))
    );
    assert_eq!(it.cluster.now().balance(FILES).unwrap().pending, 0);
    life.end().await.unwrap();
    let life = it.node.start();
    it.append(5, ("a", 2), "two ");
    it.cut(6).await;
    assert_eq!((it.read("a"), it.kept("a")), ("one two three".to_owned(), Some((13, 0))));
    assert_eq!(it.flushed(), (3, 3));
    let left = it.node.files().with_gaps(FILES, Setting::key("a").slot()).unwrap();
    assert!(!left.is_empty(), "the checkpoint before has it");
    it.append(7, ("a", 4), "!");
    it.cut(8).await;
    let left = it.node.files().with_gaps(FILES, Setting::key("a").slot()).unwrap();
    assert!(left.is_empty());
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_checkpoint_has_behind_a_gap_takes_no_memory() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 3), "three");
    it.append(3, ("a", 2), "two ");
    everybody_waits().await;
    it.cut(3).await;
    assert_eq!(it.waiting(), (2, 9, 9));
    it.cut(4).await;
    it.append(5, ("a", 5), "five");
    everybody_waits().await;
    it.cut(5).await;
    assert_eq!(it.waiting(), (3, 13, 4));
    life.end().await.unwrap();
    let life = it.node.start();
    it.cut(6).await;
    it.cut(7).await;
    assert_eq!(it.waiting(), (3, 13, 0), "nor does it in another life");
    it.append(8, ("a", 1), "one ");
    it.cut(8).await;
    assert_eq!((it.read("a"), it.kept("a")), ("one two three".to_owned(), Some((13, 1))));
    it.append(9, ("a", 4), " four ");
    everybody_waits().await;
    it.cut(9).await;
    assert_eq!((it.read("a"), it.waiting()), ("one two three four five".to_owned(), (0, 0, 0)));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_behind_whose_gap_too_much_waits_is_told_of_until_it_is_closed() {
    let it = Setting::new();
    let mut life = it.node.start();
    let payload: &str = "x".repeat(FILE_BYTES_MAX as usize / 4).leak();
    let told = |life: &Life| life.folding.gaps().iter().collect::<Vec<_>>();
    for seq in 2..5 {
        it.append(3, ("a", seq), payload);
    }
    it.append(3, ("b", 2), "x");
    it.cut(3).await;
    assert_eq!(told(&life), []);
    it.append(3, ("a", 6), payload);
    it.cut(4).await;
    let gap = (Setting::key("a").hash, 7, Sequence::FIRST);
    assert_eq!(told(&life), [gap]);
    life.end().await.unwrap();
    life = it.node.start();
    it.cut(5).await;
    assert_eq!(told(&life), [gap], "from the database");
    it.append(6, ("a", 1), "one");
    it.cut(6).await;
    assert_eq!(told(&life), [], "what is left is not much");
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_to_close_the_gaps_of_what_has_ended() {
    let it = Setting::new();
    let life = it.node.start();
    let payload: &str = "x".repeat(FILE_BYTES_MAX as usize + 1).leak();
    it.append(3, ("a", 2), payload);
    it.cut(4).await;
    assert!(!life.folding.gaps().is_empty());
    let definitions = [("by-foo".to_owned(), definition("by-foo", 10))].into();
    it.cluster.apply(Command::Register { definitions });
    it.cut(5).await;
    it.cut(6).await;
    assert!(life.folding.gaps().is_empty());
    runs(life).await;
}
