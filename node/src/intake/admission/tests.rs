use std::time::Duration;

use tokio::task::yield_now;

use super::*;

const MIB: usize = 1 << 20;

async fn busy(admission: &Admission, bytes: usize) -> Busy {
    admission.admit(bytes).await.expect_err("it must be refused")
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fits_is_charged_and_given_back() {
    let admission = Admission::new(100);
    let permit = admission.admit(60).await.unwrap();
    assert_eq!((admission.used(), permit.bytes()), (60, 60));
    drop(permit);
    assert_eq!(admission.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_a_second_for_room_and_is_then_told_to_come_back() {
    let admission = Admission::new(100);
    let _held = admission.admit(60).await.unwrap();
    let started = Instant::now();
    let busy = busy(&admission, 41).await;
    assert_eq!(started.elapsed(), ADMIT_WAIT);
    assert_eq!(busy.why, Why::Full);
    assert_eq!((admission.used(), admission.waiting(), admission.refused()), (60, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_gets_the_room_that_another_gives_back() {
    let admission = Admission::new(100);
    let held = admission.admit(60).await.unwrap();
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(100).await.map(|permit| permit.bytes()) }
    });
    yield_now().await;
    assert_eq!(admission.waiting(), 100);
    drop(held);
    assert_eq!(waiting.await.unwrap(), Ok(100));
    assert_eq!((admission.used(), admission.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_small_request_does_not_overtake_a_large_one_that_came_first() {
    let admission = Admission::new(100);
    let held = admission.admit(60).await.unwrap();
    let large = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(80).await }
    });
    yield_now().await;
    let small = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(30).await }
    });
    yield_now().await;
    assert_eq!(admission.used(), 60);
    drop(held);
    let large = large.await.unwrap().unwrap();
    assert_eq!(admission.used(), 80);
    drop(large);
    assert!(small.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_half_here_goes_before_one_that_has_not_begun() {
    let admission = Admission::new(100);
    let mut begun = admission.admit(40).await.unwrap();
    let other = admission.admit(60).await.unwrap();
    let new = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(40).await }
    });
    yield_now().await;
    let grown = tokio::spawn(async move {
        begun.grow(50).await.unwrap();
        begun
    });
    yield_now().await;
    drop(other);
    assert_eq!((admission.used(), admission.waiting()), (90, 40));
    drop(grown.await.unwrap());
    assert!(new.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_goes_away_while_it_waits_leaves_nothing_behind() {
    let admission = Admission::new(100);
    let held = admission.admit(100).await.unwrap();
    let gone = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(100).await.map(drop) }
    });
    let next = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(10).await.map(|permit| permit.bytes()) }
    });
    yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(admission.waiting(), 10);
    drop(held);
    assert_eq!(next.await.unwrap(), Ok(10));
    assert_eq!((admission.used(), admission.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn room_given_to_a_sender_that_went_away_in_the_same_moment_is_not_lost() {
    let admission = Admission::new(100);
    let held = admission.admit(100).await.unwrap();
    let gone = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(100).await.map(drop) }
    });
    yield_now().await;
    drop(held); // its turn has come, but it has not been polled since
    assert_eq!(admission.used(), 100);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!((admission.used(), admission.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_at_the_head_of_the_queue_lets_the_next_pass() {
    let admission = Admission::new(100);
    let _held = admission.admit(60).await.unwrap();
    let large = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(80).await.map(drop) }
    });
    yield_now().await;
    tokio::time::advance(ADMIT_WAIT / 2).await;
    let small = admission.admit(30).await.unwrap();
    assert_eq!(large.await.unwrap().unwrap_err().why, Why::Full);
    assert_eq!((admission.used(), admission.waiting()), (90, 0));
    drop(small);
}

