use super::*;

const DAY: u64 = 24 * 3_600_000;
const VALIDITY: u64 = 90 * DAY;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(ms) }
}

fn from(ms: u64) -> News {
    News::Shown(Certificate { not_before: UnixMillis(ms), not_after: UnixMillis(ms + VALIDITY) })
}

fn renewed(ms: u64, validity: u64) -> News {
    News::Renewed(Certificate { not_before: UnixMillis(ms), not_after: UnixMillis(ms + validity) })
}

fn failed(verdict: Verdict, retry_after_s: u64) -> News {
    News::Failed { why: "no answer".to_owned(), verdict, retry_after: Duration::from_secs(retry_after_s) }
}

/// Lets time pass until the machine wants something, or `until` has come.
fn wish(renewal: &mut Renewal, until: u64) -> Option<(u64, Wish)> {
    let mut now = 0;
    loop {
        if let Some(wish) = renewal.poll_output() {
            return Some((now, wish));
        }
        now = renewal.poll_timeout()?.0.0.div_ceil(1000);
        if now > until {
            return None;
        }
        renewal.handle_timeout(at(now));
    }
}

fn edge(seed: u64) -> Renewal {
    let mut renewal = Renewal::new(NodeKind::Edge, seed);
    assert_eq!((renewal.poll_output(), renewal.poll_timeout()), (None, None));
    assert!(!renewal.handle(from(0), at(0)), "the first is no change");
    renewal
}

#[test]
fn a_fleet_that_joined_on_one_day_asks_within_a_week_when_a_third_is_left() {
    let mut asked: Vec<u64> = (0..1000)
        .map(|seed| {
            let mut renewal = edge(seed * 77);
            renewal.handle_link(true, at(1));
            let (when, what) = wish(&mut renewal, VALIDITY).unwrap();
            assert_eq!(what, Wish::Renew);
            when
        })
        .collect();
    asked.sort_unstable();
    let (latest, earliest) = (VALIDITY - VALIDITY / 3, VALIDITY - VALIDITY / 3 - VALIDITY / 12);
    assert!(earliest <= asked[0] && asked[999] <= latest + 1, "{} {}", asked[0], asked[999]);
    let busiest = (0..8).map(|day| asked.iter().filter(|when| **when / DAY == earliest / DAY + day).count());
    assert!(busiest.max().unwrap() < 250, "no day has a quarter of them");
}

#[test]
fn what_is_shown_next_is_due_by_its_own_dates_and_links_are_made_anew() {
    let mut renewal = edge(1);
    renewal.handle_link(true, at(1));
    let (when, _) = wish(&mut renewal, VALIDITY).unwrap();
    assert_eq!(renewal.poll_timeout(), None, "the shell answers");
    assert!(renewal.handle(renewed(when, VALIDITY), at(when)));
    let (again, what) = wish(&mut renewal, u64::MAX / 2000).unwrap();
    assert_eq!(what, Wish::Renew);
    assert!(again > when + VALIDITY / 2 && again <= when + VALIDITY - VALIDITY / 3 + 1);
}

#[test]
fn without_its_cloud_an_edge_asks_only_once_its_certificate_is_over() {
    let mut renewal = edge(1);
    assert_eq!(wish(&mut renewal, VALIDITY), None);
    let (when, what) = wish(&mut renewal, VALIDITY + 1).unwrap();
    assert_eq!((when, what), (VALIDITY + 1, Wish::Renew));
    // And does so again, each time after a longer wait, until it succeeds.
    let mut now = when;
    for _ in 0..20 {
        renewal.handle(failed(Verdict::Open, 0), at(now));
        let (next, what) = wish(&mut renewal, u64::MAX / 2000).unwrap();
        assert_eq!(what, Wish::Renew);
        assert!(next - now <= LONGEST_WAIT.as_millis() as u64);
        now = next;
    }
    assert_eq!(renewal.failed(), 20);
}

#[test]
fn an_edge_that_comes_back_due_asks_soon_after_its_link_stands() {
    let mut renewal = edge(1);
    assert_eq!(wish(&mut renewal, 80 * DAY), None);
    renewal.handle_link(true, at(80 * DAY));
    let (when, what) = wish(&mut renewal, 81 * DAY).unwrap();
    assert_eq!(what, Wish::Renew);
    assert!(when <= 80 * DAY + 600_001);
}

#[test]
fn an_edge_whose_clock_is_behind_asks_when_the_cloud_says_that_its_certificate_is_over() {
    let mut renewal = edge(1);
    renewal.handle(News::Over, at(5));
    assert_eq!(renewal.poll_output(), Some(Wish::Renew));
    // Said at each dial, and asked no faster for that.
    renewal.handle(failed(Verdict::Open, 600), at(6));
    renewal.handle(News::Over, at(7));
    assert_eq!(renewal.poll_output(), None);
    assert!(renewal.poll_timeout().unwrap().0 >= at(600_006).mono);
}

#[test]
fn a_certificate_that_ends_before_the_one_it_follows_is_shown_and_renewed_in_its_turn() {
    let mut renewal = edge(1);
    renewal.handle_link(true, at(1));
    let (when, _) = wish(&mut renewal, VALIDITY).unwrap();
    // The operator has made them short.
    let short = 7 * DAY;
    assert!(when + short < VALIDITY);
    assert!(renewal.handle(renewed(when, short), at(when)), "links are made anew with it");
    let (again, what) = wish(&mut renewal, VALIDITY).unwrap();
    assert_eq!(what, Wish::Renew);
    assert!(again > when + short / 2 && again <= when + short - short / 3 + 1);
}

