//! What the proxy does with what passes through it: the decisions, without sockets.

use std::time::Duration;

/// What stays in force until another takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Pass,
    /// Refuses new connections and cuts those there are.
    Refuse,
    /// Holds each answer back this long.
    Delay(Duration),
    /// Accepts connections and hangs up at once.
    HangUp,
    /// Accepts connections and swallows everything.
    HalfOpen,
    /// The device hears everything, and its answers get lost.
    Mute,
    /// Holds everything in both directions and lets it go when the mode changes.
    Freeze,
    /// Sends each answer twice.
    Double,
}

/// What happens once, to the next that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Half of the next answer arrives, then the connection ends.
    CutAnswer,
    /// The device gets the next request, and its answer never arrives because the connection ends.
    CutAfterRequest,
    /// The device gets half of the next request, then the connection ends.
    CutRequest,
    /// Instead of the next answer comes as much garbage.
    Garbage(Garbage),
    /// The answer to the next request arrives while the request after that waits.
    LateAnswer,
}

/// What garbage looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Nothing but this byte: zeros, or the largest lengths that a frame can name.
    Byte(u8),
    /// The answer itself with every bit turned.
    Inverted,
}

impl Garbage {
    fn of(self, answer: &[u8]) -> Vec<u8> {
        match self {
            Self::Byte(byte) => vec![byte; answer.len()],
            Self::Inverted => answer.iter().map(|byte| !byte).collect(),
        }
    }
}

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    ToDevice,
    ToMapper,
}

/// What is to be done with one conversation, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Do {
    Wait(Duration),
    Send(Direction, Vec<u8>),
    /// Lets what is on its way to the device arrive, and hangs up on the mapper at once.
    HangUp,
}

/// One connection between mapper and device.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// An answer that comes late.
    held: Option<Vec<u8>>,
}

impl Conversation {
    /// What a chunk becomes. A fault that strikes is taken out of `fault`.
    pub(crate) fn pass(
        &mut self,
        mode: Mode,
        fault: &mut Option<Fault>,
        direction: Direction,
        chunk: Vec<u8>,
    ) -> Vec<Do> {
        match direction {
            _ if mode == Mode::HalfOpen => Vec::new(),
            Direction::ToMapper if mode == Mode::Mute => Vec::new(),
            Direction::ToDevice => self.request(fault, chunk),
            Direction::ToMapper => self.answer(mode, fault, chunk),
        }
    }

    fn request(&mut self, fault: &mut Option<Fault>, chunk: Vec<u8>) -> Vec<Do> {
        match fault {
            Some(Fault::CutAfterRequest) => {
                *fault = None;
                vec![Do::Send(Direction::ToDevice, chunk), Do::HangUp]
            }
            Some(Fault::CutRequest) => {
                *fault = None;
                vec![Do::Send(Direction::ToDevice, first_half(chunk)), Do::HangUp]
            }
            Some(Fault::CutAnswer | Fault::Garbage(_) | Fault::LateAnswer) | None => {
                let late = self.held.take().map(|answer| Do::Send(Direction::ToMapper, answer));
                [Do::Send(Direction::ToDevice, chunk)].into_iter().chain(late).collect()
            }
        }
    }

    fn answer(&mut self, mode: Mode, fault: &mut Option<Fault>, mut chunk: Vec<u8>) -> Vec<Do> {
        if let Some(held) = &mut self.held {
            held.append(&mut chunk); // it came in pieces
            return Vec::new();
        }
        match fault.take_if(|f| matches!(f, Fault::CutAnswer | Fault::Garbage(_) | Fault::LateAnswer)) {
            Some(Fault::CutAnswer) => {
                return vec![Do::Send(Direction::ToMapper, first_half(chunk)), Do::HangUp];
            }
            Some(Fault::Garbage(garbage)) => chunk = garbage.of(&chunk),
            Some(Fault::LateAnswer) => {
                self.held = Some(chunk);
                return Vec::new();
            }
            Some(Fault::CutAfterRequest | Fault::CutRequest) | None => {}
        }
        let send = Do::Send(Direction::ToMapper, chunk);
        match mode {
            Mode::Delay(delay) => vec![Do::Wait(delay), send],
            Mode::Double => vec![send.clone(), send],
            Mode::Pass | Mode::Refuse | Mode::HangUp | Mode::HalfOpen | Mode::Mute | Mode::Freeze => {
                vec![send]
            }
        }
    }
}