#[tokio::test(start_paused = true)]
async fn a_closed_node_answers_at_once_and_wakes_those_that_wait() {
    let admission = Admission::new(100);
    let _held = admission.admit(100).await.unwrap();
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(1).await.map(drop) }
    });
    yield_now().await;
    let started = Instant::now();
    admission.close(Closed::DiskFull);
    assert_eq!(waiting.await.unwrap().unwrap_err().why, Why::Closed(Closed::DiskFull));
    assert_eq!(busy(&admission, 1).await.why, Why::Closed(Closed::DiskFull));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!((admission.waiting(), admission.refused()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_reopens_after_trouble_but_never_after_draining() {
    let admission = Admission::new(100);
    admission.close(Closed::StoreTrouble);
    assert_eq!(busy(&admission, 1).await.why, Why::Closed(Closed::StoreTrouble));
    admission.reopen();
    assert!(admission.admit(1).await.is_ok());
    admission.close(Closed::Draining);
    admission.reopen();
    assert_eq!(busy(&admission, 1).await.why, Why::Closed(Closed::Draining));
}

#[tokio::test(start_paused = true)]
async fn draining_lets_a_request_half_here_finish_and_a_full_disk_does_not() {
    let admission = Admission::new(100);
    let mut begun = admission.admit(10).await.unwrap();
    admission.close(Closed::Draining);
    assert_eq!(begun.grow(10).await, Ok(()));
    admission.close(Closed::DiskFull);
    assert_eq!(begun.grow(10).await.unwrap_err().why, Why::Closed(Closed::DiskFull));
    assert_eq!(begun.bytes(), 20);
}

#[tokio::test(start_paused = true)]
async fn what_a_permit_gives_back_early_is_free_for_others() {
    let admission = Admission::new(100);
    let mut permit = admission.admit(100).await.unwrap();
    permit.shrink_to(30);
    permit.shrink_to(50);
    assert_eq!((permit.bytes(), admission.used()), (30, 30));
    assert!(admission.admit(70).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_full_node_that_drains_fast_asks_for_the_shortest_delay() {
    let admission = Admission::new(64 * MIB);
    for _ in 0..100 {
        let held = admission.admit(64 * MIB).await.unwrap();
        tokio::time::advance(Duration::from_millis(200)).await;
        drop(held);
    }
    let _held = admission.admit(64 * MIB).await.unwrap();
    let busy = busy(&admission, MIB).await;
    assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MIN * 2).contains(&busy.retry_after), "{busy:?}");
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_what_is_queued_divided_by_the_drain_rate() {
    let admission = Admission::new(64 * MIB);
    let mut held: Vec<Permit> = Vec::new();
    for _ in 0..64 {
        held.push(admission.admit(MIB).await.unwrap());
    }
    // 10 MiB/s for a minute, the budget full all the time.
    for _ in 0..600 {
        tokio::time::advance(Duration::from_millis(100)).await;
        held.remove(0);
        held.push(admission.admit(MIB).await.unwrap());
    }
    // The second of waiting, in which nothing drains, lowers the rate by a fifth: 65 MiB / 8.2 MiB/s.
    let busy = busy(&admission, MIB).await;
    let expected = Duration::from_millis(7_500)..Duration::from_millis(2 * 8_500);
    assert!(expected.contains(&busy.retry_after), "{busy:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stands_still_asks_for_a_long_delay_and_an_idle_past_does_not_count() {
    let admission = Admission::new(64 * MIB);
    drop(admission.admit(MIB).await.unwrap());
    tokio::time::advance(Duration::from_secs(3600)).await;
    let _held = admission.admit(64 * MIB).await.unwrap();
    let first = busy(&admission, 1).await;
    assert!(first.retry_after < Duration::from_secs(3), "{first:?}");
    tokio::time::advance(Duration::from_secs(60)).await;
    let later = busy(&admission, 1).await;
    assert!((RETRY_AFTER_MAX / 2..=RETRY_AFTER_MAX).contains(&later.retry_after), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn senders_refused_together_are_told_different_delays() {
    let admission = Admission::new(1);
    admission.close(Closed::Draining);
    let first = busy(&admission, 1).await.retry_after;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(busy(&admission, 1).await.retry_after);
    }
    assert!(others.iter().any(|other| *other != first));
}

/// Lets so many seconds pass.
async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

fn assert_percent(admission: &Admission, expected: f64) {
    let percent = admission.used_percent();
    assert!((percent - expected).abs() < 1e-6, "{percent}, not {expected}");
}

#[tokio::test(start_paused = true)]
async fn the_use_of_a_minute_is_the_mean_over_its_time() {
    let admission = Admission::new(100);
    assert_percent(&admission, 0.0);
    let first = admission.admit(40).await.unwrap();
    pass(30).await;
    assert_percent(&admission, 20.0);
    let second = admission.admit(40).await.unwrap();
    pass(15).await;
    assert_percent(&admission, (30.0 * 40.0 + 15.0 * 80.0) / 60.0);
    drop((first, second));
    pass(15).await;
    assert_percent(&admission, 40.0);
}

#[tokio::test(start_paused = true)]
async fn what_was_used_for_a_part_of_a_second_counts_for_that_part() {
    let admission = Admission::new(100);
    assert_percent(&admission, 0.0);
    // So that some of the time lies on both sides of a second's end.
    tokio::time::advance(Duration::from_millis(400)).await;
    for _ in 0..122 {
        let held = admission.admit(100).await.unwrap();
        tokio::time::advance(Duration::from_millis(250)).await;
        drop(held);
        tokio::time::advance(Duration::from_millis(250)).await;
    }
    assert_percent(&admission, 50.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_a_minute_does_not_count() {
    let admission = Admission::new(100);
    let held = admission.admit(60).await.unwrap();
    pass(60).await;
    assert_percent(&admission, 60.0);
    drop(held);
    pass(59).await;
    assert_percent(&admission, 1.0);
    pass(1).await;
    assert_percent(&admission, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_asks_for_a_day_still_knows_its_last_minute() {
    let admission = Admission::new(100);
    let held = admission.admit(30).await.unwrap();
    tokio::time::advance(Duration::from_millis(24 * 3600 * 1000 + 400)).await;
    assert_percent(&admission, 30.0);
    drop(held);
    pass(30).await;
    assert_percent(&admission, (30.0 * 30.0 + 0.4 * 30.0) / 60.0);
}

#[tokio::test(start_paused = true)]
async fn a_second_in_which_a_request_finds_no_room_counts_as_full() {
    let admission = Admission::new(100);
    let _held = admission.admit(60).await.unwrap();
    assert_eq!(busy(&admission, 50).await.why, Why::Full); // a second later
    pass(1).await;
    assert_percent(&admission, (60.0 + 100.0) / 60.0);
    pass(58).await;
    assert_percent(&admission, (59.0 * 60.0 + 100.0) / 60.0);
    pass(2).await;
    assert_percent(&admission, 60.0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_node_is_not_a_full_one() {
    let admission = Admission::new(100);
    admission.close(Closed::Leaderless);
    for _ in 0..60 {
        let _ = busy(&admission, 50).await;
        pass(1).await;
    }
    assert_percent(&admission, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn senders_that_come_grow_and_go_at_random_leave_the_budget_whole() {
    let admission = Admission::new(1000);
    let senders: Vec<_> = (0..64)
        .map(|_| {
            let admission = admission.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    let patience = Duration::from_micros(fastrand::u64(0..300));
                    let request = async {
                        let mut permit = admission.admit(fastrand::usize(0..300)).await?;
                        assert!(admission.used() <= admission.capacity());
                        yield_now().await;
                        permit.grow(fastrand::usize(0..300)).await?;
                        permit.shrink_to(fastrand::usize(0..300));
                        Ok::<_, Busy>(())
                    };
                    let _ = tokio::time::timeout(patience, request).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!((admission.used(), admission.waiting()), (0, 0));
    assert!(admission.admit(1000).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_its_cluster_takes_nothing_again() {
    let admission = Admission::new(100);
    for why in [Closed::Leaving, Closed::Gone] {
        admission.close(why);
        admission.close(Closed::DiskFull);
        admission.reopen();
        assert_eq!(admission.closed(), Some(why));
        assert_eq!(busy(&admission, 1).await.why, Why::Closed(why));
    }
}
