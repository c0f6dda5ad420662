//! `kubebus mapper`: mappers that come with kubebus, those that are installed beside it, and how to begin one.

mod scaffold;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bus::Name;
use clap::{Args, Subcommand};
use kubebus_sdk::{Manifest, Mapper};
use mapper_http::HttpMapper;
use mapper_modbus::ModbusMapper;
use mapper_mqtt::MqttMapper;
use mapper_virtual::VirtualMapper;
use serde_json::{Value, json};

use self::scaffold::NewArgs;
use super::cli::Format;
use super::commands::{Usage, show};
use super::exit::Exit;
use super::table::{cell, rows, table};

/// What a vendor's program is called, so that it is found by its protocol.
const PROGRAM: &str = "kubebus-mapper-";

#[derive(Debug, Subcommand)]
pub enum MapperCommand {
    /// Write a mapper to begin with: a crate that builds, a simulated device, tests
    New(NewArgs),
    /// List the mappers that 'kubebus mapper run' knows
    List(ListArgs),
    /// Run a mapper: one that comes with kubebus, else the program kubebus-mapper-NAME
    ///
    /// What follows the name is the mapper's own: 'kubebus mapper run virtual --help' shows it. Without any it serves
    /// the devices of the node on this machine until it is interrupted.
    #[command(
        disable_help_subcommand = true,
        subcommand_value_name = "NAME [ARGUMENTS]",
        override_usage = "kubebus mapper run NAME [ARGUMENTS]..."
    )]
    Run {
        #[command(subcommand)]
        mapper: Named,
    },
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// The mapper's name and its arguments, which are not looked at here.
#[derive(Debug, Subcommand)]
pub enum Named {
    #[command(external_subcommand)]
    Mapper(Vec<OsString>),
}

/// A mapper that comes with kubebus. It runs in the process that was started for it.
struct Bundled {
    manifest: fn() -> Manifest,
    main: fn(&str, Vec<OsString>) -> u8,
}

/// In the order of their names.
const BUNDLED: [Bundled; 4] = [
    Bundled::of::<HttpMapper>(),
    Bundled::of::<ModbusMapper>(),
    Bundled::of::<MqttMapper>(),
    Bundled::of::<VirtualMapper>(),
];

impl Bundled {
    const fn of<M: Mapper>() -> Self {
        Self { manifest: M::manifest, main: |program, args| kubebus_sdk::main_with::<M>(program, args) }
    }
}

/// Outside of a runtime: a mapper brings its own.
pub(super) fn carry_out(command: MapperCommand) -> Result<Exit> {
    match command {
        MapperCommand::New(args) => scaffold::new(&args).map(|()| Exit::Ok),
        MapperCommand::List(args) => show(&list(), args.output, as_table).map(|()| Exit::Ok),
        MapperCommand::Run { mapper: Named::Mapper(words) } => run(&words),
    }
}

fn run(words: &[OsString]) -> Result<Exit> {
    let (name, args) = words.split_first().context("a mapper's name is missing")?;
    let name = name.to_str().context("a mapper's name is a text").map_err(Usage)?;
    // Nothing but a name becomes part of a path.
    let name = Name::new(name).map_err(|why| Usage(why.into()))?.to_string();
    if let Some(bundled) = BUNDLED.iter().find(|bundled| (bundled.manifest)().protocol == name) {
        return Ok(exit((bundled.main)(&format!("kubebus mapper run {name}"), args.to_vec())));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some((_, program)) = installed(&path).into_iter().find(|(installed, _)| *installed == name) else {
        eprintln!("kubebus: {}", unknown(&name, &path));
        return Ok(Exit::NotFound);
    };
    // The process becomes the mapper: signals and the exit code are its own.
    let error = std::process::Command::new(&program).args(args).exec();
    Err(anyhow::Error::new(error).context(program.display().to_string()))
}

/// The SDK's exit codes are kubebus' own.
fn exit(code: u8) -> Exit {
    match code {
        0 => Exit::Ok,
        2 => Exit::Usage,
        _ => Exit::Failure,
    }
}

fn unknown(name: &str, path: &OsStr) -> String {
    let bundled = BUNDLED.iter().map(|bundled| (bundled.manifest)().protocol.to_owned());
    let known: Vec<String> = bundled.chain(installed(path).into_iter().map(|(name, _)| name)).collect();
    format!(
        "no mapper '{name}' comes with kubebus, and no program {PROGRAM}{name} is on the PATH; there is {}; \
         'kubebus mapper new {name}' begins one",
        known.join(", ")
    )
}

fn list() -> Value {
    let bundled = BUNDLED.iter().map(|bundled| {
        let Manifest { protocol, version, about, .. } = (bundled.manifest)();
        json!({ "name": protocol, "where": "bundled", "version": version, "about": about })
    });
    let installed = installed(&std::env::var_os("PATH").unwrap_or_default());
    let installed = installed
        .into_iter()
        .map(|(name, program)| json!({ "name": name, "where": program.display().to_string() }));
    bundled.chain(installed).collect()
}

fn as_table(list: &Value) -> String {
    let row = |mapper: &Value| ["name", "where", "about"].iter().map(|field| cell(&mapper[*field])).collect();
    table(&["NAME", "WHERE", "WHAT"], &rows(list, row))
}

/// The mappers' programs on the PATH by name; of two with one name the first is run, as a shell does.
fn installed(path: &OsStr) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for dir in std::env::split_paths(path) {
        let mut here: Vec<_> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some((mapper_of(&entry.as_ref().ok()?.file_name())?, entry.ok()?.path())))
            .filter(|(name, program)| is_program(program) && !found.iter().any(|(known, _)| known == name))
            .collect();
        here.sort();
        found.append(&mut here);
    }
    found
}

fn mapper_of(file: &OsStr) -> Option<String> {
    let name = file.to_str()?.strip_prefix(PROGRAM)?;
    Name::new(name).ok().map(|name| name.to_string())
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_on_the_path_are_found_by_their_protocol() {
        let room = tempfile::tempdir().unwrap();
        let (first, second) = (room.path().join("a"), room.path().join("b"));
        for (dir, file, mode) in [
            (&first, "kubebus-mapper-pump", 0o755),
            (&first, "kubebus-mapper-notes", 0o644),
            (&first, "kubebus-mapper-Bad_Name", 0o755),
            (&second, "kubebus-mapper-pump", 0o755),
            (&second, "kubebus-mapper-adam", 0o755),
            (&second, "kubebus", 0o755),
        ] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(dir.join(file), "").unwrap();
            std::fs::set_permissions(dir.join(file), PermissionsExt::from_mode(mode)).unwrap();
        }
        let path = std::env::join_paths([&first, &room.path().join("gone"), &second]).unwrap();
        let expected =
            [("pump", first.join("kubebus-mapper-pump")), ("adam", second.join("kubebus-mapper-adam"))];
        assert_eq!(installed(&path), expected.map(|(name, program)| (name.to_owned(), program)));
        let told = unknown("valve", &path);
        for words in ["virtual", "pump, adam", "kubebus-mapper-valve", "kubebus mapper new valve"] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn bundled_mappers_are_in_order_and_have_names() {
        let names = BUNDLED.map(|bundled| (bundled.manifest)().protocol);
        assert!(names.is_sorted() && names.iter().all(|name| Name::new(name).is_ok()), "{names:?}");
    }
}
