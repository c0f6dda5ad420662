//! The mapper as a program of its own: see the library's page.

use std::ffi::OsString;
use std::process::ExitCode;

use mapper_opcua::OpcUaMapper;

const PROGRAM: &str = "kubebus-mapper-opcua";

/// What the library says of each request is said better by the SDK.
const QUIET: &str = "--log=info,opcua_client=off,opcua_core=off,opcua_crypto=off";

fn main() -> ExitCode {
    let log_is_set = std::env::var_os("KUBEBUS_LOG").is_some();
    let args = with_quiet_log(std::env::args_os().skip(1).collect(), log_is_set);
    ExitCode::from(kubebus_sdk::main_with::<OpcUaMapper>(PROGRAM, args))
}

/// Serving is logged without the library's words, if nothing is said of the log.
fn with_quiet_log(mut args: Vec<OsString>, log_is_set: bool) -> Vec<OsString> {
    let text = |arg: &OsString| arg.to_string_lossy().into_owned();
    let first = args.first().map(text);
    let is_run = first.as_deref() == Some("run");
    let serves = is_run || first.is_none_or(|first| first.starts_with('-'));
    if serves && !log_is_set && !args.iter().any(|arg| text(arg).starts_with("--log")) {
        args.insert(usize::from(is_run), QUIET.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_without_a_word_on_the_log_is_made_quiet() {
        let quiet = |typed: &[&str]| with_quiet_log(typed.iter().map(OsString::from).collect(), false);
        assert_eq!(quiet(&[]), [QUIET]);
        assert_eq!(quiet(&["--broker", "h:1"]), [QUIET, "--broker", "h:1"]);
        assert_eq!(quiet(&["run", "--broker", "h:1"]), ["run", QUIET, "--broker", "h:1"]);
        for as_typed in
            [&["check", "f"][..], &["read", "f"], &["schema"], &["--log", "debug"], &["--log=debug"]]
        {
            assert_eq!(quiet(as_typed), as_typed);
        }
        assert!(with_quiet_log(Vec::new(), true).is_empty());
    }
}
