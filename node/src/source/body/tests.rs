use std::convert::Infallible;

use futures::channel::mpsc;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

const MAX: usize = 64 << 20;

fn frames_of(pieces: &[Bytes]) -> Frames<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
    let frames: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(piece.clone()))).collect();
    Frames::new(StreamBody::new(stream::iter(frames)), &Limits::default())
}

async fn collect(pieces: &[Bytes], promised: Option<usize>) -> Result<Held, Refusal> {
    let admission = Admission::new(MAX);
    frames_of(pieces).collect(Bytes::new(), promised, MAX, &admission).await
}

#[tokio::test]
async fn a_body_of_one_frame_is_not_copied() {
    let only = Bytes::from(vec![7; 100_000]);
    for promised in [None, Some(only.len())] {
        let held = collect(&[Bytes::new(), only.clone()], promised).await.unwrap();
        assert_eq!((held.bytes.as_ptr(), held.bytes.len()), (only.as_ptr(), only.len()));
        assert_eq!(held.permit.bytes(), only.len());
    }
}

#[tokio::test]
async fn frames_are_joined_and_charged_for_what_they_are() {
    let pieces: Vec<Bytes> =
        (0..100).map(|piece| Bytes::from(vec![piece; 1 + 37 * piece as usize])).collect();
    let whole = pieces.concat();
    for promised in [None, Some(whole.len())] {
        let held = collect(&pieces, promised).await.unwrap();
        assert_eq!((held.bytes.as_ref(), held.permit.bytes()), (&whole[..], whole.len()));
    }
}

#[tokio::test]
async fn what_is_charged_is_at_most_twice_what_has_arrived_and_never_above_the_promise() {
    const FRAME: usize = 16 << 10;
    const PROMISED: usize = 10 * FRAME + 1;
    let admission = Admission::new(MAX);
    let (sender, body) = mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
    let mut frames = Frames::new(StreamBody::new(body), &Limits::default());
    let mut collected = Box::pin(frames.collect(Bytes::new(), Some(PROMISED), MAX, &admission));
    for sent in 0..=10 {
        assert!(futures::poll!(&mut collected).is_pending());
        let arrived = sent * FRAME;
        let charged = admission.used();
        assert!(
            (arrived..=PROMISED.min(2 * arrived)).contains(&charged),
            "{charged} for {arrived}"
        );
        sender
            .unbounded_send(Ok(Frame::data(Bytes::from(vec![0; FRAME.min(PROMISED - arrived)]))))
            .unwrap();
    }
    drop(sender);
    assert_eq!(collected.await.unwrap().bytes.len(), PROMISED);
    assert_eq!(admission.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn frames_without_data_do_not_keep_a_body_alive() {
    let empty = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::new())), ()))
    });
    let start = Instant::now();
    let mut frames = Frames::new(StreamBody::new(Box::pin(empty)), &Limits::default());
    assert!(matches!(frames.next().await, Err(Refusal::TooSlow)));
    assert_eq!(start.elapsed(), Limits::default().frame_wait);
}
