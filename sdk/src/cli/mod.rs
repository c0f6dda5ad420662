//! The command line of a mapper's program.

mod args;
mod check;
mod discover;
mod manifests;
mod read;
mod schema;
mod stop;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use bus::Name;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::{Mapper, Options};
use args::{Cli, Command, RunArgs};
use stop::Stop;

/// The whole program of a mapper: what its `fn main` returns.
///
/// ```no_run
/// # use kubebus_sdk::{Batch, Context, Error, Manifest, Mapper, Point, Samples, Session, Value, WriteOutcome, WritePermit};
/// # struct Thermostat;
/// # impl Mapper for Thermostat {
/// #     type Config = String;
/// #     type Address = String;
/// #     type Session = Self;
/// #     fn manifest() -> Manifest { Manifest::new("thermostat", "1.0.0") }
/// #     async fn open(_: &String, _: &Context<Self>) -> Result<Self, Error> { Ok(Self) }
/// # }
/// # impl Session for Thermostat {
/// #     type Address = String;
/// #     type Bus = ();
/// #     async fn read(&mut self, _: &Batch<'_, String>, _: &mut Samples) -> Result<(), Error> { Ok(()) }
/// #     async fn write(&mut self, _: &Point<String>, _: Value, permit: WritePermit) -> Result<WriteOutcome, Error> {
/// #         Ok(permit.consume()?.applied())
/// #     }
/// # }
/// fn main() -> std::process::ExitCode {
///     kubebus_sdk::main::<Thermostat>()
/// }
/// ```
///
/// Without a command, or with `run`, it serves a node's devices until it is interrupted; `check`, `read`, `discover` and
/// `schema` need no node. It ends with 0 if all is well, with 2 if the command line or a file makes no sense, with 1 if
/// something else went wrong.
pub fn main<M: Mapper>() -> ExitCode {
    let mut args = std::env::args_os();
    let path = args.next().unwrap_or_default();
    let program = Path::new(&path).file_name().unwrap_or(&path).to_string_lossy().into_owned();
    ExitCode::from(main_with::<M>(&program, args))
}

/// The same with arguments that come from somewhere else, and the exit code. `program` is what help and errors call it.
pub fn main_with<M: Mapper>(program: &str, args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::read(program, &M::manifest(), args) {
        Ok(cli) => cli,
        Err(told) => {
            drop(told.print());
            return u8::try_from(told.exit_code()).unwrap_or(2);
        }
    };
    match carry_out::<M>(cli.command.unwrap_or(Command::Run(cli.run))) {
        Ok(()) => 0,
        Err(failure) => {
            // What is wrong in a file is told as compilers have it, so that editors find the place.
            let place = if matches!(failure, Failure::Manifests(_)) { "" } else { &format!("{program}: ") };
            eprintln!("{place}{failure}");
            failure.exit_code()
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
enum Failure {
    /// The command line or a file that it names makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What makes no sense in manifests.
    #[error("{}", .0.join("\n"))]
    Manifests(Vec<String>),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Manifests(_) => 2,
            Self::Other(_) => 1,
        }
    }
}

fn carry_out<M: Mapper>(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::<M>(&args),
        Command::Schema => say(&schema::of::<M>()?),
        Command::Check { which, files } => say(&check::check::<M>(&which.name(&M::manifest())?, &files)?),
        Command::Read(args) => {
            log_to_stderr(&args.log)?;
            let name = args.which.name(&M::manifest())?;
            block_on(|stop| read::read::<M>(name, args, stop))?
        }
        Command::Discover(args) => {
            log_to_stderr(&args.log)?;
            let name = args.which.name(&M::manifest())?;
            block_on(|stop| discover::discover::<M>(name, args, stop))?
        }
    }
}

fn run<M: Mapper>(args: &RunArgs) -> Result<(), Failure> {
    log_to_stderr(&args.log)?;
    let name = args.which.name(&M::manifest())?;
    let options = Options::new(name.clone(), &args.broker).map_err(|why| Failure::Usage(why.to_string()))?;
    let options = match args.credentials(&name)? {
        Some((user, password)) => options.credentials(&user, &password),
        None => options,
    };
    tracing::info!(?options, version = M::manifest().version, "starting");
    block_on(|mut stop| async move { crate::run::<M>(options, async move { stop.requested().await }).await })
}

/// One thread: a mapper waits for its devices, it does not compute.
fn block_on<F: Future>(work: impl FnOnce(Stop) -> F) -> Result<F::Output, Failure> {
    let other = |error: io::Error| Failure::Other(format!("cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(other)?;
    runtime.block_on(async { Ok(work(Stop::listen().map_err(other)?).await) })
}

fn log_to_stderr(levels: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(levels)
        .map_err(|why| Failure::Usage(format!("--log {levels}: {why}; write error, warn, info or debug")))?;
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr);
    // A program that has a log of its own keeps it.
    drop(log.try_init());
    Ok(())
}

/// Data goes to stdout; a reader that has seen enough (`head`) is no error.
fn say(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// What `spec.protocol.protocolName` makes of a mapper: a topic level, as the node does it.
fn mapper_name(protocol: &str) -> Result<Name, bus::id::InvalidName> {
    Name::new(&protocol.to_ascii_lowercase().replace('_', "-"))
}
