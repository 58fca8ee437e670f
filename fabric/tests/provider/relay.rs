//! A network that misbehaves: a TCP relay between a caller and a server, which cuts, delays, swallows and closes one direction, by a seed.
//!
//! Invariant: bytes pass unchanged and in order, as far as they pass at all.

use base::Prng;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The most bytes that pass at once.
const PORTION: u64 = 16 << 10;

/// What happens to one direction of a connection after so many bytes.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Both directions end at once.
    Cut,
    /// This direction is closed in good order, the other stays.
    Close,
    /// Nothing passes for a while, then all of it.
    Delay,
    /// Nothing passes any more; after a while the connection ends.
    Swallow,
}

/// What the relay is told while it runs.
struct Orders {
    prng: Mutex<Prng>,
    target: Mutex<SocketAddr>,
    /// A fault comes after this many bytes of a direction, on average; 0: none.
    bytes_mean: Mutex<u64>,
    /// While true nothing passes.
    held: watch::Sender<bool>,
    /// Connections end when this changes.
    cut: watch::Sender<u64>,
    /// While true new connections are closed at once.
    closed: Mutex<bool>,
    bytes: Mutex<u64>,
    connections: Mutex<u64>,
    heard: Mutex<Option<Arc<Mutex<Vec<u8>>>>>,
}

impl Orders {
    /// How many bytes pass before what happens.
    fn fate(&self) -> (u64, Fault) {
        let (mut prng, mean) = (self.prng.lock(), *self.bytes_mean.lock());
        if mean == 0 {
            return (u64::MAX, Fault::Delay);
        }
        let faults = [Fault::Cut, Fault::Cut, Fault::Close, Fault::Delay, Fault::Swallow];
        (1 + prng.below(2 * mean), faults[prng.below(faults.len() as u64) as usize])
    }

    fn a_while(&self) -> Duration {
        Duration::from_micros(200 + self.prng.lock().below(8_000))
    }
}

/// The relay; it ends when dropped, with all its connections.
pub struct Relay {
    pub address: SocketAddr,
    orders: Arc<Orders>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Relay {
    /// A relay to that address, without faults.
    pub async fn to(target: SocketAddr, seed: u64) -> Relay {
        let listener = TcpListener::bind((target.ip(), 0)).await.expect("loopback has a free port");
        let orders = Arc::new(Orders {
            prng: Mutex::new(Prng::new(seed)),
            target: Mutex::new(target),
            bytes_mean: Mutex::new(0),
            held: watch::Sender::new(false),
            cut: watch::Sender::new(0),
            closed: Mutex::new(false),
            bytes: Mutex::new(0),
            connections: Mutex::new(0),
            heard: Mutex::new(None),
        });
        let address = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(accept(listener, orders.clone()));
        Relay { address, orders, accepting }
    }

    /// From now on connections suffer a fault after so many bytes on average; 0: none.
    pub fn spoil(&self, bytes_mean: u64) {
        *self.orders.bytes_mean.lock() = bytes_mean;
    }

    /// Nothing passes, and nothing ends, until it is released.
    pub fn hold(&self, held: bool) {
        self.orders.held.send_replace(held);
    }

    /// All connections end now; new ones are made as before.
    pub fn cut(&self) {
        self.orders.cut.send_modify(|cut| *cut += 1);
    }

    /// The network is gone, or back.
    pub fn close(&self, closed: bool) {
        *self.orders.closed.lock() = closed;
        self.cut();
    }

    /// New connections go there.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.orders.target.lock() = target;
    }

    /// Whatever passes from now on, both ways.
    pub fn listen(&self) -> Arc<Mutex<Vec<u8>>> {
        self.orders.heard.lock().get_or_insert_default().clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        *self.orders.connections.lock()
    }

    /// Bytes that have passed, both ways.
    pub fn bytes(&self) -> u64 {
        *self.orders.bytes.lock()
    }
}

async fn accept(listener: TcpListener, orders: Arc<Orders>) {
    while let Ok((ours, _)) = listener.accept().await {
        if !*orders.closed.lock() {
            tokio::spawn(carry(ours, orders.clone()));
        }
    }
}

async fn carry(ours: TcpStream, orders: Arc<Orders>) {
    let mut cut = orders.cut.subscribe();
    let target = *orders.target.lock();
    *orders.connections.lock() += 1;
    let Ok(theirs) = TcpStream::connect(target).await else { return };
    let _ = (ours.set_nodelay(true), theirs.set_nodelay(true));
    let (from_us, to_us) = ours.into_split();
    let (from_them, to_them) = theirs.into_split();
    let both = async { tokio::try_join!(pass(from_us, to_them, &orders), pass(from_them, to_us, &orders)) };
    tokio::select! {
        _ = both => {}
        _ = cut.changed() => {}
    }
}

/// The whole connection ends.
struct Cut;

/// Passes one direction on, until it ends or the whole connection does.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, orders: &Orders) -> Result<(), Cut> {
    let (mut left, mut fault) = orders.fate();
    let mut portion = vec![0; PORTION as usize];
    let mut held = orders.held.subscribe();
    loop {
        let most = left.min(PORTION) as usize;
        let Ok(read @ 1..) = from.read(&mut portion[..most]).await else {
            let _ = to.shutdown().await;
            return Ok(());
        };
        held.wait_for(|held| !held).await.map_err(|_| Cut)?;
        *orders.bytes.lock() += read as u64;
        to.write_all(&portion[..read]).await.map_err(|_| Cut)?;
        if let Some(heard) = &*orders.heard.lock() {
            heard.lock().extend_from_slice(&portion[..read]);
        }
        left -= read as u64;
        if left > 0 {
            continue;
        }
        // A fault of time takes time: that is no wait for something.
        match fault {
            Fault::Cut => return Err(Cut),
            Fault::Close => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            Fault::Delay => tokio::time::sleep(orders.a_while()).await,
            Fault::Swallow => {
                tokio::time::sleep(orders.a_while()).await;
                return Err(Cut);
            }
        }
        (left, fault) = orders.fate();
    }
}
