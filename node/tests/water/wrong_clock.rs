//! A site whose wall clock is hours wrong.

use crate::time::{hours, seconds};
use crate::works::{POSITION, Setup, Works};

/// How old an old wish is: much older than it was meant for, much less than the clock is wrong.
const OLD: u64 = 60;

/// By what the site's clock may differ from the cloud's and its error beside, in milliseconds: the age of a reading.
const READING_AGE_MS: i64 = 60_000;

fn fresh_wishes_act_and_old_ones_do_not(error_s: i64) {
    let mut works = Works::start(&Setup { clock_error_s: error_s, ..Setup::default() });
    works.shows_times_that_are_wrong_by(error_s);
    works.wish_acts(60.0);

    // Old because the link was away.
    works.cut_off();
    let late = works.wish(90.0);
    works.time.pass(seconds(OLD), 20.0);
    works.mend();
    works.wish_ends(&late, "expired");
    works.wish_acts(50.0);

    // Old because the edge was off; after its start it has to learn the cloud's time first.
    works.edge.kill();
    let late = works.wish(95.0);
    works.time.pass(seconds(OLD), 20.0);
    works.start_edge();
    works.wish_ends(&late, "expired");
    works.wish_acts(40.0);
    assert_eq!(works.plant.positions(), [60.0, 50.0, 40.0]);
}

impl Works {
    /// So that the test is about what it says.
    #[track_caller]
    fn shows_times_that_are_wrong_by(&self, error_s: i64) {
        let shown = self.cloud().twin(POSITION.0, POSITION.1)["reported"]["time"].as_i64().unwrap();
        let right = i64::try_from(self.time.wall().0).unwrap();
        assert!((shown - right - error_s * 1000).abs() < READING_AGE_MS, "{shown} shown, {right} right");
    }
}

#[test]
fn at_a_site_whose_clock_is_two_hours_ahead_fresh_wishes_act_and_old_ones_do_not() {
    fresh_wishes_act_and_old_ones_do_not(i64::try_from(hours(2).as_secs()).unwrap());
}

#[test]
fn at_a_site_whose_clock_is_two_hours_behind_fresh_wishes_act_and_old_ones_do_not() {
    fresh_wishes_act_and_old_ones_do_not(-i64::try_from(hours(2).as_secs()).unwrap());
}
