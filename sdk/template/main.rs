//! The mapper as a program: `__package__ --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubebus_sdk::main::<__library__::__Type__>()
}
