//! The list of cases, and how one is run.

use std::future::Future;
use std::pin::Pin;
use std::sync::{PoisonError, RwLock, mpsc};
use std::time::Duration;

use kubebus_sdk::Mapper;
use tokio::task::JoinSet;

use crate::bench::{Bench, Starter};
use crate::fixture::Fixture;
use crate::verdict::{Level, Stop, Verdict};

/// The longest that a case may take: several recoveries and timeouts, on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// Threads of a case: mapper, device and the kit go on while a driver blocks one.
const THREADS: usize = 4;

/// It counts memory and descriptors, and has the process for itself.
pub(crate) const ALONE: &str = "thousand_readings_do_not_grow";
static COMPANY: RwLock<()> = RwLock::new(());

/// Hands the list of cases to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! with_cases {
    ($then:ident $($arguments:tt)*) => {
        $crate::$then! {
            [$($arguments)*]
            bronze Bronze {
                manifest_is_sound
                schemas_accept_what_works
                bad_settings_name_the_field
                bad_addresses_name_the_property
                opens_and_closes
                reads_every_point
                values_have_their_types
                tells_every_point
                follows_changes
                reading_does_not_write
                restart_does_not_write
                reconnect_does_not_write
                reload_does_not_write
                waits_for_a_refusing_device
                lets_a_removed_device_go
                stops_in_time
                serves_two_devices
                read_only_stays_untouched
            }
            silver Silver {
                writes_what_it_is_told
                keeps_the_order_of_writes
                expired_permit_moves_nothing
                old_write_moves_nothing
                retained_write_moves_nothing
                repeated_write_is_done_once
                out_of_range_moves_nothing
                survives_a_device_restart
                awaits_slow_answers
                gives_up_a_half_open_line
                frozen_device_tells_nothing
                half_an_answer_is_no_value
                garbage_is_no_value
                missing_point_costs_only_itself
                senseless_address_costs_only_itself
                reload_keeps_the_session
                devices_do_not_disturb_each_other
                asks_one_at_a_time_on_a_bus
                does_not_block_its_thread
                does_not_hammer_a_refusing_device
            }
            gold Gold {
                late_answer_is_nobodys
                doubled_answer_is_nobodys
                cut_after_a_write_is_unknown
                cut_within_a_write_is_no_success
                silence_after_a_write_is_unknown
                permit_is_asked_after_the_bus
                clock_jump_ends_a_write
                cancelled_calls_leave_nothing
                thousand_readings_do_not_grow
                asks_as_little_as_it_can
                pushes_what_changes
                pushes_again_after_a_cut
                finds_what_it_can_read
                hundred_reloads_change_nothing
                stop_within_a_write_ends
            }
        }
    };
}

/// One case of the kit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub level: Level,
    pub name: &'static str,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Stop>> + Send>>;

#[doc(hidden)]
#[macro_export]
macro_rules! case_table {
    ([] $($module:ident $level:ident { $($case:ident)* })*) => {
        /// All cases, in the order of their levels.
        pub const CASES: &[Case] =
            &[$($(Case { level: Level::$level, name: stringify!($case) },)*)*];

        fn begin<M: Mapper, F: Fixture>(name: &str, bench: Bench<M, F>) -> Option<Running> {
            Some(match name {
                $($(stringify!($case) => Box::pin($crate::cases::$module::$case(bench)),)*)*
                _ => return None,
            })
        }
    };
}

with_cases! { case_table }

/// Runs one case by its name and says how it ended.
pub fn run_case<M: Mapper, F: Fixture>(name: &str, start: Starter<F>) -> Verdict {
    let (_alone, _in_company);
    if name == ALONE {
        _alone = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
    } else {
        _in_company = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
    }
    let Some(case) = begin::<M, F>(name, Bench::new(start)) else {
        return Verdict::Failed(format!("the kit has no case '{name}'"));
    };
    let (told, end) = mpsc::sync_channel(1);
    // A thread of its own: one that a driver blocks is left behind.
    std::thread::spawn(move || told.send(drive(case)));
    let late = || Verdict::Failed(format!("it does not end within {} s", LIMIT.as_secs()));
    end.recv_timeout(LIMIT).unwrap_or_else(|_| late())
}

fn drive(case: Running) -> Verdict {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Verdict::Failed(format!("the kit's runtime: {error}")),
    };
    let end = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        tasks.spawn(case);
        tasks.join_next().await
    });
    runtime.shutdown_background();
    match end {
        Some(Ok(end)) => end.into(),
        Some(Err(crash)) => Verdict::Failed(panic_text(crash)),
        None => Verdict::Failed("it was not run".to_owned()),
    }
}

fn panic_text(crash: tokio::task::JoinError) -> String {
    let Ok(panic) = crash.try_into_panic() else { return "it was cancelled".to_owned() };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panicked: {}", text.unwrap_or_default())
}
