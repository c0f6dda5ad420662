//! `kubebus mapper new`: the files of a mapper to begin with, from `sdk/template`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use bus::Name;
use clap::Args;

use super::{BUNDLED, PROGRAM};
use crate::io::commands::{Usage, say};

#[derive(Debug, Args)]
pub struct NewArgs {
    /// Its name, as devices have it in spec.protocol.protocolName: acme-pump
    name: String,
    /// The directory to write; its name if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The SDK: a checkout of KubeBus, a git address, or a published version; the checkout around if not given
    #[arg(long, value_name = "PATH|URL|VERSION")]
    sdk: Option<String>,
}

/// Where each file goes, and what is in it.
const FILES: [(&str, &str); 11] = [
    ("Cargo.toml", include_str!("../../../../sdk/template/Cargo.template.toml")),
    (".gitignore", include_str!("../../../../sdk/template/gitignore")),
    (".github/workflows/ci.yml", include_str!("../../../../sdk/template/ci.yml")),
    ("README.md", include_str!("../../../../sdk/template/README.md")),
    ("device.yaml", include_str!("../../../../sdk/template/device.yaml")),
    ("src/lib.rs", include_str!("../../../../sdk/template/lib.rs")),
    ("src/main.rs", include_str!("../../../../sdk/template/main.rs")),
    ("examples/simulator.rs", include_str!("../../../../sdk/template/simulator.rs")),
    ("tests/simulated/mod.rs", include_str!("../../../../sdk/template/simulated.rs")),
    ("tests/manifest.rs", include_str!("../../../../sdk/template/manifest.rs")),
    ("tests/conformance.rs", include_str!("../../../../sdk/template/conformance.rs")),
];

/// Writes the files and says what comes next.
pub(super) fn new(args: &NewArgs) -> Result<()> {
    let name = checked(&args.name).map_err(Usage)?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&name));
    let is_free = !dir.exists() || dir.read_dir().is_ok_and(|mut files| files.next().is_none());
    if !is_free {
        let why = anyhow!("{} is there already: name another directory with --dir", dir.display());
        return Err(Usage(why).into());
    }
    let sdk = Sdk::find(args.sdk.as_deref(), &dir).map_err(Usage)?;
    for (file, template) in FILES {
        let path = dir.join(file);
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(path.parent().unwrap_or(&dir))?;
            std::fs::write(&path, filled(template, &name, &sdk))
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&format!(
        "{}: a mapper for the protocol {name}, with a simulated device; its README.md says what is where\n\
         \n\
         cd {0}\n\
         cargo run --example simulator &                     # a device\n\
         cargo run -- read device.yaml                       # its values\n\
         cargo test                                          # what your driver has to pass too",
        dir.display()
    ))
}

fn filled(template: &str, name: &str, sdk: &Sdk) -> String {
    let package = format!("{PROGRAM}{name}");
    template
        .replace("__name__", name)
        .replace("__package__", &package)
        .replace("__library__", &package.replace('-', "_"))
        .replace("__Type__", &type_name(name))
        .replace("__sdk__", &sdk.dependency(""))
        .replace("__testing__", &sdk.dependency("testing"))
}

/// `acme-pump` is `AcmePump`.
fn type_name(name: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(capital).collect()
}

/// A name that is a mapper's, a crate's and, in camel case, a type's.
fn checked(name: &str) -> Result<String> {
    let advice = "take a-z, 0-9 and -, a letter first, such as acme-pump";
    Name::new(name).with_context(|| format!("'{name}' is no mapper's name: {advice}"))?;
    let starts = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase());
    ensure!(starts(name) && !name.contains("--"), "'{name}' is no mapper's name: {advice}");
    ensure!(name.len() + PROGRAM.len() <= 64, "'{name}' is too long for a crate's name: {advice}");
    let is_bundled = BUNDLED.iter().any(|bundled| (bundled.manifest)().protocol == name);
    ensure!(!is_bundled, "{name} comes with kubebus: take a name of your own, such as acme-{name}");
    Ok(name.to_owned())
}

/// Where the SDK comes from.
#[derive(Debug, PartialEq)]
enum Sdk {
    /// The crate's directory in a checkout.
    Path(PathBuf),
    Git(String),
    Version(String),
}

