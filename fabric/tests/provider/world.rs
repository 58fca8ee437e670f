//! What the tests of a provider stand on: endpoints of one cluster on some ground, services made of closures, waiting with an end.
//!
//! Invariant: when a test is over, no thread or file of its world is left.

use crate::ground::Ground;
use base::NodeId;
use fabric::{
    ClusterKey, Config, Endpoint, Error, Io, Limits, LinkEvent, Message, Peer, Priority, Provider, RailState,
    Reply, Role, Security, Service, ServiceId, Wait,
};
use parking_lot::Mutex;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};

/// The end of every wait that should not take long.
pub const SOON: Duration = Duration::from_secs(20);
/// The service that the tests offer.
pub const ECHO: ServiceId = ServiceId(100);
/// All priorities.
pub const PRIORITIES: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];

/// A directory that is gone when the last world that uses it is.
pub struct Directory {
    path: PathBuf,
    ours: bool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.ours {
            // Nobody else knows it.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Threads that drive endpoints until the world is over.
#[derive(Default)]
pub struct Drivers(Mutex<Vec<(oneshot::Sender<()>, JoinHandle<()>)>>);

impl Drop for Drivers {
    fn drop(&mut self) {
        for (end, thread) in self.0.lock().drain(..) {
            drop(end);
            // What it panicked with has been told.
            let _ = thread.join();
        }
    }
}

/// How the endpoints of a test differ from the default.
#[derive(Clone)]
pub struct World {
    pub ground: Ground,
    pub key: u8,
    pub cluster: &'static str,
    pub limits: Limits,
    pub drivers: Arc<Drivers>,
    pub directory: Arc<Directory>,
}

impl Default for World {
    fn default() -> World {
        World::on(Ground::Tcp)
    }
}

/// The endpoint's name of a node.
pub fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), role: Role::Control }
}

