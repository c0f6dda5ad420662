//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bus::Name;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{Failure, mapper_name};
use crate::Manifest;

/// Where a password comes from if no file is named.
const PASSWORD: &str = "KUBEBUS_MQTT_PASSWORD";

#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the devices of a node until interrupted; so does no command at all
    Run(RunArgs),
    /// Print what this mapper is, and the JSON Schemas of its connections and addresses
    Schema,
    /// Read manifests as the running mapper would, and name what makes no sense
    Check {
        #[command(flatten)]
        which: Which,
        /// KubeEdge's Device and DeviceModel, YAML or JSON; - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Read each property of the devices of a manifest once, without broker or node, and print a table
    Read(ReadArgs),
    /// Look for devices and print them as manifests that `kubebus apply -f` takes
    Discover(DiscoverArgs),
}

/// Which devices are this mapper's.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Its name, as its devices have it in spec.protocol.protocolName; the protocol's if not given
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// The node's MQTT address
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:1883",
        env = "KUBEBUS_BROKER",
        alias = "mqtt"
    )]
    pub(super) broker: String,
    /// Its user name at the broker; mapper/NAME if only a password is given
    #[arg(long, env = "KUBEBUS_MQTT_USER")]
    user: Option<String>,
    /// A file that holds its password; without it, the environment's KUBEBUS_MQTT_PASSWORD
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What is logged to stderr: error, warn, info, debug, or by module
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "KUBEBUS_LOG")]
    pub(super) log: String,
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// KubeEdge's Device and DeviceModel, YAML or JSON; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// This device alone
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) device: Option<bus::twin::DeviceId>,
    /// How long to wait for all values
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) patience: Duration,
    /// What is logged to stderr: error, warn, info, debug, or by module
    #[arg(long, value_name = "LEVEL", default_value = "warn", env = "KUBEBUS_LOG")]
    pub(super) log: String,
}

#[derive(Debug, Args)]
pub(super) struct DiscoverArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Where to look: a connection as a device's spec.protocol.configData has it, in JSON or YAML
    #[arg(value_name = "CONNECTION-JSON", default_value = "{}")]
    pub(super) connection: String,
    /// The namespace of the manifests
    #[arg(long, default_value = "default")]
    pub(super) namespace: Name,
    /// The edge that the devices are wired to
    #[arg(long, value_name = "EDGE")]
    pub(super) node: Option<Name>,
    /// What is logged to stderr: error, warn, info, debug, or by module
    #[arg(long, value_name = "LEVEL", default_value = "warn", env = "KUBEBUS_LOG")]
    pub(super) log: String,
}

impl Cli {
    pub(super) fn read(
        program: &str,
        manifest: &Manifest,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command()
            .bin_name(program)
            .display_name(program)
            .version(manifest.version)
            .about(manifest.about)
            .disable_help_subcommand(true);
        let args = std::iter::once(OsString::from(program)).chain(args);
        let mut matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

impl Which {
    pub(super) fn name(&self, manifest: &Manifest) -> Result<Name, Failure> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        mapper_name(manifest.protocol)
            .map_err(|why| Failure::Usage(format!("{why}; the manifest's protocol is the default of --name")))
    }
}

impl RunArgs {
    /// User and password, if the broker asks for them.
    pub(super) fn credentials(&self, name: &Name) -> Result<Option<(String, String)>, Failure> {
        let password =
            match &self.password_file {
                Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                    Failure::Usage(format!("--password-file {}: {error}", path.display()))
                })?),
                None => std::env::var(PASSWORD).ok(),
            };
        match (&self.user, password) {
            (None, None) => Ok(None),
            (Some(user), None) => Err(Failure::Usage(format!(
                "--user {user} needs a password: name its file with --password-file, or set {PASSWORD}"
            ))),
            (user, Some(password)) => {
                let user = user.clone().unwrap_or_else(|| format!("mapper/{name}"));
                Ok(Some((user, password.trim_end_matches(['\r', '\n']).to_owned())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Cli, clap::Error> {
        let manifest = Manifest::new("pump", "1.2.3").about("pumps");
        Cli::read("kubebus-mapper-pump", &manifest, args.iter().map(OsString::from))
    }

    #[test]
    fn no_command_is_run_with_its_options() {
        for args in
            [&["--broker", "b:1", "--name", "pump-2"][..], &["run", "--mqtt", "b:1", "--name", "pump-2"]]
        {
            let cli = read(args).unwrap();
            let run = match cli.command {
                Some(Command::Run(run)) => run,
                None => cli.run,
                Some(other) => panic!("{other:?}"),
            };
            let name = run.which.name(&Manifest::new("pump", "1")).unwrap();
            assert_eq!((run.broker.as_str(), name.to_string()), ("b:1", "pump-2".to_owned()));
        }
    }

    #[test]
    fn help_and_version_are_the_mappers_own() {
        let told = |args| read(args).unwrap_err().to_string();
        assert_eq!(told(&["--version"]), "kubebus-mapper-pump 1.2.3\n");
        let help = told(&["--help"]);
        assert!(help.contains("pumps") && help.contains("Usage: kubebus-mapper-pump"), "{help}");
        assert!(told(&["check"]).contains("<FILE>..."));
        assert!(told(&["read", "--for", "soon", "f"]).contains("--for <TIME>"));
    }

    #[test]
    fn a_protocol_becomes_a_name_as_the_node_has_it() {
        let which = Which { name: None };
        assert_eq!(which.name(&Manifest::new("Modbus_TCP", "1")).unwrap().to_string(), "modbus-tcp");
        assert!(which.name(&Manifest::new("mod bus", "1")).unwrap_err().to_string().contains("--name"));
    }

    #[test]
    fn a_user_without_a_password_is_told_where_to_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let name = Name::new("pump").unwrap();
        let args = |args: &[&str]| read(args).unwrap().run;
        let with_file = ["--password-file", file.to_str().unwrap()];
        let expected = |user: &str| Some((user.to_owned(), "secret".to_owned()));
        assert_eq!(args(&with_file).credentials(&name).unwrap(), expected("mapper/pump"));
        let both = [&with_file[..], &["--user", "u"]].concat();
        assert_eq!(args(&both).credentials(&name).unwrap(), expected("u"));
        let told = args(&["--user", "u"]).credentials(&name).unwrap_err().to_string();
        assert!(told.contains(PASSWORD), "{told}");
        let told = args(&["--password-file", "/nowhere/p"]).credentials(&name).unwrap_err().to_string();
        assert!(told.contains("/nowhere/p"), "{told}");
    }
}
