//! A line for each change, until Ctrl-C: over restarts of the node, from where it was.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::time::sleep;

use super::{AS_TABLE, WatchArgs, full_name, path_of, split};
use crate::io::admin::{AskError, ask_stream};
use crate::io::cli::Format;
use crate::io::commands::read_config;
use crate::io::table::cell;

/// Between two tries while the node is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Longer lines are no answers of ours: an object is at most 1 MiB.
const MAX_LINE: usize = 4 << 20;

pub(super) async fn run(args: &WatchArgs) -> Result<()> {
    let config = read_config(&args.place)?;
    let dir = args.place.data_dir(&config);
    let accept =
        if matches!(args.output, Format::Table | Format::Wide) { AS_TABLE } else { "application/json" };
    let mut shown = Shown::new(args.output);
    let mut was_there = false;
    loop {
        let path = path(args, &shown.revision);
        let mut lines = Lines::default();
        let watched = ask_stream(dir, &path, accept, |piece| {
            was_there = true;
            lines.take(piece, |line| shown.show(line))
        });
        match watched.await {
            // Its time is over, or the node stopped.
            Ok(()) | Err(AskError::Broken(_)) => sleep(AGAIN).await,
            // What was there may come back; what never was is a mistake to be told.
            Err(AskError::NotRunning { .. }) if was_there => {
                shown.say_away();
                sleep(AGAIN).await;
            }
            Err(AskError::Keep(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn path(args: &WatchArgs, revision: &str) -> String {
    let mut path = format!("{}?watch=true&allowWatchBookmarks=true", path_of(args.kind));
    if !revision.is_empty() {
        path.push_str(&format!("&resourceVersion={revision}"));
    }
    if let Some(name) = &args.name {
        let (namespace, name) = split(name);
        path.push_str(&format!("&fieldSelector=metadata.name%3D{name}"));
        if args.kind.info().namespaced {
            path.push_str(&format!("%2Cmetadata.namespace%3D{namespace}"));
        }
    }
    path
}

/// Puts pieces of a stream together to lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(
        &mut self,
        piece: &[u8],
        mut line: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            line(&whole[..end])?;
        }
        if self.rest.len() > MAX_LINE {
            return Err(std::io::Error::other("a line without an end"));
        }
        Ok(())
    }
}

/// What was printed so far.
#[derive(Debug)]
struct Shown {
    format: Format,
    /// Up to where all was heard.
    revision: String,
    /// Of the columns, as wide as they had to be so far.
    widths: Vec<usize>,
    /// Which columns are shown.
    chosen: Vec<usize>,
    /// Which one is the name, which goes with its namespace here.
    name: Option<usize>,
    is_away: bool,
}

impl Shown {
    fn new(format: Format) -> Self {
        Self {
            format,
            revision: String::new(),
            widths: Vec::new(),
            chosen: Vec::new(),
            name: None,
            is_away: false,
        }
    }

    /// Once for each absence.
    fn say_away(&mut self) {
        if !std::mem::replace(&mut self.is_away, true) {
            eprintln!("kubebus: the node is away; waiting for it");
        }
    }

    fn show(&mut self, line: &[u8]) -> std::io::Result<()> {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
        self.is_away = false;
        let (what, object) = (cell(&event["type"]), &event["object"]);
        if what == "ERROR" {
            // What was deleted since is forgotten there: all that is there is told again.
            self.revision.clear();
            eprintln!("kubebus: {}; beginning anew", cell(&object["message"]));
            return Ok(());
        }
        if let Some(revision) = object["metadata"]["resourceVersion"].as_str() {
            revision.clone_into(&mut self.revision);
        }
        if what == "BOOKMARK" {
            return Ok(());
        }
        match self.format {
            Format::Table | Format::Wide => self.row(&what, object),
            Format::Name => print(&format!("{what} {}", full_name(object))),
            Format::Json => print(&event.to_string()),
            Format::Yaml => {
                print(&format!("---\n{}", serde_saphyr::to_string(&event).unwrap_or_default().trim_end()))
            }
        }
    }

    fn row(&mut self, what: &str, table: &Value) -> std::io::Result<()> {
        if let Some(columns) = table["columnDefinitions"].as_array().filter(|_| self.widths.is_empty()) {
            let is_shown = |column: &Value| self.format == Format::Wide || column["priority"] == 0;
            self.chosen = (0..columns.len()).filter(|index| is_shown(&columns[*index])).collect();
            self.name = columns.iter().position(|column| column["format"] == "name");
            let heads = columns.iter().map(|column| cell(&column["name"]).to_uppercase()).collect::<Vec<_>>();
            let heads = self.chosen.iter().map(|index| heads[*index].clone());
            let line = self.line(&[&["EVENT".to_owned()][..], &heads.collect::<Vec<_>>()].concat());
            print(&line)?;
        }
        for row in table["rows"].as_array().into_iter().flatten() {
            let value = |index: &usize| {
                if Some(*index) == self.name {
                    full_name(&row["object"])
                } else {
                    cell(&row["cells"][*index])
                }
            };
            let cells = self.chosen.iter().map(value);
            let cells: Vec<String> = std::iter::once(what.to_owned()).chain(cells).collect();
            let line = self.line(&cells);
            print(&line)?;
        }
        Ok(())
    }

    fn line(&mut self, cells: &[String]) -> String {
        self.widths.resize(cells.len().max(self.widths.len()), "MODIFIED".len());
        let padded = cells.iter().zip(&mut self.widths).map(|(cell, width)| {
            *width = (*width).max(cell.chars().count());
            format!("{cell:<0$}", *width)
        });
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    }
}

/// A reader that has seen enough ends the watch.
fn print(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pieces_become_lines() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in [&b"on"[..], b"e\ntw", b"o\n\nthree"] {
            let take = |line: &[u8]| {
                seen.push(line.to_vec());
                Ok(())
            };
            lines.take(piece, take).unwrap();
        }
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec(), b"".to_vec()]);
        let endless = lines.take(&vec![b'x'; MAX_LINE + 1], |_| Ok(()));
        assert!(endless.is_err());
    }

    #[test]
    fn a_watch_goes_on_where_it_was_and_begins_anew_where_that_is_forgotten() {
        let mut shown = Shown::new(Format::Name);
        let event = |kind: &str, revision: &str| {
            json!({ "type": kind, "object": { "metadata": { "name": "a", "resourceVersion": revision } } })
                .to_string()
        };
        shown.show(event("BOOKMARK", "7").as_bytes()).unwrap();
        shown.show(event("BOOKMARK", "9").as_bytes()).unwrap();
        assert_eq!(shown.revision, "9");
        shown.show(json!({ "type": "ERROR", "object": { "code": 410 } }).to_string().as_bytes()).unwrap();
        assert_eq!(shown.revision, "");
    }

    #[test]
    fn columns_stay_under_their_heads() {
        let mut shown = Shown::new(Format::Table);
        let cells = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown.line(&cells(&["EVENT", "NAME"])), "EVENT      NAME");
        assert_eq!(shown.line(&cells(&["MODIFIED", "valve"])), "MODIFIED   valve");
    }
}
