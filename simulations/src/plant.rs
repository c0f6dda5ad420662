//! Bugs that can be built into the player, to see that the oracle would find them in a node.

/// What is wrong with the player.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bug {
    #[default]
    None,
    /// Tells the node that its commits are durable when they have only been handed to the disk.
    SpeaksBeforeDurable,
    /// Tells edges that the cloud's time is still that of the last wish: it never looks old.
    StopsCloudTime,
    /// Hands each batch to the edge without its last row.
    TearsBatches,
    /// A disk that forgets, when read again, which numbers were given out.
    ForgetsNumbers,
    /// A disk that forgets, when read again, how far commands are.
    ForgetsCommands,
}

impl Bug {
    /// What a disk does not give back.
    pub(crate) fn forgotten(self) -> Option<&'static str> {
        match self {
            Self::None | Self::SpeaksBeforeDurable | Self::StopsCloudTime | Self::TearsBatches => None,
            Self::ForgetsNumbers => Some("/t/rev"),
            Self::ForgetsCommands => Some("/t/command/"),
        }
    }
}