#[test]
fn a_new_certificate_that_is_over_by_a_wrong_clock_is_not_asked_for_in_a_circle() {
    let mut renewal = edge(1);
    let mut now = 10 * VALIDITY;
    let mut asked = 0;
    while now < 10 * VALIDITY + 3_600_000 {
        renewal.handle_timeout(at(now));
        while let Some(what) = renewal.poll_output() {
            assert_eq!(what, Wish::Renew);
            asked += 1;
            renewal.handle(renewed(asked, VALIDITY), at(now));
        }
        now = renewal.poll_timeout().unwrap().0.0.div_ceil(1000);
    }
    assert!((5..100).contains(&asked), "{asked} in an hour");
}

#[test]
fn a_link_that_comes_up_does_not_hurry_an_edge_that_was_told_to_stay_away() {
    let mut renewal = edge(1);
    renewal.handle_link(true, at(80 * DAY));
    assert!(wish(&mut renewal, 81 * DAY).is_some());
    renewal.handle(failed(Verdict::Open, 3600), at(80 * DAY));
    renewal.handle_link(false, at(80 * DAY + 1));
    renewal.handle_link(true, at(80 * DAY + 2));
    assert!(renewal.poll_timeout().unwrap().0 >= at(80 * DAY + 3_600_000).mono);
}

#[test]
fn a_cloud_renews_its_own_without_a_link() {
    let mut renewal = Renewal::new(NodeKind::Cloud, 3);
    renewal.handle(from(0), at(0));
    let (when, what) = wish(&mut renewal, VALIDITY).unwrap();
    assert_eq!(what, Wish::Renew);
    assert!(when <= VALIDITY - VALIDITY / 3 + 1);
}

#[test]
fn an_edge_that_is_turned_away_twice_shows_its_other_certificate() {
    let mut renewal = edge(1);
    renewal.handle(News::TurnedAway, at(1));
    renewal.handle_link(true, at(1));
    renewal.handle_link(false, at(2));
    renewal.handle(News::TurnedAway, at(2));
    assert_eq!(renewal.poll_output(), None, "a link in between proves the key");
    renewal.handle(failed(Verdict::Unknown, 0), at(3));
    assert_eq!(renewal.poll_output(), Some(Wish::ShowOther));
}

#[test]
fn people_are_told_how_long_it_holds_and_why_it_is_not_renewed() {
    let mut renewal = edge(1);
    let state = |renewal: &Renewal, day: u64| renewal.status(UnixMillis(day * DAY))["state"].clone();
    assert_eq!(state(&renewal, 1), "renews itself");
    assert_eq!(state(&renewal, 91), "expired, and waits for the cloud");
    assert_eq!(state(&renewal, 181), "too old to be renewed: join again, then restart it");
    renewal.handle(failed(Verdict::Open, 0), at(61 * DAY));
    let status = renewal.status(UnixMillis(61 * DAY));
    assert_eq!(status["state"], "cannot be renewed so far");
    assert_eq!(status["last_failure"]["why"], "no answer");
    let is_trouble =
        |renewal: &Renewal, ms: u64| renewal.status(UnixMillis(ms))["last_failure"]["is_trouble"].as_bool();
    let due = renewal.status(UnixMillis(0))["renewed_from"].as_u64().unwrap();
    assert_eq!(is_trouble(&renewal, due - 1), Some(false), "nothing is due");
    renewal.handle_link(true, at(due - 1));
    assert_eq!(is_trouble(&renewal, due - 1), None, "and the cloud is there");
    renewal.handle(failed(Verdict::Open, 0), at(due));
    renewal.handle(failed(Verdict::Open, 0), at(due + 3_000_000));
    assert_eq!(is_trouble(&renewal, due + 3_000_000), Some(false), "a cloud may be busy");
    assert_eq!(is_trouble(&renewal, due + 3_600_000), Some(true));
    assert_eq!(status["until"], VALIDITY);
}

#[test]
fn a_deleted_edge_that_tries_both_of_its_certificates_asks_ever_less_often() {
    let mut renewal = Renewal::new(NodeKind::Edge, 5);
    let pair = |newer: bool| {
        let not_before = UnixMillis(u64::from(newer));
        News::Shown(Certificate { not_before, not_after: UnixMillis(1000 + u64::from(newer)) })
    };
    renewal.handle(pair(true), at(5000));
    let (mut now, mut asked, mut newer) = (5000, 0, true);
    while now < 24 * 3_600_000 {
        while let Some(wish) = renewal.poll_output() {
            match wish {
                Wish::Renew => {
                    asked += 1;
                    renewal.handle(failed(Verdict::Unknown, 0), at(now));
                }
                Wish::ShowOther => {
                    newer = !newer;
                    assert!(!renewal.handle(pair(newer), at(now)), "no link is hurried for that");
                }
            }
        }
        now = renewal.poll_timeout().unwrap().0.0.div_ceil(1000);
        renewal.handle_timeout(at(now));
    }
    // The longest wait is 5 minutes, 2.5 on average.
    assert!((200..1000).contains(&asked), "{asked} in a day");
}
