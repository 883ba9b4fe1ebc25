//! The senders, side by side in one thread: each takes the next request, sends it
//! until it is clear what became of it, and takes another.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    default_port, delivery,
    delivery::Outcome,
    grpc::Channel,
    http::Connection,
    link::{Link, Way},
    options::{Compression, Options, Protocol},
    pacing::Pacing,
    plan::Plan,
    progress::Progress,
    report::Tally,
    request::Session,
    ring::Ring,
};
use crate::endpoint::{Authority, Endpoint};

/// What the senders share. Nobody holds a borrow while waiting.
#[derive(Debug)]
pub(crate) struct Senders<'a> {
    ring: RefCell<&'a mut Ring>,
    plan: Plan,
    pacing: RefCell<Pacing>,
    tally: RefCell<Tally>,
    progress: RefCell<Progress>,
    session: Session,
    next: Cell<u64>,
    retry_for: Duration,
    started: Instant,
    /// No further request is begun; those under way are finished.
    stop: CancellationToken,
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What happened.
    pub(crate) tally: Tally,
    /// The requests below this number were sent.
    pub(crate) sent: u64,
    /// From the first sending to the last answer.
    pub(crate) took: Duration,
    /// The processor time that this process used meanwhile.
    pub(crate) cpu: Duration,
}

impl<'a> Senders<'a> {
    /// Senders that are about to begin.
    pub(crate) fn new(options: &Options, ring: &'a mut Ring) -> Self {
        let plan = ring.plan();
        let known = (plan.records != u64::MAX).then_some(plan.records);
        Senders {
            ring: RefCell::new(ring),
            plan,
            pacing: RefCell::new(Pacing::new((options.rate > 0).then_some(options.rate))),
            tally: RefCell::new(Tally::new()),
            progress: RefCell::new(Progress::new(known)),
            session: Session::random(),
            next: Cell::new(0),
            retry_for: options.retry_for,
            started: Instant::now(),
            stop: CancellationToken::new(),
        }
    }

    /// Sends until everything was sent, the time is over, a request could not be
    /// delivered, or somebody interrupts; a second interruption does not wait for answers.
    pub(crate) async fn run(mut self, options: &Options) -> Finished {
        let nodes = authorities(options);
        let gzip = options.compression == Compression::Gzip;
        let (frame, timeout) = (options.max_frame_size, options.timeout);
        let channel = |node: &Authority| Channel::new(node.clone(), gzip, frame, timeout);
        let channels: Vec<Vec<Channel>> = nodes
            .iter()
            .map(|node| (0..options.connections).map(|_| channel(node)).collect())
            .collect();
        let link = |sender: usize| {
            let ways = nodes.iter().zip(&channels).map(|(node, channels)| match options.protocol {
                Protocol::Grpc => Way::Grpc(&channels[sender % channels.len()]),
                Protocol::Http => Way::Http(Connection::new(node.clone(), gzip, timeout)),
            });
            Link::new(ways.collect(), sender)
        };
        self.started = Instant::now();
        let cpu_before = cpu_time();
        let senders: FuturesUnordered<_> =
            (0..options.in_flight).map(|sender| self.send(link(sender))).collect();
        tokio::select! {
            () = senders.collect() => {}
            () = self.show() => {}
            () = self.interrupted() => {}
            () = self.time_over(options.duration) => {}
        }
        let took = self.started.elapsed();
        let cpu = cpu_time().saturating_sub(cpu_before);
        self.progress.get_mut().finish();
        let mut tally = self.tally.into_inner();
        tally.abandon(|request| self.plan.records_in(request));
        Finished { tally, sent: self.next.get(), took, cpu }
    }

    async fn send(&self, mut link: Link<'_>) {
        while let Some(request) = self.next().await {
            let loaded = self.ring.borrow_mut().take(request);
            self.tally.borrow_mut().begin(request);
            let begun = Instant::now();
            let trouble = |reason: &str| self.trouble(reason);
            let named = self.session.request(request, loaded.bytes.clone());
            let delivery = delivery::deliver(&mut link, &named, self.retry_for, trouble).await;
            drop(named);
            match delivery.outcome {
                Outcome::Acknowledged { .. } => {
                    self.tally.borrow_mut().hear(self.started.elapsed());
                }
                Outcome::Refused { .. } => {}
                Outcome::GivenUp { .. } => self.stop.cancel(),
            }
            let (records, bytes) = (self.plan.records_in(request), loaded.bytes.len() as u64);
            self.tally.borrow_mut().end(request, records, bytes, begun.elapsed(), delivery);
            self.ring.borrow_mut().give_back(loaded, request);
        }
    }

    /// The next request's number, once it is due.
    async fn next(&self) -> Option<u64> {
        if self.stop.is_cancelled() {
            return None;
        }
        let now = self.started.elapsed();
        let due = self.pacing.borrow_mut().due(now, self.plan.batch);
        if due > now {
            let due = (self.started + due).into();
            self.stop.run_until_cancelled(sleep_until(due)).await?;
        }
        let request = self.next.get();
        if request + 1 >= self.plan.requests() {
            self.stop.cancel();
        }
        self.next.set(request + 1);
        Some(request)
    }

    fn trouble(&self, reason: &str) {
        let note = format!("{reason}; trying again for up to {:?}", self.retry_for);
        self.progress.borrow_mut().note(&note);
    }

    async fn show(&self) {
        let mut ticks = interval(self.progress.borrow().interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.progress.borrow_mut().update(&self.tally.borrow(), self.started.elapsed());
        }
    }

    /// Ends at the second interruption.
    async fn interrupted(&self) {
        // Without a handler the default stays: the process ends at once.
        if tokio::signal::ctrl_c().await.is_err() {
            return std::future::pending().await;
        }
        self.stop.cancel();
        self.progress
            .borrow_mut()
            .note("waiting for the answers that are due; once more to end now");
        let _ = tokio::signal::ctrl_c().await;
    }

    /// Never ends by itself: the senders do.
    async fn time_over(&self, duration: Option<Duration>) {
        if let Some(duration) = duration {
            sleep(duration).await;
            self.stop.cancel();
        }
        std::future::pending().await
    }
}

fn authorities(options: &Options) -> Vec<Authority> {
    let port = default_port(options.protocol);
    match options.endpoint.as_slice() {
        [] => vec![Endpoint::local().at(port)],
        endpoints => endpoints.iter().map(|endpoint| endpoint.at(port)).collect(),
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
