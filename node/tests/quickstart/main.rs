//! The quick starts of `docs/quickstart`: every command of theirs is run, in their order, against real nodes, and what
//! they show is compared with what is printed.
//!
//! Blocks `sh` run on loopback. Blocks `sh cloud` and `sh edge` run as root of two machines, which are namespaces here,
//! with TUNs and packets. What differs from a reader's machine: addresses of loopback that nobody else has, and a Python
//! that has what `pip install` would bring (`cargo xtask python`). Blocks `console` are not run here; their pages say
//! which test does the same.
#![cfg(feature = "io")]

#[cfg(test)]
mod machines;
#[cfg(test)]
mod page;
#[cfg(test)]
mod shell;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crate::machines::Machines;
    use crate::page::{self, Machine, Step, missing};
    use crate::shell::{Shell, own_address};

    #[test]
    fn a_network_admin_gets_there_on_one_machine() {
        holds_on_one("network-admin.md", 1);
    }

    #[test]
    fn a_network_admin_gets_there_on_two_machines() {
        holds_on_two("network-admin.md");
    }

    #[test]
    fn a_device_vendor_gets_there_on_one_machine() {
        holds_on_one("device-vendor.md", 2);
    }

    #[test]
    fn a_device_vendor_gets_there_on_two_machines() {
        holds_on_two("device-vendor.md");
    }

    #[test]
    fn an_app_developer_gets_there_on_one_machine() {
        holds_on_one("app-developer.md", 3);
    }

    #[test]
    fn an_app_developer_gets_there_on_two_machines() {
        holds_on_two("app-developer.md");
    }

    #[track_caller]
    fn holds_on_one(name: &str, number: u8) {
        let address = own_address(number).to_string();
        let mut shell = Shell::start(Command::new("bash"));
        for step in steps(name, |machine| machine == Machine::Own) {
            let printed = shell.run(&step.commands.replace("127.0.0.1", &address));
            shows(&step, &printed.replace(&address, "127.0.0.1"));
        }
    }

    #[track_caller]
    fn holds_on_two(name: &str) {
        let mut machines = Machines::start();
        for step in steps(name, |machine| machine != Machine::Own) {
            let printed = machines.run(step.machine, &step.commands);
            shows(&step, &printed);
        }
    }

    #[track_caller]
    fn steps(name: &str, of: impl Fn(Machine) -> bool) -> Vec<Step> {
        let steps: Vec<Step> = page::read(name).into_iter().filter(|step| of(step.machine)).collect();
        assert!(!steps.is_empty(), "{name} has no commands");
        steps
    }

    #[track_caller]
    fn shows(step: &Step, printed: &str) {
        let missing = missing(&step.shown, printed);
        assert_eq!(
            missing, None,
            "{}\nprinted\n{printed}\nand not, in its place, what the page shows",
            step.commands
        );
    }
}
