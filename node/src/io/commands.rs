//! What each command does.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bus::JoinToken;
use hyper::Method;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::admin::{AskError, ask};
use super::backup::{BackupError, First, Taken};
use super::cli::{
    ApplyArgs, BackupArgs, Cli, CloudArgs, CloudCommand, Command, DeleteArgs, Format, GetArgs, JoinArgs,
    Kind, MqttCommand, Place, RestoreArgs, RunArgs, TokenCommand, host_and_port,
};
use super::debug::examiner::Examiner;
use super::exit::Exit;
use super::identity::IdentityError;
use super::manifests::{self, Refused};
use super::objects::GetKind;
use super::otlp::ToCollector;
use super::ping::EchoError;
use super::restore::{RestoreError, Restored, restore};
use super::table::printable;
use super::{
    audit, backup, completions, debug, demo, fleet, format, join, kubeconfig, label, mapper, mqtt, names,
    node, objects, ping, policy, route, rule, table, top, trace, twin, user, version, visit, wireguard,
};
use crate::config::{CloudConfig, Config};

/// Carries out what was typed; says what went wrong on stderr.
pub fn run(cli: Cli) -> Exit {
    let done = match cli.command {
        None => demo::run(&demo::default_args()),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::DemoProbe) => demo::probe(),
        Some(Command::Policy(command)) => block_on(policy::carry_out(command)),
        Some(Command::Route(command)) => block_on(route::carry_out(command)),
        Some(Command::Ping(args)) => ping::run(args),
        Some(Command::Trace(args)) => trace::run(args),
        Some(Command::Mapper(command)) => mapper::carry_out(command),
        Some(Command::Debug(command)) => debug::run(command),
        Some(command) => block_on(async { Box::pin(carry_out(command)).await.map(|()| Exit::Ok) }),
    };
    match done {
        Ok(exit) => exit,
        Err(error) => {
            // As compilers have it, so that editors find the place.
            let place = if error.is::<Refused>() { "" } else { "kubebus: " };
            eprintln!("{place}{error:#}");
            if let Some(command) = helping(&error) {
                eprintln!("kubebus: {command}");
            }
            exit_of(&error)
        }
    }
}

/// What was given by the user makes no sense: the command line, or a file named there.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Usage(pub(super) anyhow::Error);

/// The command that finds out more, where the error itself cannot say what to do.
fn helping(error: &anyhow::Error) -> Option<&'static str> {
    use join::JoinError::{Dial, NoAddress, NoAnswer, Resolve, Socket};
    match (error.downcast_ref::<AskError>(), error.downcast_ref::<join::JoinError>()) {
        (Some(AskError::NotRunning { .. } | AskError::Broken(_) | AskError::Connect(_)), _) => {
            Some("'kubebus debug diagnose' says why a node does not answer")
        }
        (_, Some(Resolve { .. } | NoAddress(_) | Socket(_) | Dial { .. } | NoAnswer(_))) => Some(
            "'kubebus debug check --for edge --cloud HOST' looks at this machine and at the cloud's name",
        ),
        _ => None,
    }
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<Usage>() || error.is::<Refused>() {
        return Exit::Usage;
    }
    if let Some(RestoreError::NotEmpty(_) | RestoreError::UnderWay(_)) = error.downcast_ref() {
        return Exit::Conflict;
    }
    if let Some(RestoreError::Read(_) | RestoreError::Epoch { .. }) = error.downcast_ref() {
        return Exit::Usage;
    }
    if let Some(EchoError::Forbidden) = error.downcast_ref() {
        return Exit::Forbidden;
    }
    let asked = match error.downcast_ref::<BackupError>() {
        Some(BackupError::Ask(asked)) => Some(asked),
        _ => error.downcast_ref::<AskError>(),
    };
    match asked {
        Some(AskError::NotRunning { .. }) => Exit::NotRunning,
        Some(AskError::Refused { status: 404, .. }) => Exit::NotFound,
        Some(AskError::Refused { status: 409, .. }) => Exit::Conflict,
        Some(AskError::Refused { status: 400, .. }) => Exit::Usage,
        Some(AskError::Forbidden { .. }) => Exit::Forbidden,
        _ => match error.downcast_ref::<join::JoinError>() {
            Some(join::JoinError::Refused { .. }) => Exit::Conflict,
            Some(join::JoinError::Identity(
                IdentityError::AlreadyJoined(..) | IdentityError::CloudsDir(_),
            )) => Exit::Conflict,
            _ => Exit::Failure,
        },
    }
}

/// One thread carries the owner loop, the broker's tasks and the admin socket: an edge has one core to give.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(work)
}