impl Sdk {
    /// What was typed; else the checkout that the new directory, this directory or this program is in.
    fn find(typed: Option<&str>, dir: &Path) -> Result<Self> {
        let Some(typed) = typed else { return Self::around(dir) };
        if typed.contains("://") || typed.starts_with("git@") {
            return Ok(Self::Git(typed.to_owned()));
        }
        if typed.starts_with(|c: char| c.is_ascii_digit()) && !Path::new(typed).exists() {
            return Ok(Self::Version(typed.to_owned()));
        }
        let place = std::path::absolute(typed).with_context(|| format!("--sdk {typed}"))?;
        let crates = [place.join("sdk"), place];
        let sdk = crates.into_iter().find(|place| is_sdk(place));
        sdk.map(Self::Path).with_context(|| {
            format!("--sdk {typed}: neither a checkout of KubeBus nor its directory sdk is there")
        })
    }

    fn around(dir: &Path) -> Result<Self> {
        let places =
            [std::path::absolute(dir).ok(), std::env::current_dir().ok(), std::env::current_exe().ok()];
        let sdk = places.iter().flatten().flat_map(|place| place.ancestors()).map(|place| place.join("sdk"));
        sdk.into_iter().find(|place| is_sdk(place)).map(Self::Path).context(
            "the SDK is not published yet, and no checkout of KubeBus is around: name one with --sdk PATH, or where \
             git finds it with --sdk https://..",
        )
    }

    /// As Cargo.toml writes it; `within`: of another crate below the SDK's directory.
    fn dependency(&self, within: &str) -> String {
        match self {
            Self::Path(path) => {
                let path = if within.is_empty() { path.clone() } else { path.join(within) };
                format!("{{ path = {} }}", quoted(&path.display().to_string()))
            }
            Self::Git(url) => format!("{{ git = {} }}", quoted(url)),
            Self::Version(version) => quoted(version),
        }
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn is_sdk(place: &Path) -> bool {
    std::fs::read_to_string(place.join("Cargo.toml"))
        .is_ok_and(|toml| toml.contains("name = \"kubebus-sdk\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_a_mapper_a_crate_and_a_type() {
        assert_eq!(type_name(&checked("acme-pump-2").unwrap()), "AcmePump2");
        for (name, words) in [
            ("", "acme-pump"),
            ("Acme", "a-z"),
            ("acme_pump", "a-z"),
            ("2pump", "a letter first"),
            ("acme--pump", "a-z"),
            ("../pump", "a-z"),
            ("virtual", "acme-virtual"),
            (&"p".repeat(60), "too long"),
        ] {
            let told = format!("{:#}", checked(name).unwrap_err());
            assert!(told.contains(words), "{name}: {told}");
        }
    }

    #[test]
    fn the_sdk_is_a_checkout_an_address_or_a_version() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = |found: Sdk| match found {
            Sdk::Path(path) => path.canonicalize().unwrap(),
            other @ (Sdk::Git(_) | Sdk::Version(_)) => panic!("{other:?}"),
        };
        let sdk = checkout.join("sdk").canonicalize().unwrap();
        let nowhere = tempfile::tempdir().unwrap();
        for typed in [checkout.clone(), sdk.clone()] {
            assert_eq!(path(Sdk::find(typed.to_str(), nowhere.path()).unwrap()), sdk);
        }
        assert_eq!(path(Sdk::find(None, &checkout.join("new")).unwrap()), sdk);
        let git = "https://example.org/kubebus.git";
        assert_eq!(Sdk::find(Some(git), nowhere.path()).unwrap(), Sdk::Git(git.to_owned()));
        assert_eq!(Sdk::find(Some("0.1"), nowhere.path()).unwrap().dependency("testing"), "\"0.1\"");
        let told = Sdk::find(nowhere.path().to_str(), nowhere.path()).unwrap_err().to_string();
        assert!(told.contains("checkout of KubeBus"), "{told}");
        assert_eq!(Sdk::Path("/a \"b\"".into()).dependency("testing"), r#"{ path = "/a \"b\"/testing" }"#);
    }

    #[test]
    fn a_directory_that_is_in_use_is_left_alone() {
        let room = tempfile::tempdir().unwrap();
        std::fs::write(room.path().join("notes"), "mine").unwrap();
        let args = NewArgs { name: "pump".into(), dir: Some(room.path().into()), sdk: None };
        let told = new(&args).unwrap_err().to_string();
        assert!(told.contains("--dir"), "{told}");
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_placeholder_is_left_open() {
        for (file, template) in FILES {
            let text = filled(template, "acme-pump", &Sdk::Version("1".into()));
            for open in ["__name", "__package", "__library", "__Type", "__sdk", "__testing"] {
                assert!(!text.contains(open), "{file}: {open}");
            }
        }
    }
}
