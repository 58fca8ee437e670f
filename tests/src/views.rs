//! What nodes say of the cluster, followed: one blocking connection a node, so that whoever waits is woken by the change
//! itself and takes nothing from the machine meanwhile.
//!
//! Invariant: every view that a node told is kept, in the order in which it came, with the moment.

use crate::Cluster;
use admin::wire::{Answer, VERSION};
use admin::wire::{NodeState, View};
use base::codec::ServiceHello;
use base::{FrameReader, encode_frame};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The views of one node.
pub struct Views {
    /// The node that tells them.
    pub node: u32,
    /// What it has told, and when.
    pub seen: Vec<(Instant, View)>,
    stream: UnixStream,
    reader: FrameReader,
}

/// Why there is no next view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// None came in time.
    Late,
    /// The daemon closed the connection, or says something else.
    Gone(String),
}

impl Views {
    /// Follows the node whose admin socket this is; its present view is the first that is seen.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn of(node: u32, socket: &Path, limit: Duration) -> Result<Views, Silence> {
        let gone = |error: std::io::Error| Silence::Gone(format!("{}: {error}", socket.display()));
        let mut stream = UnixStream::connect(socket).map_err(gone)?;
        stream
            .write_all(&encode_frame(&ServiceHello { service: "views".into(), version: VERSION }))
            .map_err(gone)?;
        let mut views = Views { node, seen: Vec::new(), stream, reader: FrameReader::default() };
        views.next(Instant::now() + limit)?;
        Ok(views)
    }

    /// The last view that was seen.
    pub fn last(&self) -> &View {
        &self.seen.last().expect("the first was awaited").1
    }

    /// Waits for the next view.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn next(&mut self, deadline: Instant) -> Result<&View, Silence> {
        let mut buffer = [0; 16 << 10];
        loop {
            let answer = self.reader.next::<Answer>().map_err(|error| Silence::Gone(error.to_string()))?;
            if let Some(answer) = answer {
                let view = answer.view.ok_or(Silence::Gone(answer.error))?;
                self.seen.push((Instant::now(), view));
                return Ok(self.last());
            }
            // A timeout of zero would mean none.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            if Instant::now() >= deadline {
                return Err(Silence::Late);
            }
            let _ = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Silence::Gone("the daemon ended".into())),
                Ok(n) => self.reader.push(&buffer[..n]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(Silence::Gone(error.to_string())),
            }
        }
    }

    /// Waits until a view is so; gives the moment at which it was seen.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn until(&mut self, deadline: Instant, is_so: &dyn Fn(&View) -> bool) -> Result<Instant, Silence> {
        if is_so(self.last()) {
            return Ok(self.seen.last().expect("there is one").0);
        }
        while !is_so(self.next(deadline)?) {}
        Ok(self.seen.last().expect("there is one").0)
    }

    /// All states that this node has told of node `k`, without repetitions.
    pub fn states_of(&self, k: u32) -> Vec<String> {
        let mut states: Vec<String> = self.seen.iter().map(|(_, view)| state_in(view, k)).collect();
        states.dedup();
        states
    }
}

/// Several nodes, followed at once.
pub struct Watch {
    /// Those that are followed.
    pub nodes: Vec<Views>,
}

impl Watch {
    /// Follows these nodes of a cluster.
    ///
    /// # Panics
    /// If one of them does not answer within `limit`.
    pub fn on(cluster: &Cluster, nodes: impl IntoIterator<Item = u32>, limit: Duration) -> Watch {
        let views = |k| {
            let socket = cluster.node_dir(k).join("run/admin.sock");
            let mut views = None;
            // Its daemon may be starting.
            crate::wait_until(&format!("node {k} tells its view"), limit, || {
                views = Views::of(k, &socket, limit).ok();
                views.is_some()
            });
            views.expect("awaited")
        };
        Watch { nodes: nodes.into_iter().map(views).collect() }
    }

