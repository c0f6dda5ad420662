//! The kit is tested by bad mappers: each case fails for one of them, and says why. The good one is in `tests/good`.

#![expect(
    clippy::unwrap_used,
    reason = "a test's device and driver: whatever is not as expected fails the test"
)]
#![expect(clippy::wildcard_enum_match_arm, reason = "one fault is looked for among dozens")]

mod careless;
mod device;
mod line;
mod mapper;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kubebus_sdk_testing::{CASES, Starter, Verdict, hurry, run_case};

use crate::careless::Careless;
use crate::device::Device;
use crate::mapper::Sloppy;

/// Bad mappers at a time: they wait far more than they work.
const AT_A_TIME: usize = 60;

/// A case, the fault that it must find, and words of what it must say.
const TABLE: &[(&str, &str, &str)] = &[
    ("manifest_is_sound", "misdeclared", "protocol 'Careless Mapper'"),
    ("schemas_accept_what_works", "careless", "does not fit type \"string\""),
    ("bad_settings_name_the_field", "careless", "not as Error::Config"),
    ("bad_addresses_name_the_property", "careless", "a register is a number"),
    ("opens_and_closes", "leaks", "connections stay open"),
    ("reads_every_point", "off_by_one", "was"),
    ("values_have_their_types", "says_text", "expected"),
    ("tells_every_point", "panics_on_read", "is not told"),
    ("follows_changes", "remembers_first", "is told as"),
    ("reading_does_not_write", "writes_on_read", "was written to by reading"),
    ("restart_does_not_write", "writes_on_open", "by a restart of the mapper"),
    ("reconnect_does_not_write", "writes_on_open", "by a reconnection"),
    ("reload_does_not_write", "writes_on_read", "by a new configuration"),
    ("waits_for_a_refusing_device", "gives_up", "is not told"),
    ("lets_a_removed_device_go", "leaks", "after the device's removal"),
    ("stops_in_time", "blocks_on_close", "stop"),
    ("serves_two_devices", "shares_one_connection", "is told as"),
    ("read_only_stays_untouched", "writes_on_read", "though the property is not writable"),
    ("writes_what_it_is_told", "forgets_writes", "was to be written once"),
    ("keeps_the_order_of_writes", "forgets_every_other", "eight writes were carried out as"),
    ("expired_permit_moves_nothing", "asks_afterwards", "though the permit's time was over"),
    ("old_write_moves_nothing", "writes_on_read", "though the write was an hour old"),
    ("retained_write_moves_nothing", "writes_on_read", "though the write was a retained one"),
    ("repeated_write_is_done_once", "writes_twice", "was carried out 2 times"),
    ("out_of_range_moves_nothing", "writes_on_read", "though the value was out of range"),
    ("survives_a_device_restart", "keeps_broken_session", "level is"),
    ("awaits_slow_answers", "impatient", "is not told"),
    ("gives_up_a_half_open_line", "invents_values", "which it never was"),
    ("frozen_device_tells_nothing", "remembers_on_error", "while the device was silent"),
    ("half_an_answer_is_no_value", "invents_values", "which it never was"),
    ("garbage_is_no_value", "invents_values", "which it never was"),
    ("missing_point_costs_only_itself", "fails_whole_batch", "was not read"),
    ("senseless_address_costs_only_itself", "careless", "is not told"),
    ("reload_keeps_the_session", "connects_each_read", "made it connect"),
    ("devices_do_not_disturb_each_other", "global_lock", "is told as"),
    ("asks_one_at_a_time_on_a_bus", "pipelines", "while another one's answer was awaited"),
    ("does_not_block_its_thread", "blocks_thread", "other things while it waited"),
    ("does_not_hammer_a_refusing_device", "hot_retry", "it connected"),
    ("late_answer_is_nobodys", "ignores_numbers", "from an old answer"),
    ("doubled_answer_is_nobodys", "ignores_numbers", "from an old answer"),
    ("cut_after_a_write_is_unknown", "retries_writes", "was carried out 2 times"),
    ("cut_within_a_write_is_no_success", "forgets_write_errors", "was said to have succeeded"),
    ("silence_after_a_write_is_unknown", "forgets_write_errors", "was said to have succeeded"),
    ("permit_is_asked_after_the_bus", "consumes_early", "when the bus was free"),
    ("clock_jump_ends_a_write", "asks_afterwards", "though a clock had ended the write"),
    ("cancelled_calls_leave_nothing", "keeps_line", "read"),
    ("thousand_readings_do_not_grow", "hoards", "more memory"),
    ("asks_as_little_as_it_can", "point_by_point", "are enough"),
    ("pushes_what_changes", "subscribes_to_nothing", "the subscription ended"),
    ("pushes_again_after_a_cut", "subscribes_once", "is told as"),
    ("finds_what_it_can_read", "finds_nothing", "does not find"),
    ("hundred_reloads_change_nothing", "leaks", "connections have become"),
    ("stop_within_a_write_ends", "blocks_on_write", "stop"),
];

fn starter(fault: &'static str) -> Starter<Device> {
    Arc::new(move || Box::pin(async move { Device::with(fault) }))
}

fn verdict(case: &str, fault: &'static str) -> Verdict {
    match fault {
        "careless" => run_case::<Careless<true>, Device>(case, starter("none")),
        "misdeclared" => run_case::<Careless<false>, Device>(case, starter("none")),
        _ => run_case::<Sloppy, Device>(case, starter(fault)),
    }
}

#[test]
fn each_case_finds_the_fault_that_it_is_there_for() {
    hurry();
    let cases: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(TABLE.iter().map(|(case, ..)| *case).collect::<Vec<_>>(), cases, "one line for each case");
    // The one that runs alone first, or all others wait for it.
    let mut table = TABLE.to_vec();
    table.sort_by_key(|(case, ..)| *case != "thousand_readings_do_not_grow");
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((case, fault, words)) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = verdict(case, fault);
                    if !matches!(&verdict, Verdict::Failed(why) if why.contains(words)) {
                        wrong
                            .lock()
                            .unwrap()
                            .push(format!("{case} with {fault}: {verdict:?}, not '{words}'"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