/// Runs a test on a ground: on one thread, or on two where the ground is not the plainest.
pub fn run<T: Future<Output = ()>>(ground: &str, test: impl FnOnce(World) -> T) {
    let ground = Ground::named(ground);
    if let Some(why) = ground.missing() {
        return println!("skipped: {why}");
    }
    let mut builder = match ground {
        Ground::Tcp | Ground::TcpIpv6 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime needs threads only");
    let world = World::on(ground);
    runtime.block_on(test(world.clone()));
    drop(world);
}

impl World {
    pub fn on(ground: Ground) -> World {
        let name = format!("ssi-fabric-{}-{}", std::process::id(), world_number());
        let path = std::env::temp_dir().join(name);
        if ground.is_shm() {
            std::fs::create_dir(&path).expect("the directory for temporary files takes one more");
        }
        World::there(ground, &path, true)
    }

    /// A world whose sockets lie in this directory.
    pub fn there(ground: Ground, directory: &Path, ours: bool) -> World {
        World {
            ground,
            key: 7,
            cluster: "blue",
            limits: Limits::default(),
            drivers: Arc::default(),
            directory: Arc::new(Directory { path: directory.to_owned(), ours: ours && ground.is_shm() }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    pub fn config(&self, node: u32) -> Config {
        let key = ClusterKey::from_bytes([self.key; 32]);
        let mut config = Config::new(peer(node), self.ground.listen(node), key, self.cluster);
        config.limits = self.limits.clone();
        config.providers = vec![Provider::Tcp];
        if self.ground.is_shm() {
            config.providers = vec![Provider::Shm, Provider::Tcp];
            config.shm = Some(self.directory.path.clone());
        }
        if self.ground.is_verbs() {
            config.providers = vec![Provider::Verbs, Provider::Tcp];
        }
        if self.ground == Ground::TcpAuthenticated {
            config.security = Security::Authenticated;
        }
        if self.ground == Ground::TcpUring {
            config.io = Io::Uring;
        }
        config
    }

    pub async fn endpoint(&self, node: u32) -> Endpoint {
        self.bind(self.config(node)).await
    }

    /// An endpoint of this configuration, driven as the ground says.
    pub async fn bind(&self, config: Config) -> Endpoint {
        if !self.ground.is_driven() {
            return Endpoint::bind(config).await.expect("loopback has a free port");
        }
        let endpoint = Endpoint::driven(config).expect("loopback has a free port");
        let (end, ended) = oneshot::channel();
        let (driven, runtime) = (endpoint.clone(), tokio::runtime::Handle::current());
        let thread = std::thread::spawn(move || {
            let _services_may_use_it = runtime.enter();
            driven.block_on(Wait::Sleep, async move { drop(ended.await) });
        });
        self.drivers.0.lock().push((end, thread));
        endpoint
    }

    /// An endpoint that answers with what it is asked, and one that knows it and is linked to it by what the ground is about.
    pub async fn pair(&self) -> (Endpoint, Endpoint) {
        let (caller, server) = (self.endpoint(1).await, self.endpoint(2).await);
        server.serve(ECHO, service(|_, request| async move { request }));
        caller.set_address(peer(2), server.address());
        if self.ground.is_shm() {
            over(Provider::Shm, &caller).await;
        }
        if self.ground.is_verbs() {
            over(Provider::Verbs, &caller).await;
        }
        (caller, server)
    }
}

/// Waits until the calls of both lanes to node 2 go over shared memory.
pub async fn over_shm(caller: &Endpoint) {
    over(Provider::Shm, caller).await;
}

/// Waits until this provider carries the calls of both lanes to node 2.
pub async fn over(provider: Provider, caller: &Endpoint) {
    for priority in [Priority::Control, Priority::Data] {
        caller.call(peer(2), ECHO, priority, Message::default(), SOON).await.expect("the first link is TCP");
    }
    let end = Instant::now() + SOON;
    while carrying(caller, provider) < 2 {
        assert!(Instant::now() < end, "{provider} does not carry the calls: {:#?}", caller.status());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How many lanes' calls to node 2 a provider carries.
pub fn carrying(caller: &Endpoint, provider: Provider) -> usize {
    let status = caller.status();
    let links = status.peers.iter().filter(|known| known.peer == peer(2)).flat_map(|known| &known.links);
    links.filter(|link| link.provider == provider && link.state == RailState::Calls).count()
}

/// Something that differs between the worlds of a process.
fn world_number() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, SeqCst)
}

struct Closure<F>(F);

impl<F, A> Service for Closure<F>
where
    F: Fn(Peer, Message) -> A + Send + Sync + 'static,
    A: Future<Output = Message> + Send + 'static,
{
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        Reply::later((self.0)(from, request))
    }
}

/// A service made of a closure.
pub fn service<F, A>(closure: F) -> Arc<dyn Service>
where
    F: Fn(Peer, Message) -> A + Send + Sync + 'static,
    A: Future<Output = Message> + Send + 'static,
{
    Arc::new(Closure(closure))
}

/// A service that never answers, and how often it was asked.
pub fn silent() -> (Arc<dyn Service>, Arc<AtomicUsize>) {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let never = service(move |_, _| {
        count.fetch_add(1, SeqCst);
        std::future::pending()
    });
    (never, asked)
}

pub fn message(head: &[u8]) -> Message {
    Message { head: head.to_vec().into(), bulk: Default::default() }
}

/// Bytes that no shift or swap leaves unnoticed.
pub fn pattern(bytes: usize, seed: usize) -> bytes::Bytes {
    (0..bytes).map(|at| ((at * 31 + at / 251 + seed) % 256) as u8).collect::<Vec<u8>>().into()
}

/// Asks node 2 with a head only.
pub async fn ask(caller: &Endpoint, head: &[u8]) -> Result<Message, Error> {
    caller.call(peer(2), ECHO, Priority::Control, message(head), SOON).await
}

/// Waits until a condition holds that no event tells.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The next event of a link.
pub async fn next_event(events: &mut broadcast::Receiver<LinkEvent>) -> LinkEvent {
    tokio::time::timeout(SOON, events.recv()).await.expect("an event comes soon").expect("nobody lags behind")
}

/// Bytes of memory that this process holds.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a process may read about itself");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("its second number is resident pages") * 4_096
}

/// Tests on one ground.
macro_rules! on_ground {
    ($ground:ident [$($name:ident),* $(,)?]) => {
        mod $ground {
            $(
                #[test]
                fn $name() {
                    $crate::world::run(stringify!($ground), |world| super::$name(world));
                }
            )*
        }
    };
}

/// Tests on several grounds.
macro_rules! on_grounds {
    ([$($ground:ident),*] $names:tt) => { $( $crate::world::on_ground!($ground $names); )* };
}

/// Tests that every provider must pass, however it is driven.
macro_rules! on_every_provider {
    ($($name:ident),* $(,)?) => {
        // The next provider is one more word here, and one more `Ground`.
        $crate::world::on_grounds!(
            [tcp, tcp_authenticated, tcp_ipv6, tcp_uring, shm, verbs, driven, driven_shm, driven_verbs] [$($name),*]
        );
    };
}

pub(crate) use {on_every_provider, on_ground, on_grounds};
