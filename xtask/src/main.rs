//! Chores of this repository. `cargo xtask test` passes every test and installs what the tests need.

mod dmi;
mod docs;
mod lanes;
mod peers;
mod python;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
usage: cargo xtask <chore>

  test          every test: units, real MQTT clients, namespaces, the deterministic world, the demo
  test --slow   the same and the slow ones: 10,000 power cuts, ten minutes of hostile bytes and of a cut under load, 100 kills over a live demo, ...
  sim [SEEDS]   the deterministic world alone (200 seeds; nightly: 1000)
  sim --broken  a build with one mistake in it, which the deterministic world must find
  packages      installs the Debian packages of what tests meet, as root; `test` does it too
  python        installs what tests meet in Python (EPANET, paho-mqtt, pytest) under the target directory; `test` does it too
  dmi           installs gRPC for Python there, for the tests of KubeEdge's mappers; `test` does it too
  docs          docs/reference from the code; tests say when that is due
  bench [NAME]  KubeBus against its aims and against others; see docs/benchmarks.md
  bench overlay | thin   packets, against other overlays, as root; installs them from Debian's packages and crates.io
  bench hostile          the same lab with strangers in it
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["test"] => test(false),
        ["test", "--slow"] => test(true),
        ["sim"] => simulations("200"),
        ["sim", "--broken"] => broken_build(),
        ["sim", seeds] => simulations(seeds),
        ["packages"] => install_packages(),
        ["python"] => python::install(),
        ["dmi"] => dmi::install(),
        ["docs"] => docs::write(),
        ["bench", names @ ..] => bench(names),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test(slow: bool) -> Result<()> {
    install_packages()?;
    python::install()?;
    dmi::install()?;
    step("unit and integration tests");
    lanes::test(FEATURES)?;
    if slow {
        step("slow tests of the store: 10,000 power cuts");
        cargo(&["test", "--locked", "-p", "metadata", "--", "--ignored"])?;
        step("ten minutes of hostile bytes for the broker");
        cargo(&["test", "--locked", "-p", "node", "--test", "mqtt", "--", "--ignored", "hostile"])?;
        step("a cut of ten minutes under load");
        cargo(&[
            "test",
            "--locked",
            "-p",
            "node",
            "--test",
            "cluster",
            "--",
            "--ignored",
            "cut_of_ten_minutes",
        ])?;
        step("a link that flaps for five minutes");
        cargo(&["test", "--locked", "-p", "node", "--test", "network", "--", "--ignored", "flaps"])?;
    }
    cores_are_pure()?;
    step("the release build of the node and of the deterministic world");
    // In one go: apart, each would compile the crates that both share.
    cargo(&["build", "--release", "--locked", "-p", "node", "-p", "simulations"])?;
    let release = target_dir()?.join("release");
    let seeds = if slow { "2000" } else { "100" };
    step(&format!("the deterministic world, {seeds} seeds"));
    run(Command::new(release.join("simulations")).args(["run", "--seeds", seeds]))?;
    if slow {
        broken_build()?;
    }
    demo(&release.join("kubebus"), slow)
}

/// What the tests are built with. Without a file that a test names to its processes the clock of `virtual-clock` is the
/// machine's, read by the same code as in a build without; the demo runs the build that ships.
const FEATURES: &str = "node/etcd,node/virtual-clock";

