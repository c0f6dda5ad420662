//! A device that exists only here.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What it holds when it starts: register and value.
const REGISTERS: [(&str, &str); 3] = [
    ("speed", "1450"),
    ("temperature", "20"),
    ("running", "true"),
];

/// The one that can be written.
const WRITABLE: &str = "speed";

#[derive(Clone)]
pub struct Simulated {
    registers: Arc<Mutex<BTreeMap<String, String>>>,
    writes: Arc<Mutex<Vec<(String, String)>>>,
    frozen: watch::Sender<bool>,
}

#[allow(dead_code, reason = "the example needs less than the tests")]
impl Simulated {
    pub fn new() -> Self {
        let registers = REGISTERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            registers: Arc::new(Mutex::new(registers.into())),
            writes: Arc::default(),
            frozen: watch::Sender::new(false),
        }
    }

    pub fn value(&self, register: &str) -> Option<String> {
        self.registers.lock().unwrap().get(register).cloned()
    }

    pub fn set(&self, register: &str, value: &str) {
        self.registers
            .lock()
            .unwrap()
            .insert(register.to_owned(), value.to_owned());
    }

    /// All that was written from outside.
    pub fn writes(&self) -> Vec<(String, String)> {
        self.writes.lock().unwrap().clone()
    }

    /// While it is frozen it answers nothing, as a hung controller.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Serves whoever connects; its end closes all connections.
    pub async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => drop(connections.spawn(self.clone().talk(stream))),
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn talk(self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufStream::new(stream);
        let mut request = String::new();
        while stream.read_line(&mut request).await? > 0 {
            drop(self.frozen.subscribe().wait_for(|frozen| !frozen).await);
            let answer = self.answer(request.trim_end());
            stream.write_all(format!("{answer}\n").as_bytes()).await?;
            stream.flush().await?;
            request.clear();
        }
        Ok(())
    }

    fn answer(&self, request: &str) -> String {
        let words: Vec<&str> = request.splitn(3, ' ').collect();
        match words[..] {
            ["GET", register] => match self.value(register) {
                Some(value) => format!("{register} {value}"),
                None => "! no such register".to_owned(),
            },
            ["SET", WRITABLE, value] => {
                self.set(WRITABLE, value);
                self.writes
                    .lock()
                    .unwrap()
                    .push((WRITABLE.to_owned(), value.to_owned()));
                format!("{WRITABLE} {value}")
            }
            _ => "! GET register, or SET speed value".to_owned(),
        }
    }
}