fn first_half(mut chunk: Vec<u8>) -> Vec<u8> {
    chunk.truncate(chunk.len() / 2);
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{ToDevice, ToMapper};

    fn to_device(bytes: &[u8]) -> Do {
        Do::Send(ToDevice, bytes.to_vec())
    }

    fn to_mapper(bytes: &[u8]) -> Do {
        Do::Send(ToMapper, bytes.to_vec())
    }

    /// A request `12` and its answer `3456`.
    fn exchange(mode: Mode, fault: Fault) -> (Vec<Do>, Vec<Do>, Option<Fault>) {
        let (mut conversation, mut fault) = (Conversation::default(), Some(fault));
        let request = conversation.pass(mode, &mut fault, ToDevice, b"12".to_vec());
        let answer = conversation.pass(mode, &mut fault, ToMapper, b"3456".to_vec());
        (request, answer, fault)
    }

    #[test]
    fn each_fault_strikes_once_and_where_it_should() {
        let (request, answer) = (vec![to_device(b"12")], vec![to_mapper(b"3456")]);
        let cut = |part| vec![part, Do::HangUp];
        let table = [
            (Fault::CutAnswer, request.clone(), cut(to_mapper(b"34"))),
            (Fault::CutAfterRequest, cut(to_device(b"12")), answer.clone()),
            (Fault::CutRequest, cut(to_device(b"1")), answer),
            (Fault::Garbage(Garbage::Byte(255)), request.clone(), vec![to_mapper(&[255; 4])]),
            (Fault::Garbage(Garbage::Inverted), request, vec![to_mapper(&[!b'3', !b'4', !b'5', !b'6'])]),
        ];
        for (fault, request, answer) in table {
            assert_eq!(exchange(Mode::Pass, fault), (request, answer, None), "{fault:?}");
        }
    }

    #[test]
    fn a_late_answer_comes_right_after_the_next_request() {
        let (mut conversation, mut fault) = (Conversation::default(), Some(Fault::LateAnswer));
        let mut pass =
            |direction, bytes: &[u8]| conversation.pass(Mode::Pass, &mut fault, direction, bytes.to_vec());
        assert_eq!(pass(ToDevice, b"1"), [to_device(b"1")]);
        assert_eq!((pass(ToMapper, b"on"), pass(ToMapper, b"e")), (vec![], vec![]));
        assert_eq!(pass(ToDevice, b"2"), [to_device(b"2"), to_mapper(b"one")]);
        assert_eq!(pass(ToMapper, b"two"), [to_mapper(b"two")]);
    }

    #[test]
    fn modes_do_what_they_are_called() {
        let answer = |mode| Conversation::default().pass(mode, &mut None, ToMapper, b"3".to_vec());
        assert_eq!(answer(Mode::Pass), [to_mapper(b"3")]);
        assert_eq!(answer(Mode::Double), [to_mapper(b"3"), to_mapper(b"3")]);
        assert_eq!((answer(Mode::HalfOpen), answer(Mode::Mute)), (vec![], vec![]));
        let asked = Conversation::default().pass(Mode::Mute, &mut None, ToDevice, b"1".to_vec());
        assert_eq!(asked, [to_device(b"1")]);
        let second = Duration::from_secs(1);
        assert_eq!(answer(Mode::Delay(second)), [Do::Wait(second), to_mapper(b"3")]);
    }
}