async fn carry_out(command: Command) -> Result<()> {
    match command {
        // Handled before: without a runtime, or with an exit code of its own.
        Command::Demo(_)
        | Command::DemoProbe
        | Command::Policy(_)
        | Command::Route(_)
        | Command::Ping(_)
        | Command::Trace(_)
        | Command::Debug(_)
        | Command::Mapper(_) => Ok(()),
        Command::Cloud(CloudArgs { command: None, run }) => {
            let (config, data_dir) = start(&run)?;
            node::run_cloud(&config, &data_dir).await
        }
        Command::Cloud(CloudArgs { command: Some(CloudCommand::Backup(args)), .. }) => back_up(args).await,
        Command::Cloud(CloudArgs { command: Some(CloudCommand::Restore(args)), .. }) => restore_cloud(&args),
        Command::Edge(args) => {
            let (config, data_dir) = start(&args.run)?;
            let examiner = Examiner::new(args.run.place.config.as_deref(), &data_dir, &config);
            Box::pin(node::run_edge(&config, &data_dir, args.renew_store, examiner)).await
        }
        Command::Join(args) => join_cluster(args).await,
        Command::Token(TokenCommand::Create { site, lan, ttl, uses, ask: args }) => {
            let body = json!({ "site": site, "lans": lan, "ttl_seconds": ttl.as_secs(), "uses": uses });
            let answer = post(&args.place, "/kubebus/v1/tokens", &body).await?;
            for warning in answer["warnings"].as_array().into_iter().flatten() {
                eprintln!("kubebus: {}", text(warning));
            }
            match args.output {
                Format::Table | Format::Wide | Format::Name => {
                    say(answer["token"].as_str().unwrap_or_default())
                }
                format @ (Format::Json | Format::Yaml) => show(&answer, format, table::any),
            }
        }
        Command::Token(TokenCommand::List { ask: args }) => {
            show(&fetch(&args.place, "/kubebus/v1/tokens").await?, args.output, table::tokens)
        }
        Command::Token(TokenCommand::Revoke { id, place }) => {
            // Whoever has the token need not look its id up, and the token itself goes no further.
            let id = id.parse::<JoinToken>().map_or(id, |token| token.id().to_string());
            let answer = call(&place, Method::DELETE, &format!("/kubebus/v1/tokens/{id}"), None).await?;
            say(&format!("token {} revoked", text(&answer["id"])))
        }
        Command::Apply(args) => apply(args).await,
        Command::Get(args) => get(args).await,
        Command::Describe(args) => objects::describe(&args).await,
        Command::Watch(args) => objects::watch(&args).await,
        Command::Delete(args) => delete(args).await,
        Command::Twin(command) => twin::carry_out(command).await,
        Command::Label(args) => label::carry_out(args).await,
        Command::Dns(command) => names::carry_out(command).await,
        Command::Rule(command) => rule::carry_out(command).await,
        Command::Mqtt(MqttCommand::Passwd(args)) => {
            let file = args
                .file
                .clone()
                .map_or_else(|| read_config(&args.place).map(|c| c.mqtt.passwords), |file| Ok(Some(file)));
            say(&mqtt::passwd::run(&args.name, file?.as_deref(), args.remove)?)
        }
        Command::Mqtt(MqttCommand::Certificate(args)) => mqtt::certificate::run(&args).await,
        Command::Mqtt(MqttCommand::List { ask }) => mqtt::clients::list(&ask).await,
        Command::Mqtt(MqttCommand::Revoke(args)) => mqtt::clients::revoke(&args).await,
        Command::User(command) => user::carry_out(command).await,
        Command::Kubeconfig(args) => kubeconfig::run(args).await,
        Command::Audit(args) => audit::show::run(args).await,
        Command::Page(args) => visit::run(args).await,
        Command::Wireguard(command) => wireguard::carry_out(command).await,
        Command::Status(args) => fleet::status(&args).await,
        Command::Top(args) => top::run(args).await,
        Command::Completions(args) => completions::print(&args),
        Command::Man(args) => completions::write(&args),
        Command::Version { output } => show(&version::describe(), output, version::told),
    }
}

fn start(args: &RunArgs) -> Result<(Config, PathBuf)> {
    log_to_stderr(&args.log)?;
    let config = read_config(&args.place)?;
    let data_dir = args.place.data_dir(&config).to_owned();
    Ok((config, data_dir))
}

