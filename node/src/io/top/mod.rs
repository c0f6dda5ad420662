//! `kubebus top`: nodes and links as they are now, what is wrong first.

mod frame;
mod terminal;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::frame::{Frame, Order};
use self::terminal::{Key, Screen, keys};
use super::cli::Place;
use super::commands::{fetch, say};
use super::fleet::FLEET;

/// Between two frames.
const REFRESH: Duration = Duration::from_secs(1);

/// Nodes of one frame.
const MOST: usize = 200;

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one frame and end, as without a terminal
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub place: Place,
}

pub(super) async fn run(args: TopArgs) -> Result<()> {
    let first = fetch(&args.place, &part(Order::default())).await?;
    let is_terminal = rustix::termios::isatty(std::io::stdin()) && rustix::termios::isatty(std::io::stdout());
    if args.once || !is_terminal {
        return say(&frame::whole(&first, Order::default()));
    }
    live(&args, first).await
}

/// Of a large fleet the first nodes in this order: more than anybody scrolls through.
fn part(order: Order) -> String {
    format!("{FLEET}?limit={MOST}&order={}", order.asked())
}

/// What people look at.
struct View {
    fleet: Value,
    order: Order,
    /// Lines of the list that are above the screen.
    scrolled: usize,
    /// Why the last question had no answer.
    fault: Option<String>,
}

/// Until a key or a signal ends it; the terminal is put back however it ends.
async fn live(args: &TopArgs, fleet: Value) -> Result<()> {
    let mut screen = Screen::open()?;
    let mut keys = keys();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = View { fleet, order: Order::default(), scrolled: 0, fault: None };
    loop {
        view.draw(&mut screen)?;
        tokio::select! {
            _ = ticks.tick() => view.refresh(&args.place).await,
            key = keys.recv() => match key {
                Some(Key::Quit) | None => return Ok(()),
                Some(key) => view.press(key),
            },
            _ = resized.recv() => {}
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

impl View {
    async fn refresh(&mut self, place: &Place) {
        match fetch(place, &part(self.order)).await {
            Ok(fleet) => (self.fleet, self.fault) = (fleet, None),
            Err(error) => self.fault = Some(format!("{error:#}")),
        }
    }

    fn press(&mut self, key: Key) {
        match key {
            Key::Up => self.scrolled = self.scrolled.saturating_sub(1),
            Key::Down => self.scrolled += 1,
            Key::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            Key::PageDown => self.scrolled += 10,
            Key::Sort => self.order = self.order.next(),
            Key::Quit => {}
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<()> {
        let (columns, rows) = screen.size();
        let frame = Frame { columns, rows, order: self.order, fault: self.fault.as_deref() };
        let (lines, scrolled) = frame.draw(&self.fleet, self.scrolled);
        self.scrolled = scrolled;
        Ok(screen.show(&lines)?)
    }
}