/// Programs that the tests meet as peers, and the Debian packages that hold them.
/// The feature `etcd` is built with the last of them.
const PEERS: [(&str, &str); 14] = [
    ("dig", "bind9-dnsutils"),
    ("groff", "groff-base"),
    ("ip", "iproute2"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("mosquitto", "mosquitto"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("protoc", "protobuf-compiler"),
    ("socat", "socat"),
    ("snmpd", "snmpd"),
    ("kubectl", "kubernetes-client"),
    ("chromium-headless-shell", "chromium-headless-shell"),
];

fn install_packages() -> Result<()> {
    let missing: Vec<&str> =
        PEERS.iter().filter(|(program, _)| !is_on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { apt_install(&missing) }
}

fn apt_install(missing: &[&str]) -> Result<()> {
    step(&format!("install {}", missing.join(" ")));
    let advice = || format!("install these packages as root first: apt-get install {}", missing.join(" "));
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(missing);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run(Command::new("apt-get").arg("update").arg("-qq")).with_context(advice)?;
    run(&mut install).with_context(advice)
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers in sbin, which is not on everybody's path.
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(program).is_file())
}

/// The cores build without `io`; then nothing async, no socket library and no store is in their tree, and their own
/// sources name no clock, file or socket.
fn cores_are_pure() -> Result<()> {
    step("the cores build without io, and nothing of it is in their tree or sources");
    cargo(&["check", "--locked", "-p", "simulations"])?;
    let tree = cargo_command()
        .args(["tree", "--locked", "-p", "simulations", "-e", "normal", "--prefix", "none"])
        .output()
        .context("cargo tree")?;
    let tree = String::from_utf8(tree.stdout).context("cargo tree's output")?;
    for banned in ["tokio", "quinn-proto", "redb", "etcd-client", "rustix", "rustls"] {
        let found = tree.lines().any(|line| line.split(' ').next() == Some(banned));
        ensure!(!found, "{banned} is in the tree of `simulations`, which must be pure");
    }
    CORES.iter().try_for_each(|core| source_is_pure(&repository().join(core)))
}

/// What holds a core.
const CORES: [&str; 7] = [
    "bus/src",
    "metadata/src",
    "router/src",
    "device-twin/src",
    "controller/src",
    "node/src",
    "simulations/lab/src",
];

/// What no core names: the standard library's clocks, files and sockets, and maps without an order.
const IMPURE: [&str; 6] =
    ["Instant::now", "SystemTime", "std::fs", "net::TcpStream", "net::UdpSocket", "HashMap"];

fn source_is_pure(place: &Path) -> Result<()> {
    if place.file_stem().is_some_and(|name| name == "io") {
        return Ok(());
    }
    if place.is_dir() {
        let entries = std::fs::read_dir(place).with_context(|| format!("read {}", place.display()))?;
        return entries.into_iter().try_for_each(|entry| source_is_pure(&entry?.path()));
    }
    let source = std::fs::read_to_string(place).with_context(|| format!("read {}", place.display()))?;
    for word in IMPURE {
        ensure!(!source.contains(word), "{} names {word}, and belongs to a core", place.display());
    }
    Ok(())
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn simulations(seeds: &str) -> Result<()> {
    step(&format!("the deterministic world, {seeds} seeds"));
    cargo(&["run", "--release", "--locked", "-p", "simulations", "--", "run", "--seeds", seeds])
}

/// Succeeds if the world finds the mistake that `kubebus_broken` builds in. That build has a directory of its own: it
/// shares nothing with the honest one.
fn broken_build() -> Result<()> {
    step("a build with one mistake in it, which the deterministic world must find");
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut hunt = cargo_command();
    hunt.env("RUSTFLAGS", format!("{flags} --cfg kubebus_broken"));
    hunt.args(["run", "--release", "--locked", "-p", "simulations", "--target-dir"]);
    hunt.arg(target_dir()?.join("broken")).args(["--", "hunt", "--seeds", "200"]);
    run(&mut hunt)
}

/// Builds the benchmarks, which are a workspace of their own, and runs them against a release build.
fn bench(names: &[&str]) -> Result<()> {
    if names.iter().any(|name| ["overlay", "thin"].contains(name)) {
        peers::install()?;
    } else if names.contains(&"hostile") {
        peers::install_tools();
    }
    cargo(&["build", "--release", "--locked", "-p", "node"])?;
    if names.is_empty() || names.contains(&"modbus") {
        python::install()?;
        cargo(&["build", "--release", "--locked", "-p", "mapper-modbus"])?;
    }
    let (place, target) = (repository().join("benchmarks"), target_dir()?);
    let mut build = cargo_command();
    build.args(["build", "--release", "--locked", "--target-dir"]).arg(&target).current_dir(place);
    run(&mut build)?;
    let release = target.join("release");
    // Stores are written beside the build: the directory for temporary files may be no disk.
    run(Command::new(release.join("benchmarks")).arg(release.join("kubebus")).arg(&release).args(names))
}

fn demo(kubebus: &Path, slow: bool) -> Result<()> {
    step("the demo, as this user");
    reads_its_own_clock(kubebus)?;
    run(Command::new(kubebus).args(["demo", "--for", "60s", "--check"]))?;
    step("the demo, as an unprivileged user");
    demo_unprivileged(kubebus)?;
    if slow {
        step("100 kills over a live demo");
        run(Command::new(kubebus).args(["demo", "--check", "--kills", "100"]))?;
    }
    Ok(())
}

/// Nothing in the environment shifts the time of what ships.
fn reads_its_own_clock(kubebus: &Path) -> Result<()> {
    let program = std::fs::read(kubebus).with_context(|| format!("read {}", kubebus.display()))?;
    let name = b"KUBEBUS_TEST_CLOCK";
    let found = program.windows(name.len()).any(|part| part == name);
    ensure!(!found, "{} was built with the feature virtual-clock", kubebus.display());
    Ok(())
}

/// Runs the demo as `nobody`, with the mode of /dev/net/tun that distributions ship (0666) in a mount namespace of
/// its own, whatever this machine's is.
fn demo_unprivileged(kubebus: &Path) -> Result<()> {
    if !is_root()? {
        return Ok(()); // The run before was unprivileged already.
    }
    let room = std::env::temp_dir().join(format!("kubebus-unprivileged-{}", std::process::id()));
    std::fs::create_dir_all(&room).context("make a directory for the unprivileged run")?;
    let program = room.join("kubebus");
    std::fs::copy(kubebus, &program).context("copy kubebus where nobody may run it")?;
    let script = "mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
                  chmod 777 \"$1\" && cd \"$1\" && exec env HOME=\"$1\" TMPDIR=\"$1\" \
                  setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
                  ./kubebus demo --for 60s --check";
    let done = run(Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).arg(&room));
    std::fs::remove_dir_all(&room).context("remove the directory of the unprivileged run")?;
    done
}

fn is_root() -> Result<bool> {
    let id = Command::new("id").arg("-u").output().context("id -u")?;
    Ok(id.stdout.trim_ascii() == b"0")
}

fn target_dir() -> Result<PathBuf> {
    // xtask itself runs from <target>/debug/xtask.
    let me = std::env::current_exe().context("where am I")?;
    me.ancestors().nth(2).map(Path::to_owned).context("the target directory")
}

fn cargo(args: &[&str]) -> Result<()> {
    run(cargo_command().args(args))
}

/// Without what cargo said of this crate when it started it: ring's build script looks at that, and all that is above ring
/// would be built anew for whoever calls cargo directly before or after.
fn cargo_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a chore tells what it does")]
fn step(what: &str) {
    println!("\n== {what}");
}