fn log_to_stderr(levels: &str) -> Result<()> {
    // It tells of each look at WireGuard's clients, which is one a second.
    let filter = EnvFilter::try_new(format!("gotatun::device::uapi=warn,{levels}"));
    let filter = filter.with_context(|| format!("--log {levels}"))?;
    // Colours for people only: a log file stays readable.
    let colours = rustix::termios::isatty(std::io::stderr());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    log.finish().with(ToCollector::default()).init();
    Ok(())
}

pub(super) fn read_config(place: &Place) -> Result<Config> {
    let Some(path) = &place.config else { return Ok(Config::default()) };
    let read = || serde_saphyr::from_str(&std::fs::read_to_string(path)?).map_err(anyhow::Error::from);
    read().map_err(|error| Usage(error.context(path.display().to_string())).into())
}

async fn back_up(args: BackupArgs) -> Result<()> {
    let config = read_config(&args.place)?;
    let data_dir = args.place.data_dir(&config);
    if args.file == Path::new("-") {
        return Ok(backup::to_stdout(data_dir, first(args.stop)).await?);
    }
    let Taken { header, rows, bytes } = backup::to_file(data_dir, &args.file, first(args.stop)).await?;
    say(&format!(
        "{}: {} at revision {}, epoch {}, {rows} rows, {bytes} bytes; it holds the cluster's keys, keep it safe",
        args.file.display(),
        header.identity,
        header.revision,
        header.epoch
    ))
}

fn first(stop: bool) -> First {
    if stop { First::Stop } else { First::Nothing }
}

fn restore_cloud(args: &RestoreArgs) -> Result<()> {
    let config = read_config(&args.place)?;
    let data_dir = args.place.data_dir(&config);
    let restored = match args.file == Path::new("-") {
        true => restore(std::io::stdin().lock(), data_dir, args.epoch),
        false => {
            let file = File::open(&args.file)
                .map_err(|error| Usage(anyhow::Error::new(error).context(args.file.display().to_string())))?;
            restore(BufReader::new(file), data_dir, args.epoch)
        }
    };
    let restored = restored.with_context(|| args.file.display().to_string())?;
    say(&told(&restored, data_dir, &config))
}

/// What was restored and what comes next.
fn told(restored: &Restored, data_dir: &Path, config: &Config) -> String {
    let Restored { identity, taken, revision, epoch, nodes, devices } = restored;
    let taken = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(taken.0));
    let mut text = format!(
        "{}: {identity} as it was at {taken}, revision {revision}, epoch {epoch}, {nodes} nodes, {devices} devices\n\
         Next:\n\
         - stop the cloud that this backup is of, if it still runs: edges that reached this one turn it away\n",
        data_dir.display()
    );
    let CloudConfig { cluster, name, .. } = &config.cloud;
    if (cluster, name) != (&identity.cluster, &identity.node.name) {
        text.push_str(&format!(
            "- write its name into the configuration: cloud: {{cluster: {}, name: {}}}\n",
            identity.cluster, identity.node.name
        ));
    }
    text.push_str("- start it with 'kubebus cloud'; under another address, docs/backup-and-move.md says how edges learn of it");
    text
}

async fn join_cluster(args: JoinArgs) -> Result<()> {
    log_to_stderr("warn")?;
    let config = read_config(&args.place)?;
    let data_dir = args.place.data_dir(&config).to_owned();
    let Some(name) = args.name.or_else(node::host_name) else {
        bail!("this machine's host name cannot be a node's name: give one with --name");
    };
    let (host, port) = host_and_port(&args.cloud).map_err(|why| Usage(anyhow::Error::msg(why)))?;
    let joined = join::join((&host, port), &args.token, &name, &data_dir).await?;
    let flag = |name: &str, path: Option<PathBuf>| path.map(|path| format!(" --{name} {}", path.display()));
    let place: String = [flag("config", args.place.config), flag("data-dir", args.place.data_dir)]
        .into_iter()
        .flatten()
        .collect();
    let cluster = joined.membership.cluster;
    say(&format!("edge/{name} is a member of cluster {cluster}; start it with 'kubebus edge{place}'"))?;
    if data_dir.join(super::admin::SOCKET).exists() {
        say("if it runs, restart it: until then it shows the certificate that it was started with")?;
    }
    for route in joined.lans.iter().filter(|route| route.real.is_some()) {
        say(&format!(
            "{} is also the LAN of another site: the others reach its hosts as {}",
            route.behind(),
            route.prefix
        ))?;
    }
    Ok(())
}

