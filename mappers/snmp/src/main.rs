//! The mapper as a program of its own: see the library's page.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubebus_sdk::main::<mapper_snmp::SnmpMapper>()
}
