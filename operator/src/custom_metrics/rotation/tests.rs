use super::*;

const HOST: &str = "operator.sheaf-system.svc";
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn made(now: Timestamp) -> Certificate {
    Certificate::make(HOST, now, VALID_FOR).unwrap()
}

/// What an operator that acts does once.
fn act(certificates: Certificates, now: Timestamp) -> Certificates {
    match certificates.due(now) {
        Due::Nothing => certificates,
        Due::Renewal => certificates.renewed(made(now)),
        Due::Retirement => certificates.retired(),
    }
}

#[test]
fn what_is_written_is_read_again() {
    let one = Certificates::first(made(start()));
    let two = one.clone().renewed(made(start() + RENEWED_AFTER));
    for certificates in [one, two] {
        assert!(Certificates::read(&certificates.write()) == Ok(Some(certificates)));
    }
    assert!(Certificates::read(&Files::new()) == Ok(None));
}

#[test]
fn what_somebody_else_wrote_is_no_certificate() {
    let full = Certificates::first(made(start())).renewed(made(start())).write();
    for file in full.keys() {
        let mut missing = full.clone();
        missing.remove(file);
        let wrong = Certificates::read(&missing).map(drop).unwrap_err();
        assert!(wrong.to_string().starts_with(file), "{wrong}");
        let mut other = full.clone();
        other.get_mut(file).unwrap().0 = b"other".to_vec();
        assert!(Certificates::read(&other).is_err(), "{file}");
    }
}

#[test]
fn a_certificate_is_renewed_long_before_it_runs_out() {
    let first = Certificates::first(made(start()));
    assert_eq!(first.due(start()), Due::Nothing);
    assert_eq!(first.due(start() + RENEWED_AFTER - MINUTE), Due::Nothing);
    assert_eq!(first.due(start() + RENEWED_AFTER), Due::Renewal);
    assert_eq!(first.due(start() + VALID_FOR * 2), Due::Renewal);
}

#[test]
fn a_new_certificate_is_served_only_after_everybody_has_heard_of_it() {
    let first = Certificates::first(made(start()));
    assert!(first.served(start()) == &first.newest, "there is no other");
    let now = start() + RENEWED_AFTER;
    let second = act(first.clone(), now);
    for early in [now - SETTLES_AFTER, now, now + SETTLES_AFTER - MINUTE] {
        assert!(second.served(early) == &first.newest);
    }
    assert!(second.served(now + SETTLES_AFTER) == &second.newest);
}

#[test]
fn whoever_serves_is_trusted_at_every_moment_and_by_every_clock_that_is_little_off() {
    let mut certificates = Certificates::first(made(start()));
    let mut renewals = 0;
    for minutes in (0..300 * 24 * 60).step_by(20) {
        let now = start() + SignedDuration::from_mins(minutes);
        let before = certificates.clone();
        certificates = act(certificates, now);
        renewals += u32::from(before.newest != certificates.newest);
        for off in [-SETTLES_AFTER, SignedDuration::ZERO, SETTLES_AFTER] {
            let here = now + off / 2;
            // Some have not read what is new, some API servers have not heard what to trust.
            for known in [&before, &certificates] {
                for trusted in [&before, &certificates] {
                    let served = known.served(here);
                    assert!(trusted.trusted().contains(&served.authority), "at {here}");
                    assert!(served.is_valid(now), "at {here}");
                }
            }
        }
    }
    assert_eq!(renewals, 4, "in 300 days");
}

#[test]
fn the_one_before_is_dropped_when_nobody_serves_it_any_more() {
    let now = start() + RENEWED_AFTER;
    let second = act(Certificates::first(made(start())), now);
    assert_eq!(second.due(now + SETTLES_AFTER), Due::Nothing);
    assert_eq!(second.due(now + SETTLES_AFTER * 2), Due::Retirement);
    let alone = second.clone().retired();
    assert_eq!(alone.trusted(), second.newest.authority);
    assert_eq!(alone.due(now + SETTLES_AFTER * 2), Due::Nothing);
}

#[test]
fn an_operator_that_comes_back_after_months_serves_what_is_valid_at_once() {
    let now = start() + VALID_FOR * 2;
    let renewed = act(Certificates::first(made(start())), now);
    assert!(renewed.served(now) == &renewed.newest);
}

#[test]
fn what_a_clock_far_ahead_has_made_is_made_anew() {
    let ahead = Certificates::first(made(start() + VALID_FOR));
    assert_eq!(ahead.due(start()), Due::Renewal);
    let slightly = Certificates::first(made(start() + MINUTE));
    assert_eq!(slightly.due(start()), Due::Nothing);
    let renewed = act(ahead, start());
    assert!(renewed.served(start()) == &renewed.newest);
}