async fn apply(args: ApplyArgs) -> Result<()> {
    for manifest in manifests::read_all(&args.filename).map_err(Usage)? {
        let answer = post(&args.place, "/kubebus/v1/resources", &manifest.document).await;
        let answer = answer.map_err(|error| manifest.explained(error))?;
        let placement = answer["placement"].as_str().map(|p| format!(" ({p})")).unwrap_or_default();
        say(&format!(
            "{} {} {}{placement}",
            text(&answer["kind"]),
            text(&answer["name"]),
            text(&answer["applied"])
        ))?;
    }
    Ok(())
}

async fn get(args: GetArgs) -> Result<()> {
    let GetArgs { kind, ask: args } = args;
    let kind = match kind {
        GetKind::Known(kind) => kind,
        GetKind::Api(kind) => return objects::get(kind, &args).await,
    };
    match kind.resource() {
        None => show(&fetch(&args.place, "/kubebus/v1/nodes").await?, args.output, table::nodes),
        Some(resource) => {
            let found = fetch(&args.place, &format!("/kubebus/v1/resources/{resource}")).await?;
            let as_table = if kind == Kind::Hosts { names::hosts } else { table::resources };
            show(&found, args.output, as_table)
        }
    }
}

async fn delete(args: DeleteArgs) -> Result<()> {
    let DeleteArgs { kind, name, place } = args;
    let (path, what) = match kind.resource() {
        None => (format!("/kubebus/v1/nodes/{}", name.name), format!("node {}", name.name)),
        Some(resource) => (format!("/kubebus/v1/resources/{resource}/{name}"), format!("{resource} {name}")),
    };
    call(&place, Method::DELETE, &path, None).await?;
    say(&format!("{what} deleted"))
}

pub(super) async fn fetch(place: &Place, path: &str) -> Result<Value> {
    call(place, Method::GET, path, None).await
}

pub(super) async fn post(place: &Place, path: &str, body: &Value) -> Result<Value> {
    call(place, Method::POST, path, Some(body)).await
}

pub(super) async fn call(place: &Place, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
    let config = read_config(place)?;
    let answer = ask(place.data_dir(&config), method, path, body).await?;
    serde_json::from_str(&answer).context("the node's answer")
}

pub(super) fn show(document: &Value, format: Format, as_table: fn(&Value) -> String) -> Result<()> {
    match format {
        Format::Table => say(&as_table(document)),
        Format::Wide => say(&format::wide(document, as_table)),
        Format::Name => match format::names(document) {
            none if none.is_empty() => Ok(()),
            names => say(&names),
        },
        Format::Json => say(&serde_json::to_string_pretty(document)?),
        Format::Yaml => say(serde_saphyr::to_string(document)?.trim_end()),
    }
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), printable)
}

/// Data goes to stdout; a reader that has seen enough (`head`) is no error.
pub(super) fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write to stdout"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use router::queue::BitRate;

    #[test]
    fn the_rate_of_a_line_is_read_as_people_write_it() {
        let rate = |text: &str| {
            serde_saphyr::from_str::<Config>(&format!("link: {{rate: {text}}}"))
                .map(|config| config.link.rate)
        };
        for (text, bits) in [("3Mbit", 3_000_000), ("2500kbit", 2_500_000), ("'1 Gbit'", 1_000_000_000)] {
            assert_eq!(rate(text).unwrap().map(BitRate::bits_per_s), Some(bits), "{text}");
        }
        for text in ["3", "3MB", "-1Mbit", "63kbit", "99999999999999Gbit"] {
            let told = rate(text).unwrap_err().to_string();
            assert!(told.contains("write 3Mbit or 2500kbit"), "{told}");
        }
    }

    #[test]
    fn the_example_file_says_the_defaults() {
        let example = include_str!("../../../kubebus.example.yaml");
        assert_eq!(serde_saphyr::from_str::<Config>(example).unwrap(), Config::default());
    }

    #[test]
    fn a_name_server_says_where_it_is() {
        let read = |text: &str| serde_saphyr::from_str::<Config>(text).map(|config| config.dns);
        let resolvers = read("dns: {upstream: [192.168.1.1, '[2001:db8::1]:5353']}").unwrap().upstream;
        let shown: Vec<String> = resolvers.into_iter().map(String::from).collect();
        assert_eq!(shown, ["192.168.1.1:53", "[2001:db8::1]:5353"]);
        for (text, words) in [
            ("dns: {upstream: [router]}", "'router' is no name server's address; write 192.168.10.1"),
            ("dns: {listen: ['0.0.0.0:53']}", "0.0.0.0:53 is every address: name those that are asked"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = serde_saphyr::from_str::<Config>("link: {keepalives: 15s}").unwrap_err();
        assert!(error.to_string().contains("keepalives"), "{error}");
    }
}
