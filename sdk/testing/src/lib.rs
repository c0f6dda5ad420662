#![doc = include_str!("../README.md")]

mod bench;
mod cases;
mod fixture;
mod footprint;
mod hearing;
mod heartbeat;
mod json;
mod node;
mod proxy;
mod record;
mod report;
mod schema;
mod simulated;
mod site;
mod suite;
mod together;
mod verdict;

pub use bench::{Bench, Starter, hurry};
pub use fixture::{Endpoint, Fixture, Property, Write};
pub use hearing::Hearing;
pub use node::Node;
pub use proxy::{Counts, Direction, Fault, Garbage, Mode, Port, Proxy};
pub use record::{Entry, Recording, Replay};
pub use report::Report;
pub use simulated::{Behaviour, SimulatedDevice, Wave};
pub use suite::{CASES, Case, run_case};
pub use together::{check, run_all};
pub use verdict::{Level, Stop, Verdict};

/// Expands to a `#[test]` per case, in modules `conformance::bronze`, `silver` and `gold`: see the crate's page.
#[macro_export]
macro_rules! conformance {
    ($mapper:ty, $fixture:ty $(,)?) => {
        mod conformance {
            #[allow(unused_imports)]
            use super::*;
            $crate::with_cases! { conformance_tests $mapper, $fixture }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ([$mapper:ty, $fixture:ty] $($module:ident $level:ident { $($case:ident)* })*) => {
        $crate::conformance_modules! { [$mapper] [$fixture] $($module { $($case)* })* }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_modules {
    ([$mapper:ty] [$fixture:ty]) => {};
    ([$mapper:ty] [$fixture:ty] $module:ident { $($case:ident)* } $($rest:tt)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::check::<$mapper, $fixture>(stringify!($case));
                }
            )*
        }
        $crate::conformance_modules! { [$mapper] [$fixture] $($rest)* }
    };
}