    /// Does something and waits until all these nodes have a view that is so; from just before the deed to the moment
    /// at which the last of them told it. Everybody listens before the deed is done.
    ///
    /// # Panics
    /// If one of them does not within `limit`; it says what that one saw.
    pub fn time(
        &mut self,
        what: &str,
        limit: Duration,
        deed: impl FnOnce(),
        is_so: impl Fn(&View) -> bool + Sync,
    ) -> Duration {
        let is_so: &(dyn Fn(&View) -> bool + Sync) = &is_so;
        let deadline = Instant::now() + limit;
        let (begin, seen) = std::thread::scope(|scope| {
            let mut waiting = Vec::new();
            for views in &mut self.nodes {
                waiting.push(scope.spawn(move || views.until(deadline, &|view| is_so(view))));
            }
            let begin = Instant::now();
            deed();
            let seen: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().expect("no panic")).collect();
            (begin, seen)
        });
        let moment = |(outcome, views): (Result<Instant, Silence>, &Views)| {
            outcome.unwrap_or_else(|silence| {
                panic!("not within {limit:?}: {what}: node {} ({silence:?}): {}", views.node, told(views))
            })
        };
        let last = seen.into_iter().zip(&self.nodes).map(moment).max().expect("somebody is followed");
        last.saturating_duration_since(begin)
    }

    /// Waits until all these nodes have a view that is so.
    ///
    /// # Panics
    /// As [`Watch::time`].
    pub fn wait(&mut self, what: &str, limit: Duration, is_so: impl Fn(&View) -> bool + Sync) -> Duration {
        self.time(what, limit, || {}, is_so)
    }

    /// Listens for a length of time, whatever comes.
    pub fn listen(&mut self, span: Duration) {
        let deadline = Instant::now() + span;
        std::thread::scope(|scope| {
            for views in &mut self.nodes {
                scope.spawn(move || while views.next(deadline).is_ok() {});
            }
        });
    }

    /// Checks what every node promises: epochs only grow on a node, and one epoch is one table everywhere.
    ///
    /// # Panics
    /// If that is not so.
    pub fn check_agreement(&self) {
        let mut tables: HashMap<u64, &View> = HashMap::new();
        for views in &self.nodes {
            let epochs: Vec<u64> = views.seen.iter().map(|(_, view)| view.epoch).collect();
            assert!(epochs.is_sorted_by(|a, b| a < b), "epochs grow on node {}: {epochs:?}", views.node);
            for (_, view) in &views.seen {
                let known = tables.entry(view.epoch).or_insert(view);
                assert_eq!(*known, view, "one epoch is one table");
            }
        }
    }

    /// Every (node, state) that any of them told and that is not UP.
    pub fn troubles(&self) -> Vec<(u32, String)> {
        let views = self.nodes.iter().flat_map(|views| &views.seen);
        let rows = views.flat_map(|(_, view)| &view.nodes).filter(|row| row.state() != NodeState::Up);
        let mut troubles: Vec<_> =
            rows.map(|row| (row.id, format!("{:?}", row.state()).to_uppercase())).collect();
        troubles.sort();
        troubles.dedup();
        troubles
    }
}

/// The state of node `k` in a view, in capitals; `unknown` if it has no such row.
pub fn state_in(view: &View, k: u32) -> String {
    let row = view.nodes.iter().find(|row| row.id == k);
    row.map_or("unknown".into(), |row| format!("{:?}", row.state()).to_uppercase())
}

/// True if node `k` is in this state.
pub fn is(view: &View, k: u32, state: NodeState) -> bool {
    view.nodes.iter().any(|row| row.id == k && row.state() == state)
}

/// True if every node is UP.
pub fn all_up(view: &View) -> bool {
    view.nodes.iter().all(|row| row.state() == NodeState::Up)
}

/// What a node has told, in one line: for the message of a failed test.
fn told(views: &Views) -> String {
    let view = |(_, view): &(Instant, View)| {
        let rows: Vec<String> =
            view.nodes.iter().map(|row| format!("{}:{:?}", row.id, row.state())).collect();
        format!("epoch {} master {} [{}]", view.epoch, view.master, rows.join(" "))
    };
    views.seen.iter().map(view).collect::<Vec<_>>().join("; ")
}
