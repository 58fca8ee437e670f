//! The command line's end of the admin protocol: blocking, one question at a time.

use super::wire::{Answer, Ask, Request, VERSION};
use crate::config::StateDir;
use crate::error::Error;
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a view has what is ours.
const VIEW_DIR: &str = "/run/ssi";
/// How long a daemon may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Where the sockets of "this node" are, for a command: in a view, or on the host beside a local cluster or a node.
#[derive(Clone, Debug)]
pub struct Place {
    /// The run directory of the node.
    pub run_dir: PathBuf,
    /// True inside a view.
    pub in_view: bool,
}

impl Place {
    /// `--dir` (or `SSI_DIR`) names a local cluster or a node's state directory; without it, the view we are in,
    /// or the machine's node.
    ///
    /// # Errors
    /// No node there.
    pub fn find(dir: Option<&Path>) -> Result<Place, Error> {
        let view = Path::new(VIEW_DIR);
        let in_view = view.join("localproc").exists();
        if let (true, None) = (in_view, dir) {
            return Ok(Place { run_dir: view.join("admin"), in_view });
        }
        let named = dir.map_or_else(crate::local::default_dir, Path::to_path_buf);
        // A directory that the user names is the one that is meant, or none.
        let machine = dir.is_none().then(crate::verb::node::default_state_dir);
        for candidate in [named.clone(), named.join("node1")].into_iter().chain(machine) {
            let state = StateDir(candidate);
            if state.config_file().exists() {
                return Ok(Place { run_dir: state.run_dir(), in_view: false });
            }
        }
        Err(Error::Said(format!(
            "no cluster in {}: start one with `ssi cluster up`, or name it with --dir or SSI_DIR",
            named.display()
        )))
    }

    /// The admin socket of `ssid`.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// The admin socket of `ssid --data`.
    pub fn data_socket(&self) -> PathBuf {
        self.run_dir.join("data.sock")
    }

    /// The socket of the lock manager.
    pub fn lock_socket(&self) -> PathBuf {
        self.run_dir.join(crate::config::LOCK_SOCKET)
    }

    /// Asks `ssid`.
    ///
    /// # Errors
    /// No daemon, or what the daemon says.
    pub fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        Client::connect(&self.admin_socket())?.ask(ask)
    }

    /// Asks `ssid` what may take longer than most.
    ///
    /// # Errors
    /// No daemon, or what the daemon says.
    pub fn ask_within(&self, ask: Ask, limit: Duration) -> Result<Answer, Error> {
        let mut client = Client::connect(&self.admin_socket())?;
        client.stream.set_read_timeout(Some(limit)).map_err(Error::step("wait for ssid"))?;
        client.ask(ask)
    }

    /// Asks `ssid --data`.
    ///
    /// # Errors
    /// No daemon, or what the daemon says.
    pub fn ask_data(&self, ask: Ask) -> Result<Answer, Error> {
        Client::connect(&self.data_socket())?.ask(ask)
    }
}

/// A connection for questions.
pub struct Client {
    stream: UnixStream,
    reader: FrameReader,
}

impl Client {
    /// Connects and says which service is wanted.
    ///
    /// # Errors
    /// [`Error::NoDaemon`].
    pub fn connect(socket: &Path) -> Result<Client, Error> {
        let no_daemon = |source| Error::NoDaemon { path: socket.into(), source };
        let mut stream = UnixStream::connect(socket).map_err(no_daemon)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(no_daemon)?;
        let hello = ServiceHello { service: "admin".into(), version: VERSION };
        stream.write_all(&encode_frame(&hello)).map_err(no_daemon)?;
        Ok(Client { stream, reader: FrameReader::default() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The connection broke, the answer took too long, or the daemon says that it failed.
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Error> {
        let step = || Error::step("ask ssid");
        self.stream.write_all(&encode_frame(&Request { ask: Some(ask) })).map_err(step())?;
        let mut buffer = [0; 16 << 10];
        loop {
            let answer =
                self.reader.next().map_err(|source| Error::Frame { what: "the admin socket", source })?;
            if let Some(Answer { error, .. }) =
                answer.as_ref().filter(|answer: &&Answer| !answer.error.is_empty())
            {
                return Err(Error::Said(error.clone()));
            }
            if let Some(answer) = answer {
                return Ok(answer);
            }
            match self.stream.read(&mut buffer).map_err(step())? {
                0 => {
                    return Err(Error::Said(
                        "ssid closed the connection before it answered; ask again".into(),
                    ));
                }
                n => self.reader.push(&buffer[..n]),
            }
        }
    }
}
